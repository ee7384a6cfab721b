"""What a run consists of, by its schedule: batches at each image size, evaluations, checkpoints."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from common.durations import durations_of, parse
from config.dry_run import size_per_epoch
from config.schema import Config
from loaders.storage.kinds import kind_of

IMAGENET = {"train_dataset": 1_281_167, "eval_dataset": 50_000}
"""Images that a run with random ones is counted as: those that it stands for."""


@dataclass(frozen=True)
class Plan:
    """A run, counted.

    Attributes:
        recipe: its name.
        length: as the configuration says it, as in 36ep.
        batch_size: images per step over all devices.
        batches: image side in pixels -> training batches at it, of the whole run; smallest side first.
        epochs: epochs begun.
        evaluations: how often the evaluation set is gone through.
        eval_batches: batches of one evaluation.
        saves: checkpoints written.
    """

    recipe: str
    length: str
    batch_size: int
    batches: dict[int, float]
    epochs: int
    evaluations: int
    eval_batches: int
    saves: int

    @property
    def images(self) -> float:
        """Images trained on, repeated ones included."""
        return self.batch_size * sum(self.batches.values())


def plan_of(config: Config, recipe: str, images: int, eval_images: int) -> Plan:
    """Count a run.

    Args:
        config: of the run.
        recipe: its name.
        images: in the training set.
        eval_images: in the evaluation set.
    """
    batch = config.train_dataset.batch_size
    length, per_epoch = durations_of(config)[0], images // batch
    total = length.batches(per_epoch, batch)
    sizes = size_per_epoch(config, length)
    shares = {size: count / len(sizes) for size, count in sorted(Counter(sizes).items())}

    def times(interval: str) -> int:
        # Composer does both at the end too, be it a multiple of the interval or not.
        every = parse(interval).batches(per_epoch, batch, total)
        return math.ceil(total / every - 1e-9) if every else 0

    return Plan(
        recipe=recipe,
        length=str(length),
        batch_size=batch,
        batches={size: share * total for size, share in shares.items()},
        epochs=math.ceil(total / per_epoch - 1e-9),
        evaluations=times(config.eval_interval),
        eval_batches=math.ceil(eval_images / config.eval_dataset.batch_size),
        saves=times(config.save_interval) if config.save_folder else 0,
    )


def counted(config: Config, recipe: str, images: int, eval_images: int, *, real: bool) -> Plan:
    """Count a run; one with random images as if they were ImageNet's, unless it is wanted as it really is."""
    numbers = {"train_dataset": images, "eval_dataset": eval_images}
    stands_for = {
        key: IMAGENET[key] for key in numbers if not (real or kind_of(config.section(key).storage).reads_path)
    }
    return plan_of(config, recipe, *(numbers | stands_for).values())
