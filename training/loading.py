"""Load a checkpoint that was read and checked into a Trainer, instead of letting Composer unpickle the file.

Composer 0.32.1 reads with `weights_only=False`, evaluates the algorithms' reprs, unpacks archives, and ignores missing
weights. We therefore replace its `load_checkpoint` while the Trainer is built.
"""

import ast
import functools
import importlib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import composer.algorithms
import torch
import torchvision
from composer.core import Algorithm, State
from composer.loggers import Logger
from composer.utils import checkpoint, dist
from torch import Tensor

from common.errors import named
from config import UserError
from config.schema import MODELS, Config
from recipes import registry
from recipes.algorithms._base import Surgery
from training.devices import on_all_ranks
from training.saved import CheckpointError, Saved

ADVICE = "Use load_weights_only=true to load only its weights, or give the recipe_name and the optimizer of its run"
# In the errors of gloo and NCCL when another rank has died.
LOST_RANK = re.compile(r"closed by peer|reset by peer|NCCL|Timed out waiting")
_PREFIX = re.compile(r"^(?:module\.)+")  # of ComposerModel and DDP
_ALIKE = 0.5  # share of tensors that an architecture must have in common with a checkpoint to be suggested

Shapes = dict[str, tuple[int, ...]]


@contextmanager
def loads(
    saved: Saved | None, config: Config, classes: list[str] | None, prepare: Callable[[torch.nn.Module], None]
) -> Iterator[None]:
    """Make any Trainer that is built inside with a load_path load this checkpoint.

    `prepare` is called with the model after surgery, before its optimizer's state is loaded. Raises a CheckpointError
    on every rank if the checkpoint does not fit the model, its recipe or the data's classes, if known.
    """
    anew = bool(config.is_train and config.load_weights_only)

    def load_checkpoint(path: str, state: State, logger: Logger, **_: Any) -> list[dict[str, Any]] | None:
        assert saved is not None, path
        on_all_ranks(_explained, saved, check_fits, saved, state.model, state.algorithms, classes, anew)
        prepare(state.model)
        if not config.load_weights_only:
            _check_trained(saved, state)
        return _explained(saved, _load, saved, state, logger, config.load_weights_only)

    if saved is not None and not anew:
        _check_classes(saved, config, classes)
    stock = checkpoint.load_checkpoint
    checkpoint.load_checkpoint = load_checkpoint  # type: ignore[assignment]
    try:
        yield
    finally:
        checkpoint.load_checkpoint = stock


def _load(saved: Saved, state: State, logger: Logger, weights_only: bool) -> list[dict[str, Any]] | None:
    """Do as Composer's _restore_checkpoint, but load the model strictly and do not evaluate the algorithms' reprs."""
    if not weights_only:
        # Composer reads `_model` as an old name of `model`.
        rest = {key: value for key, value in saved.state.items() if key != "model" and not key.startswith("_")}
        state.load_state_dict(rest, logger)
    # After the optimizer: torch creates its state by a step, which decays the weights at a learning rate of 0.
    state.load_model_state({"model": saved.state["model"]}, logger, strict=True)
    if weights_only:
        return None
    if len(set(dist.all_gather_object(state.timestamp.batch.value))) > 1:
        raise CheckpointError(f"{saved.address} is a different file on each node", "Give a folder that all nodes share")
    return saved.content.get("rng")


def _check_trained(saved: Saved, state: State) -> None:
    """Reject a checkpoint whose optimizer has no state for what this run trains."""
    wanted = [name for name, parameter in state.model.named_parameters() if parameter.requires_grad]
    for optimizer in state.optimizers:
        of_saved = (saved.state.get("optimizers") or {}).get(type(optimizer).__qualname__) or {}
        held = {str(name) for group in of_saved.get("param_groups", []) for name in group["params"]}
        missing = [name for name in wanted if name not in held]
        if held & {name for name, _ in state.model.named_parameters()} and missing:
            raise CheckpointError(
                f"{saved.address}: its run did not train {named(missing, 3)}, which this one does",
                "Use load_weights_only=true to start a new training from its weights, or its model.freeze",
            )


def _explained(saved: Saved, do: Any, *arguments: Any) -> Any:
    """Call `do`, turning the errors of torch and Composer about a checkpoint into a CheckpointError."""
    try:
        return do(*arguments)
    except UserError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError) or LOST_RANK.search(str(error)):
            raise
        why = " ".join(str(error).split())[:400]
        facts = f"{saved.address} does not fit this model and recipe: {type(error).__name__}: {why}"
        raise CheckpointError(facts, ADVICE) from error


