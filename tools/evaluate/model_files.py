"""Evaluate a network from a file on all images of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from common.errors import ConfigError, DataError, named
from common.terminal import ImageMeter
from data import build_imagenet_dataspec
from loaders.class_names import imagenet, names_of
from loaders.storage.kinds import is_archives, kind_at, kind_of
from tools.evaluate.figures import Pass
from tools.evaluate.passes import answers, collected
from tools.evaluate.results import Evaluated
from tools.networks.files import open_file
from tools.networks.inputs import stated
from tools.networks.opened import Network
from training.build import image_dataset, loader_of

BATCH = 64  # images
_TINY = torch.finfo(torch.float32).tiny  # the least probability, so that its logarithm is finite


def evaluate_file(given: argparse.Namespace, console: Console) -> Evaluated:
    """Evaluate the file of --model on --data; UserError if their classes differ."""
    network = open_file(given.model, stated(given), given.outside_code)
    storage = kind_at(Path(given.data), "val")
    local = given.local or (given.data if kind_of(storage).is_streaming else None)
    spec = build_imagenet_dataspec(
        given.data,
        bool(local) and not is_archives(given.data),
        BATCH,
        local,
        is_train=False,
        drop_last=False,
        shuffle=False,
        resize_size=network.resize_size,
        crop_size=network.crop_size,
        interpolation=network.interpolation,
        crop_ratio=network.crop_ratio,
        storage=storage,
        persistent_workers=False,
    )
    images = image_dataset(spec)
    classes, labels = labels_of(network, images.classes, given)
    listed: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    flipped: list[torch.Tensor] = []
    with ImageMeter(console, f"{network.crop_size} px", len(images), size=images.stored_bytes) as meter:
        for batch, numbers in loader_of(spec):
            if int(numbers.max()) >= len(labels):
                raise DataError(
                    f"{given.data}: has the label {int(numbers.max())}, but {given.model} has {len(labels)} outputs; "
                    "give a data set with its classes: --data PATH"
                )
            outputs, true = network.probabilities(batch), labels[numbers]
            scores = outputs.clamp(min=_TINY).log()  # logits, but for a constant per image
            plain.append(answers(scores, true))
            if given.flip:
                mirrored = network.probabilities(batch.flip(-1)).clamp(min=_TINY).log()
                flipped.append(answers((scores + mirrored) / 2, true))
            listed.append(true)
            meter(sum(map(len, listed)))
    result: Pass = collected(network.crop_size, listed, [plain, flipped])
    names = list(network.names) if classes == list(network.classes) else names_of(classes)
    if images.classes and images.class_names and images.classes == classes:
        names = images.class_names
    return Evaluated(
        called=network.called,
        source=str(given.model),
        data=str(given.data),
        images=images,
        classes=classes,
        names=names,
        passes={network.crop_size: result},
        size=network.crop_size,
    )


def labels_of(
    network: Network, classes: Sequence[str] | None, given: argparse.Namespace
) -> tuple[list[str], torch.Tensor]:
    """Return the network's classes, by output, and the output of each of the data's labels, int64.

    A file that does not name its outputs has those of ImageNet if there are 1000 and the data's classes are WordNet ids
    of it, as also in a subset; else the data's, if there are as many.
    """
    outputs, where = len(network.classes), f"{given.model}: "
    own = list(network.classes)
    is_named = own != [str(label) for label in range(outputs)]
    if classes is None:
        return own, torch.arange(outputs)
    if not is_named and outputs == len(imagenet()) and all(one in imagenet() for one in classes):
        own, is_named = list(imagenet()), True
    if is_named:
        place = {one: output for output, one in enumerate(own)}
        if missing := [one for one in classes if one not in place]:
            raise DataError(
                f"{where}has no output for {named(missing)} of {given.data}, but for {named(own)}; give a data set "
                "with its classes: --data PATH"
            )
        return own, torch.tensor([place[one] for one in classes])
    if outputs != len(classes):
        raise ConfigError(
            f"{where}has {outputs} outputs, which it does not name, but {given.data} has {len(classes)} classes; give "
            "a data set with its classes: --data PATH"
        )
    return list(classes), torch.arange(outputs)
