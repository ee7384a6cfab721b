"""tools.evaluate: its figures equal those of main.py's own evaluation."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps

from config import load
from main import cli, main
from tests.image_files import make_mds
from tests.runs import ROOT, run_main, small_yaml
from tests.s3 import upload
from tools.evaluate.__main__ import run

pytestmark = pytest.mark.slow

EMA = {"blurpool": {}, "ema": {"half_life": "1ba", "update_interval": "1ba"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """Folder of a short run with averaged weights; tests do not write to it."""
    folder = tmp_path_factory.mktemp("trained")
    small = small_yaml(folder, image_folder, optimizer__lr=0.05, algorithms=EMA)
    done = run_main(small, "run_name=it", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "it"


@pytest.fixture
def its_copy(trained: Path, workdir: Path) -> Path:
    """A copy in the current folder's runs/, with hard links to the checkpoints."""
    folder = shutil.copytree(trained, workdir / "runs" / "it", ignore=shutil.ignore_patterns("checkpoints"))
    return shutil.copytree(trained / "checkpoints", folder / "checkpoints", copy_function=os.link).parent


def change(folder: Path, *, run: dict[str, Any] | None = None, **changes: Any) -> None:
    """Change keys of eval_dataset in a run's configuration, and top-level keys given by `run`."""
    file = folder / "config.yaml"
    config = yaml.safe_load(file.read_text()) | (run or {})
    config["eval_dataset"].update(changes)
    file.write_text(yaml.safe_dump(config))


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def by_main(folder: Path, *words: str) -> dict[str, float]:
    """Return the metrics of main.py's own evaluation of the best checkpoint."""
    more = [f"load_path={folder}/checkpoints/best-rank0.pt", "is_train=false", *words]
    metrics = main(load([str(folder / "config.yaml"), *more])).state.eval_metrics["eval"]
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def check_equal(folder: Path, found: dict[str, Any], *words: str) -> None:
    """Check that the figures equal main.py's."""
    expected = by_main(folder, *words)
    assert found["top1"] == pytest.approx(100 * expected["MulticlassAccuracy"], abs=1e-3)
    assert found["top5"] == pytest.approx(100 * expected["MulticlassTop5Accuracy"], abs=1e-3)
    assert found["loss"] == pytest.approx(expected["CrossEntropy"], abs=2e-6)


def test_equal_to_main(its_copy: Path, capsys) -> None:
    """At the run's own size and at another one, with averaged weights; then the contents of each file."""
    change(its_copy, batch_size=7)
    assert run([str(its_copy), "--sizes=16,24"]) == 0
    printed = capsys.readouterr().out
    out = its_copy / "evaluation"
    found = summary(out)
    check_equal(its_copy, found)
    keys = ["top1", "top5", "loss", "calibration_error", "images", "checkpoint", "data", "size", "flip"]
    assert list(found) == keys and list(found["flip"]) == ["top1", "top5", "loss"]
    assert found["images"] == 21 and found["size"] == 16 and found["checkpoint"].endswith("best-rank0.pt")

    small, large = rows(out, "sizes")
    assert (small["size"], large["size"]) == ("16", "24")
    assert float(small["top1"]) == found["top1"] and float(small["flip_top1"]) == found["flip"]["top1"]
    at_24 = by_main(its_copy, "eval_dataset.crop_size=24", "eval_dataset.resize_size=30")
    assert float(large["top1"]) == pytest.approx(100 * at_24["MulticlassAccuracy"], abs=1e-3)

    classes, pairs, bins = rows(out, "per_class"), rows(out, "confusions"), rows(out, "reliability")
    assert [row["class"] for row in classes] == ["cat", "dog", "person"] and {row["images"] for row in classes} == {"7"}
    assert np.mean([float(row["top1"]) for row in classes]) == pytest.approx(found["top1"], abs=1e-3)
    wrong = round(21 * (1 - found["top1"] / 100))
    assert wrong and sum(int(row["count"]) for row in pairs) == wrong, "the test needs at least one mistake"
    assert len(bins) == 15 and sum(int(row["images"]) for row in bins) == 21
    with Image.open(out / "mistakes.png") as sheet:
        assert sheet.width > 1000
    assert f"{found['top1']:.2f} %" in printed and "Worst classes" in printed and pairs[0]["true"] in printed
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["summary.json", "per_class.csv", "confusions.csv", "sizes.csv", "reliability.csv", "mistakes.png"]
    )