def _check_classes(saved: Saved, config: Config, classes: list[str] | None) -> None:
    """Reject data whose labels stand for other classes than the checkpoint's."""
    trained = ((saved.state.get("dataset_state") or {}).get("train") or {}).get("classes")
    if trained is None or classes is None or list(trained) == list(classes):
        return
    label = next((n for n, (was, now) in enumerate(zip(trained, classes, strict=False)) if was != now), None)
    label = min(len(trained), len(classes)) if label is None else label
    was, now = (names[label] if label < len(names) else "nothing" for names in (trained, classes))
    advice = f"Give the data set with its {len(trained)} classes"
    # Starting from weights alone takes a new run: autoresume would load the whole checkpoint again.
    new = ["autoresume=false", "run_name=ANOTHER"] if config.autoresume else []
    new += [] if config.is_train else ["is_train=true"]
    advice += (
        f", or train its weights on the new classes: {' '.join([*new, ''])}load_path=null load_weights_only=false "
        f"model.weights={shlex.quote(saved.address)}"
    )
    raise CheckpointError(
        f"the checkpoint {saved.address} was trained on other classes: "
        f"label {label} was {was!r} and is {now!r} in this data set",
        advice,
    )


def check_fits(
    saved: Saved, model: torch.nn.Module, algorithms: Iterable[Algorithm], classes: list[str] | None, anew: bool
) -> None:
    """Raise a CheckpointError if the names or shapes of tensors differ from the model's, or the model surgery differs.

    The message names the model that the tensors look like. In a new training, `anew`, only the tensors must agree.
    """
    held, wanted = shapes(saved.state["model"]), shapes(model.state_dict())
    faults = differences(held, wanted)
    present = {type(algorithm).__qualname__: repr(algorithm) for algorithm in algorithms}
    trained = {name: str(state.get("repr", "")) for name, state in saved.state.get("algorithms", [])}
    surgery = [name for name in sorted(present.keys() ^ trained.keys()) if is_surgery(name)]
    if not faults and (anew or not surgery):
        return
    source, target = recognized(held), recognized(wanted)
    words = [word for name in surgery for word in words_for(name, trained.get(name))]
    if source and target and source[0] != target[0]:
        words.append(f"model.name={source[0]}")
    advice = ""
    if source and target and source[1] != target[1]:
        if classes is None or len(classes) == source[1]:
            words.append(f"model.num_classes={source[1]}")
        else:
            advice = f"Its weights have {source[1]} classes: use data with these classes, or train a new head on them: "
            words += ["load_path=null", "load_weights_only=false", f"model.weights={shlex.quote(saved.address)}"]
    if words:
        advice = f"{advice or 'Type as well: '}{' '.join(words)}"
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
    plain: Mapping[str, tuple[int, ...]] = {_PREFIX.sub("", name): shape for name, shape in held.items()}
    for surgery in surgeries():
        plain = surgery.undone(plain)
    outputs = plain.get("fc.weight", ())
    best = architecture(plain)
    return (best, outputs[0]) if best and len(outputs) == 2 else None


def architecture(plain: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the ResNet that tensors look like, by name and shape, whatever their head; None if none is near."""
    body = {entry for entry in plain.items() if not entry[0].startswith("fc.")}
    likeness: dict[str, float] = {}
    for name in MODELS:
        wanted = {entry for entry in _built(name).items() if not entry[0].startswith("fc.")}
        likeness[name] = len(wanted & body) / len(wanted | body)
    best = max(likeness, key=lambda name: likeness[name])
    return best if likeness[best] >= _ALIKE else None


@functools.cache
def _built(name: str) -> Shapes:
    with torch.device("meta"):
        return shapes(getattr(torchvision.models, name)().state_dict())


def _described(model: tuple[str, int] | None, held: Shapes) -> str:
    seen = [surgery.__name__ for surgery in surgeries_in(held)]
    changed = f" with {' and '.join(seen)}" if seen else ""
    return f"a {model[0]} of {model[1]} classes{changed}" if model else f"none of {', '.join(MODELS)}"


def surgeries() -> list[type[Surgery]]:
    """Return our algorithms that change the model."""
    entries = registry.own("algorithm").values()
    made = [getattr(importlib.import_module(entry.module), entry.class_name) for entry in entries]
    return [algorithm for algorithm in made if issubclass(algorithm, Surgery)]


def surgeries_in(held: Shapes) -> list[type[Surgery]]:
    """Return those of our surgeries that have added tensors."""
    return [surgery for surgery in surgeries() if len(surgery.undone(held)) < len(held)]


def is_surgery(name: str) -> bool:
    """Whether a checkpoint of an algorithm of this class needs it again."""
    kind: Any = getattr(composer.algorithms, name, None)
    return isinstance(kind, type) and issubclass(kind, Algorithm) and kind.required_on_load()


def words_for(name: str, call: str | None) -> list[str]:
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
