"""Whether a checkpoint's tensors are a model's, by name and shape; if not, which model they look like."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import composer.algorithms
import torch
import torchvision
from composer.core import Algorithm
from torch import Tensor

from common.errors import named
from config.schema import MODELS
from recipes import registry
from training.saved import CheckpointError, Saved

_BLURRED = re.compile(r"\.conv\.(weight|bias)$")  # BlurPool keeps a convolution one level below its old place
_BLUR = (".blur_filter", ".filt2d")
_ALIKE = 0.5  # the part of its tensors that an architecture must share with a checkpoint to be named

Shapes = dict[str, tuple[int, ...]]


def check_fits(
    saved: Saved, model: torch.nn.Module, algorithms: Iterable[Algorithm], classes: list[str] | None, anew: bool
) -> None:
    """Compare a checkpoint with the model that it is for, after its surgery.

    Args:
        saved: the checkpoint.
        model: with the tensors that are due.
        algorithms: of the run; those that make another network of the model must be the checkpoint's.
        classes: of the data, where they are known: then the model has as many outputs.
        anew: whether only the weights are taken, to train on: then surgery without weights may differ.

    Raises:
        CheckpointError: naming what is missing, surplus or of another shape, and the model that it looks like.
    """
    held, wanted = shapes(saved.state["model"]), shapes(model.state_dict())
    faults = differences(held, wanted)
    there = {type(algorithm).__qualname__: repr(algorithm) for algorithm in algorithms}
    trained = {name: str(own.get("repr", "")) for name, own in saved.state.get("algorithms", [])}
    cut = [name for name in sorted(there.keys() ^ trained.keys()) if _is_surgery(name)]
    if not faults and (anew or not cut):
        return
    it, own = recognised(held), recognised(wanted)
    words = [word for name in cut for word in _words(name, trained.get(name))]
    if it and own and it[0] != own[0]:
        words.append(f"model.name={it[0]}")
    advice = ""
    if it and own and it[1] != own[1]:
        if classes is None or len(classes) == it[1]:
            words.append(f"model.num_classes={it[1]}")
        else:
            advice = f"Its weights know {it[1]} classes: give data of these, or train without load_path"
    if words:
        advice = f"{advice + '. ' if advice else ''}Type as well: {' '.join(words)}"
    what = f"it looks like {_described(it, held)}, the model is {_described(own, wanted)}"
    if cut:
        what += f"; it was trained with {', '.join(n for n in cut if n in trained) or 'no ' + ', '.join(cut)}"
    facts = f"{saved.address} does not fit this model and recipe: {'; '.join([what, *faults])}"
    raise CheckpointError(facts, advice or "Load another one")


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def differences(held: Shapes, wanted: Shapes) -> list[str]:
    """What is missing, surplus, or of another shape, counted, with examples; empty if the tensors are the same."""
    other = [name for name in wanted if held.get(name, wanted[name]) != wanted[name]]
    found = {
        "missing in it": [name for name in wanted if name not in held],
        "not in the model": [name for name in held if name not in wanted],
        "of another shape": [f"{name} {list(held[name])} for {list(wanted[name])}" for name in other],
    }
    return [
        f"{len(names)} tensor{'s are' if len(names) > 1 else ' is'} {what} ({_printable(named(names, 3))})"
        for what, names in found.items()
        if names
    ]


def recognised(held: Shapes) -> tuple[str, int] | None:
    """The architecture and the number of classes that tensors look like; None if it is no ResNet that we know."""
    plain = {_BLURRED.sub(r".\1", _bare(name)): shape for name, shape in held.items() if not name.endswith(_BLUR)}
    outputs = plain.get("fc.weight", ())
    if len(outputs) != 2:
        return None
    likeness: dict[str, float] = {}
    for name in MODELS:
        with torch.device("meta"):
            known = shapes(getattr(torchvision.models, name)(num_classes=outputs[0]).state_dict())
        likeness[name] = len(known.items() & plain.items()) / len(known.items() | plain.items())
    best = max(likeness, key=lambda name: likeness[name])
    return (best, outputs[0]) if likeness[best] >= _ALIKE else None


def _bare(name: str) -> str:
    """Without the prefixes of ComposerModel and DDP."""
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _described(model: tuple[str, int] | None, held: Shapes) -> str:
    blur = " with BlurPool" if any(name.endswith(_BLUR) for name in held) else ""
    return f"a {model[0]} of {model[1]} classes{blur}" if model else f"none of {', '.join(MODELS)}"


def _is_surgery(name: str) -> bool:
    kind: Any = getattr(composer.algorithms, name, None)
    return kind is not None and kind.required_on_load()


def _words(name: str, call: str | None) -> list[str]:
    """What to type for an algorithm, from its repr in a checkpoint, which is read and never run; None takes it away."""
    key = f"algorithms.{registry.table('algorithm')[registry.fold(name)].name}"
    if call is None:
        return [f"{key}=null"]
    try:
        arguments = getattr(ast.parse(call, mode="eval").body, "keywords", [])
    except (SyntaxError, ValueError):
        arguments = []
    given = [(argument.arg, _literal(argument.value)) for argument in arguments]
    # What is not plain keeps its default, and what a shell would run is not printed for pasting.
    return [f"{key}.{name}={text}" for name, text in given if re.fullmatch(r"[\w.+-]+", text)] or [f"{key}={{}}"]


def _literal(node: ast.expr) -> str:
    try:
        value = ast.literal_eval(node)
        return value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError):
        return ""


def _printable(text: str) -> str:
    return ascii(text)[1:-1]
