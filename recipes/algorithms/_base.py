"""What several algorithms share: a repr, when they start, seeded draws, memory formats, dense targets."""

from __future__ import annotations

import inspect
import zlib
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import torch
from composer.core import Algorithm, Event, State
from composer.utils import dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Start(NamedTuple):
    """What of the run has to be over before an algorithm changes anything."""

    argument: str
    """Of the algorithm, that says it."""
    moment: str
    """A Composer time string."""
    event: Event
    """BATCH_START, BATCH_END or EPOCH_END: where the algorithm looks at the clock."""


class RecipeAlgorithm(Algorithm):
    """An algorithm whose repr is the call that made it, in the form that Composer writes into checkpoints.

    One that has changed nothing by the end of the first epoch (or of the run, if that is shorter) fails the run: see
    training/effects.py for what counts. That holds for every algorithm. One that starts later says so by
    `first_effect`, and one whose effect is not seen there sets `acted` to True when it has had it.
    """

    acted = False

    def first_effect(self) -> list[Start]:
        """When it starts: all of these have to be reached; one that the run never reaches is an error beforehand."""
        return []

    def __repr__(self) -> str:
        names = inspect.signature(type(self)).parameters
        return f"{type(self).__name__}({','.join(f'{name}={getattr(self, name)!r}' for name in names)})"


HOOKS = ("image_transform", "size_in_loader", "crop_size", "named_buffers", "first_effect", "acted")
"""What the trainer asks an algorithm for by name, besides the methods of Composer's class."""


def check_hooks(algorithm: Algorithm) -> None:
    """Reject an attribute or method whose name is almost a hook's: nothing would ever ask for it.

    Raises:
        TypeError: naming the hook that was meant.
    """
    known = [*HOOKS, *(name for name in dir(Algorithm) if not name.startswith("_"))]
    for name in dir(algorithm):
        meant = get_close_matches(name, known, n=1, cutoff=0.85)
        if meant and name not in known and not name.startswith("_"):
            raise TypeError(f"{type(algorithm).__name__}.{name} is not a hook, so it does nothing; say {meant[0]}")


def seeded_generator(state: State, purpose: str, index: int = 0) -> np.random.Generator:
    """Random numbers that depend only on the run's seed, the rank, the batch, the purpose and the index.

    Nothing is consumed from a global generator, so that a second pass over a batch (SAM), a retry after running out of
    memory and a resumed run all draw the same.

    Args:
        state: the run; its rank_zero_seed travels with the checkpoints.
        purpose: one word per kind of draw, so that two algorithms draw independently.
        index: for several draws per batch, such as the number of the microbatch.
    """
    key = [state.rank_zero_seed, dist.get_global_rank(), state.timestamp.batch.value, index]
    return np.random.default_rng([*key, zlib.crc32(purpose.encode())])


def indices_to(device: torch.device, indices: np.ndarray) -> Tensor:
    """An int64 index tensor on `device`; pinned, so that the host does not wait for the GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def in_layout_of(reference: Tensor, result: Tensor) -> Tensor:
    """`result` (N, C, H, W) in the memory format of `reference`; no copy where it has it already."""
    channels_last = reference.is_contiguous(memory_format=torch.channels_last) and not reference.is_contiguous()
    return result.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def dense_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Targets as float32 probabilities of the shape of `logits` (N, C, ...).

    As composer.loss.utils.ensure_targets_one_hot, but it never looks at the values, for which the host would have to
    wait for the GPU twice per microbatch.

    Raises:
        ValueError: targets that are neither of the logits' shape nor class indices of shape (N, ...).
    """
    if targets.shape == logits.shape:
        return targets.float()
    if targets.ndim + 1 != logits.ndim or targets.is_floating_point():
        raise ValueError(
            f"The targets have shape {tuple(targets.shape)} and type {targets.dtype}, the outputs have shape "
            f"{tuple(logits.shape)}: give class indices of one dimension less, or probabilities of the same shape."
        )
    zeros = torch.zeros(logits.shape, dtype=torch.float32, device=targets.device)
    return zeros.scatter_(1, targets.long().unsqueeze(1), 1.0)


def unwrapped(model: nn.Module) -> nn.Module:
    """The ComposerModel itself, without what DistributedDataParallel or torch.compile put around it."""
    while True:
        inner = model.module if isinstance(model, DistributedDataParallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
