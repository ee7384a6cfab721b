"""A run resumed with another batch size or data set continues where its own schedule says, or is rejected."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from composer.core import Timestamp

from config import ConfigError, load
from main import main
from recipes.schedules import cosine_with_warmup
from tests.runs import metrics, small_yaml
from training.clock import Clock, GoesOn

CONFIG = {"max_duration": "4ep", "t_warmup": "1ep", "name": "cosine_with_warmup"}


def goes_on(
    now: Timestamp,
    batch: int,
    before: dict[str, int] | None = None,
    images: int = 48,
    ema_start: str = "0ba",
    **given: Any,
) -> tuple[float, int]:
    """Load a checkpoint taken at `now`; return this run's step and its batch in the epoch."""
    config = CONFIG | given
    unit = config["max_duration"][-2:]
    section = SimpleNamespace(**config, scheduler=SimpleNamespace(**config))
    section.algorithms = {"ema": {"ema_start": ema_start}}
    sampler = SimpleNamespace(size_at=lambda _epoch, at: at)
    guard = GoesOn(Clock(unit, images // batch, batch, images), section, sampler)  # type: ignore[arg-type]
    if before is not None:
        guard.load_state_dict(before)
    state = SimpleNamespace(timestamp=now)
    guard.after_load(state, None)  # type: ignore[arg-type]
    step = guard.clock.step(state.timestamp)
    in_loader = sampler.size_at(now.epoch.value, state.timestamp.batch_in_epoch.value)
    assert unit == "ep" or in_loader + now.epoch.value * guard.clock.batches_per_epoch == step, (
        "the loader's sizes must follow the step"
    )
    return step, state.timestamp.batch_in_epoch.value


def stamp(samples: int, batch: int = 12, images: int = 48) -> Timestamp:
    epoch, inside = divmod(samples, images // batch * batch)
    return Timestamp(
        epoch=epoch, batch=samples // batch, sample=samples, sample_in_epoch=inside, batch_in_epoch=inside // batch
    )


@pytest.mark.parametrize("unit", ["ep", "sp", "ba"])
@pytest.mark.parametrize("samples", range(0, 144, 12))
def test_the_same_batch_size_counts_batches(samples: int, unit: str) -> None:
    now = stamp(samples)
    step = Clock(unit, 4, 12, 48).step(now)
    assert step == now.batch.value


@pytest.mark.parametrize("record", [{"batch_size": 12, "images": 48}, None])
@pytest.mark.parametrize("length", ["4ep", "192sp"])
@pytest.mark.parametrize(("samples", "batch"), [(96, 6), (96, 24), (96, 8), (72, 24), (72, 6), (24, 8)])
def test_another_batch_size(samples: int, batch: int, length: str, record: dict | None) -> None:
    warmup = "48sp" if length == "192sp" else "1ep"
    where = goes_on(stamp(samples), batch, record, max_duration=length, t_warmup=warmup)
    assert where == (samples / batch, samples % 48 // batch)


def test_a_checkpoint_of_several_batch_sizes() -> None:
    """The batch size that the checkpoint records counts, not the mean over all its batches."""
    now = Timestamp(epoch=2, batch=4 + 8, sample=96)
    assert goes_on(now, 6, {"batch_size": 6, "images": 48}, t_warmup="2ba") == (16, 0)
    with pytest.raises(ConfigError, match="have 6 images and this run's have 8"):
        goes_on(now, 8, {"batch_size": 6, "images": 48}, t_warmup="2ba")


@pytest.mark.parametrize(("samples", "batch"), [(12, 16), (12, 24), (36, 24), (60, 24)])
def test_a_position_inside_a_batch(samples: int, batch: int) -> None:
    with pytest.raises(ConfigError, match=f"batch_size: {batch} does not divide the {samples % 48} images"):
        goes_on(stamp(samples), batch)


@pytest.mark.parametrize(
    ("given", "ways"),
    [
        ({"max_duration": "10ba"}, "max_duration=120sp (10ba of 12) or max_duration=240sp (10ba of 24)"),
        ({"t_warmup": "2ba"}, "scheduler.t_warmup=24sp (2ba of 12) or scheduler.t_warmup=48sp (2ba of 24)"),
        ({"ema_start": "2ba"}, "algorithms.ema.ema_start: 2ba counts batches"),
    ],
)
def test_lengths_in_batches(given: dict[str, str], ways: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(ways)):
        goes_on(stamp(96), 24, **given)
    if "max_duration" not in given:
        goes_on(stamp(96), 12, **given)
    if "t_warmup" in given:
        goes_on(stamp(96), 24, name="one_cycle", **given)


@pytest.mark.parametrize("images", [24, 96])
def test_a_data_set_of_another_size(images: int) -> None:
    """Epochs stay epochs, samples stay samples, and batches stay batches."""
    before = {"batch_size": 12, "images": 48}
    assert goes_on(stamp(96), 12, before, images) == (2 * images / 12, 0)
    assert goes_on(stamp(96), 12, before, images, max_duration="192sp", t_warmup="12sp") == (8, 0)
    assert goes_on(stamp(96), 12, before, images, max_duration="16ba", t_warmup="1ba") == (8, 0)
    with pytest.raises(ConfigError, match=re.escape(f"give both in ep: type scheduler.t_warmup={12 / images:g}ep")):
        goes_on(stamp(96), 12, before, images, t_warmup="1ba")
    steps: dict[str, Any] = {"name": "multistep_with_warmup", "t_warmup": "0ba", "scale_schedule_ratio": 1.0}
    assert goes_on(stamp(96), 12, before, images, **steps, milestones=[["2ep", 0.1]]) == (2 * images / 12, 0)
    with pytest.raises(ConfigError, match=r"scheduler\.milestones: 48sp and max_duration 4ep give"):
        goes_on(stamp(96), 12, before, images, **steps, milestones=[["48sp", 0.1]])


@pytest.mark.slow
def test_a_run_resumes_with_half_the_batch_size(workdir: Path, image_folder: Path) -> None:
    """From mid-epoch, with batches of half the size: the learning rate at the end is the same."""
    yaml = small_yaml(workdir, image_folder, max_duration="2ba", run_name="first", scheduler__t_warmup="0ep")
    main(load([str(yaml)])).close()
    words = ["max_duration=1ep", "train_dataset.batch_size=6", "load_path=runs/first/checkpoints/latest-rank0.pt"]
    trainer = main(load([str(yaml), "run_name=second", *words]))
    assert trainer.state.timestamp.batch == 2 + 4
    last = float(metrics(workdir / "runs/second")[-1]["lr"])
    assert last == pytest.approx(0.05 * cosine_with_warmup(7, total=8, warmup=0))
