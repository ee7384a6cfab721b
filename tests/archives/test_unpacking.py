"""Archives that are not read as they are: the message says how to unpack them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from loaders.storage.imagefolder import structure_faults


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("bztar", ".tar.bz2"), ("xztar", ".tar.xz")])
@pytest.mark.parametrize("inside", [False, True])
def test_the_advice_unpacks(plain: Path, tmp_path: Path, kind: str, suffix: str, inside: bool) -> None:
    if kind == "zip" and not shutil.which("unzip"):
        pytest.skip("unzip is not installed")
    folder = tmp_path / "my images"
    file = Path(shutil.make_archive(str(folder / "some"), kind, plain))
    (said,) = structure_faults(folder if inside else file)
    assert said.startswith(
        f"{folder}: holds some{suffix}. {file} is packed as " if inside else f"{file}: is packed as "
    )
    subprocess.run(said.partition("unpack it: ")[2], shell=True, check=True)
    assert structure_faults(folder / "some") == []


def test_others(tmp_path: Path) -> None:
    for name, command in {"A.7Z": "7z x {0}/A.7Z -o{0}/A", "b.rar": "unrar x {0}/b.rar {0}/b/"}.items():
        (tmp_path / name).touch()
        assert structure_faults(tmp_path / name)[0].endswith(f"unpack it: {command.format(tmp_path)}")
    (tmp_path / "c.bin").touch()
    assert structure_faults(tmp_path / "c.bin")[0].endswith(
        ": is a file. A data set is a folder with train/ and val/ in it."
    )
