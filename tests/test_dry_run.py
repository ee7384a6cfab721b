"""dry_run=true prints the run, each value with its layer, and touches no data."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from common.trees import leaves
from config import ConfigError, durations_of, load
from config.dry_run import show, size_lines
from config.plot import curve

ROOT = Path(__file__).parent.parent
RESNET50 = str(ROOT / "yamls" / "resnet50.yaml")


def printed(*words: str, width: int = 120) -> str:
    """Return the output of a dry run."""
    out = io.StringIO()
    show(load([RESNET50, "dry_run=true", *words]), Console(file=out, width=width))
    return out.getvalue()


def line_with(text: str, start: str) -> str:
    """Return the first line that starts with a word."""
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_values_come_with_their_layer() -> None:
    text = printed("recipe_name=mild", "seed=99", "dry_run=full")
    assert line_with(text, "seed").split() == ["seed", "99", "command", "line"]
    assert line_with(text, "max_duration").split() == ["max_duration", "36ep", "recipes/mild.yaml"]
    assert line_with(text, "algorithms.ema.half_life").split()[1:] == ["100ba", "recipes/mild.yaml"]
    assert line_with(text, "model.name").split()[1] == "resnet50"


def keys(text: str) -> list[str]:
    """Return the keys of the configuration in a dry run's output."""
    lines = text[text.index("Configuration") : text.index("Learning rate")].splitlines()[1:]
    return [line.split()[0] for line in lines[: lines.index("")]]


def test_only_what_differs_is_shown_section_by_section() -> None:
    mild = printed("recipe_name=mild", "algorithms.ema=null", "algorithms.progressive_resizing=null", "seed=99")
    assert keys(mild) == [
        *("seed", "max_duration", "recipe_name"),
        *("model.loss_name", "train_dataset.crop_size", "eval_dataset.resize_size"),
        *(f"algorithms.blurpool.{key}" for key in ("replace_convs", "replace_maxpools", "blur_first", "min_channels")),
        *("algorithms.label_smoothing.smoothing", "algorithms.channels_last"),
    ]
    assert "none: this is the published baseline" in printed()


def test_full_shows_every_key() -> None:
    run = load([RESNET50, "dry_run=full"])
    assert keys(printed("dry_run=full")) == [key for key, _ in leaves(asdict(run.config))]


def test_an_unknown_dry_run_value_is_rejected() -> None:
    with pytest.raises(
        ConfigError, match=r"^dry_run: unknown value 'ful'; did you mean full\? \(choose true, false or"
    ):
        load([RESNET50, "dry_run=ful"])


def test_card_and_what_would_be_built_are_shown() -> None:
    text = printed("recipe_name=hot", "optimizer.lr=1.5")
    assert "UNVERIFIED" in text
    assert "decoupled_sgdw(lr=1.5, momentum=0.875, weight_decay=0.0003)" in text
    built = text[text.index("What would be built") :]
    order = [built.index(name) for name in ("blurpool(", "colout(", "mixup(", "label_smoothing(", "channels_last()")]
    assert order == sorted(order)
    assert "(not checked)" in built
    assert "runs/<run_name>/checkpoints" in built
    text = printed("runs_folder=/scratch", "run_name=first")
    assert "/scratch/first/checkpoints, every 1ep" in text[text.index("What would be built") :]


def test_sizes_per_epoch_are_those_of_the_scaled_run() -> None:
    config = load([RESNET50, "dry_run=true", "recipe_name=mild", "scale_schedule_ratio=0.5"]).config
    lines = size_lines(config, durations_of(config)[0])
    assert lines[0].split() == ["epochs", "0-7", "88", "px"]
    assert lines[-1].split()[0:2] == ["epochs", "14-17"]
    assert lines[-1].endswith("176 px")
    text = printed("recipe_name=mild", "scale_schedule_ratio=0.5")
    assert "4ep of 18ep, scaled by 0.5 from 36ep" in text
    assert "18 epochs" in text


def test_no_sizes_when_they_do_not_change() -> None:
    assert "Image size" not in printed()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_lines_fit(width: int) -> None:
    assert max(len(line) for line in printed("recipe_name=hot", width=width).splitlines()) <= width


def test_the_curve_spans_the_plot() -> None:
    title, *lines = curve(lambda step: step, 10, 10, "epochs", width=20, label="rate", ascii_only=False)
    assert (title.strip(), len(lines)) == ("rate", 10)
    marks = [line.split("┤")[0].strip() for line in lines if "┤" in line]
    assert marks == ["10", "5", "0"]
    top, bottom = lines[0].split("┤")[1], lines[7].split("┤")[1]
    assert top[0] == "\u2800" != top[-1]
    assert bottom[-1] == "\u2800" != bottom[0]
    assert lines[-1].split() == ["0", "5", "10", "epochs"]


def test_warmup_in_another_unit_than_the_run_has_no_curve() -> None:
    assert "no curve" in printed("max_duration=500ba")
    for length in ("max_duration=500ba", "max_duration=5000sp"):
        steps = ["scheduler.name=multistep_with_warmup", "scheduler.milestones=[[1ep,0.1]]"]
        for words in (["scheduler.every=epoch"], steps):
            text = " ".join(printed(length, "scheduler.t_warmup=0ba", *words).split())
            assert re.search(
                "no curve: what fraction of .* (an epoch|the milestone 1ep) is depends on the number of", text
            )


def test_a_curve_of_lines_may_rise_above_the_learning_rate() -> None:
    lines = "scheduler={name: piecewise_with_warmup, every: epoch, milestones: [[50ep, 2.0], [0.9dur, 0.0]]}"
    text = printed(lines, "optimizer.lr=1")
    assert line_with(text, "2 ┤") and line_with(text, "1 ┤")
    assert "piecewise with warmup, 8ep of 90ep, once per epoch" in text


@pytest.mark.slow
def test_through_the_command_line_without_torch() -> None:
    code = (
        "import sys, main; status = main.cli(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'composer' not in sys.modules; sys.exit(status)"
    )
    words = [sys.executable, "-c", code, RESNET50, "dry_run=true", "recipe_name=medium", "train_dataset.path=/no/such"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/no/such (not checked)" in done.stdout
    assert "nothing was built" in done.stdout
