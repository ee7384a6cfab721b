"""Programs of torch: torch.export's pt2, and TorchScript."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from tools.export.subject import Subject

INPUT = "images"  # the name of a program's input
Reader = Callable[[Tensor], Tensor]

# Attention's guards rule out the largest integer, which is the bound if none is given.
BATCH = torch.export.Dim("batch", min=1, max=2**31 - 1)


def outputs(subject: Subject) -> str:
    """Return what a program of this subject gives."""
    return "logits" if subject.logits else "probabilities"


def example(subject: Subject) -> Tensor:
    """Return two images: from one, torch.export would conclude that batches are always of one."""
    size = subject.network.crop_size
    return torch.zeros(2, 3, size, size, dtype=torch.uint8)


def write_pt2(subject: Subject, path: Path) -> None:
    """Write a program for batches of any size."""
    with quiet():
        program = torch.export.export(subject.program, (example(subject),), dynamic_shapes=({0: BATCH},), strict=False)
        buffer = io.BytesIO()  # on a full disk, torch aborts the process
        torch.export.save(program, buffer, extra_files=subject.texts(outputs(subject)))
    path.write_bytes(buffer.getbuffer())


def read_pt2(_: Subject, path: Path) -> Reader:
    """Load a program as torch.export's documentation says."""
    with quiet():
        return torch.export.load(path).module()


def write_torchscript(subject: Subject, path: Path) -> None:
    """Write a trace, which works for batches of any size."""
    with quiet():
        traced = torch.jit.trace(subject.program, example(subject))
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files=subject.texts(outputs(subject)))
    path.write_bytes(buffer.getbuffer())


def read_torchscript(_: Subject, path: Path) -> Reader:
    """Load a trace as torch's documentation says."""
    with quiet():
        return torch.jit.load(path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters of torch, which report their progress and warn about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        noise = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
