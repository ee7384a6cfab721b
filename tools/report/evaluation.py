"""The results of tools.evaluate in a run's evaluation/, as far as they are there."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cells import from_cell
from config.schema import MOST_WITHOUT_TOP5
from loaders.class_names import all_shown, names_of
from tools.records.trust import is_number, mapping, read_own
from tools.report.words import number

FOLDER = "evaluation"
MOST = 10  # rows of a list: the worst classes, the most frequent confusions
FIGURES = (  # keys of a summary, their format, and their digits
    ("top1", "top-1 {} %", 2),
    ("top5", "top-5 {} %", 2),
    ("loss", "loss {}", 4),
    ("calibration_error", "calibration error {} points", 2),
    ("images", "{} images", 0),
)
TEXTS = (
    "class",
    "name",
    "true",
    "predicted",
    "true_name",
    "predicted_name",
)  # columns that hold names; all others hold numbers, or nothing
Rows = list[dict[str, str]]
Cells = list[list[str]]


@dataclass
class Evaluation:
    """The files of evaluation/, each empty if it is missing; accuracies are in percent."""

    summary: dict[str, Any]  # FIGURES; flip: the same with mirrored images
    per_class: Rows  # class with its name, images, top1, top5; the worst classes first
    confusions: Rows  # true, predicted, count, share; the most frequent first
    sizes: Rows  # size, top1, top5, flip_top1, flip_top5
    reliability: Rows  # bin_low, bin_high, images, confidence, accuracy: 0 to 1
    mistakes: Path | None  # a PNG
    remarks: list[str]  # on files that cannot be read
    image: str = ""  # address of `mistakes` in a page; empty if it is left out

    @property
    def headline(self) -> str:
        """The summary in a line."""
        flipped = self.summary.get("flip")
        mirrored = self._figures(flipped) if isinstance(flipped, dict) else ""
        return (self._figures(self.summary) or "no summary") + (f"; mirrored too: {mirrored}" if mirrored else "")

    def _figures(self, summary: dict[str, Any]) -> str:
        known = self.columns(*summary)
        shown = [figure for figure in FIGURES if figure[0] in known and summary[figure[0]] is not None]
        return ", ".join(form.format(number(summary[key], digits)) for key, form, digits in shown)

    def columns(self, *names: str) -> list[str]:
        """Return the columns, without those of top-5 if there are too few classes for it."""
        few = 0 < len(self.per_class) <= MOST_WITHOUT_TOP5
        return [name for name in names if not (few and "top5" in name)]

    @property
    def tables(self) -> list[tuple[str, list[str], Cells, int]]:
        """Title, head, rows and number of name columns of the tables that have rows."""
        confusions = [
            row | {"share": f"{100 * float(share):.1f} %"} if (share := row.get("share")) else row
            for row in self.confusions[:MOST]
        ]
        worst, accuracies = self.per_class[:MOST], {"top1": "top-1, %", "top5": "top-5, %"}
        classes = {"class": "class", "images": "images"} | accuracies
        pairs = {"true": "is", "predicted": "taken for", "count": "times", "share": "of its class"}
        sizes = {"size": "px"} | accuracies | {"flip_top1": "mirrored too: top-1", "flip_top5": "top-5"}
        found = [
            (f"Hardest {len(worst)} of {len(self.per_class)} classes", classes, worst, 1),
            ("Most frequent confusions", pairs, confusions, 2),
            ("Size of the images", sizes, self.sizes, 1),
        ]
        return [
            (title, [titles[key] for key in keys], [_cells(row, *keys) for row in rows], names)
            for title, titles, rows, names in found
            if rows and (keys := self.columns(*titles))
        ]

    @property
    def reliability_rows(self) -> Cells:
        """Accuracy by confidence, both 0 to 1."""
        return [_cells(row, "bin_low", "bin_high", "images", "confidence", "accuracy") for row in self.reliability]

    @property
    def bars(self) -> list[dict[str, float]]:
        """Accuracy by confidence as rectangles in a square of 100, the origin at its top left."""
        found = []
        for row in self.reliability:
            low, high, accuracy = (100 * float(row.get(key) or 0) for key in ("bin_low", "bin_high", "accuracy"))
            if math.isfinite(low + high + accuracy):
                width = max(high - low - 0.8, 0.4)
                found.append({"x": low + 0.4, "width": width, "y": 100 - accuracy, "height": accuracy})
        return found


def read_evaluation(run: Path) -> Evaluation | None:
    """Read a run's evaluation/; None if there is no such folder."""
    if not (run / FOLDER).is_dir():
        return None
    remarks: list[str] = []

    def read(name: str, parse: Callable[[Path], Any]) -> Any:
        return read_own(run, f"{FOLDER}/{name}", parse, remarks)

    def table(name: str, *columns: str) -> Rows:
        return read(f"{name}.csv", lambda path: _rows(path, columns)) or []

    summary = read("summary.json", _summary) or {}
    per_class, confusions = table("per_class", "class", "images"), table("confusions", "true", "predicted", "count")
    _show_names(per_class, confusions)
    return Evaluation(
        summary=summary,
        # Classes without images come last.
        per_class=sorted(per_class, key=lambda row: float(row.get("top1") or math.inf)),
        confusions=sorted(confusions, key=lambda row: -float(row["count"])),
        sizes=table("sizes", "size", "top1"),
        reliability=table("reliability", "bin_low", "bin_high"),
        mistakes=read("mistakes.png", _image),
        remarks=remarks,
    )


def _show_names(per_class: Rows, confusions: Rows) -> None:
    """Add the names to the classes in both tables; older evaluations have none, but ImageNet's are known."""
    classes = [row["class"] for row in per_class]
    names = [row.get("name") or name for row, name in zip(per_class, names_of(classes), strict=True)]
    called = dict(zip(classes, all_shown(classes, names), strict=True))
    for rows, columns in ((per_class, ("class",)), (confusions, ("true", "predicted"))):
        for row in rows:
            row.update({column: called.get(row[column], row[column]) for column in columns})


def _cells(row: dict[str, str], *columns: str) -> list[str]:
    """Return columns of a row, with two digits for numbers that are not whole."""
    return [
        text if (text := row.get(column) or "").isdigit() or column in TEXTS else number(text or None)
        for column in columns
    ]


def _rows(path: Path, columns: Sequence[str]) -> Rows:
    """Return the rows of a table, which must have values in `columns`."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:  # a folder's name may be any bytes
        rows = list(csv.DictReader(file))
    for line, row in enumerate(rows, 2):
        if None in row or any(value is None for value in row.values()):
            raise ValueError(f"line {line} is not whole")
        for key, value in row.items():
            if key in columns and not value:
                raise ValueError(f"line {line} has no {key}")
            if key in TEXTS:
                row[key] = from_cell(value)
            elif value and not is_number(float(value)):
                raise ValueError(f"line {line}: {key} is {value[:40]}")
        if missing := [key for key in columns if key not in row]:
            raise ValueError(f"there is no column {missing[0]}")
    return rows


def _image(path: Path) -> Path:
    """Return the path of a PNG; a report embeds nothing else."""
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            raise ValueError("it is not a PNG")
    return path


def _summary(path: Path) -> dict[str, Any]:
    content = mapping(path)
    flip = content.get("flip")
    for figures in (content, flip if isinstance(flip, dict) else {}):
        if wrong := [key for key, _, _ in FIGURES if not (figures.get(key) is None or is_number(figures[key]))]:
            raise ValueError(f"{wrong[0]} is not a number")
    return content
