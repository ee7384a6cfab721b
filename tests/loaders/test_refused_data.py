"""Follow the advice of a run whose data cannot be read as configured, until the run trains."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import types
from pathlib import Path

import pytest

from common.command import run
from loaders import memory
from loaders.storage import packed
from main import cli
from tests.following import assert_advice_trains, for_both
from tests.image_files import make_shards
from tests.runs import small_yaml
from tools.convert.__main__ import main as convert
from tools.preload import __main__ as preload
from tools.verify import __main__ as verify

pytestmark = pytest.mark.slow

FAST = {"max_duration": "1ba", "scheduler__t_warmup": "0ba", "save_folder": None}
ALONE = {"train_dataset__num_workers": 0, "eval_dataset__num_workers": 0}
SPLITS = ("train", "val")


def named(word: str) -> str:
    """Return the advice with the example's folder replaced."""
    return re.sub(r"=(/some/folder|/a/cache/folder|FOLDER)$", "=another", word)


def streamed(folder: Path, image_folder: Path, cache: str) -> list[str]:
    """Return the command line of a run that reads shards through a cache folder."""
    make_shards(image_folder, folder / "shards")
    words = for_both("path=shards", "is_streaming=true", f"local={cache}")
    return [str(small_yaml(folder, image_folder, **FAST, **ALONE)), *words]


def test_a_cache_folder_that_cannot_be_written(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    def start(folder: Path) -> list[str]:
        (folder / "file").touch()
        return streamed(folder, image_folder, "file/cache")

    assert_advice_trains(start, named, workdir, capfd)


def test_a_cache_limit_below_a_shard(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    def start(folder: Path) -> list[str]:
        return [*streamed(folder, image_folder, "cache"), "train_dataset.cache_limit=9kb"]

    assert_advice_trains(start, named, workdir, capfd)


def test_too_little_shared_memory_for_the_workers(
    workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_shared_memory", lambda: 3 * 8 * 3 * 24 * 24 * 4)
    words = for_both("num_workers=2", "prefetch_factor=2", "batch_size=8", "crop_size=24")
    yaml = small_yaml(workdir, image_folder, **FAST)
    assert_advice_trains(lambda _: [str(yaml), *words], named, workdir, capfd)


def test_too_little_memory_for_packed_images(
    workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "free_shared_memory", lambda: 40_000)
    yaml = small_yaml(workdir, image_folder, **FAST, **ALONE)
    words = for_both("storage=packed", "crop_size=8")
    assert_advice_trains(lambda _: [str(yaml), *words, "eval_dataset.resize_size=8"], named, workdir, capfd)


def test_ffcvs_files_in_an_image_folder(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    assert run(convert, [str(image_folder), "beton", "--to", "ffcv"]) == 0

    def start(folder: Path) -> list[str]:
        return [str(small_yaml(folder, image_folder, **FAST, **ALONE)), *for_both(f"path={workdir}/beton")]

    assert_advice_trains(start, named, workdir, capfd)


def test_a_damaged_image(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    shutil.copytree(image_folder, "images")
    damaged = sorted(Path("images/train").rglob("*.jpeg"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    words = [str(small_yaml(workdir, image_folder, **FAST, **ALONE)), *for_both("path=images"), "max_duration=1ep"]
    assert cli(words) == 1
    said = capfd.readouterr().err
    assert str(damaged) in said and "Replace or delete it; `python -m tools.verify` finds every such image" in said
    assert verify.run(["images"]) == 1
    assert str(damaged) in capfd.readouterr().out
    damaged.unlink()
    assert verify.run(["images"]) == 0 and cli(words) == 0


def test_a_copy_of_one_split(
    workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As advised when both do not fit, with a space in the folder's name."""
    shutil.copytree(image_folder, "my images")
    real = os.statvfs(workdir)
    blocks = sum(-(-file.stat().st_size // real.f_frsize) for file in Path("my images/train").rglob("*.jpeg"))
    little = types.SimpleNamespace(f_bavail=blocks, f_frsize=real.f_frsize, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: little)
    assert preload.run(["my images", "a copy"]) == 1
    [command] = re.findall(r"python -m tools\.preload (.* --split train)", " ".join(capfd.readouterr().err.split()))
    assert preload.run(shlex.split(command)) == 0
    assert sorted(path.name for path in Path("a copy").iterdir() if path.name[0] != ".") == ["train"]
