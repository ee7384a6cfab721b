"""ONNX in 8 bits: a quarter of the size, for processors and runtimes that compute faster in integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError, UserError, counted, named
from data import build_imagenet_dataspec
from loaders.storage.kinds import kind_of
from tools.export.onnx_file import read_onnx, write_onnx
from tools.export.programs import INPUT, quiet
from tools.export.subject import Subject, images_of
from training.build import image_dataset

CALIBRATION = 256  # training images, whose activations give the ranges of the integers
MEASURED = 2000  # images of val/, evenly spread, on which top-1 is measured before and after
MOST_LOST = 1.0  # percentage points of top-1
FEW = 3  # images: of a small val/, one more error is many points, and chance
BATCH = 32
# Not the normalization and the softmax: in 8 bits, probabilities would be multiples of 1/256.
QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "GlobalAveragePool", "ReduceMean")

read_onnx_int8 = read_onnx


def write_onnx_int8(subject: Subject, path: Path) -> None:
    """Write a network in 8 bits, and print its top-1 and that in 32; UserError if it loses too much."""
    import onnx
    from onnxruntime.quantization import QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    images = training_images(subject)
    labeled = labeled_images(subject)
    full, prepared = path.with_name(".full.onnx"), path.with_name(".prepared.onnx")
    write_onnx(subject, full)
    with quiet():
        quant_pre_process(full, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=list(QUANTIZED),
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in onnx.load(full).metadata_props})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    before, after = (top1(subject, file, *labeled) for file in (full, path))
    for file in (full, prepared):
        file.unlink()
    what = (
        f"top-1 on {counted(len(labeled[0]), 'image', 'images')} of val/: {before:.2f} % in 32 bits, {after:.2f} % in 8"
    )
    if is_loss(before, after, len(labeled[0])):
        raise UserError(f"--int8: {what}, a loss of more than {MOST_LOST:g} point; leave --int8 out")
    print(f"{what}, calibrated with {len(images)} images of train/")


def is_loss(before: float, after: float, images: int) -> bool:
    """Whether top-1, in percent, fell by more than MOST_LOST and more than FEW images."""
    lost = round((before - after) / 100 * images)
    return lost > max(MOST_LOST / 100 * images, FEW)


class Calibration:
    """Images as onnxruntime asks for them: an input at a time, then None."""

    def __init__(self, images: Tensor) -> None:
        self.batches: Iterator[np.ndarray] = iter([batch.contiguous().numpy() for batch in images.split(BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input."""
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def training_images(subject: Subject) -> Tensor:
    """Return images of train/, prepared as in evaluation, uint8 [N, 3, S, S]; UserError if there are none."""
    config, network = subject.config, subject.network
    section = config.eval_dataset if subject.given.data else config.train_dataset
    kind = kind_of(section.storage, section.is_streaming)
    try:
        spec = build_imagenet_dataspec(
            section.path or "",
            section.is_streaming,
            1,
            section.local,
            storage=None if kind.decoded or kind.own_decoder else section.storage,
            cache_limit=section.cache_limit,
        )
        dataset = image_dataset(spec)
        dataset.pipeline = network.pipeline(section.decoder)
        return images_of(dataset, CALIBRATION)[0]
    except DataError as error:
        raise UserError(f"--int8: is calibrated with images of train/; {error}") from error


def labeled_images(subject: Subject) -> tuple[Tensor, list[int]]:
    """Return images of val/ and their labels; UserError if they are not labels of the run's classes."""
    classes, own = subject.evaluation.classes, list(subject.network.classes)
    if classes is not None and classes != own:
        raise UserError(
            f"--int8: is measured on val/, whose classes ({named(classes)}) are not the run's ({named(own)}); give a "
            "data set with the same ones: --data PATH"
        )
    return images_of(subject.evaluation, MEASURED)


def top1(subject: Subject, file: Path, images: Tensor, labels: Sequence[int]) -> float:
    """Return the top-1 of a file on images, in percent."""
    call = read_onnx(subject, file)
    predicted = torch.cat([call(batch).argmax(dim=1) for batch in images.split(BATCH)])
    return 100 * float((predicted == torch.tensor(labels)).double().mean())
