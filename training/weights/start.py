"""Start a network from pretrained weights: load them, decide about the head, and say what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from composer.core import Algorithm
from composer.models import ComposerClassifier
from torch import nn

from common.errors import named
from config import ConfigError, Run
from config.schema import Config, EvalDataset, Model
from loaders.images.decoders import INTERPOLATIONS
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD
from model import Head, head_of, initialize_head
from training import build, checkpoints
from training.checkpoints import Checkpoints
from training.devices import say
from training.saved import Saved
from training.weights.content import AVERAGED
from training.weights.matched import Match, match
from training.weights.origin import Measured, Pretrained, read


@dataclass(frozen=True)
class Loaded:
    """What became of pretrained weights."""

    given: Pretrained
    match: Match
    new: list[str]  # "name [shape in the file] -> [shape here]" for each tensor of a new head; empty if it was kept
    why: str  # the head is new, or was kept
    size: int  # parameters of the network, before surgery


def to_start_from(config: Config, saver: Checkpoints) -> tuple[Saved | None, Pretrained | None]:
    """Return the checkpoint to start from, or else the pretrained weights, which a resumed run does not read."""
    saved = checkpoints.to_start_from(config, saver)
    return saved, read(config.model) if config.model.weights and saved is None else None


def build_model(
    run: Run, given: Pretrained | None, classes: Sequence[str] | None, algorithms: Sequence[Algorithm]
) -> tuple[ComposerClassifier, Loaded | None]:
    """Build a run's model, start it from weights, if any, and return both; the arguments are load's."""
    model = build.model(run.config)
    return model, load(given, run, model, classes, algorithms) if given else None


def load(
    given: Pretrained,
    run: Run,
    model: ComposerClassifier,
    classes: Sequence[str] | None,
    algorithms: Sequence[Algorithm],
) -> Loaded:
    """Load weights into a model before its surgery; ConfigError if they do not fit.

    Args:
        given: the weights.
        run: its number of classes is known.
        model: changed in place.
        classes: the data's, by label, if they are known.
        algorithms: the recipe's.
    """
    network, values = model.module, run.config.model
    head = head_of(network, values.classes)
    found = match(given, network, head, values, algorithms)
    wanted = network.state_dict()
    of_head = [name for name in wanted if head and name.startswith(f"{head}.")]
    held = {name: list(found.loaded[name].shape) for name in of_head if name in found.loaded}
    misfit = next((name for name in of_head if held.get(name) != list(wanted[name].shape)), None)
    is_kept, why = _decided(values, held.get(f"{head}.weight"), misfit, _difference(given.classes, classes))
    if not is_kept and not run.config.is_train:
        raise ConfigError(
            f"model.weights: {given.origin.address}: {why}, and a new, untrained head cannot be evaluated; give the "
            "data of its classes, or train on these: is_train=true"
        )
    if not is_kept and not head:
        raise ConfigError(
            f"model.head: {why}, but {values.name} has no linear layer of {values.classes} outputs to replace; "
            "type model.head=keep"
        )
    with torch.no_grad():
        for name, tensor in found.loaded.items():
            if is_kept or name not in of_head:
                wanted[name].copy_(tensor)
    if not is_kept and head:
        initialize_head(cast(Head, network.get_submodule(head)), values.loss_name)
    new = [] if is_kept else [f"{name} {held.get(name, 'none')} -> {list(wanted[name].shape)}" for name in of_head]
    return Loaded(given, found, new, why, _parameters(network))


def _decided(model: Model, held: list[int] | None, misfit: str | None, difference: str) -> tuple[bool, str]:
    """Return whether the head is kept, and why; ConfigError if it is to be kept and cannot be.

    `held` is the shape of its weight in the file, `misfit` a tensor of it with another shape than the model's.
    """
    if held is None and misfit:
        obstacle = "the weights have no head"
    elif held and held[0] != model.classes:
        obstacle = f"the weights have {held[0]} classes, the data {model.classes}"
    else:
        obstacle = f"{misfit} of the weights has another shape" if misfit else ""
    if model.head == "keep":
        if obstacle:
            raise ConfigError(f"model.head: keep given, but {obstacle}; type model.head=auto for a new one")
        return True, "model.head=keep" + (f", though {difference}" if difference else "")
    if model.head == "new":
        return False, "model.head=new"
    if obstacle or difference:
        return False, obstacle or difference
    return True, f"the data have the same {model.classes} classes"


def _difference(of_weights: Sequence[str] | None, of_data: Sequence[str] | None) -> str:
    """Return how the classes of weights and data differ; empty if they do not, or if not both are known."""
    if of_weights is None or of_data is None or list(of_weights) == list(of_data):
        return ""
    if len(of_weights) != len(of_data):
        return f"the weights have {len(of_weights)} classes, the data {len(of_data)}"
    pairs = enumerate(zip(of_weights, of_data, strict=True))
    return next(f"label {label} was {was!r} and is {now!r} in the data" for label, (was, now) in pairs if was != now)


def show(loaded: Loaded, dataset: EvalDataset, model: nn.Module) -> None:
    """Print what was loaded, what is new and what was ignored; `model` is the Trainer's, after surgery."""
    given = loaded.given
    of_head = {line.split()[0] for line in loaded.new}
    tensors = [tensor for name, tensor in loaded.match.loaded.items() if name not in of_head]
    numbers = sum(tensor.numel() for tensor in tensors)
    rows = [("loaded", f"{len(tensors)} tensors, {numbers / 1e6:.2f} million numbers")]
    if given.content.part in AVERAGED:
        rows.append(("from", f"{given.content.part}, the averaged weights of the file"))
    head = f"{', '.join(loaded.new)}: {loaded.why}" if loaded.new else f"kept: {loaded.why}"
    rows.append(("new head" if loaded.new else "head", head))
    if (added := _parameters(model) - loaded.size) > 0:
        rows.append(("untrained", f"{added:,} parameters that the recipe's algorithms add"))
    rows.append(("ignored", named(loaded.match.ignored) or "nothing"))
    say(f"weights: {given.origin.address}, SHA-256 {given.origin.sha256[:16]}")
    for title, text in rows:
        say(f"  {title:<10} {text}")
    for remark in [*loaded.match.remarks, *_remarks(given.origin.measured, dataset)]:
        say(f"  {'note':<10} {remark}")