def test_schedule_free(workdir: Path, image_folder: Path) -> None:
    words = ["recipe_name=schedulefree_sgd", "optimizer.lr=0.1", "scheduler.t_warmup=1ba", "max_duration=1ep"]
    words += ["train_dataset.crop_size=16", "train_dataset.batch_size=12", "run_name=free"]
    words += ["eval_dataset.crop_size=16", "eval_dataset.resize_size=20", "eval_dataset.batch_size=7"]
    assert cli([str(small_yaml(workdir, image_folder)), *words]) == 0
    assert run(["runs/free", "--checkpoint=latest", "--no-flip"]) == 0
    check_equal(Path("runs/free"), summary(Path("runs/free/evaluation")))
    assert summary(Path("runs/free/evaluation"))["flip"] is None
    assert rows(Path("runs/free/evaluation"), "sizes")[0]["flip_top1"] == ""


def test_every_image_counts_once(its_copy: Path) -> None:
    """Neither batch size nor a smaller last batch matters; a second evaluation replaces the first one."""
    assert run([str(its_copy), "-o", "a"]) == 0
    change(its_copy, batch_size=4, num_workers=0)
    assert run([str(its_copy), "-o", "a/b", "--gallery=0"]) == 0
    one, other = summary(Path("a")), summary(Path("a/b"))
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert {**one, "loss": 0, "flip": 0} == {
        **other,
        "loss": 0,
        "flip": 0,
        "calibration_error": one["calibration_error"],
    }
    assert Path("a/mistakes.png").exists() and not Path("a/b/mistakes.png").exists()
    Path("a/own.txt").touch()
    assert run([str(its_copy), "-o", "a", "--gallery=0"]) == 0
    assert not Path("a/mistakes.png").exists() and Path("a/own.txt").exists()


def test_mirrored_images(its_copy: Path, image_folder: Path) -> None:
    """Flipping the data changes the plain figures, but not those averaged over both flips."""
    for file in (image_folder / "val").glob("*/*.jpeg"):
        with Image.open(file) as image:
            image.paste(0, (16, 0, 32, 32))  # asymmetric content
            for name, its in (("straight", image), ("mirrored", ImageOps.mirror(image))):
                target = Path(name, file.relative_to(image_folder)).with_suffix(".png")
                target.parent.mkdir(parents=True, exist_ok=True)
                its.save(target)
    assert run([str(its_copy), "-o", "a", "--data=straight"]) == 0
    assert run([str(its_copy), "-o", "b", "--data=mirrored"]) == 0
    straight, mirrored = summary(Path("a")), summary(Path("b"))
    assert mirrored["data"] == "mirrored"
    assert straight["flip"]["loss"] == pytest.approx(mirrored["flip"]["loss"], abs=2e-5)
    assert abs(straight["loss"] - mirrored["loss"]) > 1e-3, "the test needs different images"


def test_shards_without_a_class(its_copy: Path, image_folder: Path, capsys) -> None:
    """Shards on disk; a class without images has no figures."""
    two = shutil.copytree(image_folder, Path("two"))
    shutil.rmtree(two / "val/person")
    make_mds(two / "val", Path("shards/val"))
    Path("shards/classes.json").write_text('["cat", "dog", "person"]')
    assert run([str(its_copy), "--data=shards", "--no-flip"]) == 0
    last = rows(its_copy / "evaluation", "per_class")[-1]
    assert last == {"class": "person", "name": "person", "images": "0", "top1": "", "top5": ""}
    assert summary(its_copy / "evaluation")["images"] == 14


