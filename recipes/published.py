"""Figures that others have published, from results/reference.csv, which owns them."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from common.errors import DataError

REFERENCE = Path(__file__).parent.parent / "results/reference.csv"


@dataclass(frozen=True)
class Published:
    """One published figure on ImageNet-1k; fields are text, empty if the source does not give them."""

    recipe: str  # one of ours, or a name used elsewhere
    model: str
    variant: str  # distinguishes figures of one recipe
    top1: str  # percent, may be a range such as 75-78.1
    top5: str  # likewise
    epochs: str
    minutes: str  # as the source says
    hardware: str
    inferred_minutes: str  # by us, on 8x A100, where the source has none: training images / img/s
    n: str  # number of runs
    sd: str  # standard deviation over them, ddof=1, in points of top-1
    resolution: str  # resize/crop of the evaluation in pixels, or one number
    protocol: str  # of the evaluation, besides one central crop: averaged weights (EMA), mirroring (TTA), ...
    source: str
    verified: str  # how the figure was checked
    note: str

    def number(self, name: str) -> float | None:
        """Return a field as a number; None if it is empty or a range."""
        try:
            return float(getattr(self, name))
        except ValueError:
            return None


def read_published(file: Path = REFERENCE) -> list[Published]:
    """Read all rows; DataError if the file is missing or is not such a table."""
    try:
        with file.open(newline="") as open_file:
            rows = [Published(**row) for row in csv.DictReader(open_file, strict=True)]
            if short := [row for row in rows if row.note is None]:
                raise TypeError(f"a row of {short[0].recipe} has too few cells")
            return rows
    except (OSError, TypeError, csv.Error) as error:
        columns = ",".join(field.name for field in fields(Published))
        raise DataError(f"{file}: is not a table of published figures ({error}); its columns are {columns}") from error
