"""Recipes for a budget: what may be typed, what fits, the forecast, and the commands to type next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from common.command import run
from common.errors import ConfigError
from config import durations_of, load
from config.load import as_shipped, recipe_files
from launch.machines import Price
from recipes import __main__ as program
from recipes import offer
from recipes.budget import EXAMPLES, Budget, gpus_of, parse
from recipes.choice import Answer, Scale, answer, between, choices, errors_of, scale_for
from recipes.frontier import SINGLE, points
from recipes.published import Published, read_published
from tests.figures import SMALL
from tests.pages import DOCS, cells
from tests.runs import ROOT

SHIPPED = ("baseline", "mild", "medium", "sgd", "flip_40", "flip_80")
TREES: dict[str, dict[str, Any]] = {
    "flip_40": {"max_duration": "40ep", "scheduler": {"t_warmup": "2ep"}},
    "flip_80": {"max_duration": "80ep", "scheduler": {"t_warmup": "2ep"}},
}
FREE = Price(None, "no price is known")
GOLDEN = """\
Budget: 8x H100, 1 h

recipe_name  ep            time     dollars     top-1 %  protocol
sgd          90  30 min (23-48)  27 (21-44)  77.4 ± 0.2  single crop

sgd: a table; source's own table; its minutes on 8x A100 are inferred, images / img/s, and so a lower bound.
Time: 8x H100 at 3.17 times the speed of 8x A100, by the makers' peaks. 2 published runs on other GPUs took 0.76 \
to 1.58 times what this arithmetic says: hence the range, all of which fits.
Dollars: p5.48xlarge, $55.04 an hour on demand (read 2026-02-09).
Top-1: ± 2 standard deviations over seeds, of the most variable source if its own ran once.
Not offered, because nobody has checked it: medium, 78.4 % in 19 min.
Nobody has trained these recipes with this code yet.

Train sgd, or measure its time first:
composer -n 8 main.py yamls/resnet50.yaml recipe_name=sgd device_train_microbatch_size=auto \
train_dataset.path=/data/imagenet eval_dataset.path=/data/imagenet
composer -n 8 -m tools.forecast yamls/resnet50.yaml recipe_name=sgd device_train_microbatch_size=auto \
train_dataset.path=/data/imagenet eval_dataset.path=/data/imagenet
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Published]:
    """The rows of a small table, which the program reads in place of the shipped one."""
    file = tmp_path / "small.csv"
    file.write_text(SMALL)
    rows = read_published(file)
    monkeypatch.setattr(program, "read_published", lambda: rows)
    return rows


def answered(rows: list[Published], text: str, price: Price = FREE) -> tuple[Answer, Scale]:
    """Return the answer to a budget, and the scale of its GPUs."""
    budget = parse(text)
    scale = scale_for(budget, rows)
    return answer(rows, SHIPPED, budget, scale, price), scale


def offered(rows: list[Published], text: str) -> list[tuple[str, float | None]]:
    """Return the recipes that a budget gets, and their epochs."""
    return [(choice.recipe, choice.epochs) for choice in answered(rows, text)[0].best]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("8x H100, 1 hour", Budget(8, "H100", minutes=60)),
        ("8x A100 for 60 min", Budget(8, "A100", minutes=60)),
        ("8xH100 in 1h30min", Budget(8, "H100", minutes=90)),
        ("1x RTX 4090, 1 day", Budget(1, "RTX 4090", minutes=1440)),
        ("rtx4090 for a day", Budget(1, "RTX 4090", minutes=1440)),
        ("4090, 2 days, at least 76.5 %", Budget(1, "RTX 4090", minutes=2880, top1=76.5)),
        ("16 NVIDIA H100 80GB GPUs, 30 minutes", Budget(16, "H100", minutes=30)),
        ("H100 PCIe, 1.5 hrs", Budget(1, "H100 PCIe", minutes=90)),
        ("$50", Budget(8, "A100", dollars=50)),
        ("$1,000.50 on 8 \u00d7 B200", Budget(8, "B200", dollars=1000.5)),
        ("50 dollars or 2 weeks", Budget(8, "A100", minutes=20160, dollars=50)),
        ("top-1 78", Budget(8, "A100", top1=78)),
        ("4x A100-SXM4-80GB, top1=78.5%", Budget(4, "A100", top1=78.5)),
    ],
)
def test_what_may_be_typed(text: str, means: Budget) -> None:
    assert parse(text) == means
    assert parse(str(means)) == means, "what is printed may be typed as well"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' has no limit; write GPUs and a time, dollars or a top-1, as in '8x H100, 1 hour', "),
        ("8x A100", "'8x A100' has no limit; write "),
        ("banana, 1 h", "'banana' is not understood; write "),
        ("8xH1000, 1 h", "'8xH1000' is not understood; write "),
        ("8x P100, 1 h", "'8x P100' is not understood; write "),
        ("8x A100, 2x A40, 1 h", "'8x A100, 2x A40, 1 h' has GPUs twice; write "),
        ("$5 or $6", "'$5 or $6' has dollars twice; write "),
        ("0x A100, 1 h", "its numbers must be more than 0"),
        ("8x A100, 0 min", "its numbers must be more than 0"),
        ("120 %", "a top-1 at most 100 %"),
        (f"{'9' * 50}x A100, 1 h", "is not understood"),
        ("9" * 5000, "5,000 characters given, and at most 400 are read; write "),
        (f"{'9' * 398} h", "its numbers must be more than 0"),
        ("-5 h", "'-' is not understood"),
    ],
)
def test_mistakes_get_one_sentence(text: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program.main, [f"--budget={text}"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("--budget: ") and sentence in said


def test_a_price_is_a_budgets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program.main, ["--price", "2"]) == 2
    assert "--price: 2 given without --budget" in capsys.readouterr().err


def test_a_mistyped_gpu_gets_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program.main, ["--budget", "8xH1000, 1 h"]) == 2
    said = capsys.readouterr().err
    assert "the GPUs are GB200, B200, " in said and "; did you mean H100?" in said


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_message(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program.main, ["--budget", text]) == 0
    assert "composer -n " in capsys.readouterr().out


