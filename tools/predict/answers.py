"""The most probable classes of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.errors import UserError
from tools.predict.formats import Answer

if TYPE_CHECKING:
    from torch import Tensor

    from tools.networks.opened import Network


def best_answers(
    network: Network, called: Sequence[str], images: Tensor, top: int, threshold: float = 0.0
) -> list[list[Answer]]:
    """Return the `top` most probable classes of each image, without those less probable than the threshold.

    Args:
        network: the network.
        called: what people call its classes.
        images: RGB, uint8 [B, 3, S, S].
        top: at most the number of classes.
        threshold: a probability, 0 to 1.

    Raises:
        UserError: the outputs are not finite.
    """
    probabilities = network.probabilities(images)
    if not probabilities.isfinite().all():
        raise UserError(
            f"{network.called}: its outputs are not finite numbers, so its weights have diverged; name another "
            "network, or another checkpoint of the run: --checkpoint PATH"
        )
    best, labels = (part.tolist() for part in probabilities.topk(top, dim=1))
    return [
        [
            Answer(label, network.classes[label], called[label], value)
            for label, value in zip(classes, values, strict=True)
            if value >= threshold
        ]
        for values, classes in zip(best, labels, strict=True)
    ]
