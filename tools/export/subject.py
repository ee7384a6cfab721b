"""What is exported: a run's network, its record, and images to compare a file with the run on."""

from __future__ import annotations

import argparse
import json
import pprint
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError
from config import Run
from config.schema import Config
from loaders.dataset import ImageDataset
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD
from recipes import networks
from tools.evaluate import passes
from tools.export.formats import PREPROCESS
from tools.networks.opened import Network, TrainedRun, network_of, open_run
from tools.networks.shipped import Shipped
from tools.records.reading import Record, read_run
from training import build

MOST_IMAGES = 64  # of val/, evenly spread, on which a file is compared with the run
ALONE = Path(__file__).parent / "alone"


@dataclass(frozen=True)
class Subject:
    """A run's network, on the CPU, and all that its exports say about it."""

    trained: TrainedRun
    network: Network  # its module is a Shipped, with torchvision's names where that has the network
    record: Record
    evaluation: ImageDataset  # val/
    given: argparse.Namespace  # the options

    @property
    def config(self) -> Config:
        """The run's configuration, at the exported image size."""
        return self.trained.run.config

    @property
    def name(self) -> str:
        """The run's name, after which files are named."""
        return self.trained.name

    @property
    def plain(self) -> nn.Module:
        """The network alone: from normalized images to logits."""
        return self.network.module.network  # type: ignore[return-value]

    @property
    def logits(self) -> bool:
        """Whether programs give logits instead of probabilities."""
        return self.given.logits

    @cached_property
    def images(self) -> Tensor:
        """The images to compare on, uint8 [N, 3, S, S]."""
        return images_of(self.evaluation, MOST_IMAGES)[0]

    @cached_property
    def answers(self) -> Tensor:
        """The run's own logits for them, float32 [N, classes]; UserError if they are not finite."""
        own = Shipped(self.trained.network, logits=True)
        own.network = self.trained.network  # as it was trained: nothing is folded
        logits = in_batches(own.eval(), self.images)
        if not logits.isfinite().all():
            raise UserError(
                f"{self.network.called}: its outputs are not finite numbers, so its weights have diverged; name "
                "another checkpoint: --checkpoint PATH"
            )
        return logits

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The epochs that the checkpoint was trained for, and its top-1 in percent, if the run's record has them."""
        stamp = self.trained.saved.state.get("timestamp")
        stamp = stamp.get("Timestamp", stamp) if isinstance(stamp, dict) else {}
        step, epoch = stamp.get("batch"), stamp.get("epoch")
        found = {"epochs": epoch} if isinstance(epoch, int) else {}
        top1 = self.record.column("top1")[self.record.column("step") == step]
        return found | ({"top1": float(top1[-1])} if len(top1) else {})

    def texts(self, outputs: str) -> dict[str, str]:
        """Return the metadata of a file that gives `outputs`: logits or probabilities."""
        about = {
            "run": self.name,
            "checkpoint": self.trained.checkpoint,
            "architecture": self.config.model.name,
            "recipe": self.record.recipe,
            **self.figures,
            "commit": str(self.record.environment.get("commit") or ""),
            "classes": json.dumps(list(self.network.classes)),
            "class_names": json.dumps(list(self.network.names)),
            "resize_size": self.network.resize_size,
            "crop_size": self.network.crop_size,
            "interpolation": self.network.interpolation,
            "crop_ratio": self.network.crop_ratio or "",
            "mean": json.dumps(CHANNEL_MEAN),
            "std": json.dumps(CHANNEL_STD),
            "outputs": outputs,
        }
        return {key: str(value) for key, value in about.items() if value != ""}

    @property
    def program(self) -> Shipped:
        """What programs are made from: uint8 images to probabilities, or logits."""
        module = Shipped(self.plain, self.logits)
        return module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def open_subject(run: Run, given: argparse.Namespace) -> Subject:
    """Open a run's network and its evaluation data as the options say; UserError if that fails."""
    config = run.config
    config.device = "cpu"
    if given.size:
        networks.check_sizes(config.model.name, config.eval_dataset.crop_size, [given.size], "--size")
        config.eval_dataset.resize_size = passes.resize_for(config, given.size)
        config.eval_dataset.crop_size = given.size
    trained = open_run(given.run, run, given.checkpoint, given.load_unsafe_pickle)
    data = passes.open_data(run)
    return Subject(
        trained, network_of(trained, "cpu"), read_run(given.run), build.image_dataset(data.evaluation), given
    )


def images_of(dataset: ImageDataset, most: int) -> tuple[Tensor, list[int]]:
    """Return at most that many images, evenly spread, as uint8 [N, 3, S, S], and their labels."""
    indices = np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int).tolist()
    samples = dataset.__getitems__(indices)
    return torch.stack([image for image, _ in samples]), [label for _, label in samples]


def in_batches(call: Any, images: Tensor) -> Tensor:
    """Return the outputs for all images, in batches of several sizes, the first of one image."""
    sizes = [1, 7, *[32] * len(images)]
    batches, done = [], 0
    while done < len(images):
        batch = images[done : done + sizes.pop(0)]
        done += len(batch)
        with torch.inference_mode():
            batches.append(torch.as_tensor(call(batch)).float())
    return torch.cat(batches)


def filled(name: str, **constants: Any) -> str:
    """Return the text of a file in alone/ with other values of its constants, each of which has a line of its own."""
    text = (ALONE / name).read_text()
    for left, value in constants.items():
        before, start, after = text.partition(f"\n{left} = ")
        assert start, left
        line, end, rest = after.partition("\n")
        _, hash_sign, comment = line.partition("  #")
        text = f"{before}{start}{pprint.pformat(value, width=110, sort_dicts=False)}{hash_sign}{comment}{end}{rest}"
    return text


def prepare(subject: Subject) -> str:
    """Return the text of preprocess.py for this network."""
    network = subject.network
    sizes = {"RESIZE": network.resize_size, "CROP": network.crop_size, "CROP_RATIO": network.crop_ratio}
    return filled(PREPROCESS, **sizes, INTERPOLATION=network.interpolation.upper(), MEAN=CHANNEL_MEAN, STD=CHANNEL_STD)