def test_gpus_of_a_source() -> None:
    texts = ("8x A100 (p4d)", "4x V100-32GB", "1x A10G (g5.8xlarge)", "32 workers, 8 to a node", "TPU pod", "")
    assert [gpus_of(text) for text in texts] == [(8, "A100"), (4, "V100"), (1, "A10G"), None, None, None]


def test_the_printed_answer(
    small: list[Published], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(program.main, ["--budget", "8x H100, 1 hour"]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == GOLDEN.splitlines()


def test_the_errors_of_the_scale(small: list[Published]) -> None:
    """By hand: 95 minutes on 8x A100 are 95 * 8 * 312 / (4 * 149.7) = 396 on 4x A40, where the source took 300."""
    assert errors_of(small) == pytest.approx([300 / (95 * 8 * 312 / (4 * 149.7)), 14.5 / (29 * 312 / 989)])


def test_time_is_scaled_by_the_peaks(small: list[Published]) -> None:
    given, scale = answered(small, "8x H100, 1 hour")
    (sgd, flip) = given.best[::-1]
    assert (flip.recipe, sgd.recipe) == ("flip_80", "sgd")
    assert scale.minutes(sgd) == pytest.approx(95 * 312 / 989)
    assert scale.span(sgd) == pytest.approx([scale.minutes(sgd) * error for error in errors_of(small)])


def test_a_published_time_on_the_same_gpus_is_not_scaled(small: list[Published]) -> None:
    given, scale = answered(small, "4x A40, 5 hours")
    (sgd,) = [choice for choice in given.best if choice.recipe == "sgd"]
    assert scale.span(sgd) == (300, 300)
    given, scale = answered(small, "8x A100, 77 %")
    assert [(choice.recipe, scale.span(choice)) for choice in given.best if choice.recipe == "sgd"] == [
        ("sgd", (95, 95 * scale.highest))
    ], "inferred minutes are a lower bound"


def test_lengths_between_two_published_ones(small: list[Published]) -> None:
    """flip_40 in 40 minutes, flip_80 in 80: 60 epochs take 60, and reach 77 + 1.4 * log(1.5) / log(2) = 77.82 %."""
    (sixty,) = [choice for choice in choices(points(small)) if (choice.recipe, choice.epochs) == ("flip_80", 60)]
    assert (sixty.minutes, sixty.top1) == (pytest.approx(60), pytest.approx(77.819, abs=1e-3))
    assert offered(small, "8x A100, 60 min") == [("flip_80", 60), ("mild", 40)]
    assert offered(small, "8x A100, 77.8 %") == [("flip_80", 60)]
    budget = parse("8x A100, 60 min")
    assert (
        "recipe_name=flip_80 scale_schedule_ratio=0.75 scheduler.scale_warmup=false "
        in offer.commands(sixty, budget, TREES)[0]
    )
    said = offer.remarks(Answer([sixty], []), budget, scale_for(budget, small), FREE)
    assert "60 epochs lie between two published lengths, 77.00 % in 40 epochs and 78.40 % in 80 epochs" in said[0]


def test_lengths_far_apart_have_none_between(small: list[Published]) -> None:
    """Nor have those that differ in more than their length: baseline's 45 and 84 epochs are of two sources."""
    ends = {point.figure.epochs: point for point in points(small) if point.protocol == SINGLE}
    assert list(between(ends["30"], ends["90"])) == []
    shipped = [choice for choice in choices(points(read_published())) if choice.shorter]
    assert {choice.recipe for choice in shipped} <= {"mild", "ffcv_24", "ffcv_32", "ffcv_40", "ffcv_56", "ffcv_88"}


def test_mirrored_images_are_offered_only_where_they_promise_more(small: list[Published]) -> None:
    assert offered(small, "8x A100, 30 min") == [("mild", 30)]
    assert offered(small, "8x A100, 76.5 %") == [("mild", 36)], "36 minutes, and flip_40 takes 40"
    assert offered(small, "8x A100, 77 %") == [("flip_40", 40), ("sgd", 90)]


def test_of_two_that_seeds_may_reverse_the_faster_is_offered(small: list[Published]) -> None:
    """baseline's 76.9 in 100 minutes is mild's 76.8 in 40, as two standard deviations are 0.2; sgd's 77.4 is more."""
    assert offered(small, "8x A100, 110 min") == [("flip_80", 80), ("mild", 40)], "sgd may take 150 minutes"
    assert offered(small, "8x A100, 3 hours") == [("flip_80", 80), ("sgd", 90)]


def test_dollars(small: list[Published], capsys: pytest.CaptureFixture[str]) -> None:
    """30 minutes of p4d.24xlarge at $21.957642 are $10.98; the machine of a budget may have no price."""
    paid = Price(21.957642, "p4d.24xlarge")
    given, _ = answered(small, "8x A100, $10.98", paid)
    assert [(choice.recipe, choice.epochs) for choice in given.best if choice.recipe == "mild"] == [("mild", 30)]
    assert run(program.main, ["--budget", "1x RTX 4090, $50"]) == 2
    assert "no price is known for 1x RTX 4090; give --price" in capsys.readouterr().err
    assert run(program.main, ["--budget", "1x RTX 4090, $50", "--price", "0.5"]) == 0
    assert "Dollars: $0.5 an hour, as given." in capsys.readouterr().out
    assert run(program.main, ["--budget", "1x RTX 4090, 1 day", "--price", "-1"]) == 2
    assert "--price: -1 given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "8x A100, 10 min",
            "nothing fits 8x A100, 10 min; the cheapest that exists is mild, 30 epochs, 76.00 %, which takes 30 min",
        ),
        (
            "1x T4, 1 h, 77 %",
            "the cheapest that exists with that top-1 is flip_40, 40 epochs, 77.00 %, which takes 19.4 h to 40.6 h",
        ),
        ("90 %", "no recipe here has a published and checked top-1 of 90 %; the most accurate is flip_80, 78.40 %"),
    ],
)
def test_nothing_fits(text: str, sentence: str, small: list[Published]) -> None:
    with pytest.raises(ConfigError) as told:
        answered(small, text)
    assert sentence in str(told.value)


