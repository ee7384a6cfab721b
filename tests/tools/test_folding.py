"""`python -m tools.verify --fold`: a flat val/ is sorted into class folders or left unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.tools.test_verify import Verify, folder, verify
from tools.verify.folding import LOG

__all__ = ["folder", "verify"]


@pytest.fixture
def flat(folder: Path, tmp_path: Path) -> Path:
    """A copy whose val/ looks like ImageNet's archive of validation images: 15 images, the first of class cat."""
    root = shutil.copytree(folder, tmp_path / "flat")
    images = sorted((root / "val").glob("*/*.jpeg"))
    for number, path in enumerate(images, 1):
        path.rename(root / f"val/ILSVRC2012_val_{number:08}.JPEG")
    for name in ("cat", "dog", "person"):
        (root / "val" / name).rmdir()
    return root


def answers() -> list[tuple[str, str]]:
    """Return the flat images' names and classes."""
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 16)]
    return list(zip(names, ["cat"] * 5 + ["dog"] * 5 + ["person"] * 5, strict=True))


def test_a_flat_folder_is_detected(verify: Verify, flat: Path) -> None:
    status, said = verify(flat)
    assert status == 1 and "15 images lie directly in it" in said and "--fold MAPPING" in said
    (flat / "val/cat").mkdir()
    for name in ("dog", "person"):
        (flat / "val" / name).mkdir()
    status, said = verify(flat)
    assert status == 1 and "lie directly in it, next to the class folders" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "kaggle", "ordered", "numbers"])
def test_folding(kind: str, verify: Verify, flat: Path, folder: Path, tmp_path: Path) -> None:
    """Four kinds of mapping give one result; --unfold reverses it."""
    mapping = tmp_path / "mapping.txt"
    shuffled = [answers()[at] for at in np.random.default_rng(0).permutation(15)]
    if kind == "text":
        mapping.write_text("".join(f"{name} {label}\n" for name, label in shuffled))
    elif kind == "kaggle":
        rows = [f"{Path(name).stem},{label} 85 1 499 272 {label} 1 2 3 4\n" for name, label in shuffled]
        mapping.write_text("ImageId,PredictionString\n" + "".join(rows))
    elif kind == "ordered":
        mapping.write_text("".join(f"{label}\n" for _, label in answers()))
    else:
        numbers = {"dog": 1, "person": 2, "cat": 3}
        mapping.write_text("".join(f"{numbers[label]}\n" for _, label in answers()))
        status, said = verify(flat, "--fold", mapping)
        assert status == 1 and "meta.mat" in said and len(list((flat / "val").iterdir())) == 15
        kit = np.array(
            [(n, name, "words") for name, n in numbers.items()],
            dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
        )
        savemat(tmp_path / "meta.mat", {"synsets": kit})
    before = {path.name: path.read_bytes() for path in (flat / "val").iterdir()}
    status, said = verify(flat, "--fold", mapping)
    assert status == 0 and "sorted 15 images into folders" in said and "--unfold" in said
    for split in ("train", "val"):
        for name in ("cat", "dog", "person"):
            images = [path.read_bytes() for path in sorted((flat / split / name).iterdir())]
            assert images == [path.read_bytes() for path in sorted((folder / split / name).iterdir())]
    status, said = verify(flat, "--fold", mapping)
    assert status == 0 and "nothing was moved" in said
    assert verify(flat, "--unfold")[0] == 0
    assert {path.name: path.read_bytes() for path in (flat / "val").iterdir()} == before and not (flat / LOG).exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "ordered"])
def test_an_interrupted_folding_resumes(kind: str, verify: Verify, flat: Path, tmp_path: Path) -> None:
    """As after a kill with some images moved; moved images still count in the order of names."""
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("".join(f"{name} {label}\n" if kind == "text" else f"{label}\n" for name, label in answers()))
    (flat / LOG).write_text("".join(f"{name},{label}/{name}\r\n" for name, label in answers()))
    for name, label in answers()[:8]:
        (flat / "val" / label).mkdir(exist_ok=True)
        (flat / "val" / name).rename(flat / "val" / label / name)
    status, said = verify(flat, "--fold", mapping)
    assert status == 0 and "sorted 7 images" in said
    assert verify(flat, "--unfold")[0] == 0 and len(list((flat / "val").glob("*.JPEG"))) == 15


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{name} {label}" for name, label in answers()[1:]], r"has no class for 1 of 15 images"),
        ([f"{name} {label}s" for name, label in answers()], "classes that train/ lacks (cats, dogs, persons)"),
        ([f"{name} {number}" for number, (name, _) in enumerate(answers())], "Numbers next to names"),
        ([label for _, label in answers()[1:]], "has 14 lines for 15 images"),
        ([*(f"{name} {label}" for name, label in answers()), f"{answers()[0][0]} dog"], "no class, or two"),
        ([], "is empty"),
    ],
)
def test_unusable_mappings(lines: list[str], said: str, verify: Verify, flat: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("\n".join(lines), encoding="utf-8")
    status, heard = verify(flat, "--fold", mapping)
    assert status == 1 and said in heard
    assert len(list((flat / "val").glob("*.JPEG"))) == 15 and not (flat / LOG).exists()


def test_folding_that_is_impossible(verify: Verify, flat: Path, tmp_path: Path) -> None:
    assert "cannot be read as a text file" in verify(flat, "--fold", tmp_path / "nowhere.txt")[1]
    assert "only in local folders" in verify("s3://bucket/set", tmp_path, "--fold", "x")[1]
    assert "it is unknown what was moved" in verify(flat, "--unfold")[1]
    (flat / "val/cat").mkdir()
    name = answers()[0][0]
    shutil.copy(flat / "val" / name, flat / "val/cat" / name)
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("name\n" + "".join(f"{name},{label}\n" for name, label in answers()))
    assert "gives name no class" in verify(flat, "--fold", mapping)[1]
    mapping.write_text("".join(f"{name},{label}\n" for name, label in answers()))
    status, said = verify(flat, "--fold", mapping)
    assert status == 1 and f"cat/{name} are there already" in said
    shutil.rmtree(flat / "train")
    assert "train: no such folder" in verify(flat, "--fold", mapping)[1]
