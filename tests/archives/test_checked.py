"""tools.verify reads every image of a data set in another form, and names what is wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data import build_imagenet_dataspec
from loaders.storage.inspection import main as inspect
from tests.archives.layouts import make_webdataset
from tests.archives.opening import opened
from tools.verify.__main__ import run


@pytest.fixture(scope="module")
def tars(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WebDataset tars of the small ImageNet; not to be changed."""
    return make_webdataset(plain, tmp_path_factory.mktemp("wds") / "wds")


@pytest.fixture
def damaged(tars: Path, tmp_path: Path) -> Path:
    """A copy of the tars, to damage."""
    return shutil.copytree(tars, tmp_path / "wds")


def overwrite(folder: Path, split: str, index: int, data: bytes) -> str:
    """Write over the start of an image, and return how it is named in messages."""
    catalog = opened(folder).splits[split]
    with open(catalog.files[catalog.file[index]], "r+b") as file:
        file.seek(int(catalog.offsets[index]))
        file.write(data)
    return catalog.name_of(index)


@pytest.mark.slow
def test_a_damaged_scan_is_named(damaged: Path, capsys: pytest.CaptureFixture) -> None:
    """PIL decodes it in silence."""
    image = opened(damaged).splits["train"].read(3)
    name = overwrite(damaged, "train", 3, image[:-40] + b"\xff\xd9" + image[-38:])
    assert run([str(damaged), "--workers", "1"]) == 1
    said = "".join(capsys.readouterr().out.split())
    assert "1fault" in said and f"{''.join(name.split())}:isdamaged(" in said


@pytest.mark.slow
def test_whole_tars_have_no_faults(tars: Path, capsys: pytest.CaptureFixture) -> None:
    assert run([str(tars), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "no faults" in said and "WebDataset tars" in said


@pytest.mark.slow
def test_each_damaged_image_is_named(damaged: Path, capsys: pytest.CaptureFixture) -> None:
    names = [overwrite(damaged, "train", index, b"not an image") for index in (3, 30)]
    assert run([str(damaged), "--workers", "1"]) == 1
    said = "".join(capsys.readouterr().out.split())
    assert "2faults" in said
    for name in names:
        assert f"{''.join(name.split())}:cannotbereadasanimage" in said


@pytest.mark.slow
def test_an_image_of_both_splits_is_named(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = shutil.copytree(plain, tmp_path / "plain")
    image = next((folder / "train").rglob("*.JPEG"))
    shutil.copy(image, folder / "val" / image.parent.name / image.name)
    assert run([str(make_webdataset(folder, tmp_path / "wds")), "--workers", "1"]) == 1
    said = "".join(capsys.readouterr().out.split())
    assert f"{image.stem}.jpg:isthesamefileas" in said


def test_data_py_shows_tars_as_they_are(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert inspect([str(tars), "--workers", "0", "--crop-size", "16"], build_imagenet_dataspec) == 0
    said = capsys.readouterr().out
    assert (
        "WebDataset tars: 40 + 20 images" in " ".join(said.split())
        and "img/s" in said
        and (tmp_path / "contact_sheet.png").is_file()
    )


def test_data_py_samples_large_splits_and_says_what_needs_a_conversion(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("loaders.storage.inspection.SMALL", 10)
    monkeypatch.setattr("loaders.storage.inspection.SAMPLE", 7)
    (damaged / "imagenet1k-validation-0000.tar").unlink()
    (damaged / "imagenet1k-validation-0001.tar").unlink()
    assert inspect([str(damaged)], build_imagenet_dataspec) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "7 of its 40 images were decoded" in said and "has no images of val, only of train" in said