@pytest.mark.parametrize("budget", ["8x A100, 1 h", "8x H100, 1 h", "1x RTX 4090, 2 days", "76.3 %"])
def test_the_shipped_figures_give_runs_that_load(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each printed command is a run of a recipe here, as long as the table says."""
    assert run(program.main, ["--budget", budget]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in said[3 : said.index("", 3)]]
    assert rows and {row[0] for row in rows} <= recipe_files().keys()
    for name, epochs, *_ in rows:
        (command,) = [
            line
            for line in said
            if line.startswith("composer") and f"main.py yamls/resnet50.yaml recipe_name={name} " in line
        ]
        words = shlex.split(command.partition("main.py ")[2])
        config = load([str(ROOT / words[0]), *words[1:], "dry_run=true"]).config
        assert f"{durations_of(config)[0].value:.4g}" == epochs
    assert any(line.startswith("composer") and "-m tools.forecast" in line for line in said)


def test_every_shipped_choice_has_a_length_here() -> None:
    """A figure of a recipe here in another number of epochs is offered as a shortened or lengthened run of it."""
    shipped = [choice for choice in choices(points(read_published())) if choice.recipe in recipe_files()]
    assert {"mild", "sgd", "baseline"} <= {choice.recipe for choice in shipped}
    for choice in shipped:
        length = float(as_shipped(choice.recipe)["max_duration"].removesuffix("ep"))
        assert choice.epochs is None or 0.3 <= choice.epochs / length <= 1.1, choice.recipe


def test_several_machines(small: list[Published], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program.main, ["--budget", "32x H100, 20 min"]) == 0
    said = capsys.readouterr().out
    assert "composer -n 8 main.py" in said and "docs/clusters.md" in said


def test_the_errors_in_the_docs_are_those_of_the_shipped_figures() -> None:
    """docs/forecast.md lists them; a figure of another GPU that is added belongs there."""
    listed = sorted(float(row[-1]) for row in cells("Without a GPU", DOCS / "forecast.md"))
    assert listed == sorted(round(error, 2) for error in errors_of(read_published()))
