"""The results of an evaluation: its files, written all or none, and what is printed."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from common.cells import as_cell
from common.output import visible
from config.schema import MOST_WITHOUT_TOP5
from loaders.dataset import ImageDataset
from loaders.images.sheet import SOFT, Section, Tile, draw_sheet
from tools.evaluate.figures import Accuracy, Findings, Pass, worst

# The summary comes last: it shows that the others are complete.
FILES = ("per_class.csv", "confusions.csv", "sizes.csv", "reliability.csv", "mistakes.png", "summary.json")
COLUMNS, SIDE = 6, 176  # mistakes in a row, and a mistake's pixels
MOST = 5  # printed rows of worst classes and of confusions
_RIGHT, _WRONG = "#1a7f37", "#cf222e"


def write_tables(folder: Path, found: Findings, passes: Iterable[Pass]) -> None:
    """Write the four tables: the findings at the run's own size, and the accuracies of the passes at all sizes.

    A cell without a figure is empty. Class names are written so that no spreadsheet or terminal runs them.
    """
    rows: list[list[Any]] = [
        [*map(_cell, (one.name, found.names[one.name])), one.images, _figure(one.top1), _figure(one.top5)]
        for one in found.classes
    ]
    _write(folder / "per_class.csv", ("class", "name", "images", "top1", "top5"), rows)
    rows = []
    for pair in found.confusions:
        both = pair.true, pair.predicted
        names = [_cell(name) for name in (*both, *(found.names[one] for one in both))]
        rows.append([*names, pair.count, _figure(pair.share, 6)])
    _write(folder / "confusions.csv", ("true", "predicted", "true_name", "predicted_name", "count", "share"), rows)
    rows = []
    for result in sorted(passes, key=lambda result: result.size):
        figures = [_figure(figure) for one in result.accuracies for figure in (one.top1, one.top5)]
        rows.append([result.size, *figures, *[""] * (4 - len(figures))])
    _write(folder / "sizes.csv", ("size", "top1", "top5", "flip_top1", "flip_top5"), rows)
    rows = [
        [_figure(b.low, 6), _figure(b.high, 6), b.images, _figure(b.confidence, 6), _figure(b.accuracy, 6)]
        for b in found.bins
    ]
    _write(folder / "reliability.csv", ("bin_low", "bin_high", "images", "confidence", "accuracy"), rows)


def write_summary(folder: Path, found: Findings, about: dict[str, Any]) -> None:
    """Write summary.json: the findings at the run's own size, and `about`: checkpoint, data and size."""
    plain, *flipped = map(_rounded, found.result.accuracies)
    summary = {
        **plain,
        "calibration_error": round(found.calibration_error, 4),
        "images": len(found.result.labels),
        **about,
        "flip": flipped[0] if flipped else None,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _rounded(figures: Accuracy) -> dict[str, float]:
    return {"top1": round(figures.top1, 4), "top5": round(figures.top5, 4), "loss": round(figures.loss, 6)}


def _cell(name: str) -> str:
    return as_cell(visible(name))


def _figure(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _write(file: Path, header: tuple[str, ...], rows: list[list[Any]]) -> None:
    # A folder's name may hold bytes that are not UTF-8.
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def draw_mistakes(
    images: ImageDataset, numbers: list[int], run: str, found: Findings, about: dict[str, Any]
) -> Image.Image | None:
    """Draw the mistakes with these indices on one sheet; None without any. `about` is as in summary.json."""
    if not numbers:
        return None
    labels, plain = found.result.labels, found.result.plain
    names = [found.shown(one.name) for one in found.classes]
    tiles = []
    for number in numbers:
        lines = [
            (f"is {names[labels[number]]}", _RIGHT),
            (f"taken for {names[plain.predicted[number]]}", _WRONG),
            (f"{100 * plain.confidence[number]:.1f} %  {Path(images.name_of(number)).name}", SOFT),
        ]
        tiles.append(Tile(images[number][0], lines))
    wrong = int((~found.result.right).sum())
    title = f"{run}: {len(tiles):,} of {wrong:,} mistakes in {len(labels):,} images, the most confident first"
    caption = f"{about['checkpoint']}, {about['data']}, at {about['size']} px"
    return draw_sheet([Section(title, caption, tiles)], COLUMNS, SIDE)


def show(
    console: Console, found: Findings, passes: dict[int, Pass], title: str, real: Mapping[str, Any] | None = None
) -> None:
    """Print the figures at its own size, those of each size, the worst classes and the most confused pairs.

    `real` is the result of `results.real_top1`.
    """
    accuracies = ["top1", "top5"] if len(found.classes) > MOST_WITHOUT_TOP5 else ["top1"]
    rows = []
    for name, form in [*((name, "{:.2f} %") for name in accuracies), ("loss", "{:.4f}")]:
        both = [form.format(getattr(figures, name)) for figures in found.result.accuracies]
        rows.append([name.replace("top", "top-"), *both])
    if real:
        rows.append(["top-1 by ImageNet-ReaL", f"{real['real_top1']:.2f} %", *[""] * (len(rows[0]) - 2)])
    rows.append(["calibration error", f"{found.calibration_error:.2f} points"])
    title = f"{title}: {len(found.result.labels):,} images at {found.result.size} px"
    console.print(_table(title, ["", "", "with flip"][: len(rows[0])], rows))
    if len(passes) > 1:
        rows = []
        for size, result in sorted(passes.items()):
            figures = [getattr(one, name) for one in result.accuracies for name in accuracies]
            rows.append([f"{size} px", *(f"{figure:.2f} %" for figure in figures)])
        titles = [name.replace("top", "top-") for name in accuracies]
        columns = ["size", *titles, *(f"{name} with flip" for name in titles)]
        console.print(_table("By size", columns[: len(rows[0])], rows))
    if not found.confusions:
        console.print("no mistakes")
        return
    rows = [[found.shown(one.name), f"{one.images:,}", f"{one.top1:.2f} %"] for one in worst(found.classes, MOST)]
    console.print(_table("Worst classes", ["class", "images", "top-1"], rows))
    rows = [
        [found.shown(one.true), found.shown(one.predicted), f"{one.count:,}", f"{100 * one.share:.1f} %"]
        for one in found.confusions[:MOST]
    ]
    console.print(_table("Most confused", ["true", "taken for", "count", "of the class"], rows))


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """Return a table of names in the first column and right-aligned figures in the others."""
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        # Class names are data, not markup.
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table
