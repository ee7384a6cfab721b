"""What tools.predict is given: words, networks and files that cannot be meant; names found and read as needed."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.errors import ConfigError
from loaders.images.transforms import EvaluationPipeline
from tools.predict import formats, inputs
from tools.predict.__main__ import run
from tools.predict.formats import Answer, Prediction
from tools.predict.images import Reader
from tools.predict.progress import Progress

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos/b/d.png"], "photos/b/d.png: no such file or folder; did you mean d.PNG?"),
        (["photos/*.gif", "nowhere"], "photos/*.gif: matches no file\nnowhere: no such file or folder"),
        (["empty"], "empty: holds no images (.jpg, .jpeg, "),
        (["https://a/b.jpg"], "https://a/b.jpg: is not read; give files, folders or s3://bucket/..."),
        (["s3:/bucket/a.jpg"], "s3:/bucket/a.jpg: is neither an address nor a folder; did you mean s3://bucket/a.jpg?"),
        (["s3://"], "s3://: names no bucket; write s3://bucket/folder"),
        (["-", "-"], "- is given twice"),
        (["photos", "--wide"], "--wide: is for csv, but the format is table; add --format csv"),
        (["photos", "--sheet=a.jpg"], "--sheet a.jpg: a sheet is a PNG; name it a.png"),
        (["photos", "-o", "photos"], "-o photos: is not a file, and would be replaced; name another file"),
        (["photos", "-o", "/dev/null"], "-o /dev/null: is not a file, and would be replaced"),
    ],
)
def test_bad_words(words: list[str], said: str, photos: Path, capsys: pytest.CaptureFixture) -> None:
    """Before the network is opened."""
    Path("empty").mkdir()
    assert run(["runs/none", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--top=0", "--batch=x", "--threshold=1.5", "--threshold=nan", "--format=xml"])
def test_bad_numbers(word: str, photos: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["runs/none", "photos", word])
    assert ended.value.code == 2 and word.split("=")[0] in capsys.readouterr().err


def test_bombs_and_pipes_are_not_read(workdir: Path) -> None:
    """Nor links in a circle, and files of gigabytes; the others of the batch are classified."""
    Image.new("1", (20_000, 20_000)).save("bomb.png")
    Image.new("RGB", (8, 8)).save("good.png")
    os.mkfifo("pipe.png")
    with open("large.png", "wb") as file:
        file.truncate(inputs.MOST_BYTES + 1)
    said: list[str] = []
    reader = Reader(EvaluationPipeline(8, 8), True, said.append)
    (batch,) = reader.batches(inputs.find(["."]), 8)
    assert batch[0] == ["./good.png"] and batch[1].shape == (1, 3, 8, 8) and reader.unreadable == 3
    assert "./bomb.png: cannot be read as an image (DecompressionBombError: " in said[0]
    assert said[1].startswith("./large.png: is too large (268,435,457 bytes") and said[2] == "./pipe.png: is not a file"
    Path("sub").mkdir()
    os.symlink("..", "sub/up")
    with pytest.raises(Exception, match=r"sub/up: is a link to .*, which contains it"):
        list(inputs.find(["."]))


def test_images_are_read_as_they_are_needed(workdir: Path) -> None:
    """So that memory does not grow with their number, and names may come from a pipe."""
    Image.new("RGB", (8, 8)).save("a.png")
    asked = []

    def names():
        for number in range(100):
            asked.append(number)
            yield "a.png"

    batches = Reader(EvaluationPipeline(8, 8), False, pytest.fail).batches(names(), 10)
    assert next(batches)[1].shape[0] == 10 and len(asked) == 10
    assert next(batches)[1].shape[0] == 10 and len(asked) == 20


def test_names_are_found_in_order(photos: Path) -> None:
    expected = [
        "photos/a.jpg",
        "photos/cut.jpg",
        "photos/e.webp",
        "photos/text.png",
        "photos/b/=c.jpg",
        "photos/b/d.PNG",
    ]
    assert list(inputs.find(["photos"])) == expected
    assert list(inputs.find(["photos/**/*.[jP]*"])) == [
        "photos/a.jpg",
        "photos/b/=c.jpg",
        "photos/b/d.PNG",
        "photos/cut.jpg",
    ]
    assert list(inputs.find(["photos/b*", "photos/notes.txt"])) == [*expected[-2:], "photos/notes.txt"]
    (photos / "[x].jpg").touch()
    assert list(inputs.find(["photos/[x].jpg"])) == ["photos/[x].jpg"]
    with pytest.raises(ConfigError, match="photo: no such file or folder; did you mean photos"):
        inputs.find(["photo"])


def test_cells_and_names_that_are_not_text() -> None:
    one = Prediction("=a\udce9.jpg", [Answer(0, "+cat", "\x1b[31mCat", 0.5)])
    assert next(formats.as_table([one], 1)) == " 50.0 %  \\x1b[31mCat (+cat)  =a\\udce9.jpg\n"
    assert list(formats.as_csv([one], 1))[1] == "'=a\udce9.jpg,1,'+cat,\\x1b[31mCat,0.500000\n"
    assert json.loads(next(formats.as_json_lines([one], 1)))["file"] == one.file
    assert json.loads("".join(formats.as_json([], 5))) == []
    assert list(formats.as_table([Prediction("a", [])], 5)) == ["a\n      -    \n"]


@pytest.mark.parametrize(
    ("content", "separator", "names"),
    [(b"\n\na.png\r\nb \r\n\r\nc", b"\n", ["a.png", "b ", "c"]), (b"a\r\0\0b\nc\0", b"\0", ["a\r", "b\nc"])],
)
def test_names_on_stdin_by_line_or_null_byte(
    content: bytes, separator: bytes, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists from Windows are read, too."""
    (tmp_path / "list").write_bytes(content)
    with (tmp_path / "list").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert list(inputs.find(["-"], separator)) == names


def test_null_bytes_on_stdin_need_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_bytes(b"a.png\0b.png\0")
    with (tmp_path / "list").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(ConfigError, match="end with null bytes, as from find -print0; add -0"):
            list(inputs.find(["-"]))


@pytest.mark.parametrize(("total", "of", "left"), [(8, " of 8", r"  left \d+:\d+"), (0, "", "")])
def test_progress_tells_the_time_left_where_the_images_are_counted(
    total: int, of: str, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Progress, "EVERY", 0.0)
    show, reader = Progress(False), types.SimpleNamespace(bytes=0)
    show.shown, show.total = True, total
    for batch in show.counted([(["x"] * 4, torch.zeros(4))] * 2, lambda: reader.bytes):
        reader.bytes += 1_000_000 * len(batch[0])
    lines = capsys.readouterr().err.split("\r\033[K")[1:]
    assert len(lines) == 2
    assert re.fullmatch(rf"8{of} images  [\d,]+ img/s{left}  [\d.,]+ [kMGT]B/s", lines[-1])


def test_images_are_counted_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_COUNTED", 3)
    for count, total in ((2, 2), (3, 3), (5, 0)):
        names, found = inputs.counted(iter(map(str, range(count))))
        assert found == total and list(names) == list(map(str, range(count)))
