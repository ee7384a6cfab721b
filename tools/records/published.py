"""Figures that others have published, from results/reference.csv. They are never averaged with measured ones."""

from __future__ import annotations

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
MODEL = "resnet50"
TRAINED = ("optimizer.", "scheduler.", "algorithms.", "model.", "train_dataset.", "eval_dataset.")
STORED = {"scheduler.t_warmup", "eval_dataset.batch_size"} | {
    f"{section}_dataset.{key}" for section in ("train", "eval") for key in ("is_streaming", "storage")
}
"""Of these keys, those that follow the length or say where images are."""


@dataclass(frozen=True)
class Published:
    """One published figure of a ResNet-50 on ImageNet, every field as text, empty where the source does not say.

    Attributes:
        recipe: one of ours, or another's name.
        variant: what tells it from others of that recipe.
        top1, top5: per cent; a range such as 75-78.1 is one.
        epochs, minutes: length of the training and its time.
        hardware, n: the machine, the number of runs.
        sd: standard deviation over them, ddof=1, in points of top-1.
        resolution: resize/crop in the evaluation, in pixels, or one number.
        protocol: what the evaluation had beside one central crop, such as averaged weights (EMA) or mirroring (TTA).
        source: where it stands.
        verified: how far to trust it.
        note: what else to know.
    """

    recipe: str
    variant: str
    top1: str
    top5: str
    epochs: str
    minutes: str
    hardware: str
    n: str
    sd: str
    resolution: str
    protocol: str
    source: str
    verified: str
    note: str

    def number(self, name: str) -> float | None:
        """A field as a number; None where it is empty or a range."""
        try:
            return float(getattr(self, name))
        except ValueError:
            return None

    def differs_from(self, group: Group) -> list[str]:
        """What forbids subtracting this figure from a group's: another length, recipe, or way to evaluate."""
        epochs, length = self.number("epochs"), parse(group.length)
        said = []
        if length.unit != "ep" or epochs != length.value:
            said.append(f"{self.epochs} epochs" if self.epochs else "epochs not stated")
        resize, crop = (str(group.settings.get(f"eval_dataset.{key}_size")) for key in ("resize", "crop"))
        if self.resolution and self.resolution not in (crop, f"{resize}/{crop}"):
            said.append(f"evaluated at {self.resolution} px")
        names = {key.split(".")[1] for key in group.settings if key.startswith("algorithms.")}
        ours = {protocol for name in names if (protocol := declarations("algorithm", name).PROTOCOL)}
        theirs = [part.strip() for part in self.protocol.split(",") if part and "px" not in part]
        said += [part for part in theirs if part not in ours]
        said += [f"no {protocol}" for protocol in sorted(ours.difference(theirs))]
        if changed := changed_settings(group):
            said.append(f"here with {named(changed, 2)} of its own")
        return said


def changed_settings(group: Group) -> list[str]:
    """The settings in which a group trains differently from its recipe as it is shipped, its length apart."""
    if group.recipe not in recipe_files():
        return []
    shipped = settings(as_shipped(group.recipe))
    keys = [key for key in shipped.keys() | group.settings.keys() if key.startswith(TRAINED) and key not in STORED]
    return sorted(key for key in keys if shipped.get(key) != group.settings.get(key))


def read_published(file: Path = REFERENCE) -> list[Published]:
    """All rows.

    Raises:
        DataError: the file is not there, or is no such table.
    """
    try:
        with file.open(newline="") as open_file:
            return [Published(**row) for row in csv.DictReader(open_file, strict=True)]
    except (OSError, TypeError, csv.Error) as error:
        columns = ",".join(field.name for field in fields(Published))
        raise DataError(f"{file}: is no table of published figures ({error}); its columns are {columns}") from error


def for_group(group: Group, rows: list[Published]) -> Published | None:
    """The figure to put beside a group: of its recipe, what differs least, then what is nearest in length."""
    length = parse(group.length)
    mine = [row for row in rows if row.recipe == group.recipe and row.number("top1") is not None]

    def distance(row: Published) -> tuple[int, float]:
        return len(row.differs_from(group)), abs((row.number("epochs") or float("inf")) - length.value)

    return min(mine, key=distance, default=None)
