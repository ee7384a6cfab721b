"""Compare what a consumer reads from an exported file with the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from common.errors import ConfigError, UserError
from tools.export.formats import FORMATS, function
from tools.export.subject import Subject, in_batches
from tools.export.weights import called, surgeries, works

TOLERANCE = 1e-4  # of the largest logit, or of a probability


@dataclass(frozen=True)
class Checked:
    """A file that gives the run's answers."""

    difference: float  # the largest of a probability, or of a logit relative to the largest one
    changed: int  # images with another most probable class
    images: int


def check(subject: Subject, name: str, path: Path) -> Checked:
    """Read a file as its consumer does, and compare; UserError if it gives other answers."""
    kind = FORMATS[name]
    outputs = in_batches(function("read", name)(subject, path), subject.images)
    found = compared(outputs, subject.answers, kind.is_weights or subject.logits)
    if found.difference <= TOLERANCE or not kind.is_exact:
        return found
    off = f"differs from the run by up to {found.difference:.2g} on {found.images} images of val/"
    if not kind.is_weights:
        raise UserError(
            f"--format {name}: what was written {off}, more than {TOLERANCE:g}; this format does not work here"
        )
    raise ConfigError(
        f"--format {name}: {called(subject)} with these weights {off}{surgeries(subject)}; {works(subject)}"
    )


def compared(outputs: Tensor, logits: Tensor, are_logits: bool) -> Checked:
    """Compare outputs [N, classes] with the run's logits."""
    expected = logits if are_logits else logits.softmax(dim=1)
    scale = float(expected.abs().max()) if are_logits else 1.0
    difference = float((outputs - expected).abs().max()) / (scale or 1)  # a network may give zeros alone
    return Checked(difference, int((outputs.argmax(1) != expected.argmax(1)).sum()), len(outputs))
