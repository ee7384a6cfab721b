"""What algorithms share: the hooks that a run asks for, seeded draws, memory formats, dense targets."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import torch
from composer.core import Algorithm, Event, State
from composer.utils import dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recipes.declared import Declares, holds


class Start(NamedTuple):
    """What of the run has to be over before an algorithm changes anything."""

    argument: str
    """Of the algorithm, that says it."""
    moment: str
    """A Composer time string."""
    event: Event
    """BATCH_START, BATCH_END or EPOCH_END: where the algorithm looks at the clock."""


class RecipeAlgorithm(Declares, Algorithm):
    """An algorithm, with all that the trainer and the tools ask of one besides the methods of Composer's class.

    Each hook has a neutral value here; an algorithm of Composer's has none of them. What it can be given stands in the
    class, in the words of recipes.declared. Its repr is the call that made it, in the form that Composer writes into
    checkpoints: each argument of __init__ is an attribute of the same name.

    One that has changed nothing by the end of the first epoch (or of the run, if that is shorter) fails the run: see
    training/effects.py for what counts. That holds for every algorithm.
    """

    image_transform: Callable[[Tensor], Tensor] | None = None
    """A step of the loader after crop and flip, uint8 [3, H, W] in and out; PER_IMAGE says when there is one."""
    crop_size: int | None = None
    """Set by whoever builds the loader: the side, in pixels, of its largest training images."""
    held: int | None = None
    """Set by whoever measures one image size: the side, in pixels, to stay at, whatever the moment."""
    acted: bool = False
    """Set to True when it has had an effect that training/effects.py does not see."""
    ranks_differ: bool = False
    """Whether each rank has weights of its own, which are then saved beside a checkpoint."""
    lockstep: bool = True
    """Whether ranks wait for each other in every batch. If not, figures stay each rank's own until an evaluation."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject a method or attribute of the class whose name is almost a hook's."""
        super().__init_subclass__(**kwargs)
        _reject_misspelt(cls, vars(cls))

    @property
    def named_buffers(self) -> Mapping[str, Tensor]:
        """Buffers kept beside the model, by name, whose BatchNorm statistics are averaged over the ranks in place."""
        return {}

    def size_in_loader(self, wanted: int, crop_size: int, elapsed: float) -> int:
        """The side, in pixels, that images must have when they come here.

        Args:
            wanted: what the next algorithm needs, or else the crop size.
            crop_size: the loader's largest.
            elapsed: the fraction of the run that is over.
        """
        return wanted

    def evaluation_weights(self, state: State) -> AbstractContextManager[None]:
        """Inside, the model holds the weights that are evaluated and saved. All ranks enter."""
        return nullcontext()

    def first_effect(self) -> list[Start]:
        """When it starts: all of these have to be reached; one that the run never reaches is an error beforehand."""
        return []

    def __repr__(self) -> str:
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return f"{type(self).__name__}({','.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def ours(algorithms: Iterable[Algorithm]) -> list[RecipeAlgorithm]:
    """Those of a run's algorithms that have hooks: Composer's own have none."""
    return [algorithm for algorithm in algorithms if isinstance(algorithm, RecipeAlgorithm)]


def at_own_pace(state: State) -> bool:
    """Whether an algorithm lets the ranks go through a batch without waiting for all others (decentralized.py).

    What else runs in every batch must not make them meet then: it keeps figures of its own rank until an evaluation.
    """
    return not all(algorithm.lockstep for algorithm in ours(state.algorithms))


def _reject_misspelt(cls: type, names: Iterable[str]) -> None:
    hooks = [name for name in dir(RecipeAlgorithm) if not name.startswith("_")]
    known = hooks if issubclass(cls, RecipeAlgorithm) else dir(Algorithm)
    for name in names:
        meant = get_close_matches(name, hooks, n=1, cutoff=0.85)
        if meant and name not in known and not name.startswith("_"):
            advice = f"say {meant[0]}" if name not in hooks else "derive the class from RecipeAlgorithm"
            raise TypeError(f"{cls.__name__}.{name} is not a hook, so it does nothing; {advice}")


def check_hooks(algorithm: Algorithm) -> None:
    """Reject what nothing would ever ask for, in an algorithm that is made.

    Raises:
        TypeError: an attribute whose name is almost a hook's, or an image_transform that PER_IMAGE does not announce.
    """
    _reject_misspelt(type(algorithm), dir(algorithm))
    for made in ours([algorithm]):
        if holds(made.PER_IMAGE, vars(made)) != (made.image_transform is not None):
            has = "no image_transform" if made.image_transform is None else "an image_transform"
            raise TypeError(f"{type(made).__name__}.PER_IMAGE is {made.PER_IMAGE!r}, but {made!r} has {has}")


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
