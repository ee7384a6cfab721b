"""Open a trained network by its address, for programs that show it images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from config import Run, UserError
from loaders.images.transforms import EvaluationPipeline
from tools.networks.inputs import SUFFIXES, Input
from tools.networks.runs import choose_checkpoint, load_run
from tools.networks.shipped import Shipped, trained_network
from tools.records.classes import run_names
from training.saved import CheckpointError, Saved, read_checkpoint


@dataclass(frozen=True)
class Network:
    """A network that takes decoded images, and what a program must know to prepare them and read the answers."""

    called: str  # the run's name and the checkpoint's
    classes: Sequence[str]  # in the order of the outputs
    names: Sequence[str]  # what to show to a person, one per class
    resize_size: int  # short side in pixels before the crop; -1: no resize
    crop_size: int  # side of the square that the network sees, in pixels
    module: nn.Module  # Shipped
    device: torch.device
    interpolation: str = "bilinear"  # of the resize
    crop_ratio: float | None = None  # of the central square to the short side, if that is resized to the crop size

    def pipeline(self, decoder: str = "auto") -> EvaluationPipeline:
        """Return what prepares images as in the evaluation of the run; DataError for an unknown decoder."""
        return EvaluationPipeline(self.resize_size, self.crop_size, decoder, self.interpolation, self.crop_ratio)

    def probabilities(self, images: Tensor) -> Tensor:
        """Map RGB images, uint8 [B, 3, S, S], to probabilities, float32 [B, classes] on the CPU."""
        with torch.inference_mode():
            # In the layout that the network was trained in, whatever the images' own.
            given = images.to(self.device).contiguous(memory_format=torch.channels_last)
            return self.module(given).float().cpu()


@dataclass(frozen=True)
class TrainedRun:
    """A run folder, one of its checkpoints, and the network as it was trained, on the CPU."""

    folder: Path
    run: Run  # for evaluation
    checkpoint: str  # name of its file
    saved: Saved
    network: nn.Module

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.folder.resolve().name


def open_network(
    address: str | Path,
    *,
    checkpoint: str = "best",
    unsafe_pickle: bool = False,
    outside_code: bool = False,
    device: str | None = None,
    stated: Input | None = None,
) -> Network:
    """Open the network of a run folder, or of a file (tools.networks.files).

    Args:
        address: a run folder, runs/NAME, or a file.
        checkpoint: best, latest, or the path or s3:// address of a checkpoint.
        unsafe_pickle: whether to run the code in a checkpoint that is more than data.
        outside_code: whether to import classes from outside this project that the run's configuration names, or to load
            a file that is a program.
        device: cpu or cuda; None: cuda if there is one.
        stated: what a file does not say about its input.

    Raises:
        UserError: it is not a run, or its checkpoint is missing, damaged or of another network.
    """
    folder = Path(address)
    if folder.is_file() or (folder.suffix in SUFFIXES and not folder.is_dir()):
        from tools.networks.files import open_file  # which builds a Network

        return open_file(folder, stated or Input(), outside_code)
    return network_of(open_run(folder, load_run(folder, outside_code), checkpoint, unsafe_pickle), device)


def open_run(folder: Path, run: Run, checkpoint: str = "best", unsafe_pickle: bool = False) -> TrainedRun:
    """Read a checkpoint of a run folder, which `load_run` has read; otherwise as `open_network`."""
    place, name = choose_checkpoint(folder, run.config, checkpoint)
    try:
        saved = read_checkpoint(place, name, unsafe_pickle)
        network = trained_network(run.config, saved)
    except CheckpointError as error:
        raise UserError(f"{error.facts}; name another one: --checkpoint PATH") from error
    return TrainedRun(folder, run, name, saved, network)


def network_of(trained: TrainedRun, device: str | None = None) -> Network:
    """Return a run's network for programs, on `device`; None: on a GPU if there is one."""
    config = trained.run.config
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    module = Shipped(trained.network).to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = classes_of(trained.saved.state.get("dataset_state"), config.model.classes)
    images = config.eval_dataset
    sizes, how = (images.resize_size, images.crop_size), (images.interpolation, images.crop_ratio)
    names = run_names(trained.folder, classes)
    return Network(f"{trained.name}, {trained.checkpoint}", classes, names, *sizes, module, target, *how)


def classes_of(datasets: object, num_classes: int) -> list[str]:
    """Return the classes in a checkpoint's dataset_state; the labels as text if it does not hold as many strings."""
    train = datasets.get("train") if isinstance(datasets, dict) else None
    classes = train.get("classes") if isinstance(train, dict) else None
    if isinstance(classes, list | tuple) and len(classes) == num_classes and all(isinstance(c, str) for c in classes):
        return list(classes)
    return [str(label) for label in range(num_classes)]
