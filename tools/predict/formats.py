"""How predictions are written: as text for people, CSV, JSON, and JSON lines; piece by piece, as images are done."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from common.cells import as_cell
from common.output import visible
from common.terminal import printable
from loaders.class_names import shown

DIGITS = 6  # of a probability


@dataclass(frozen=True)
class Answer:
    """One class, by its label, and its probability."""

    label: int
    one: str  # the class
    name: str  # what people call it
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, the first one first; none if all are below the threshold."""

    file: str
    answers: list[Answer]


def as_table(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """Write an image per line if one class is asked for; otherwise its name, and a line per class."""
    for prediction in predictions:
        file = printable(prediction.file)
        lines = [f"{100 * one.probability:5.1f} %  {printable(shown(one.one, one.name))}" for one in prediction.answers]
        lines = lines or ["    -    "]
        if top == 1:
            yield f"{lines[0]}  {file}\n"
        else:
            yield "\n".join([file, *(f"  {line}" for line in lines), ""])


def as_csv(predictions: Iterable[Prediction], _top: int) -> Iterator[str]:
    """Write a row per class of an image; names that a spreadsheet would run are preceded by an apostrophe."""
    yield _row("file", "rank", "class", "name", "probability")
    for prediction in predictions:
        rows = (
            _row(prediction.file, rank, one.one, one.name, f"{one.probability:.{DIGITS}f}")
            for rank, one in enumerate(prediction.answers, 1)
        )
        yield "".join(rows)


def as_wide_csv(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """Write a row per image, with three columns per class; those below the threshold are empty."""
    titles = [f"{title}{rank}" for rank in range(1, top + 1) for title in ("class", "name", "probability")]
    yield _row("file", *titles)
    for prediction in predictions:
        cells = [cell for one in prediction.answers for cell in (one.one, one.name, f"{one.probability:.{DIGITS}f}")]
        yield _row(prediction.file, *cells, *[""] * (len(titles) - len(cells)))


def as_json(predictions: Iterable[Prediction], _top: int) -> Iterator[str]:
    """Write a list of objects, as those of `as_json_lines`."""
    before = "[\n"
    for prediction in predictions:
        yield f"{before}  {_object(prediction)}"
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def as_json_lines(predictions: Iterable[Prediction], _top: int) -> Iterator[str]:
    """Write an object per image and line."""
    for prediction in predictions:
        yield f"{_object(prediction)}\n"


def _row(*cells: str | int) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        as_cell(visible(cell)) if isinstance(cell, str) else cell for cell in cells
    )
    return text.getvalue()


def _object(prediction: Prediction) -> str:
    return json.dumps({"file": prediction.file, "top": as_objects(prediction.answers)})


def as_objects(answers: Iterable[Answer]) -> list[dict[str, object]]:
    """Return an object per class of an image, for JSON."""
    return [
        {"class": one.one, "name": one.name, "label": one.label, "probability": round(one.probability, DIGITS)}
        for one in answers
    ]


Format = Callable[[Iterable[Prediction], int], Iterator[str]]
FORMATS: dict[str, Format] = {"table": as_table, "csv": as_csv, "json": as_json, "jsonl": as_json_lines}
