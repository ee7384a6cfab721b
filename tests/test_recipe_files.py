"""The shipped recipes: published values to the digit, every argument spelled out, golden traces."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from common.command import run
from config import ConfigError, Run, durations_of, load
from config.dry_run import size_per_epoch
from config.load import as_shipped, read_recipe, recipe_files
from recipes import registry
from recipes.__main__ import best_figure, is_unverified
from recipes.__main__ import main as recipes_main
from recipes.declared import declarations
from recipes.published import REFERENCE, Published, read_published
from recipes.schedules import cosine_with_warmup, learning_rate, progressive_size, size_ladder
from tests.pages import ROOT, UPDATE

GOLDEN = Path(__file__).parent / "golden"
MOSAIC = ["baseline", "mild", "medium", "hot"]
BLURPOOL = {"replace_convs": True, "replace_maxpools": True, "blur_first": True, "min_channels": 16}
EMA = {"half_life": "100ba", "smoothing": None, "ema_start": "0.0dur", "update_interval": "20ba", "decay": None}
RESIZE: dict[str, Any] = {
    "mode": "resize",
    "size_increment": 4,
    "resize_targets": False,
    "max_sizes": 8,
    "finetune_fraction": 0.2,
}
RAMP = ("initial_scale", "delay_fraction", "finetune_fraction", "size_increment", "max_sizes")
# As published; weight decay and severity of hot are the 2022 values.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "mild": {
        "blurpool": BLURPOOL,
        "ema": EMA,
        "progressive_resizing": {**RESIZE, "initial_scale": 0.5, "delay_fraction": 0.4},
        "label_smoothing": {"smoothing": 0.08},
        "channels_last": {},
    },
    "medium": {
        "blurpool": BLURPOOL,
        "ema": EMA,
        "progressive_resizing": {**RESIZE, "initial_scale": 0.5, "delay_fraction": 0.4},
        "mixup": {"alpha": 0.2, "interpolate_loss": False},
        "label_smoothing": {"smoothing": 0.1},
        "sam": {"rho": 0.5, "epsilon": 1e-12, "interval": 10},
        "channels_last": {},
    },
    "hot": {
        "blurpool": BLURPOOL,
        "ema": EMA,
        "colout": {"p_row": 0.05, "p_col": 0.05, "batch": True, "finetune_fraction": 0.2},
        "progressive_resizing": {**RESIZE, "initial_scale": 0.6, "delay_fraction": 0.2},
        "mixup": {"alpha": 0.25, "interpolate_loss": False},
        "label_smoothing": {"smoothing": 0.13},
        "sam": {"rho": 0.5, "epsilon": 1e-12, "interval": 5},
        "randaugment": {"severity": 10, "depth": 1, "augmentation_set": "all"},
        "stochastic_depth": {
            "target_layer_name": "ResNetBottleneck",
            "stochastic_method": "sample",
            "drop_rate": 0.1,
            "drop_distribution": "linear",
            "drop_warmup": 0.0,
        },
        "channels_last": {},
    },
}
PLAIN = {
    "baseline": ("90ep", "cross_entropy", 224, 256, 5e-4),
    "mild": ("36ep", "binary_cross_entropy", 176, 232, 5e-4),
    "medium": ("135ep", "binary_cross_entropy", 176, 232, 5e-4),
    "hot": ("270ep", "binary_cross_entropy", 176, 232, 3e-4),
}


def run_of(recipe: str, *words: str) -> Run:
    """Load the ImageNet run with a recipe."""
    return load([str(ROOT / "yamls" / "resnet50.yaml"), f"recipe_name={recipe}", "dry_run=true", *words])


@pytest.mark.parametrize("recipe", MOSAIC)
def test_merged_values_are_the_published_ones(recipe: str) -> None:
    """Checks the merged run, not the recipe's file: published blocks were once not applied at all."""
    config = run_of(recipe).config
    got = (config.max_duration, config.model.loss_name, config.train_dataset.crop_size, config.eval_dataset.resize_size)
    assert (*got, config.optimizer["weight_decay"]) == PLAIN[recipe]
    assert [config.optimizer[key] for key in ("name", "lr", "momentum")] == ["decoupled_sgdw", 2.048, 0.875]
    assert (config.scheduler.t_warmup, config.scheduler.alpha_f, config.train_dataset.batch_size) == ("8ep", 0.0, 2048)
    assert (config.eval_dataset.crop_size, config.train_dataset.resize_size, config.seed) == (224, -1, 17)
    algorithms = config.algorithms
    assert algorithms == ALGORITHMS[recipe]
    assert list(algorithms) == list(ALGORITHMS[recipe])  # in this order


