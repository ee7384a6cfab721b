"""Compare a checkpoint's tensors with a model's by name and shape; on a mismatch, find the model they look like."""

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

_PREFIX = re.compile(r"^(?:module\.)+")  # of ComposerModel and DDP
_BLURRED = re.compile(r"\.conv\.(weight|bias)$")  # BlurPool moves a convolution one level down
_BLUR = (".blur_filter", ".filt2d")
_ALIKE = 0.5  # share of tensors that an architecture must have in common with a checkpoint to be suggested

Shapes = dict[str, tuple[int, ...]]


def check_fits(
    saved: Saved, model: torch.nn.Module, algorithms: Iterable[Algorithm], classes: list[str] | None, anew: bool
) -> None:
    """Compare a checkpoint with the model that is to load it, after model surgery.

    Args:
        saved: the checkpoint.
        model: to load the checkpoint.
        algorithms: of the run; those that do model surgery must match the checkpoint's.
        classes: of the data, if known; the model has as many outputs.
        anew: whether to load only the weights for a new training; surgery without weights may then differ.

    Raises:
        CheckpointError: naming the missing, unexpected and mismatched tensors, and the model that they look like.
    """
    held, wanted = shapes(saved.state["model"]), shapes(model.state_dict())
    faults = differences(held, wanted)
    present = {type(algorithm).__qualname__: repr(algorithm) for algorithm in algorithms}
    trained = {name: str(state.get("repr", "")) for name, state in saved.state.get("algorithms", [])}
    surgery = [name for name in sorted(present.keys() ^ trained.keys()) if _is_surgery(name)]
    if not faults and (anew or not surgery):
        return
    source, target = recognized(held), recognized(wanted)
    words = [word for name in surgery for word in _words(name, trained.get(name))]
    if source and target and source[0] != target[0]:
        words.append(f"model.name={source[0]}")
    advice = ""
    if source and target and source[1] != target[1]:
        if classes is None or len(classes) == source[1]:
            words.append(f"model.num_classes={source[1]}")
        else:
            advice = f"Its weights have {source[1]} classes: use data with these classes, or train without load_path"
    if words:
        advice = f"{advice + '. ' if advice else ''}Type as well: {' '.join(words)}"
    what = f"it looks like {_described(source, held)}, but the model is {_described(target, wanted)}"
    if surgery:
        used = [name for name in surgery if name in trained]
        what += f"; it was trained with{'' if used else 'out'} {', '.join(used or surgery)}"
    facts = f"{saved.address} does not fit this model and recipe: {'; '.join([what, *faults])}"
    raise CheckpointError(facts, advice or "Load another one")


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def differences(held: Shapes, wanted: Shapes) -> list[str]:
    """Count the missing, unexpected and mismatched tensors, with examples; empty if all names and shapes agree."""
    other = [name for name in wanted if held.get(name, wanted[name]) != wanted[name]]
    faults = {
        "missing in it": [name for name in wanted if name not in held],
        "not in the model": [name for name in held if name not in wanted],
        "of another shape": [f"{name} {list(held[name])} for {list(wanted[name])}" for name in other],
    }
    return [
        f"{len(names)} tensor{'s are' if len(names) > 1 else ' is'} {what} ({ascii(named(names, 3))[1:-1]})"
        for what, names in faults.items()
        if names
    ]


def recognized(held: Shapes) -> tuple[str, int] | None:
    """Return the architecture and number of classes that tensors look like; None if it is not a known ResNet."""
    plain = {
        _BLURRED.sub(r".\1", _PREFIX.sub("", name)): shape for name, shape in held.items() if not name.endswith(_BLUR)
    }
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


def _described(model: tuple[str, int] | None, held: Shapes) -> str:
    blur = " with BlurPool" if any(name.endswith(_BLUR) for name in held) else ""
    return f"a {model[0]} of {model[1]} classes{blur}" if model else f"none of {', '.join(MODELS)}"


def _is_surgery(name: str) -> bool:
    kind: Any = getattr(composer.algorithms, name, None)
    return kind is not None and kind.required_on_load()


def _words(name: str, call: str | None) -> list[str]:
    """Return the words that add an algorithm, from its repr in a checkpoint (parsed, never run); None removes it."""
    key = f"algorithms.{registry.table('algorithm')[registry.fold(name)].name}"
    if call is None:
        return [f"{key}=null"]
    try:
        arguments = getattr(ast.parse(call, mode="eval").body, "keywords", [])
    except (SyntaxError, ValueError):
        arguments = []
    given = [(argument.arg, _literal(argument.value)) for argument in arguments]
    # Other values keep their defaults: text that a shell would run must not be offered for pasting.
    return [f"{key}.{name}={text}" for name, text in given if re.fullmatch(r"[\w.+-]+", text)] or [f"{key}={{}}"]


def _literal(node: ast.expr) -> str:
    try:
        value = ast.literal_eval(node)
        return value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError):
        return ""