def _remarks(measured: Measured | None, dataset: EvalDataset) -> list[str]:
    """Return how the evaluation prepares images otherwise than when the weights were measured."""
    if measured is None:
        return []
    remarks, then = [], (measured.resize_size, measured.crop_size)
    if then != (dataset.resize_size, dataset.crop_size):
        top1 = f"their {measured.top1:.2f} % were" if measured.top1 else "they were"
        words = f"eval_dataset.resize_size={then[0]} eval_dataset.crop_size={then[1]}"
        remarks.append(
            f"{top1} measured with resize {then[0]} and crop {then[1]}, this run evaluates with resize "
            f"{dataset.resize_size} and crop {dataset.crop_size}; for the same, type {words}"
        )
    if measured.interpolation in INTERPOLATIONS and measured.interpolation != dataset.interpolation:
        remarks.append(
            f"they were measured on images resized with the {measured.interpolation} filter, this run has "
            f"{dataset.interpolation}; for the same, type eval_dataset.interpolation={measured.interpolation}"
        )
    ours = (CHANNEL_MEAN, CHANNEL_STD)
    if (measured.mean or ours[0], measured.std or ours[1]) != ours:
        remarks.append(
            f"they were trained on images normalized with mean {measured.mean} and deviation {measured.std}, this run "
            f"has ImageNet's, {CHANNEL_MEAN} and {CHANNEL_STD}: their first layers must adapt"
        )
    return remarks


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
