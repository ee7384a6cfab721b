"""The README and docs/ match the code: links, keys, messages and tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config import ConfigError, load
from config.load import read_recipe, recipe_files
from loaders.images.decoders import DECODERS
from loaders.storage.kinds import KINDS
from recipes import registry
from tests.pages import DOCS, FENCE, PAGES, README, ROOT, cells

ELSEWHERE = ("CUDA out of memory", "Watchdog caught collective operation timeout", "Connection closed by peer")
"""Messages of torch in docs/troubleshooting.md."""


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall("^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every link leads to an existing file and heading; links to other sites use https."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("https://"):
            path, _, heading = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists() and (not heading or heading in headings(file)), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys(page: Path) -> None:
    """Every `key=value` and `section.key` in the text is a key of a run or an argument of an algorithm."""
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
    """The README lists each recipe with one published figure, docs/recipes.md with all of them."""
    for row in cells("Recipes"):
        figures = [f"{figure['top1']} %" for figure in read_recipe(row[0].strip("`")).card["published"]]
        assert row[3] in figures or (row[3], figures) == ("none", ["- %"])
    assert "Published, not ours" in README.read_text()
    name, table = "", {}
    for row in cells("Published", DOCS / "recipes.md"):
        name = row[0].strip("`") or name
        table.setdefault(name, []).append(row)
    assert sorted(table) == sorted(recipe_files()) == sorted(row[0].strip("`") for row in cells("Recipes"))
    for name, rows in table.items():
        published = read_recipe(name).card["published"]
        assert [row[2] for row in rows] == [f"{figure['top1']} %" for figure in published]
        assert [row[3] for row in rows] == [str(figure.get("epochs", "not stated")) for figure in published]


def test_kinds_of_storage() -> None:
    """The docs list the table's kinds in order, and which of them can transform single images."""
    kinds, page = [[f"`{name}`", row.reads, row.choose_when] for name, row in KINDS.items()], ROOT / "docs/data.md"
    rows = cells("Kinds of storage", page)
    assert rows[: len(kinds)] == kinds, "\n".join("| " + " | ".join(row) + " |" for row in kinds)
    able = [name for name, row in KINDS.items() if row.image_transforms and row.reads_path]
    unable = [name for name, row in KINDS.items() if not row.image_transforms]
    assert rows[len(kinds)][1:3] == [", ".join([*able, "a class of your own"]), ", ".join(unable)]


def test_decoders() -> None:
    decoders = [[f"`{name}`", row.summary, row.pixels] for name, row in DECODERS.items()]
    rows = cells("Decoders", ROOT / "docs/data.md")
    assert rows[:-1] == decoders, "\n".join("| " + " | ".join(row) + " |" for row in decoders)
    assert rows[-1][0] == "`auto`"


def test_figures() -> None:
    """Every measured figure names its command, machine and date."""
    for what, figure, command, machine, date in cells("Measured", DOCS / "speed.md"):
        waiting = [cell for cell in (figure, machine, date) if "FIGURES" in cell]
        assert not waiting, f"docs/speed.md: {what!r} has not been measured yet"
        assert re.search(r"\d", figure) and machine, what
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), what
        assert re.fullmatch(r"`[^`]+`", command), what


def test_troubleshooting() -> None:
    """Every message on the page occurs in our source or is torch's."""
    folders = ("common", "config", "loaders", "recipes", "training")
    source = " ".join(file.read_text() for folder in folders for file in sorted((ROOT / folder).rglob("*.py")))
    said = re.sub(r'"\s*f?"', "", source)  # join string literals that span lines
    rows = cells("Troubleshooting", DOCS / "troubleshooting.md")
    messages = [row[0].strip("`") for row in rows if row[0].startswith("`")]
    assert len(messages) >= 8
    for message in [part for row in messages for part in row.split("` or `")]:
        beginning = message.removesuffix("nan").rstrip()
        assert message in ELSEWHERE or beginning in said, f"no code prints {message!r}"


def test_index() -> None:
    named = re.findall(r"^\| \[([\w.]+)\]", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "index.md")


def test_length() -> None:
    """At most 130 lines, and no paths of the author's machine."""
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    assert not re.search(r"/(work|home|root)/", text)
