"""Base class of our algorithms, and helpers for seeded draws, memory formats and dense targets."""

from __future__ import annotations

import inspect
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recipes.declared import Declares, holds

T = TypeVar("T")


class Start(NamedTuple):
    """A moment that the run must reach before an algorithm has an effect."""

    argument: str  # of the algorithm, which sets it
    moment: str  # a Composer time string
    event: Event  # BATCH_START, BATCH_END or EPOCH_END: when the algorithm checks the time


class Length(NamedTuple):
    """The length of a run, known once its data are."""

    batches: int
    batches_per_epoch: int
    batch_size: int  # images per step over all devices
    last: float  # elapsed fraction of the run in its last batch; changes only between epochs if the length is in epochs


class RecipeAlgorithm(Declares, Algorithm):
    """A Composer Algorithm with the additional hooks that the trainer and the tools use.

    Every hook has a neutral default here; Composer's own algorithms have none of them. The class declares the limits of
    its arguments as described in recipes.declared. Each argument of __init__ must be an attribute of the same name.

    An algorithm without an effect in the first batch after its start fails the run; see training/effects.py for what
    counts as an effect, and `rare` for an algorithm that may need longer.
    """

    events: ClassVar[tuple[Event, ...]] = ()
    """When apply() runs; override match() for further conditions."""
    image_transform: Callable[[Tensor], Tensor] | None = None
    """A loader step after crop and flip, uint8 [3, H, W] to the same; PER_IMAGE declares when there is one."""
    crop_size: int | None = None
    """Side of the loader's largest training images, in pixels; set by the code that builds the loader."""
    epochs: float | None = None
    """Length of the run before scale_schedule_ratio, set as crop_size is."""
    held: int | None = None
    """Fixed image side in pixels, regardless of the progress of the run; set by tools that measure one size."""
    max_sizes: int = 1
    """Maximum number of image sizes that it gives the network over a run."""
    acted: bool = False
    """To be set to True on an effect that training/effects.py cannot detect."""
    rare: bool = False
    """Whether batches may pass without an effect, such as a drawn one; the first one must then come within an epoch."""
    ranks_differ: bool = False
    """Whether each rank has its own weights, which are then saved next to a checkpoint."""
    lockstep: bool = True
    """Whether ranks wait for each other in every batch. If not, figures are per rank until an evaluation."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject misspelled hooks."""
        super().__init_subclass__(**kwargs)
        _reject_misspelled(cls, vars(cls))

    @property
    def named_buffers(self) -> Mapping[str, Tensor]:
        """Buffers outside the model, by name, whose BatchNorm statistics are averaged over the ranks in place."""
        return {}

    def size_in_loader(self, wanted: int, crop_size: int, elapsed: float) -> int:
        """Return the image side, in pixels, that this algorithm needs as input.

        Args:
            wanted: the side that the next algorithm needs, or the crop size.
            crop_size: the loader's largest side.
            elapsed: the elapsed fraction of the run.
        """
        return wanted

    def evaluation_weights(self, state: State) -> AbstractContextManager[None]:
        """Context in which the model holds the weights to evaluate and save; all ranks must enter it."""
        return nullcontext()

    def first_effect(self) -> list[Start]:
        """Moments that must all be reached before the first effect; a run too short for one of them is an error."""
        return []

    def shortfall(self, length: Length) -> tuple[str, dict[str, Any] | None] | None:
        """Return why a run of this length is too short for it, and the arguments that help; None if it is not.

        The arguments are None if the algorithm should be removed. The run starts all the same.
        """
        return None

    def match(self, event: Event, state: State) -> bool:
        """Return whether apply() runs now."""
        return event in self.events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Change the state; nothing by default, as for an algorithm that only has an image_transform."""

    def __repr__(self) -> str:  # Composer writes it into checkpoints
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return f"{type(self).__name__}({','.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def ours(algorithms: Iterable[Algorithm]) -> list[RecipeAlgorithm]:
    """Return the algorithms that have hooks, leaving out Composer's own."""
    return [algorithm for algorithm in algorithms if isinstance(algorithm, RecipeAlgorithm)]


def at_own_pace(state: State) -> bool:
    """Return whether ranks do not wait for each other: other code in every batch must then not synchronize either."""
    return not all(algorithm.lockstep for algorithm in ours(state.algorithms))


