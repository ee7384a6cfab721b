"""Figures that others have published, from results/reference.csv. They are never averaged with measured ones."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from common.durations import parse
from common.errors import DataError, named
from config.load import as_shipped, recipe_files
from config.read import ROOT
from recipes.declared import declarations
from tools.records.configs import settings
from tools.records.groups import Group

REFERENCE = ROOT / "results/reference.csv"
TRAINED = ("optimizer.", "scheduler.", "algorithms.", "model.", "train_dataset.", "eval_dataset.")
IGNORED = {"scheduler.t_warmup", "eval_dataset.batch_size"} | {  # follow from the length, or from where images are
    f"{section}_dataset.{key}" for section in ("train", "eval") for key in ("is_streaming", "storage")
}


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

    def differs_from(self, group: Group) -> list[str]:
        """Return why this figure cannot be subtracted from a group's: another length, recipe, or evaluation."""
        epochs, length = self.number("epochs"), parse(group.length)
        reasons = []
        if length.unit != "ep" or epochs != length.value:
            reasons.append(f"{self.epochs} epochs" if self.epochs else "epochs not stated")
        resize, crop = (str(group.settings.get(f"eval_dataset.{key}_size")) for key in ("resize", "crop"))
        if self.resolution and self.resolution not in (crop, f"{resize}/{crop}"):
            reasons.append(f"evaluated at {self.resolution} px")
        names = {key.split(".")[1] for key in group.settings if key.startswith("algorithms.")}
        ours = {protocol for name in names if (protocol := declarations("algorithm", name).PROTOCOL)}
        theirs = [part.strip() for part in self.protocol.split(",") if part and "px" not in part]
        reasons += [part for part in theirs if part not in ours]
        reasons += [f"no {protocol}" for protocol in sorted(ours.difference(theirs))]
        if changed := changed_settings(group):
            reasons.append(f"here with {named(changed, 2)} of its own")
        return reasons


def changed_settings(group: Group) -> list[str]:
    """Return the settings in which a group trains differently from its recipe as shipped, except its length."""
    if group.recipe not in recipe_files():
        return []
    shipped = settings(as_shipped(group.recipe))
    keys = [key for key in shipped.keys() | group.settings.keys() if key.startswith(TRAINED) and key not in IGNORED]
    return sorted(key for key in keys if shipped.get(key) != group.settings.get(key))


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


def for_group(group: Group, rows: list[Published]) -> Published | None:
    """Return the figure to show next to a group: of its recipe, the least different, then the nearest in length."""
    length = parse(group.length)
    mine = [row for row in rows if row.recipe == group.recipe and row.number("top1") is not None]

    def distance(row: Published) -> tuple[int, float]:
        return len(row.differs_from(group)), abs((row.number("epochs") or float("inf")) - length.value)

    return min(mine, key=distance, default=None)