STARTS = {
    "mosaic": MOSAIC,
    "torchvision": [
        *("adam", "sgd", "schedulefree_sgd", "schedulefree_adamw", "onecycle", "decentralized", "torchvision_v1"),
        *("mlperf_lars_1632", "mlperf_lars_3264", "mlperf_lars_8192"),
    ],
    "goyal": ["goyal"],
    "nvidia": ["nvidia_50", "nvidia_90", "nvidia_250"],
}


@pytest.mark.parametrize(("init", "recipe"), [(init, recipe) for init, recipes in STARTS.items() for recipe in recipes])
def test_each_recipe_starts_as_its_source_does(init: str, recipe: str) -> None:
    assert run_of(recipe).config.model.init == init


def test_baseline_is_the_same_as_no_recipe() -> None:
    with_card, without = run_of("baseline"), run_of("null")
    with_card.config.recipe_name = None
    assert with_card.config == without.config
    assert with_card.card
    assert not without.card


@pytest.mark.parametrize("recipe", recipe_files())
def test_every_argument_of_every_algorithm_is_spelled_out(recipe: str) -> None:
    """But those that are null, and those of the ramp that listed sizes replace."""
    for name, args in as_shipped(recipe)["algorithms"].items():
        known = registry.signature("algorithm", name)
        unused = {argument for argument, parameter in known.items() if parameter.default is None}
        unused |= {*RAMP} if args.get("sizes") else set()
        assert set(args) | unused == set(known), name
        assert registry.canonical("algorithm", name) == name


@pytest.mark.parametrize("recipe", recipe_files())
def test_cards_name_the_source_of_each_figure(recipe: str) -> None:
    card = read_recipe(recipe).card
    assert len(card["summary"]) < 100
    assert bool(card["published"]) != card["summary"].startswith("Ours, unpublished: ")
    for row in card["published"]:
        assert set(row) <= {"top1", "epochs", "minutes", "hardware", "source", "note"}
        assert row["source"]
        assert row["note"] or row["hardware"]


def test_unverified_figures_are_marked() -> None:
    for recipe in ("medium", "hot"):
        rows = [row for row in read_recipe(recipe).card["published"] if "third-party" in row["source"]]
        assert rows
        assert all("UNVERIFIED" in row["note"] for row in rows)


def trace(recipe: str) -> str:
    """Return learning rate multiplier and image size at the start of each epoch, as text."""
    config = run_of(recipe).config
    length, warmup = durations_of(config)
    f = learning_rate(config.scheduler, config.optimizer["lr"], length.value, warmup.value)
    sizes = size_per_epoch(config, length)
    rows = [f"{epoch} {f(epoch):.6f} {size}" for epoch, size in enumerate(sizes)]
    return "\n".join(["epoch lr_multiplier image_size", *rows, ""])


@pytest.mark.parametrize("recipe", recipe_files())
def test_golden_trace(recipe: str) -> None:
    file = GOLDEN / f"{recipe}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(trace(recipe))
    assert file.is_file() and trace(recipe) == file.read_text(), f"type {UPDATE}; read the diff"


def agrees(figure: dict[str, Any], row: Published) -> bool:
    """Whether a card's figure is that of a row of the table, to the card's precision."""
    for key in ("top1", "epochs", "minutes"):
        said, number = figure.get(key), row.number(key)
        if isinstance(said, int | float):
            digits = len(str(said).partition(".")[2])
            if number is None or round(number, digits) != pytest.approx(said):
                return False
        elif str(said or "") != getattr(row, key):
            return False
    return figure.get("hardware", "") == row.hardware and figure["source"].split(" (")[0] in row.source


