"""Costs of runs, curves over repeated runs, and published figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torchvision

from common.errors import DataError
from recipes.published import REFERENCE, read_published
from tests.tools.left_runs import A10G, A100, leave_run
from tools.records.cost import Prices
from tools.records.groups import over_steps, over_time, seconds_to, tables
from tools.records.published import differs_from, for_group
from tools.records.reading import Record, read_run, read_runs


def run_of(seconds: float, device: str = "NVIDIA A10G", world_size: int = 1, nodes: int = 1) -> Record:
    """Build a record with only the machine and the wall clock."""
    environment = {"device": device, "world_size": world_size, "nodes": nodes}
    return Record(Path("run"), "run", environment=environment, summary={"total_seconds": seconds})


def test_the_published_run() -> None:
    """cr21/Resnet50-Imagenet1K: 50 epochs of 2103 s (its log) take 29.2 h and $28.33; its page says 27 h and $26.41."""
    run = run_of(50 * 2103)
    assert run.total_seconds / 3600 == pytest.approx(29.2, abs=0.01)
    assert round(Prices(per_hour=0.97).of(run).dollars, 2) == 28.33
    assert round(Prices(per_hour=0.97).of(run_of(27 * 3600)).dollars, 2) == 26.19


def test_storage() -> None:
    """390 GB at $0.08 per GB and month cost $31.20 for 730 hours, and $1.25 for 29.2."""
    with_disk = Prices(per_hour=0.97, storage_gb=390, storage_price=0.08)
    assert round(with_disk.of(run_of(29.2 * 3600)).dollars, 2) == round(28.324 + 1.248, 2)
    assert "390 GB at $0.08" in with_disk.basis and "as given" in with_disk.basis


@pytest.mark.parametrize(
    ("machine", "price", "why"),
    [
        (("NVIDIA A100-SXM4-40GB", 8, 1), 21.957642, "p4d.24xlarge at $21.9576/h on-demand"),
        (("NVIDIA A100-SXM4-40GB", 16, 2), 43.915284, "2 x p4d.24xlarge"),
        (("NVIDIA H100 80GB HBM3", 8, 1), 55.04, "p5.48xlarge"),
        (("NVIDIA L4", 1, 1), 0.8048, "g6.xlarge"),
        (("NVIDIA L40S", 1, 1), None, "no price for 1x NVIDIA L40S"),
        (("NVIDIA A100-SXM4-40GB", 4, 1), None, "no price for 4x NVIDIA A100-SXM4-40GB in prices.yaml: add one"),
        (("NVIDIA A40", 4, 1), None, "no on-demand price for 4xA40"),
        (("CPU, 2 cores (x86_64)", 1, 1), None, "no price for CPU, 2 cores (x86_64)"),
        (("", 1, 1), None, "no price for unknown hardware"),
    ],
)
def test_machines(machine: tuple[str, int, int], price: float | None, why: str) -> None:
    cost = Prices().of(run_of(3600, *machine))
    assert cost.dollars == (pytest.approx(price) if price else None) and why in cost.why


def test_spot() -> None:
    """The cheaper price, with its own date."""
    spot = Prices(spot=True)
    assert spot.of(run_of(3600)).dollars == 0.9401
    assert "spot prices of launch/prices.yaml as of 2026-01" in spot.basis
    assert "on-demand prices of launch/prices.yaml as of 2026-02-09" in Prices().basis
    for machine in spot.listed["machines"]:
        assert machine["spot"] is None or 0 < machine["spot"] < machine["on_demand"]


def test_wall_clock(tmp_path: Path) -> None:
    """Evaluation counts, and so does the time of an unfinished run; without a clock there is no cost."""
    whole = read_run(leave_run(tmp_path / "a", "max_duration=3ep", epoch_seconds=1000, machine=A10G))
    assert Prices(per_hour=1).of(whole).dollars == pytest.approx(3600 / 3600)
    cut = read_run(leave_run(tmp_path / "b", "max_duration=3ep", epochs=2, epoch_seconds=1000, ended=None))
    assert Prices(per_hour=1).of(cut).dollars == pytest.approx(2400 / 3600)
    assert Prices(per_hour=1).of(Record(Path("x"), "x")).why == "its wall clock was not recorded"


def test_no_price_list(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("machines: [{name: x}]")
    with pytest.raises(DataError, match="is not a list of prices"):
        Prices(file=tmp_path / "prices.yaml").of(run_of(1))


def test_bands(tmp_path: Path) -> None:
    """By hand: the mean of 60, 62 and 67 is 63; the variance is (9 + 1 + 16) / 2 = 13, and 2√13 = 7.2111."""
    for seed, top1 in enumerate((60.0, 62.0, 67.0)):
        leave_run(tmp_path / f"s{seed}", f"seed={seed}", "max_duration=2ep", top1=[top1 / 2, top1])
    group = tables(read_runs([tmp_path]))[0].groups[0]
    curve = over_steps(group, "top1")
    assert curve.x.tolist() == [625, 1250]
    assert curve.mean.tolist() == [31.5, 63]
    assert curve.band[0][1] == pytest.approx(63 - 7.2111, abs=1e-4)
    assert curve.band[1][1] == pytest.approx(63 + 7.2111, abs=1e-4)


def test_time_is_interpolated(tmp_path: Path) -> None:
    """Epochs of 100 s and of 200 s: at 200 s, one run is at its end (40), the other at its first row (20)."""
    for seed, seconds in enumerate((100.0, 200.0)):
        leave_run(tmp_path / f"s{seed}", f"seed={seed}", "max_duration=2ep", top1=[20, 40], epoch_seconds=seconds)
    group = tables(read_runs([tmp_path]))[0].groups[0]
    curve = over_time(group, "top1")
    assert (curve.x.min(), curve.x.max()) == (200, 200) and curve.mean.tolist() == [30]
    assert [seconds_to(record, 30) for record in group.records] == [200, 400]
    assert seconds_to(group.records[0], 41) is None


def test_one_run_has_no_band(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "max_duration=3ep")
    group = tables(read_runs([tmp_path]))[0].groups[0]
    assert over_steps(group, "top1").band is None
    assert len(over_time(group, "top1").x) == 120
    assert over_steps(group, "no_such_column") is None
    group.records[0].rows["train_loss"][:2] = np.nan
    assert over_steps(group, "train_loss").x.tolist() == [1875]


def test_every_published_figure_has_a_source() -> None:
    rows = read_published()
    assert len(rows) > 130
    for row in rows:
        assert row.recipe and row.model and row.source and row.verified, row
        assert row.top1 or row.minutes, row
        assert not (row.minutes and row.inferred_minutes and "8x A100" in row.hardware), "the source's own count"


def test_minutes_are_inferred_from_a_rate_that_the_note_states() -> None:
    """Images over img/s; `inferred minutes: 28k img/s at 160 px, from ...`."""
    inferred = [row for row in read_published() if row.inferred_minutes]
    assert {"torchvision_v2", "rsb_a1", "rsb_a2", "rsb_a3", "nvidia_250"} <= {row.recipe for row in inferred}
    for row in inferred:
        (thousands,) = re.findall(r"inferred minutes: ([\d.]+)k img/s at \d+ px, from ", row.note)
        minutes = float(row.epochs) * 1281.167 / float(thousands) / 60
        assert row.inferred_minutes == f"{minutes:.0f}", row


def test_ffcvs_figures_are_its_logs() -> None:
    """assets/agg.csv of ffcv-imagenet at 4dd291a: the last row of each run, one run each."""
    rows = [row for row in read_published() if re.fullmatch(r"ffcv_\d+", row.recipe)]
    assert [(row.epochs, row.top1, row.top5, row.minutes, row.n) for row in rows] == [
        ("16", "73.760", "91.840", "14.87", "1"),
        ("24", "75.564", "92.702", "21.70", "1"),
        ("32", "76.586", "93.472", "28.76", "1"),
        ("40", "77.242", "93.706", "35.58", "1"),
        ("56", "78.020", "94.082", "49.40", "1"),
        ("88", "78.428", "94.260", "77.24", "1"),
    ]


@pytest.mark.parametrize("recipe", ["torchvision_v1", "torchvision_v2"])
def test_torchvisions_figures_are_its_metadata(recipe: str) -> None:
    """The metadata of the weights of the installed torchvision."""
    rows = [row for row in read_published() if row.recipe.startswith(recipe) and row.variant.startswith("IMAGENET1K_")]
    assert len(rows) > 6
    for row in rows:
        metrics = torchvision.models.get_model_weights(row.model)[row.variant].meta["_metrics"]["ImageNet-1K"]
        assert (float(row.top1), float(row.top5)) == (metrics["acc@1"], metrics["acc@5"]), row


def test_which_figures_may_be_compared(tmp_path: Path) -> None:
    """Takes the row of the same length; another length, flip, average or size makes figures incomparable."""
    leave_run(tmp_path / "a")
    leave_run(tmp_path / "b", "recipe_name=mild")
    leave_run(tmp_path / "c", "recipe_name=mild", "scale_schedule_ratio=0.8888889")
    rows = read_published()
    groups = {(g.recipe, g.length): g for g in tables(read_runs([tmp_path]))[0].groups}
    baseline = groups["baseline", "90ep"]
    assert for_group(baseline, rows).epochs == "90" and differs_from(for_group(baseline, rows), baseline) == []
    mild = groups["mild", "36ep"]
    assert differs_from(for_group(mild, rows), mild) == ["32 epochs"]
    short = groups["mild", "32ep"]
    assert differs_from(for_group(short, rows), short) == []
    ffcv = next(row for row in rows if row.recipe == "ffcv_88")
    assert differs_from(ffcv, baseline) == ["88 epochs", "evaluated at 256 px", "TTA (flip)"]
    leave_run(tmp_path / "changed/a", "optimizer.lr=1.5", "algorithms.channels_last={}", "seed=4")
    (changed,) = tables(read_runs([tmp_path / "changed"]))[0].groups
    own = "here with algorithms.channels_last, optimizer.lr of its own"
    assert differs_from(for_group(changed, rows), changed) == [own]
    assert "no EMA" in differs_from(next(row for row in rows if row.recipe == "adam"), mild)


def test_no_table(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is not a table of published figures"):
        read_published(tmp_path / "reference.csv")
    head = REFERENCE.read_text().partition("\n")[0]
    (tmp_path / "reference.csv").write_text(f"{head}\nbaseline,resnet50,,76.6\n")
    with pytest.raises(DataError, match="a row of baseline has too few cells"):
        read_published(tmp_path / "reference.csv")


def test_an_environment_without_numbers(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "a", "max_duration=2ep", machine=A100 | {"world_size": "many"})
    assert json.loads((folder / "environment.json").read_text())["world_size"] == "many"
    assert Prices().of(read_run(folder)).dollars is None
