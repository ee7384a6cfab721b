"""Draw the most confident mistakes: the image, its class, and the predicted class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from loaders.dataset import ImageDataset
from loaders.images.sheet import SOFT, Section, Tile, draw_sheet
from tools.evaluate.figures import Findings

COLUMNS, SIDE = 6, 176  # tiles in a row, and a tile's pixels
_RIGHT, _WRONG = "#1a7f37", "#cf222e"


def draw(
    images: ImageDataset, numbers: list[int], run: str, found: Findings, about: dict[str, Any]
) -> Image.Image | None:
    """Draw mistakes on one sheet; None if there are none.

    Args:
        images: the evaluation data, with the pipeline of the pass.
        numbers: indices of the mistakes in the data set.
        run: name of the run.
        found: figures of the pass.
        about: checkpoint, data and size, as in summary.json.
    """
    if not numbers:
        return None
    labels, plain, names = found.result.labels, found.result.plain, found.names
    tiles = []
    for number in numbers:
        lines = [
            (f"is {names[labels[number]]}", _RIGHT),
            (f"taken for {names[plain.predicted[number]]}", _WRONG),
            (f"{100 * plain.confidence[number]:.1f} %  {Path(images.name_of(number)).name}", SOFT),
        ]
        tiles.append(Tile(images[number][0], lines))
    wrong = int((~found.result.right).sum())
    title = f"{run}: {len(tiles):,} of {wrong:,} mistakes in {len(labels):,} images, the most confident first"
    caption = f"{about['checkpoint']}, {about['data']}, at {about['size']} px"
    return draw_sheet([Section(title, caption, tiles)], COLUMNS, SIDE)
