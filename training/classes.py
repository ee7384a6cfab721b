"""The classes of the data: against the model's outputs, counted or compared with the number given; their names."""

import torch

from config import ConfigError, DataError, Run
from config.schema import AUTO
from loaders.class_names import names_of
from training.devices import say


def settle_classes(run: Run, train: list[str] | None, evaluation: list[str] | None) -> None:
    """Set num_classes if it is auto, else check it, against the class names of the data sets; None where unknown."""
    if train is not None and evaluation is not None and train != evaluation:
        odd = sorted(set(train) ^ set(evaluation))
        raise DataError(f"train/ and val/ have different classes: {', '.join(odd[:5])}{' ...' if len(odd) > 5 else ''}")
    classes = train or evaluation
    if run.config.model.num_classes == AUTO:
        if classes is None:
            raise ConfigError("model.num_classes: these data name no classes to count; type model.num_classes=NUMBER")
        if len(classes) < 2:
            raise DataError(
                f"the data set has one class, {classes[0]!r}; a classifier needs a folder for each of several"
            )
        run.config.model.num_classes = len(classes)
    wanted = run.config.model.classes
    if classes is None or len(classes) == wanted:
        return
    message = (
        f"model.num_classes: {wanted} was given, but the data set has {len(classes)} classes "
        f"({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''}); set model.num_classes={len(classes)}"
    )
    if len(classes) > wanted:
        raise ConfigError(f"{message}. The first class without an output is {classes[wanted]!r}")
    if not run.lenient:
        raise ConfigError(f"{message}. The first output without a class is number {len(classes)}")
    say(message)


def check_labels(num_classes: int, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Reject a label beyond the model's outputs, for data without class names: on a GPU it would abort the process."""
    largest = int(batch[1].max())
    if largest >= num_classes:
        raise ConfigError(
            f"model.num_classes: {num_classes} was given, but the data set has an image of class {largest}; "
            f"set model.num_classes={largest + 1} or more"
        )
    return batch


def named_classes(*datasets: object) -> dict[str, list[str]] | None:
    """Return the classes, by label, of the first data set that knows them, and their names; None if none does."""
    for dataset in datasets:
        if classes := getattr(dataset, "classes", None):
            return {"classes": list(classes), "names": getattr(dataset, "class_names", None) or names_of(classes)}
    return None
