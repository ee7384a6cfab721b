"""Published figures next to measured ones, with which they are never averaged."""

from common.durations import parse
from common.errors import named
from config.load import as_shipped, recipe_files
from recipes.declared import declarations
from recipes.published import Published
from tools.records.configs import settings
from tools.records.groups import Group

FLIPPED = "TTA (flip)"  # protocol of figures with mirror images, which a run measures with eval_dataset.flip_tta

TRAINED = ("optimizer.", "scheduler.", "algorithms.", "model.", "train_dataset.", "eval_dataset.")
IGNORED = {"scheduler.t_warmup", "eval_dataset.batch_size"} | {  # follow from the length, or from where images are
    f"{section}_dataset.{key}" for section in ("train", "eval") for key in ("is_streaming", "storage")
}


def differs_from(row: Published, group: Group) -> list[str]:
    """Return why a figure cannot be subtracted from a group's: another length, recipe, or evaluation."""
    epochs, length = row.number("epochs"), parse(group.length)
    reasons = []
    if length.unit != "ep" or epochs != length.value:
        reasons.append(f"{row.epochs} epochs" if row.epochs else "epochs not stated")
    resize, crop = (str(group.settings.get(f"eval_dataset.{key}_size")) for key in ("resize", "crop"))
    if row.resolution and row.resolution not in (crop, f"{resize}/{crop}"):
        reasons.append(f"evaluated at {row.resolution} px")
    names = {key.split(".")[1] for key in group.settings if key.startswith("algorithms.")}
    ours = {protocol for name in names if (protocol := declarations("algorithm", name).PROTOCOL)}
    theirs = [part.strip() for part in row.protocol.split(",") if part and "px" not in part]
    if FLIPPED in theirs and group.figure("top1_tta"):
        ours.add(FLIPPED)
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


def for_group(group: Group, rows: list[Published]) -> Published | None:
    """Return the figure to show next to a group: of its recipe, the least different, then the nearest in length."""
    length = parse(group.length)
    mine = [row for row in rows if row.recipe == group.recipe and row.number("top1") is not None]

    def distance(row: Published) -> tuple[int, float]:
        return len(differs_from(row, group)), abs((row.number("epochs") or float("inf")) - length.value)

    return min(mine, key=distance, default=None)
