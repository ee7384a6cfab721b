"""What a closer evaluation of a run left in its folder's evaluation/, as far as it is there."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.cells import from_cell
from config.schema import MOST_WITHOUT_TOP5
from tools.records.trust import is_number, mapping, own_file
from tools.report.words import number

FOLDER = "evaluation"
MOST = 10  # rows of a list: the worst classes, the most frequent confusions
Rows = list[dict[str, str]]
Cells = list[list[str]]


@dataclass
class Evaluation:
    """The files of evaluation/, each empty where there is none.

    Attributes:
        folder: where they are.
        summary: top1, top5 in per cent, loss, calibration_error in per cent points, images; flip: the same with
            mirrored images.
        per_class: class, images, top1, top5; the worst classes first.
        confusions: true, predicted, count, share; the most frequent first.
        sizes: size, top1, top5, flip_top1, flip_top5.
        reliability: bin_low, bin_high, images, confidence, accuracy.
        mistakes: an image of them.
        remarks: what could not be read.
        image: where a page shows that image from; empty where it does not.
    """

    folder: Path
    summary: dict[str, Any] = field(default_factory=dict)
    per_class: Rows = field(default_factory=list)
    confusions: Rows = field(default_factory=list)
    sizes: Rows = field(default_factory=list)
    reliability: Rows = field(default_factory=list)
    mistakes: Path | None = None
    remarks: list[str] = field(default_factory=list)
    image: str = ""

    @property
    def headline(self) -> str:
        """The summary in a line."""
        flipped = self.summary.get("flip")
        said = self._figures(self.summary)
        mirrored = self._figures(flipped) if isinstance(flipped, dict) else ""
        return f"{said or 'no summary'}{f'; mirrored too: {mirrored}' if mirrored else ''}"

    def _figures(self, its: dict[str, Any]) -> str:
        """A summary's figures in a line."""
        known = self.columns(*its)
        shown = [figure for figure in FIGURES if figure[0] in known and its[figure[0]] is not None]
        return ", ".join(form.format(number(its[key], digits)) for key, form, digits in shown)

    def columns(self, *names: str) -> list[str]:
        """Columns of a table without top-5 where there are so few classes that it says nothing."""
        few = 0 < self.classes <= MOST_WITHOUT_TOP5
        return [name for name in names if not (few and "top5" in name.replace("-", ""))]

    @property
    def classes(self) -> int:
        """How many classes there are; the list shows the worst."""
        return len(self.per_class)

    @property
    def worst_rows(self) -> Cells:
        """The classes with the lowest top-1: name, images, top-1, top-5."""
        return [_cells(row, *self.columns("class", "images", "top1", "top5")) for row in self.per_class[:MOST]]

    @property
    def confusion_rows(self) -> Cells:
        """The most frequent confusions: what it is, what it was taken for, how often, in per cent of its class."""
        rows = self.confusions[:MOST]
        return [[*_cells(row, "true", "predicted", "count"), _per_cent(row.get("share"))] for row in rows]

    @property
    def size_rows(self) -> Cells:
        """Accuracy by the size of the images."""
        names = self.columns("size", "top1", "top5", "flip_top1", "flip_top5")
        return [_cells(row, *names) for row in self.sizes]

    @property
    def reliability_rows(self) -> Cells:
        """Accuracy by confidence, both 0 to 1."""
        return [_cells(row, "bin_low", "bin_high", "images", "confidence", "accuracy") for row in self.reliability]

    @property
    def bars(self) -> list[dict[str, float]]:
        """The same as rectangles in a square of 100, the origin at its top left."""
        found = []
        for row in self.reliability:
            low, high, accuracy = (100 * float(row.get(key) or 0) for key in ("bin_low", "bin_high", "accuracy"))
            if not math.isfinite(low + high + accuracy):
                continue
            found.append({"x": low + 0.4, "width": max(high - low - 0.8, 0.4), "y": 100 - accuracy, "height": accuracy})
        return found


def read_evaluation(run: Path) -> Evaluation | None:
    """What is in a run's evaluation/; None if there is no such folder."""
    folder = run / FOLDER
    if not folder.is_dir():
        return None
    found = Evaluation(folder)
    found.summary = _read(found, "summary.json", _summary) or {}
    found.per_class = _table(found, "per_class", "class", "images")
    found.per_class.sort(key=lambda row: float(row.get("top1") or math.inf))  # last: those without images
    found.confusions = _table(found, "confusions", "true", "predicted", "count")
    found.confusions.sort(key=lambda row: -float(row["count"]))
    found.sizes = _table(found, "sizes", "size", "top1")
    found.reliability = _table(found, "reliability", "bin_low", "bin_high")
    found.mistakes = _read(found, "mistakes.png", _image)
    return found


def _cells(row: dict[str, str], *columns: str) -> list[str]:
    """Some columns of a row, numbers with two digits where they are no whole ones."""
    return [
        text if (text := row.get(column) or "").isdigit() or column in TEXTS else number(text or None)
        for column in columns
    ]


def _per_cent(share: str | None) -> str:
    return f"{100 * float(share):.1f} %" if share else ""


FIGURES = (
    ("top1", "top-1 {} %", 2),
    ("top5", "top-5 {} %", 2),
    ("loss", "loss {}", 4),
    ("calibration_error", "calibration error {} points", 2),
    ("images", "{} images", 0),
)
"""Keys of a summary, how they are said, and with how many digits."""

TEXTS = ("class", "true", "predicted")
"""Columns that hold names; all others hold numbers, or nothing."""


def _table(found: Evaluation, name: str, *columns: str) -> Rows:
    """The rows of a table; `columns` must be there in each."""

    def parse(path: Path) -> Rows:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:  # as a folder's name may be
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

    return _read(found, f"{name}.csv", parse) or []


def _image(path: Path) -> Path:
    """The path of a PNG; a report embeds nothing else."""
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            raise ValueError("it is not a PNG")
    return path


def _summary(path: Path) -> dict[str, Any]:
    content = mapping(path.read_text())
    flip = content.get("flip")
    for its in (content, flip if isinstance(flip, dict) else {}):
        if wrong := [key for key, _, _ in FIGURES if not (its.get(key) is None or is_number(its[key]))]:
            raise ValueError(f"{wrong[0]} is not a number")
    return content


def _read(found: Evaluation, name: str, parse: Callable[[Path], Any]) -> Any:
    try:
        return parse(own_file(found.folder.parent, f"{found.folder.name}/{name}"))
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, csv.Error) as error:  # RecursionError is a RuntimeError
        found.remarks.append(f"{FOLDER}/{name} cannot be read ({' '.join(str(error).split())[:160]})")
        return None
