"""Reading runs: readable parts are used, faults are reported, and different runs are kept apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from tests.tools.left_runs import A10G, A100, DIGITS, ROOT, leave_run
from tools.records.configs import changes
from tools.records.groups import tables
from tools.records.reading import State, read_run, read_runs
from training.record import COLUMNS


def test_a_finished_run(tmp_path: Path) -> None:
    record = read_run(leave_run(tmp_path / "one", "recipe_name=mild", "max_duration=4ep", top1=77.5))
    assert (record.name, record.state, record.recipe, record.remarks) == ("one", State.FINISHED, "mild", [])
    assert set(record.rows) == set(COLUMNS) and len(record) == 4
    assert record.rows["step"].dtype == np.int64 and record.rows["top1"].dtype == np.float64
    assert record.final("top1") == 77.5 and record.total_seconds == 480
    assert record.hardware == "8x NVIDIA A100-SXM4-40GB"
    assert record.config["optimizer"]["lr"] == 2.048


@pytest.mark.slow
def test_reads_without_torch(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "max_duration=2ep")
    code = (
        "import sys; from tools.records import cost, groups, published, reading;"
        "assert groups.tables(reading.read_runs(sys.argv[1:])); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        ("finished", State.FINISHED),
        ("interrupted by SIGTERM", State.STOPPED),
        ("failed: the loss is nan", State.FAILED),
        (None, State.UNFINISHED),
    ],
)
def test_states(tmp_path: Path, ended: str | None, state: State) -> None:
    record = read_run(leave_run(tmp_path / "one", "max_duration=4ep", epochs=3, ended=ended))
    assert record.state is state
    silent = "no summary at step 1,875, after 3 evaluations: it is still running, or was killed"
    assert record.ended == (ended or silent)
    assert bool(tables([record])) == (state is State.FINISHED)


def test_resumed_after_its_summary(tmp_path: Path) -> None:
    """An older summary does not describe a run that was resumed and then killed."""
    folder = leave_run(tmp_path / "one", "max_duration=4ep", epochs=3, ended="interrupted by SIGTERM", top1=60)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"step": 625, "top1": 20.0, "total_seconds": 120}))
    record = read_run(folder)
    assert record.state is State.UNFINISHED and "continued after it was interrupted by SIGTERM" in record.ended
    assert record.final("top1") == 60 and record.total_seconds == 360


@pytest.mark.parametrize("rest", ["4,250", "4,2500,1,1,97.5,99,0.1,176,1,1,1,1,9"])
def test_cut_off_metrics(tmp_path: Path, rest: str) -> None:
    """A last line without a line break is unused even if all columns are there: 9 may have been 98.7."""
    folder = leave_run(tmp_path / "one", "max_duration=4ep", epochs=3)
    with (folder / "metrics.csv").open("a") as file:
        file.write(rest)
    record = read_run(folder)
    assert len(record) == 3 and record.state is State.FINISHED
    assert record.remarks == [f"metrics.csv is cut off in line 5: {rest[:40]!r} is not used"]


def test_broken_rows_and_empty_cells(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "one", "max_duration=3ep")
    lines = (folder / "metrics.csv").read_text().splitlines()
    lines[2] = lines[2].replace("625", "many", 1).replace("1250", "many")
    lines[3] = ",".join("" if at == 2 else cell for at, cell in enumerate(lines[3].split(",")))
    (folder / "metrics.csv").write_text("\n".join([*lines, ""]))
    record = read_run(folder)
    assert len(record) == 2 and np.isnan(record.rows["train_loss"][1])
    assert "line 3 of metrics.csv is not a whole row" in record.remarks[0]


@pytest.mark.parametrize(
    ("name", "text", "state"),
    [
        ("config.yaml", "model: [", State.UNREADABLE),
        ("config.yaml", "", State.UNREADABLE),
        ("config.yaml", "model: 3", State.UNREADABLE),
        ("config.yaml", "max_duration: long", State.UNREADABLE),
        ("config.yaml", "scale_schedule_ratio: 1.0e+30", State.UNREADABLE),
        ("environment.json", "{", State.FINISHED),
        ("environment.json", "[1]", State.FINISHED),
        ("summary.json", '{"ended": ', State.UNFINISHED),
        ("metrics.csv", "no,columns\n", State.FINISHED),
        ("metrics.csv", "\udcff", State.FINISHED),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, text: str, state: State) -> None:
    """The rest is used, and the fault is reported with the file's name."""
    leave_run(tmp_path / "whole", "max_duration=2ep")
    folder = leave_run(tmp_path / "broken", "max_duration=2ep")
    (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    records = read_runs([tmp_path])
    record = next(record for record in records if record.name == "broken")
    assert record.state is state
    assert [remark for remark in record.remarks if remark.startswith(f"{name} cannot be read (")]
    assert sum(len(group.records) for table in tables(records) for group in table.groups) >= 1


def test_folders_to_read(tmp_path: Path) -> None:
    """A folder of runs, run folders and a sweep's folder; each run once, and folders that are not runs are listed."""
    leave_run(tmp_path / "runs/a", "max_duration=2ep")
    leave_run(tmp_path / "runs/sweep/b", "max_duration=2ep")
    (tmp_path / "runs/empty/logs").mkdir(parents=True)
    records = read_runs([tmp_path / "runs", tmp_path / "runs/a"])
    assert [record.name for record in records] == ["a", "b", "empty"]
    assert records[2].state is State.UNREADABLE and records[2].ended.startswith("not a run: it holds none of")


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    for machine in ("left", "right"):
        leave_run(tmp_path / machine / "runs/mild-1", "max_duration=2ep")
    leave_run(tmp_path / "left/runs/other", "max_duration=2ep")
    records = read_runs([tmp_path / "left/runs", tmp_path / "right/runs"])
    assert [record.name for record in records] == ["left/runs/mild-1", "other", "right/runs/mild-1"]


def test_no_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no run found; a run leaves config\.yaml.*make train"):
        read_runs([tmp_path / "empty"])
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_runs([tmp_path / "nowhere"])


def test_mean_and_deviation(tmp_path: Path) -> None:
    """By hand: the mean of 76, 77 and 78.5 is 77.1667; (1.3611 + 0.0278 + 1.7778) / 2 = 1.5833, root 1.2583."""
    for seed, top1 in enumerate((76.0, 77.0, 78.5)):
        leave_run(tmp_path / f"s{seed}", "recipe_name=mild", f"seed={seed}", top1=top1)
    leave_run(tmp_path / "alone", top1=75.0)
    (table,) = tables(read_runs([tmp_path]))
    mild, baseline = table.groups
    figure = mild.figure("top1")
    assert (figure.n, round(figure.mean, 4), round(figure.sd, 4)) == (3, 77.1667, 1.2583)
    assert baseline.figure("top1").sd is None and baseline.figure("top1").mean == 75
    assert (mild.label, baseline.label) == ("mild, 36ep", "baseline, 90ep")
    assert table.data.is_imagenet and table.title.startswith("resnet50 on ImageNet-1k: 1,281,167 images")


def test_which_settings_separate_groups(tmp_path: Path) -> None:
    """Settings and hardware do, and are in the label; seed, names, paths and workers do not."""
    leave_run(tmp_path / "a", "seed=1", "train_dataset.path=/x", "train_dataset.num_workers=3", top1=77)
    leave_run(tmp_path / "b", "seed=2", "train_dataset.path=/y", "run_name=b", top1=77)
    leave_run(tmp_path / "c", "seed=1", "optimizer.lr=0.5", top1=76)
    leave_run(tmp_path / "d", "seed=1", "algorithms.ema.half_life=10ba", top1=75)
    leave_run(tmp_path / "e", "seed=1", machine=A10G, top1=74)
    (table,) = tables(read_runs([tmp_path]))
    assert [len(group.records) for group in table.groups] == [2, 1, 1, 1]
    assert "optimizer.lr=0.5" in table.groups[1].label and "hardware=8x NVIDIA A100" in table.groups[1].label
    assert "algorithms.ema.half_life=10ba" in table.groups[2].label
    assert "hardware=1x NVIDIA A10G" in table.groups[3].label
    assert len({group.label for group in table.groups}) == 4


def test_a_schedule_ratio_counts_as_its_length(tmp_path: Path) -> None:
    leave_run(tmp_path / "a", "scale_schedule_ratio=0.5")
    leave_run(tmp_path / "b", "max_duration=45ep", "scheduler.t_warmup=4ep")
    leave_run(tmp_path / "c")
    (table,) = tables(read_runs([tmp_path]))
    assert sorted((group.label, len(group.records)) for group in table.groups) == [
        ("baseline, 45ep", 2),
        ("baseline, 90ep", 1),
    ]


def test_milestones_are_scaled_with_the_length(tmp_path: Path) -> None:
    steps = "scheduler.name=multistep_with_warmup"
    leave_run(tmp_path / "a", "scale_schedule_ratio=0.5", steps, "scheduler.milestones=[[30ep,0.1]]")
    for name, milestones in {"b": "[[15ep,0.1]]", "c": "[[30ep,0.1]]"}.items():
        leave_run(
            tmp_path / name, "max_duration=45ep", "scheduler.t_warmup=4ep", steps, f"scheduler.milestones={milestones}"
        )
    (table,) = tables(read_runs([tmp_path]))
    assert sorted([record.name for record in group.records] for group in table.groups) == [["a", "b"], ["c"]]


def test_remarks_of_a_group(tmp_path: Path) -> None:
    leave_run(tmp_path / "a", "max_duration=2ep")
    leave_run(tmp_path / "b", "max_duration=2ep", machine=A100 | {"commit": "other"})
    environment = tmp_path / "b/environment.json"
    environment.write_text(environment.read_text().replace("c0ffee", "decaf"))
    (table,) = tables(read_runs([tmp_path]))
    assert table.groups[0].remarks == [
        "baseline, 2ep: 2 runs, but not 2 seeds: some repeat each other",
        "baseline, 2ep: made with 2 commits of the code",
    ]


def test_data_sets_are_kept_apart(tmp_path: Path) -> None:
    """Wherever they are stored; shards without class names match the only set of their size that has them."""
    leave_run(tmp_path / "a", "max_duration=2ep", "train_dataset.path=/disk", "eval_dataset.path=/disk")
    leave_run(tmp_path / "b", "max_duration=2ep", data={"train_images": 1_281_167, "eval_images": 50_000})
    leave_run(tmp_path / "c", yaml="digits", data=DIGITS)
    leave_run(tmp_path / "d", yaml="digits", data=DIGITS | {"names": "another"})
    leave_run(tmp_path / "e", yaml="digits", data=None)
    leave_run(tmp_path / "f", "model.name=resnet18", "max_duration=2ep")
    found = {tuple(r.name for g in table.groups for r in g.records): table for table in tables(read_runs([tmp_path]))}
    assert set(found) == {("a", "b"), ("c",), ("d",), ("e",), ("f",)}
    assert "1,438 images, 359 to evaluate, 10 classes" in found["c",].title
    assert found["e",].title == "resnet18 on data/digits (the number of images was not recorded)"


def test_changes(tmp_path: Path) -> None:
    mild = read_run(leave_run(tmp_path / "a", "recipe_name=mild", "seed=3", "max_duration=2ep")).config
    base = read_run(leave_run(tmp_path / "b", "max_duration=2ep")).config
    found = changes(mild, base)
    assert found["seed"] == (3, 17) and found["train_dataset.crop_size"] == (176, 224)
    assert found["algorithms.ema.half_life"] == ("100ba", "-")
    assert "max_duration" not in found and not any("path" in key for key in found)


def test_an_old_record(tmp_path: Path) -> None:
    """A key added later has its default, so that old and new runs of one configuration form one group."""
    leave_run(tmp_path / "new", "max_duration=2ep")
    old = leave_run(tmp_path / "old", "max_duration=2ep")
    lines = (old / "config.yaml").read_text().splitlines()
    (old / "config.yaml").write_text("\n".join(line for line in lines if "deterministic" not in line))
    (table,) = tables(read_runs([tmp_path]))
    assert [len(group.records) for group in table.groups] == [2]


def test_strange_values(tmp_path: Path) -> None:
    """Values of other types than a run writes count as missing, or are shown as they are."""
    leave_run(tmp_path / "whole", "max_duration=2ep")
    folder = leave_run(tmp_path / "strange", "max_duration=2ep")
    strange = {"data": {"train_images": "x", "classes": [1], "names": {}}, "commit": ["x"], "device": 5, "recipe": {}}
    (folder / "environment.json").write_text(json.dumps(strange))
    summary = {"ended": "finished", "top1": "76", "top5": None, "train_seconds": float("inf"), "step": []}
    (folder / "summary.json").write_text(json.dumps(summary))
    group = next(g for t in tables(read_runs([tmp_path])) for g in t.groups if g.records[0].name == "strange")
    assert (group.figure("top1").mean, group.figure("train_seconds").mean) == (76, 200)  # from metrics.csv
    assert group.label == "unknown recipe, 2ep"


def test_unreadable_folder(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "one", "max_duration=2ep")
    (folder / "metrics.csv").unlink()
    os.mkdir(folder / "metrics.csv")
    record = read_run(folder)
    assert record.remarks == ["metrics.csv cannot be read (it is not a file)"]
