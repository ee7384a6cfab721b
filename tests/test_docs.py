"""What the README and docs/ say is so: links lead somewhere, keys and messages exist, tables have what they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config import ConfigError, load
from config.load import read_recipe, recipe_files
from recipes import registry
from tests.pages import FENCE, PAGES, README, ROOT, cells

ELSEWHERE = ("CUDA out of memory", "Watchdog caught collective operation timeout", "Connection closed by peer")
"""Messages in the README that are torch's."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every link to a file leads to one, every link to a heading of the page to that, and other pages by https."""
    text = page.read_text()
    titles = re.findall("^#+ (.*)", text, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys(page: Path) -> None:
    """Every `key=value` and `section.key` in the text is a key of a run, or an argument of an algorithm."""
    known = {arg for name in registry.names("algorithm") for arg in registry.signature("algorithm", name)}
    prose = FENCE.sub("", page.read_text())
    for code in re.findall(r"`([a-z_][a-z_.]*(?:=\S+)?)`", prose):
        if "=" in code or re.match(r"(model|train_dataset|eval_dataset|optimizer|scheduler|algorithms)\.[a-z]", code):
            try:
                load([str(ROOT / "yamls/digits.yaml"), code if "=" in code else f"{code}=1", "dry_run=true"])
            except ConfigError as error:
                unknown = "no such" in str(error) and code.split("=")[0] not in known
                assert not unknown, f"{page.name}: {code}: {error}"


def test_recipes() -> None:
    """The table has every recipe and every figure of its card, and says that none of them is ours."""
    name, table = "", {}
    for row in cells("Recipes"):
        name = row[0].strip("`") or name
        table.setdefault(name, []).append(row)
    assert sorted(table) == sorted(recipe_files())
    for name, rows in table.items():
        published = read_recipe(name).card["published"]
        assert [row[2] for row in rows] == [f"{figure['top1']} %" for figure in published]
        assert [row[3] for row in rows] == [str(figure.get("epochs", "not stated")) for figure in published]
    assert "Published, not ours" in README.read_text()


def test_figures() -> None:
    """Every measured figure names its command, which is checked, its machine and its date."""
    for what, figure, command, machine, date in cells("Speed"):
        waiting = [cell for cell in (figure, machine, date) if "FIGURES" in cell]
        assert not waiting, f"README, Speed: {what!r} has not been measured yet"
        assert re.search(r"\d", figure) and machine, what
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), what
        assert re.fullmatch(r"`[^`]+`", command), what


def test_troubleshooting() -> None:
    """Every message that the README explains is one that this code says, or torch."""
    folders = ("common", "config", "loaders", "recipes", "training")
    source = " ".join(file.read_text() for folder in folders for file in sorted((ROOT / folder).rglob("*.py")))
    said = re.sub(r'"\s*f?"', "", source)  # a sentence may be broken over lines
    messages = [row[0].strip("`") for row in cells("When it goes wrong") if row[0].startswith("`")]
    assert len(messages) >= 8
    for message in [part for row in messages for part in row.split("` or `")]:
        beginning = message.removesuffix("nan").rstrip()
        assert message in ELSEWHERE or beginning in said, f"nobody says {message!r}"


def test_length() -> None:
    """Five minutes of reading, and nothing of the machine that it was written on."""
    text = README.read_text()
    assert len(text.splitlines()) < 250
    assert not re.search(r"/(work|home|root)/", text)