@pytest.mark.parametrize("recipe", recipe_files())
def test_figures_are_in_the_table_of_published_ones(recipe: str) -> None:
    """A figure's row may say more than its card; UPDATE_GOLDEN=1 adds rows that say the same."""
    for figure in read_recipe(recipe).card["published"]:
        if figure["top1"] == "-" or any(agrees(figure, row) for row in read_published()):
            continue
        assert os.environ.get("UPDATE_GOLDEN"), f"{figure}: correct its row in {REFERENCE.name}, or add it: {UPDATE}"
        used = {declarations("algorithm", name).PROTOCOL for name in run_of(recipe).config.algorithms} - {""}
        checked = "UNVERIFIED" if is_unverified(figure) else "by its card"
        row = dict.fromkeys((field.name for field in fields(Published)), "") | figure
        row |= {"recipe": recipe, "model": run_of(recipe).config.model.name}
        row |= {"protocol": ", ".join(sorted(used)), "verified": checked}
        with REFERENCE.open("a", newline="") as file:
            csv.DictWriter(file, row, lineterminator="\n").writerow(row)


def test_learning_rate_starts_at_zero_peaks_after_the_warmup_and_ends_at_alpha() -> None:
    cosine = cosine_with_warmup
    assert [cosine(step, 90, 8) for step in (0, 4, 8, 49, 90)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert cosine(90, 90, 8, 0.1) == pytest.approx(0.1)
    assert cosine(30, 90, 8) == pytest.approx(0.5 * (1 + math.cos(math.pi * 22 / 82)))


@pytest.mark.parametrize(("recipe", "smallest"), [("mild", 88), ("medium", 88), ("hot", 104)])
def test_sizes_are_few_exact_and_end_at_the_crop(recipe: str, smallest: int) -> None:
    config = run_of(recipe).config
    sizes = size_per_epoch(config, durations_of(config)[0])
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (smallest, 176)
    assert len(set(sizes)) <= 8
    assert all(size % 4 == 0 for size in sizes)
    at_full = sizes.count(176) / len(sizes)
    assert 0.2 <= at_full <= 0.3


def sizes_per_epoch(*words: str) -> list[int]:
    config = load(["yamls/resnet50.yaml", "train_dataset.crop_size=192", "dry_run=true", *words]).config
    return size_per_epoch(config, durations_of(config)[0])


@pytest.mark.parametrize("epochs", [16, 24, 32, 40, 56, 88])
def test_listed_sizes_switch_at_an_exact_epoch(epochs: int) -> None:
    """Both ways to write FFCV's sizes; 71/88 is less than 1 - 17/88 in floating point."""
    first = {16: 12, 24: 19, 32: 25, 40: 32, 56: 45, 88: 71}[epochs]
    expected, name = [160] * first + [192] * (epochs - first), "algorithms.progressive_resizing"
    run = f"max_duration={epochs}ep"
    assert sizes_per_epoch(run, f"{name}.sizes=[160,192]", f"{name}.switches=[{first}ep]") == expected
    fractions = [f"{name}.delay_fraction={first / epochs}", f"{name}.finetune_fraction={1 - first / epochs}"]
    shape = [f"{name}.initial_scale={160 / 192}", f"{name}.size_increment=32", f"{name}.max_sizes=2"]
    assert sizes_per_epoch(run, *shape, *fractions) == expected
    assert progressive_size(71 / 88, 192, 160 / 192, 71 / 88, 17 / 88, 32, 2) == 192
    half = sizes_per_epoch(run, f"{name}.sizes=[160,192]", f"{name}.switches=[{first}ep]", "scale_schedule_ratio=0.5")
    assert half == [160] * math.ceil(first / 2) + [192] * (epochs // 2 - math.ceil(first / 2))


def test_listed_sizes_of_a_run_without_epochs_are_not_known() -> None:
    with pytest.raises(ValueError, match="depends on the number of images"):
        progressive_size(0.5, 192, 0.5, 0.4, 0.2, sizes=[160, 192], switches=["12ep"])
    assert [
        progressive_size(x, 192, 1, 0, 0, sizes=[64, 96, 192], switches=["0.2dur", "0.5dur"]) for x in (0, 0.2, 0.5)
    ] == [64, 96, 192]


@pytest.mark.parametrize(
    "given, complaint",
    [
        ("sizes=[160,192]", "sizes: [160, 192] given, but switches must be a list with one time between"),
        (
            "sizes=[160,256] S.switches=[12ep]",
            "sizes: [160, 256] given, but no size may exceed train_dataset.crop_size",
        ),
        ("sizes=[160,192] S.switches=[12ba]", "switches: ['12ba'] given, but it must be more than 0, in ep or dur"),
    ],
)
def test_wrong_sizes_are_refused(given: str, complaint: str) -> None:
    words = f"S.{given}".replace("S.", "algorithms.progressive_resizing.").split()
    with pytest.raises(ConfigError) as refused:
        sizes_per_epoch(*words)
    assert f"algorithms.progressive_resizing.{complaint}" in str(refused.value)


def test_progressive_size_at_phase_boundaries() -> None:
    assert progressive_size(0, 176, 0.5, 0.4, 0.2) == 88
    assert progressive_size(0.39, 176, 0.5, 0.4, 0.2) == 88
    assert progressive_size(0.8, 176, 0.5, 0.4, 0.2) == 176
    assert [progressive_size(x, 176, 0.5, 0.4, 0.6) for x in (0.39, 0.4)] == [88, 176]  # no ramp
    assert size_ladder(223, 0.5)[-1] == 223


def shown(*words: str, **variables: str) -> str:
    """Return what `python -m recipes` prints to a pipe."""
    env = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | variables
    done = subprocess.run([sys.executable, "-m", "recipes", *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"COLUMNS": "80"}])
def test_each_recipe_has_one_row_that_fits(variables: dict[str, str]) -> None:
    header, *lines = shown(**variables).splitlines()
    rows = {line.split()[0]: line.split(maxsplit=6)[1:] for line in lines[: lines.index("")]}
    assert max(len(line.rstrip()) for line in [header, *lines[: len(rows)]]) <= 80
    assert rows.keys() == recipe_files().keys()
    assert [int(cells[0]) for cells in rows.values()] == sorted(int(cells[0]) for cells in rows.values())
    assert [cell.strip() for cell in rows["mild"]] == ["36", "176", "76.6", "32", "27", "8x A100 (p4d)"]
    assert rows["hot"][2] == "80?", "unverified figures have a question mark"


def test_the_best_figure_of_a_card(tmp_path: Path) -> None:
    """The highest number, never a range; a card without figures, or with one that has no top-1, has none."""
    file = tmp_path / "mine.yaml"
    for card, best in (
        ("{published: [{top1: 75-78}, {top1: 76.1}, {top1: 76.2}]}", 76.2),
        ("{published: [{epochs: 3}, {top1: 75-78}]}", None),
        ("{summary: mine}", None),
    ):
        file.write_text(f"card: {card}\n")
        assert best_figure(str(file)).get("top1") == best


@pytest.mark.slow
def test_a_recipe_shows_its_figures_changes_and_algorithms() -> None:
    lines = [" ".join(line.split()) for line in shown("mild", COLUMNS="80").splitlines()]
    assert max(map(len, lines)) <= 80
    assert any("MLPerf v2.0 Open" in line for line in lines)
    changed = lines[lines.index("Changes from baseline") + 2 : lines.index("Algorithms") - 1]
    assert changed == [
        "max_duration 90ep 36ep",
        "model.loss_name cross_entropy binary_cross_entropy",
        "train_dataset.crop_size 224 176",
        "eval_dataset.resize_size 256 232",
    ]
    assert "label_smoothing smoothing=0.08" in lines
    assert "Changes nothing from baseline" in shown("baseline")


def test_a_mistyped_recipe_gets_the_closest_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipes_main, ["midl"]) == 2
    assert "unknown recipe 'midl'; did you mean mild?" in capsys.readouterr().err
