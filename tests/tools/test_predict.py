"""tools.predict: the pixels and answers of an evaluation, every kind of input and output, and what is not an image."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from config import load
from loaders.images.transforms import EvaluationPipeline, NormalizationFn
from main import main
from tests.runs import ROOT, bare_shell, wait_for
from tests.s3 import upload
from tests.tools.conftest import WNIDS
from tools.evaluate.__main__ import run as evaluate
from tools.networks.opened import open_network
from tools.predict.__main__ import run
from tools.predict.images import Reader
from tools.predict.progress import Progress

slow = pytest.mark.slow


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def objects(text: str) -> dict[str, list[dict]]:
    return {one["file"]: one["top"] for one in map(json.loads, text.splitlines())}


@slow
def test_pixels_and_answers_of_main(named_run: Path) -> None:
    """To the bit, in the same layout of memory."""
    words = [f"load_path={named_run}/checkpoints/best-rank0.pt", "is_train=false", "device=cpu"]
    state = main(load([str(named_run / "config.yaml"), *words])).state
    loader = state.evaluators[0].dataloader.dataloader  # type: ignore[union-attr]
    model = state.model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset, network = loader.dataset, open_network(named_run, device="cpu")
    names = (dataset.name_of(index) for index in range(len(dataset)))
    reader = Reader(EvaluationPipeline(network.resize_size, network.crop_size), False, pytest.fail)
    batches = list(reader.batches(names, loader.batch_size))
    assert sum(len(files) for files, _ in batches) == len(dataset)
    for (_, ours), (images, labels) in zip(batches, loader, strict=True):
        assert torch.equal(ours, images)
        with torch.no_grad():
            expected = model(NormalizationFn()((images, labels))).softmax(1)
        assert torch.equal(network.probabilities(ours), expected)


@slow
def test_accuracy_of_an_evaluation(named_run: Path, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    assert evaluate([str(named_run), "--no-flip", "-o", "out"]) == 0
    capsys.readouterr()
    data = named_run.parent.parent / "data/val"
    assert run([str(named_run), str(data), "--top=1", "--format=csv", "--batch=7"]) == 0
    predicted = rows(capsys.readouterr().out)
    right = [row["class"] == Path(row["file"]).parent.name for row in predicted]
    assert len(right) == 24
    assert 100 * sum(right) / 24 == pytest.approx(json.loads(Path("out/summary.json").read_text())["top1"], abs=1e-3)
    assert {row["name"] for row in predicted} <= set(WNIDS.values())


@slow
def test_formats(named_run: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    """Each says the same; what cannot be read is listed, and the exit status is 1."""
    words = [str(named_run), "photos", "photos/b/d.PNG"]
    assert run([*words, "--format=jsonl"]) == 1
    printed = capsys.readouterr()
    expected = objects(printed.out)
    files = [json.loads(line)["file"] for line in printed.out.splitlines()]
    assert files == ["photos/a.jpg", "photos/e.webp", "photos/b/=c.jpg", "photos/b/d.PNG", "photos/b/d.PNG"]
    assert "photos/cut.jpg: cannot be read as an image (OSError: " in printed.err
    assert "photos/text.png: cannot be read as an image (UnidentifiedImageError: " in printed.err
    assert "1 of 5 images carries an orientation tag" in printed.err and "2 of 7 files could not be read" in printed.err
    for top in expected.values():
        assert [one["name"] for one in top] == [WNIDS[one["class"]] for one in top]
        assert [list(WNIDS)[one["label"]] for one in top] == [one["class"] for one in top]
        assert sum(one["probability"] for one in top) == pytest.approx(1, abs=1e-5)

    assert run([*words, "--format=json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {one["file"]: one["top"] for one in found} == expected and len(found) == 5

    assert run([*words, "--format=csv", "--top=2"]) == 1
    long = rows(capsys.readouterr().out)
    assert [row["rank"] for row in long] == ["1", "2"] * 5 and long[4]["file"] == "photos/b/=c.jpg"
    assert float(long[0]["probability"]) == expected["photos/a.jpg"][0]["probability"]

    best = max(top[0]["probability"] for top in expected.values())
    assert run([*words, "--format=csv", "--wide", f"--threshold={best}"]) == 1
    wide = rows(capsys.readouterr().out)
    assert len(wide) == 5 and list(wide[0])[:4] == ["file", "class1", "name1", "probability1"]
    assert {row["probability2"] for row in wide} == {""}

    assert run([*words, "--top=1"]) == 1
    assert f"{WNIDS[expected['photos/a.jpg'][0]['class']]} (n0" in capsys.readouterr().out.splitlines()[0]


@slow
def test_a_file_and_a_sheet(named_run: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    """Both appear whole, in folders that are made; names of another file are used."""
    names = [f"{one} my {name}\n" for one, name in WNIDS.items()]
    Path("names.txt").write_text("".join(names))
    words = [str(named_run), "photos/a.jpg", "photos/b", "--names=names.txt"]
    assert run([*words, "-o", "new/out.jsonl", "--sheet=new/sheet.png"]) == 0
    said = capsys.readouterr().out
    assert "written: new/out.jsonl (3 images)" in said and "written: new/sheet.png (3 images)" in said
    assert all(top[0]["name"].startswith("my t") for top in objects(Path("new/out.jsonl").read_text()).values())
    with Image.open("new/sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 1000
    assert sorted(os.listdir("new")) == ["out.jsonl", "sheet.png"]


@slow
def test_upright(named_run: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    """The same answers as for the image that was turned before, which are not those of the image as it is stored."""
    with Image.open("photos/a.jpg") as image:
        image.transpose(Image.Transpose.ROTATE_270).save("photos/turned.png")
    answers = []
    for words in (["photos/a.jpg"], ["photos/a.jpg", "--upright"], ["photos/turned.png"]):
        assert run([str(named_run), *words, "--format=jsonl"]) == 0
        answers += objects(capsys.readouterr().out).values()
    assert answers[0] != answers[1] == answers[2]


@slow
def test_names_on_stdin(
    named_run: Path, photos: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move("photos/a.jpg", "photos/a\nb.jpg")
    for option, content in (
        ([], "photos/e.webp\nphotos\nphotos/none.jpg\n"),
        (["-0"], "photos/e.webp\0photos/a\nb.jpg"),
    ):
        Path("list").write_text(content)
        with Path("list").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            status = run([str(named_run), "-", *option, "--format=jsonl"])
        printed = capsys.readouterr()
        if option:
            assert status == 0 and list(objects(printed.out)) == ["photos/e.webp", "photos/a\nb.jpg"]
        else:
            assert status == 1 and list(objects(printed.out)) == ["photos/e.webp"]
            assert "photos: is a folder; give it as a PATH" in printed.err
            assert "photos/none.jpg: cannot be read (No such file or directory)" in printed.err
    Path("list").write_text("")
    with Path("list").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run([str(named_run), "-"]) == 0
    assert "no images were named on stdin" in capsys.readouterr().err


@slow
def test_images_in_a_store(named_run: Path, photos: Path, s3_server: str, capsys: pytest.CaptureFixture) -> None:
    upload(photos, "bucket", "in/photos")
    assert run([str(named_run), "s3://bucket/in/photos", "s3://bucket/in/photos/gone.jpg", "--format=jsonl"]) == 1
    printed = capsys.readouterr()
    places = ["a.jpg", "b/=c.jpg", "b/d.PNG", "e.webp"]
    assert list(objects(printed.out)) == [f"s3://bucket/in/photos/{place}" for place in places]
    assert "s3://bucket/in/photos/gone.jpg: is missing" in printed.err
    assert "s3://bucket/in/photos/cut.jpg: cannot be read as an image" in printed.err
    assert run([str(named_run), "photos", "--format=jsonl"]) == 1
    here = objects(capsys.readouterr().out)
    assert here["photos/a.jpg"] == objects(printed.out)["s3://bucket/in/photos/a.jpg"]
    assert run([str(named_run), "s3://bucket/empty/", "s3://nowhere/x"]) == 2
    said = capsys.readouterr().err
    assert "s3://bucket/empty/: holds no images" in said and "has no bucket 'nowhere'" in said


@slow
def test_pipes_and_ctrl_c(named_run: Path, photos: Path) -> None:
    """A reader that has seen enough ends it quietly; Ctrl-C keeps complete lines, and leaves no part of -o."""
    words = [sys.executable, "-m", "tools.predict", str(named_run), "-", "--format=jsonl", "--batch=4"]
    settings = bare_shell(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def started(*more: str) -> subprocess.Popen:
        process = subprocess.Popen([*words, *more], cwd=photos.parent, env=settings, text=True, **pipes)
        process.stdin.write("photos/e.webp\n" * 4)  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process

    first, second = started(), started("-o", "out.jsonl")
    line = first.stdout.readline()  # type: ignore[union-attr]
    assert json.loads(line)["file"] == "photos/e.webp"
    first.stdout.close()  # type: ignore[union-attr]
    first.stdin.write("photos/e.webp\n" * 4)  # type: ignore[union-attr]
    first.stdin.close()  # type: ignore[union-attr]
    assert first.stderr.read() == "" and first.wait(60) == 141  # type: ignore[union-attr]

    wait_for(lambda: list(photos.parent.glob(".out.jsonl.*")), process=second)
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 130 and second.stderr.read() == "\nstopped\n"  # type: ignore[union-attr]
    assert not list(photos.parent.glob("*out.jsonl*"))
    for process in (first, second):
        process.__exit__(None, None, None)


@slow
def test_bad_networks(named_run: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    for words, said in (
        (["runs/none"], "runs/none: no such folder"),
        (["photos"], "photos: is not a run folder"),
        ([str(named_run), "--checkpoint=ep9.pt"], "--checkpoint ep9.pt: there is no ./ep9.pt"),
        ([str(named_run), "--names=photos/notes.txt"], "photos/notes.txt: does not name n01440764"),
    ):
        assert run([*words[:1], "photos", *words[1:], "-o", "out.csv"]) in (1, 2)
        assert said in capsys.readouterr().err
    assert not Path("out.csv").exists()


@slow
def test_progress_on_a_terminal(
    named_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(Progress, "EVERY", 0.0)
    run([str(named_run), "photos", "-o", "out.jsonl"])
    assert re.search(r"\r\033\[K4 of 6 images  [\d,]+ img/s  left \d+:\d+  [\d.,]+ \wB/s\r", capsys.readouterr().err)
