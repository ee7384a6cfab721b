"""`python -m tools.split`: a folder of classes becomes train/ and val/, near-duplicates on one side."""

from __future__ import annotations

import csv
import errno
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from common.cells import from_cell
from loaders.storage.imagefolder import structure_faults
from tests.photos import photo_crops
from tools.split.__main__ import run
from tools.split.writing import RECORD

Split = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two classes, 40 crops of 64 px of a photograph each; tests do not write to it."""
    return photo_crops(tmp_path_factory.mktemp("photos") / "photos", per_class=40, size=64)


@pytest.fixture
def split(workdir: Path, capfd: pytest.CaptureFixture) -> Split:
    """Split in one process; return the exit status and what was printed."""

    def call(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        status = run([*map(str, words), "--workers=1"])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return status, (out + err).strip()

    return call


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of split.csv by image."""
    with (folder / RECORD).open(newline="", errors="surrogateescape") as file:
        return {from_cell(row["image"]): row for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the images of a split, by SPLIT/CLASS/NAME."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != RECORD]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_folder_of_classes(split: Split, photos: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is on one side, every class has its share, and nothing is copied or changed."""
    before, weighed = contents(photos), []
    monkeypatch.setattr("common.terminal.ImageMeter.weigh", lambda _, *given: weighed.append(given))
    status, said = split(photos, "out")
    assert status == 0, said
    assert [sum(column) for column in zip(*weighed, strict=True)] == [80, sum(map(len, before.values()))]
    out = workdir / "out"
    assert sorted(os.listdir(out)) == [RECORD, "train", "val"]
    made = contents(out)
    assert {name.partition("/")[2]: data for name, data in made.items()} == before == contents(photos)
    assert {
        label: len(os.listdir(out / label)) for label in ("train/china", "val/china", "train/flower", "val/flower")
    } == {
        "train/china": 32,
        "val/china": 8,
        "train/flower": 32,
        "val/flower": 8,
    }
    assert all((out / name).stat().st_nlink == 2 for name in made)
    assert "80 images of 2 classes, 64 for training and 16 for evaluation." in said
    assert "80 hard links" in said and "top-1 will be exact to 24 points at worst" in said
    next_words = said.partition("Next: ")[2].split("\n")
    assert [line.strip() for line in next_words] == [
        "python data.py out",
        "composer main.py yamls/own.yaml train_dataset.path=out",
    ]
    assert not list(workdir.glob(".*"))


@pytest.mark.slow
def test_the_advice_for_a_folder_of_classes(split: Split, photos: Path, workdir: Path) -> None:
    """A folder that is not split yet is named as such, with the command that splits it."""
    source = shutil.copytree(photos, workdir / "my photos")
    [fault] = structure_faults(source)
    said, _, command = fault.partition("To split it: ")
    assert said == f"{source}: holds folders of images (china, flower), but no train/ and val/. "
    beginning, words = shlex.split(command)[:3], shlex.split(command)[3:]
    assert beginning == ["python", "-m", "tools.split"] and split(*words)[0] == 0
    assert structure_faults(Path(words[1])) == []


@pytest.mark.slow
def test_the_same_command_gives_the_same_split(split: Split, photos: Path, workdir: Path) -> None:
    for words in (["a"], ["b"], ["c", "--seed=18"], ["d", "--val=0.5"]):
        assert split(photos, *words)[0] == 0
    a, b, c, d = (rows(workdir / name) for name in "abcd")
    assert a == b != c
    assert sum(row["split"] == "val" for row in d.values()) == 40
    # More images, under other names: nearly all of the others stay where they were.
    more = shutil.copytree(photos, workdir / "more")
    for number in range(4):
        Image.effect_noise((64, 64), 80 + number).save(more / "china" / f"0 new {number}.png")
    assert split(more, "e")[0] == 0
    e = rows(workdir / "e")
    assert sum(a[name]["split"] != e[name]["split"] for name in a) <= 2


@pytest.mark.slow
def test_near_duplicates_stay_together(split: Split, photos: Path, workdir: Path) -> None:
    """Copies, re-encoded, smaller and cropped ones, also under other classes; none is on the other side."""
    source = shutil.copytree(photos, workdir / "photos")
    originals = sorted((photos / "china").iterdir())[:24:3]
    for path in originals:
        with Image.open(path) as image:
            image.save(source / "china" / f"{path.stem}-again.jpg", quality=40)
            image.resize((40, 40)).save(source / "china" / f"{path.stem}-small.png")
            image.crop((3, 1, 62, 63)).save(source / "china" / f"{path.stem}-crop.webp", quality=95)
    shutil.copy(originals[0], source / "flower" / "mistake.jpg")
    status, said = split(source, "out", "--val=0.4")
    assert status == 0
    found = rows(workdir / "out")
    for path in originals:
        kinds = [".jpg", "-again.jpg", "-small.png", "-crop.webp"]
        assert len({found[f"china/{path.stem}{kind}"]["split"] for kind in kinds}) == 1, path
    assert found["flower/mistake.jpg"]["split"] == found[f"china/{originals[0].name}"]["split"]
    assert found["flower/mistake.jpg"]["duplicate_of"] == "china/000-again.jpg"
    assert "Found 1 exact copy and 24 near-duplicates in 8 groups, each kept on one side" in said
    assert "1 group has images of different classes; is a label wrong? china/000" in said
    assert {row["split"] for row in found.values()} == {"train", "val"}
    status, said = split(source, "exact", "--exact")
    assert status == 0 and "Found 1 exact copy in 1 group" in said


@pytest.mark.slow
def test_odd_files_and_names(split: Split, photos: Path, workdir: Path) -> None:
    """What cannot be read is listed and left out; nested images, links and odd names are kept."""
    source = shutil.copytree(photos, workdir / "photos")
    flower, odd = source / "flower", os.fsdecode(b"caf\xe9 [b]\n")
    (source / "china").rename(source / odd)
    (flower / "no.jpg").write_text("no image")
    (flower / "empty.png").touch()
    whole = (flower / "000.jpg").read_bytes()
    (flower / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (flower / "gone.jpg").symlink_to("nowhere")
    (flower / "notes.txt").write_text("a flower")
    (flower / "2024/may").mkdir(parents=True)
    shutil.move(flower / "001.jpg", flower / "2024/may/=1.JPEG")
    (flower / "linked.jpg").symlink_to(photos / "flower/001.jpg")
    for made in (".ipynb_checkpoints", "flower/.ipynb_checkpoints"):
        (source / made).mkdir()
        shutil.copy(flower / "002.jpg", source / made / "a.jpg")
    status, said = split(source, "out", "--exact")
    assert status == 0, said
    found = rows(workdir / "out")
    assert {name for name, row in found.items() if not row["split"]} == {
        f"flower/{name}" for name in ("no.jpg", "empty.png", "cut.jpg", "gone.jpg")
    }
    assert "Left out: 4 unreadable files" in said and "flower/empty.png: is an empty file" in said
    assert "flower/cut.jpg: cannot be read as an image (OSError" in said
    assert "flower/gone.jpg: cannot be read (No such file or directory)" in said
    assert "Ignored: 1 file outside of the class folders or without" in said
    assert "Folders of programs are left out: .ipynb_checkpoints, flower/.ipynb_checkpoints." in said
    assert "1 image is a link out of" in said and "caf\\udce9 [b]\\n" in said
    assert found["flower/2024/may/=1.JPEG"]["split"] == found["flower/linked.jpg"]["split"]
    made = contents(workdir / "out")
    assert len(made) == 81 and not any((workdir / "out" / name).is_symlink() for name in made)
    assert any(name.endswith(f"/{odd}/000.jpg") for name in made)


@pytest.mark.slow
@pytest.mark.parametrize("is_near", [False, True])
def test_a_large_group(is_near: bool, split: Split, photos: Path, workdir: Path) -> None:
    """--exact is advised only where it would change something."""
    source = shutil.copytree(photos, workdir / "photos")
    with Image.open(photos / "china/003.jpg") as image:
        for number in range(8):
            image.save(source / f"china/again {number}.jpg", quality=60 + (number if is_near else 0))
    (source / "china/003.jpg").unlink()
    status, said = split(source, "out")
    assert status == 0 and ("The largest group has 8 images" in said) == is_near, said
    assert f"Found {'7 near-duplicates' if is_near else '7 exact copies'} in 1 group" in said


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 0) -> None:
    """Make os.link fail, after some calls that work."""
    link, calls = os.link, iter(range(1000))

    def fail(*words: object, **more: object) -> None:
        if next(calls) >= after:
            raise error
        link(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("os.link", fail)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_copies_where_there_are_no_links(
    number: int, split: Split, photos: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, OSError(number, os.strerror(number)), after=10)
    status, said = split(photos, "out")
    assert status == 0 and "10 hard links" in said and "70 copies, because they cannot be linked there" in said
    assert len(contents(workdir / "out")) == 80


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "out: no space left. Nothing was written; free some"),
        (OSError(errno.EIO, "Input/output error", "x.jpg"), 1, "x.jpg: Input/output error. Nothing was written to out"),
        (
            FileExistsError(errno.EEXIST, "File exists"),
            1,
            "as if upper and lower case were the same. Rename one of the",
        ),
        (KeyboardInterrupt(), 130, "stopped; nothing was written"),
    ],
)
def test_nothing_is_half_written(
    error: BaseException, status: int, sentence: str, split: Split, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error, after=10)
    ended, said = split(photos, "out")
    assert ended == status and sentence in said
    assert os.listdir(".") == []
    assert all(path.stat().st_nlink == 1 for path in photos.glob("*/*"))


def test_a_disk_without_room(photos: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.errors import DataError
    from tools.split import writing

    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 10_000))
    placed = [(f"china/{number:03}.jpg", "train", "", "") for number in range(40)]
    assert writing.write(photos, workdir / "linked", placed, lambda _: None) == 0
    if not Path("/dev/shm").is_mount():
        return
    with pytest.raises(
        DataError, match=r"is on another file system than .*, so 0\.1 MB must be copied, but only 0\.0 MB"
    ):
        writing.write(photos, Path("/dev/shm/resnet-recipes-none/out"), placed, lambda _: None)
