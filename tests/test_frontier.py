"""The frontier: what counts, what dominates what, its three forms and its plot."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from benchmarks import frontier as plot
from common.command import run
from config.load import recipe_files
from recipes import __main__ as program
from recipes import frontier
from recipes.frontier import FLIPPED, SINGLE, points
from recipes.published import read_published
from tests.figures import SMALL

TABLE = """\
recipe_name  ep  min  top-1  protocol     figures     on the front
lars *        -   29  75.90  single crop  target      not counted
mild         30   30  76.00  single crop  published   yes
flip_40 *    40   40  77.00  flip TTA     published   yes
mild         40   40  76.80  single crop  published   yes
medium        -   60  78.40  single crop  unverified  not counted
flip_80 *    80   80  78.40  flip TTA     published   yes
flip_90 *    90   90  78.40  flip TTA     published   no: flip_80
sgd          90   95  77.40  single crop  inferred    yes
baseline     90  100  76.90  single crop  published   no: sgd
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small table of published figures, which the program reads in place of the shipped one."""
    file = tmp_path / "small.csv"
    file.write_text(SMALL)
    monkeypatch.setattr(program, "read_published", lambda: read_published(file))
    return file


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what `python -m recipes` prints."""
    assert run(program.main, words) == 0
    return capsys.readouterr().out


def test_the_table(small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand. Another model, a range and a time on other hardware are no points."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.rstrip() for line in printed(capsys, "--frontier").splitlines()]
    assert lines[: lines.index("")] == TABLE.splitlines()
    assert max(map(len, lines)) <= 80


def test_the_forms_for_programs(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "--frontier", "--format", "json"))
    assert [row["recipe"] for row in rows] == [line.split()[0] for line in TABLE.splitlines()[1:]]
    assert rows[1] == {
        "recipe": "mild",
        "variant": "short",
        "epochs": 30,
        "minutes_8xA100": 30,
        "top1": 76.0,
        "top5": 93.1,
        "protocol": SINGLE,
        "figures": "published",
        "on_front": True,
        "dominated_by": None,
        "is_recipe_here": True,
        "source": "a page",
    }
    again = list(csv.DictReader(io.StringIO(printed(capsys, "--frontier", "--format", "csv"))))
    assert [list(row) for row in again] == [list(row) for row in rows]
    assert [row["dominated_by"] for row in again] == [row["dominated_by"] or "" for row in rows]


def test_what_is_not_counted_dominates_nothing(small: Path) -> None:
    """The unverified 78.4 % in 60 minutes leaves sgd on the front; protocols do not dominate each other."""
    found = points(read_published(small))
    assert [point.recipe for point in frontier.front(found, SINGLE)] == ["mild", "mild", "sgd"]
    assert [point.recipe for point in frontier.front(found, FLIPPED)] == ["flip_40", "flip_80"]


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program.main, ["--format", "csv"]) == 2
    assert "--format: csv given without --frontier" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(program.main, ["mild", "--frontier"])
    assert "argument --frontier: not allowed with argument name" in capsys.readouterr().err


def test_the_shipped_frontier() -> None:
    """Nothing on a front is dominated, everything else is by something on it; recipes of the card's time are there."""
    found = points(read_published())
    fronts = [frontier.front(found, protocol) for protocol in (SINGLE, FLIPPED)]
    for best in fronts:
        assert [point.top1 for point in best] == sorted({point.top1 for point in best}), "faster and less accurate"
    for point in found:
        by = frontier.dominator(point, found)
        assert by in (fronts[point.protocol == FLIPPED] if by else (None,))
    assert {"mild", "baseline", "sgd"} <= {point.recipe for point in found} & recipe_files().keys()


def test_the_plot(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point has a readable label, and the image describes itself."""
    monkeypatch.setattr(plot, "read_published", lambda: read_published(small))
    assert plot.main(["-o", str(tmp_path / "drawn.svg")]) == 0
    drawn = (tmp_path / "drawn.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert set(plot.labels(points(read_published(small)))) <= set(texts)
    assert {"lars?", "medium?", "mild, 30 ep"} <= set(texts)
    assert "medium 60 min 78.4 % single crop" in drawn
