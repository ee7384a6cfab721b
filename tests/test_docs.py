"""The README and docs/ match the code: links, keys, messages and tables."""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import frontier
from config import ConfigError, load
from config.load import read_recipe, recipe_files
from loaders.archives.forms import FORMS
from loaders.images.decoders import DECODERS, chosen
from loaders.storage.kinds import KINDS
from recipes import registry
from recipes.__main__ import best_figure, is_unverified, shortest_first
from recipes.declared import is_per_image
from recipes.frontier import points
from recipes.published import read_published
from tests.pages import DOCS, FENCE, PAGES, README, ROOT, UPDATE, cells, check_table
from tools.records import measured

ELSEWHERE = (
    "CUDA out of memory",
    "no kernel image is available for execution",
    "Watchdog caught collective operation timeout",
    "Connection closed by peer",
)
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


def figures(row: dict[str, Any]) -> tuple[str, str]:
    """Return a published top-1 and its time and hardware."""
    top1 = "none" if row.get("top1", "-") == "-" else f"{row['top1']} %"
    minutes = row.get("minutes")
    time = "" if minutes is None else f"{minutes} min" if minutes < 300 else f"{minutes / 60:.1f} h"
    hardware = ", ".join(filter(None, [time, row.get("hardware", "")]))
    return f"{top1} (unverified)" if is_unverified(row) else top1, hardware


def test_recipes() -> None:
    """The README lists each recipe not based on another with its best published figure, docs/recipes.md all figures."""
    assert "Published, not ours" in README.read_text()
    short = [["recipe", "in one line", "epochs", "published top-1", "time and hardware"]]
    full = [["recipe", "published top-1", "epochs", "time and hardware", "source", "remarks"]]
    first = Counter(read_recipe(name).lineage[0].name for name in recipe_files())
    for name, tree in shortest_first().items():
        card, length = read_recipe(name).card, tree["max_duration"].removesuffix("ep")
        if name in first:
            others = f" and {first[name] - 1} based on it" if first[name] > 1 else ""
            short.append([f"`{name}`{others}", card["summary"], length, *figures(best_figure(name))])
        for number, row in enumerate(card["published"]):
            top1, hardware = figures(row)
            source = re.sub(r"arXiv (\d+\.\d+)", r"[arXiv \1](https://arxiv.org/abs/\1)", row["source"])
            note = row.get("note", "").replace("UNVERIFIED; ", "")
            title = "" if number else f"`{name}`"
            full.append([title, top1, str(row.get("epochs", "not stated")), hardware, source, note])
    check_table(README, "Recipes", short)
    check_table(DOCS / "recipes.md", "Published", full)


def test_the_frontier_is_of_todays_figures() -> None:
    """The image's description holds the figures that it shows."""
    if os.environ.get("UPDATE_GOLDEN"):
        frontier.main([])
    description = frontier.description(points(read_published()))
    assert description in html.unescape(frontier.TARGET.read_text()), f"type {UPDATE}; look at the image"


def test_kinds_of_storage() -> None:
    """The docs list the table's kinds in order, and which recipes work with them."""
    page = DOCS / "data.md"
    kinds = [[f"`{name}`", row.reads, row.choose_when] for name, row in KINDS.items()]
    check_table(page, "Kinds of storage", [["kind", "reads", "choose it when"], *kinds])
    able = [name for name, row in KINDS.items() if row.image_transforms and row.reads_path]
    unable = [name for name, row in KINDS.items() if not row.image_transforms]
    unread = [name for name, row in KINDS.items() if not row.reads_path]
    rows = [["recipe", ", ".join([*able, "a class of your own"]), ", ".join(unable), ", ".join(unread)]]
    by_image: dict[str, list[str]] = {}
    for recipe, tree in shortest_first().items():
        names = [name for name, given in tree["algorithms"].items() if is_per_image(name, given)]
        classes = [registry.table("algorithm")[registry.fold(name)].class_name for name in names]
        by_image.setdefault(" and ".join(classes), []).append(f"`{recipe}`")
    for classes, recipes in by_image.items():
        why = f"no: {classes} work{'' if ' and ' in classes else 's'} on single images in the loader"
        rows.append([", ".join(recipes), "yes", *([why, "yes, not augmented"] if classes else ["yes", "yes"])])
    check_table(page, "Kinds of storage", rows, number=1)


def test_forms() -> None:
    """The docs list the forms of data sets in the order in which they are tried."""
    rows = [[f"`{name}`", form.reads] for name, form in FORMS.items()]
    check_table(DOCS / "archives.md", "Data sets in other forms", [["`--kind`", "reads"], *rows])


def test_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The docs list the decoders in order, and what `auto` selects."""
    rows = [[f"`{name}`", row.summary, row.pixels] for name, row in DECODERS.items()]
    selected = []
    for is_built in (True, False):
        monkeypatch.setattr("loaders.images.native.available", lambda is_built=is_built: is_built)
        selected.append(f"`{chosen('auto')}`")
    auto = ["`auto`", f"{selected[0]} if it is built, else {selected[1]}", ""]
    check_table(DOCS / "data.md", "Decoders", [["decoder", "what it does", "pixels"], *rows, auto])


def test_measured_speeds() -> None:
    """The docs list the schema of results/measured/, field by field."""
    table = [["field", "meaning", "must be"]]
    for prefix, fields in (
        ("", measured.FILE),
        ("hardware.", measured.HARDWARE),
        ("runs[].", measured.RUN),
        ("stages[].", measured.STAGE),
    ):
        table += [[f"`{prefix}{name}`", field.meaning, field.allowed] for name, field in fields.items()]
    check_table(DOCS / "evidence.md", "Speeds on GPUs", table)


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
    named = re.findall(r"^\| \[([\w.-]+)\]", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "index.md")


def test_length() -> None:
    """At most 120 lines besides the rows of the recipes, and no paths of the author's machine."""
    text = README.read_text()
    assert len(text.splitlines()) - len(cells("Recipes")) <= 120
    assert not re.search(r"/(work|home|root)/", text)