def _reject_misspelled(cls: type, names: Iterable[str]) -> None:
    hooks = [name for name in dir(RecipeAlgorithm) if not name.startswith("_")]
    known = hooks if issubclass(cls, RecipeAlgorithm) else dir(Algorithm)
    for name in names:
        meant = get_close_matches(name, hooks, n=1, cutoff=0.85)
        if meant and name not in known and not name.startswith("_"):
            advice = f"use {meant[0]}" if name not in hooks else "derive the class from RecipeAlgorithm"
            raise TypeError(f"{cls.__name__}.{name} is not a hook, so it has no effect; {advice}")


def check_hooks(algorithm: Algorithm) -> None:
    """Reject attributes of an algorithm instance that nothing would use.

    Raises:
        TypeError: an attribute with almost the name of a hook, or an image_transform that contradicts PER_IMAGE.
    """
    _reject_misspelled(type(algorithm), dir(algorithm))
    for made in ours([algorithm]):
        if holds(made.PER_IMAGE, vars(made)) != (made.image_transform is not None):
            has = "no image_transform" if made.image_transform is None else "an image_transform"
            raise TypeError(f"{type(made).__name__}.PER_IMAGE is {made.PER_IMAGE!r}, but {made!r} has {has}")


class Surgery(RecipeAlgorithm):
    """An algorithm that changes the model, so that its weights fit no other model."""

    @staticmethod
    def required_on_load() -> bool:
        """Return True: a checkpoint of the changed model needs it."""
        return True

    @classmethod
    def undone(cls, tensors: Mapping[str, T]) -> Mapping[str, T]:
        """Return a checkpoint's tensors, or their shapes, as they were named before this surgery; the same without it.

        What it added is left out.
        """
        return tensors

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Warn if the arguments differ from the checkpoint's, which was trained with another model then."""
        if state.get("repr", repr(self)) != repr(self):
            warnings.warn(f"The checkpoint was trained with {state['repr']}, but this run has {self!r}.", stacklevel=2)


def seeded_generator(state: State, purpose: str, index: int = 0) -> np.random.Generator:
    """Return a generator that depends only on the run's seed, the rank, the batch, the purpose and the index.

    So a second pass over a batch (SAM), a retry after running out of memory and a resumed run draw the same numbers.

    Args:
        state: the run, whose rank_zero_seed is part of the checkpoints.
        purpose: a word per kind of draw, so that two algorithms draw independently.
        index: distinguishes several draws per batch, such as those of microbatches.
    """
    key = [state.rank_zero_seed, dist.get_global_rank(), state.timestamp.batch.value, index]
    return np.random.default_rng([*key, zlib.crc32(purpose.encode())])


def indices_to(device: torch.device, indices: np.ndarray) -> Tensor:
    """Copy indices to `device` as int64, from pinned memory so that the host does not wait for the GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def in_layout_of(reference: Tensor, result: Tensor) -> Tensor:
    """Return `result` (N, C, H, W) in the memory format of `reference`, without a copy if it has that already."""
    channels_last = reference.is_contiguous(memory_format=torch.channels_last) and not reference.is_contiguous()
    return result.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def dense_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Convert targets to float32 probabilities of the shape of `logits` (N, C, ...).

    Like composer.loss.utils.ensure_targets_one_hot, but without inspecting the values, which would make the host wait
    for the GPU twice per microbatch.

    Raises:
        ValueError: the targets have neither the logits' shape nor the shape (N, ...) of class indices.
    """
    if targets.shape == logits.shape:
        return targets.float()
    if targets.ndim + 1 != logits.ndim or targets.is_floating_point():
        raise ValueError(
            f"The targets have shape {tuple(targets.shape)} and type {targets.dtype}, the outputs have shape "
            f"{tuple(logits.shape)}; use class indices with one dimension less, or probabilities of the same shape."
        )
    zeros = torch.zeros(logits.shape, dtype=torch.float32, device=targets.device)
    return zeros.scatter_(1, targets.long().unsqueeze(1), 1.0)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the ComposerModel without the wrappers of DistributedDataParallel and torch.compile."""
    while True:
        inner = model.module if isinstance(model, DistributedDataParallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
