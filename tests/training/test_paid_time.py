"""A run's record describes its data, and counts all time that was paid for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config import load
from main import main
from tests.runs import metrics, small_yaml, summary
from training.record import RunFolder, describe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("told_by", ["metrics.csv", "summary.json", "neither"])
def test_time_after_the_checkpoint(workdir: Path, image_folder: Path, told_by: str) -> None:
    """If a process is killed after its last checkpoint, the resumed run's clock continues from the kill."""
    words = [str(small_yaml(workdir, image_folder)), "run_name=run", "autoresume=true", "save_interval=1ba"]
    words += ["save_num_checkpoints_to_keep=3"]
    main(load(words)).close()
    run = workdir / "runs/run"
    before = summary(run)["total_seconds"]
    for late in ("ep1-ba7-rank0.pt", "ep2-ba8-rank0.pt", "latest-rank0.pt", "best-rank0.pt"):
        (run / "checkpoints" / late).unlink(missing_ok=True)
    if told_by == "metrics.csv":  # the row of step 8 is dropped: the run resumes from step 6
        (run / "summary.json").unlink()
        lines = (run / "metrics.csv").read_text().splitlines()
        lines[-1] = lines[-1].replace(f",{metrics(run)[-1]['total_seconds']},", ",1000.0,")
        (run / "metrics.csv").write_text("\n".join([*lines, ""]))
    elif told_by == "summary.json":
        (run / "summary.json").write_text(json.dumps(summary(run) | {"total_seconds": 1000.0}))
    main(load(words)).close()
    after = summary(run)["total_seconds"]
    least = before if told_by == "neither" else 1000
    assert least < after < least + 100
    assert [int(row["step"]) for row in metrics(run)] == [4, 8]
    assert float(metrics(run)[-1]["total_seconds"]) > least


def test_new_run_over_an_old_one(workdir: Path, image_folder: Path) -> None:
    words = [str(small_yaml(workdir, image_folder)), "run_name=run", "max_duration=1ep", "save_overwrite=true"]
    main(load(words)).close()
    path = workdir / "runs/run/summary.json"
    path.write_text(json.dumps(summary(path.parent) | {"total_seconds": 1000.0}))
    main(load(words)).close()
    assert summary(path.parent)["total_seconds"] < 1000


def test_overwritten_and_killed_before_the_first_checkpoint(
    workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run must use neither the checkpoints nor the figures of the overwritten run."""
    words = [str(small_yaml(workdir, image_folder)), "run_name=run", "max_duration=1ep"]
    main(load(words)).close()
    with monkeypatch.context() as patch:
        patch.setattr("training.recorder.Recorder.batch_end", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(load([*words, "seed=5", "save_overwrite=true"]))
    run = workdir / "runs/run"
    assert not list((run / "checkpoints").iterdir()) and not (run / "metrics.csv").exists()
    main(load([*words, "seed=5", "autoresume=true"])).close()
    assert summary(run)["ended"] == "finished"


def test_figures_that_are_not_finite(workdir: Path) -> None:
    """JSON has neither nan nor inf."""
    folder = RunFolder(workdir, None)  # type: ignore[arg-type]
    folder.write_summary({"val_loss": float("nan"), "top1": float("inf"), "step": 3})
    assert json.loads((workdir / "summary.json").read_text(), parse_constant=pytest.fail) == {
        "val_loss": None,
        "top1": None,
        "step": 3,
    }


def test_data_in_the_record(workdir: Path, image_folder: Path) -> None:
    """The number of images and classes, and a digest of the class names, wherever the data is stored."""
    main(load([str(small_yaml(workdir, image_folder)), "run_name=run", "max_duration=1ep"])).close()
    said = json.loads((workdir / "runs/run/environment.json").read_text())["data"]
    assert {key: said[key] for key in said if key != "names"} == {"train_images": 48, "eval_images": 21, "classes": 3}
    assert len(said["names"]) == 12


def test_data_without_names() -> None:
    class Unnamed:
        classes = None

        def __len__(self) -> int:
            return 5

    assert describe(Unnamed(), Unnamed()) == {"train_images": 5, "eval_images": 5, "classes": None, "names": None}
