"""Match pretrained weights with a network: names without their prefixes, surgery undone, shapes compared."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from composer.core import Algorithm
from torch import Tensor, nn

from config import ConfigError
from config.schema import MODELS, Model
from training.loading import Shapes, architecture, differences, is_surgery, shapes, surgeries, surgeries_in, words_for
from training.weights.origin import Pretrained

_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # at any depth
_SUPERFLUOUS = {"n_averaged"}  # counts the averages of torch's AveragedModel
_MAY_BE_MISSING = ".num_batches_tracked"  # in files from before PyTorch 0.4.1; starts at 0

T = TypeVar("T")


@dataclass(frozen=True)
class Match:
    """The tensors of a file that go into a network, by the network's names."""

    loaded: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def match(
    given: Pretrained, network: nn.Module, head: str | None, model: Model, algorithms: Sequence[Algorithm]
) -> Match:
    """Return the tensors for a network before its surgery; the head may be of another shape, or missing.

    Raises:
        ConfigError: a name outside the head has no counterpart, or one of another shape or kind; the message names the
            architecture that the weights look like. Or the network of the weights had been changed by an algorithm
            that the recipe lacks.
    """
    wanted = network.state_dict()
    tensors, remarks = _plain(given, algorithms)
    tensors, outside = stripped(tensors, wanted, given.origin.address)
    inside = () if head is None else (f"{head}.",)
    body = {
        name: tensor for name, tensor in tensors.items() if not name.startswith(inside) and name not in _SUPERFLUOUS
    }
    body_wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(inside)}
    body_wanted = {name: t for name, t in body_wanted.items() if name in body or not name.endswith(_MAY_BE_MISSING)}
    _check(given, shapes(body), shapes(body_wanted), model)
    loaded = {name: tensor for name, tensor in tensors.items() if name in wanted}
    for name, tensor in loaded.items():
        what = f"model.weights: {name} of {given.origin.address}"
        is_float = tensor.is_floating_point()
        if is_float != wanted[name].is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            held = "no values" if tensor.is_meta else f"{str(tensor.dtype).removeprefix('torch.')} ({tensor.layout})"
            raise ConfigError(f"{what} holds {held}; give dense floating-point numbers, which are not quantized")
        # As they will be used: large numbers of 64 bits have no finite counterpart, those of 8 bits no isfinite.
        if is_float and not bool(torch.isfinite(tensor.to(wanted[name].dtype)).all()):
            raise ConfigError(
                f"{what} has values that are not finite: its training had diverged; give weights from before that"
            )
    return Match(loaded, [*(name for name in tensors if name not in wanted), *outside], remarks)


def stripped(tensors: Mapping[str, T], wanted: Mapping[str, Any], address: str) -> tuple[dict[str, T], list[str]]:
    """Remove the prefix under which a file has most of the wanted names, as of DDP or of a larger network.

    Return the tensors and the names that are outside of that prefix and not wanted either, such as another head's.
    ConfigError if there is more than one such network, as a student and its teacher.
    """
    plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    found = Counter(name[:at] for name in plain for at in _starts(name) if name[at:] in wanted)
    prefix = max(["", *found], key=found.__getitem__)
    if not prefix:
        return plain, []
    if rivals := [other for other, count in found.items() if other != prefix and 2 * count > found[prefix]]:
        there = " and ".join(sorted(f"{other}*" for other in [prefix, *rivals]))
        raise ConfigError(
            f"model.weights: {address} holds more than one network, {there}; save the one you mean to a file of its own"
        )
    inside = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
    outside = {name: tensor for name, tensor in plain.items() if not name.startswith(prefix)}
    also = {name: tensor for name, tensor in outside.items() if name in wanted and name not in inside}
    return inside | also, [name for name in outside if name not in also]


def _starts(name: str) -> list[int]:
    """Return where the name could start if what is before it was a prefix."""
    return [0, *(at + 1 for at, letter in enumerate(name) if letter == ".")]


def _check(given: Pretrained, held: Shapes, wanted: Shapes, model: Model) -> None:
    faults = differences(held, wanted)
    if not faults:
        return
    start = f"model.weights: {given.origin.address} does not fit model.name={model.name}:"
    likeness = architecture(held)
    if likeness and model.name in MODELS and likeness != model.name:
        raise ConfigError(f"{start} it looks like a {likeness}'s; type model.name={likeness}")
    seen = f"a {likeness}'s" if likeness else f"none of {', '.join(MODELS)}" if model.is_resnet else ""
    seen = seen and f"it looks like {seen}, and "
    raise ConfigError(f"{start} {seen}{'; '.join(faults)}. Give weights of this architecture")


def _plain(given: Pretrained, algorithms: Sequence[Algorithm]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors as they were named before surgery, which the recipe must repeat, and remarks about it."""
    content, remarks = given.content, []
    tensors: Mapping[str, Tensor] = content.tensors
    trained = {name: call for name, call in content.surgery.items() if is_surgery(name)}
    ours = {kind.__qualname__: kind for kind in surgeries()}
    for kind in surgeries_in(shapes(tensors)):  # a file of tensors alone does not say so
        trained.setdefault(kind.__qualname__, "")
    present = {type(algorithm).__qualname__: repr(algorithm) for algorithm in algorithms}
    if absent := [name for name in trained if name not in present]:
        words = " ".join(word for name in absent for word in words_for(name, trained[name]))
        raise ConfigError(
            f"model.weights: {given.origin.address} was trained with {' and '.join(absent)}, without which the network "
            f"is another one; type as well: {words}"
        )
    for name, call in trained.items():
        if name not in ours:
            raise ConfigError(
                f"model.weights: {given.origin.address} was trained with {name}, whose tensors no other network has; "
                f"to train on, type model.weights=null load_path={given.origin.address} load_weights_only=true"
            )
        if call and call != present[name]:
            remarks.append(f"the weights were trained with {call}, this run has {present[name]}")
        tensors = ours[name].undone(tensors)
    return dict(tensors), remarks
