"""Advice for data sets that are small compared with the batch: other batches, learning rates and warm-ups."""

from __future__ import annotations

from common.errors import DataError, counted
from config import durations_of
from config.schema import Config
from loaders.errors import BatchTooLarge
from recipes import registry

FEW = 4  # steps per epoch, below which advice is given: the schedule changes in leaps, and up to half of an epoch's
# images are dropped with its incomplete last batch
MANY = 8  # steps per epoch of the advised batch
LEAST = 16  # images in it: BatchNorm's statistics of fewer are noisy
WARMUP = 0.05  # fraction of the run; a small learning rate needs no more


def explain(error: BatchTooLarge, config: Config) -> DataError:
    """Return the error for a batch larger than the data set, with the settings to change together."""
    if error.images < error.ranks:
        return error
    return DataError(f"{error.facts}: type {smaller_batch(config, error.images, error.ranks)}")


def warning(config: Config, images: int, batches_per_epoch: int, ranks: int) -> str | None:
    """Return what to change if an epoch has only a few steps; None if it has enough, or cannot have more."""
    size = config.train_dataset.batch_size
    if batches_per_epoch >= min(FEW, images // _size(images, ranks)):
        return None
    steps = counted(batches_per_epoch, "step", "steps")
    return (
        f"train_dataset.batch_size: {size} of {images:,} images leave {steps} per epoch; for more, type "
        f"{smaller_batch(config, images, ranks)}"
    )


def smaller_batch(config: Config, images: int, ranks: int) -> str:
    """Return the words that give an epoch more steps: batch, learning rate in proportion, and warm-up.

    The learning rates of Adam and its kin, which are not proportional to the batch, stay.
    """
    size = _size(images, ranks)
    words = [f"train_dataset.batch_size={size}"]
    name, lr = str(config.optimizer.get("name")), config.optimizer.get("lr")
    is_adaptive = registry.exists("optimizer", name) and "betas" in registry.signature("optimizer", name)
    if isinstance(lr, int | float) and not is_adaptive:
        words.append(f"optimizer.lr={lr * size / config.train_dataset.batch_size:.3g}")
    length, warmup = durations_of(config)
    total = length.batches(images // size, size)
    if warmup.batches(images // size, size, total) > WARMUP * total and config.scheduler.name != "one_cycle":
        words.append(f"scheduler.t_warmup={WARMUP:g}dur")
    return " ".join(words)


def _size(images: int, ranks: int) -> int:
    """Return a batch that gives an epoch about MANY steps: a power of two, or the next multiple of the ranks."""
    size = 1 << (max(LEAST, images // MANY).bit_length() - 1)
    return max(ranks, min(size, images) // ranks * ranks)