def test_run_of_another_machine(its_copy: Path, s3_server: str, capsys) -> None:
    """Trained on a GPU with a large batch, packed images, and checkpoints in S3."""
    elsewhere = {"device": "gpu", "precision": "amp_bf16", "compile": True, "device_train_microbatch_size": "auto"}
    elsewhere |= {
        "load_path": "gone.pt",
        "load_weights_only": True,
        "save_folder": "s3://bucket/{run_name}/checkpoints",
    }
    (its_copy / "checkpoints").rename("here")
    Path("store").mkdir()
    newest = next(Path("here").glob("ep2-*"))
    os.link(newest, Path("store", newest.name))  # a store has no link named latest
    upload(Path("store"), "bucket", "it/checkpoints")
    change(its_copy, run=elsewhere, batch_size=2048, storage="packed", pack_size=24)
    assert run([str(its_copy), "--checkpoint=latest"]) == 0
    assert torch.cuda.is_available() or "evaluated in fp32: the run's amp_bf16 needs a GPU" in capsys.readouterr().out
    found = summary(its_copy / "evaluation")
    assert found["checkpoint"] == f"s3://bucket/it/checkpoints/{newest.name}" and found["images"] == 21
    assert run([str(its_copy), "--checkpoint=here/latest-rank0.pt", "-o", "here/out"]) == 0
    assert summary(Path("here/out"))["loss"] == found["loss"]


def test_command(its_copy: Path) -> None:
    """As a user types it, when the data set no longer exists."""
    change(its_copy, path="/nowhere")
    words = [sys.executable, "-m", "tools.evaluate", str(its_copy)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "\n/nowhere: the run's data set is not here; name it, or another one: --data PATH\n"


def damage(folder: Path) -> None:
    file = folder / "checkpoints/best-rank0.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.unlink()  # a hard link to the shared file
    file.write_bytes(content)


def unlearn(folder: Path) -> None:
    for file in (folder / "checkpoints").iterdir():
        file.unlink()


def foreign(folder: Path) -> None:
    torch.save([1], folder / "checkpoints/foreign.pt")


@pytest.mark.parametrize(
    ("words", "prepare", "status", "expected"),
    [
        (["runs/itt"], None, 2, "runs/itt: no such folder; runs holds it; did you mean it?"),
        (["."], None, 2, "is not a run folder: it has no config.yaml"),
        (["runs/it", "--sizes=160,abc"], None, 2, "--sizes 160,abc: 'abc' is not a size; give whole pixels from 16"),
        (["runs/it", "--sizes=160,"], None, 2, "'' is not a size"),
        (["runs/it", "--sizes=8"], None, 2, "'8' is not a size"),
        (["runs/it", "--gallery=-1"], None, 2, "--gallery -1: give 0 (no image) to 600"),
        (["runs/it", "--data=nowhere"], None, 2, "--data nowhere: no such folder"),
        (["runs/it", "--data=s3://bucket/set"], None, 2, "shards need a cache folder: --local FOLDER"),
        (["runs/it", "--local=cache"], None, 2, "--local cache: is the cache folder of --data"),
        (["runs/it", "--checkpoint=ep9.pt"], None, 1, "--checkpoint ep9.pt: there is no ./ep9.pt, nor any other"),
        (["runs/it", "--checkpoint=lastest"], None, 1, "there is no ./lastest, nor any other; did you mean latest?"),
        (["runs/it"], unlearn, 1, "there is no runs/it/checkpoints/best-rank0.pt, nor any other"),
        (["runs/it"], damage, 1, "best-rank0.pt: is damaged (cut short or changed); name another one: --checkpoint"),
        (["runs/it", "--checkpoint=runs/it/checkpoints/foreign.pt"], foreign, 1, "is not a checkpoint"),
        (["runs/it", "-o", "runs/it/config.yaml"], None, 1, "config.yaml: cannot be written (Not a directory)"),
        (["runs/it", "-o", "runs/it/config.yaml/x"], None, 1, "cannot be written (Not a directory)"),
    ],
)
def test_bad_input(words: list[str], prepare, status: int, expected: str, its_copy: Path, capsys) -> None:
    if prepare:
        prepare(its_copy)
    assert run(words) == status
    said = capsys.readouterr().err
    assert expected in said and "Traceback" not in said
    assert not (its_copy / "evaluation").exists()


def test_other_classes(its_copy: Path, image_folder: Path, capsys) -> None:
    other = shutil.copytree(image_folder, Path("other"))
    shutil.rmtree(other / "train")
    (other / "val/cat").rename(other / "val/eel")
    assert run([str(its_copy), "--data=other"]) == 1
    assert "label 0 was 'cat' and is 'dog'" in capsys.readouterr().err
    shutil.rmtree(other / "val/eel")
    assert run([str(its_copy), "--data=other"]) == 1
    assert "other: does not hold the 3 classes that this run was trained on" in capsys.readouterr().err
    assert not (its_copy / "evaluation").exists()
