"""The most confident mistakes on one sheet: what the network saw, what it is, and what it was taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from loaders.dataset import ImageDataset
from loaders.images.sheet import SOFT, Section, Tile, draw_sheet
from tools.evaluate.figures import Findings

COLUMNS, SIDE = 6, 176  # tiles in a row, and a tile's pixels
_RIGHT, _WRONG = "#1a7f37", "#cf222e"


def collect(images: ImageDataset, found: Findings, numbers: list[int]) -> list[Tile]:
    """The images of those numbers, read again, with what is said of them.

    Args:
        images: the evaluation data, their pipeline at the size of the pass.
        found: of the pass.
        numbers: of images, in the data set's order.
    """
    labels, plain, names = found.result.labels, found.result.plain, found.names

    def tile(number: int) -> Tile:
        file = Path(images.name_of(number)).name
        lines = [
            (f"is {names[labels[number]]}", _RIGHT),
            (f"taken for {names[plain.predicted[number]]}", _WRONG),
            (f"{100 * plain.confidence[number]:.1f} %  {file}", SOFT),
        ]
        return Tile(images[number][0], lines)

    return [tile(number) for number in numbers]


def draw(mistakes: list[Tile], run: str, found: Findings, about: dict[str, Any]) -> Image.Image:
    """The sheet.

    Args:
        mistakes: in the order in which they are shown.
        run: its name.
        found: of the pass.
        about: checkpoint, data and size, as in summary.json.
    """
    wrong, images = int((~found.result.right).sum()), len(found.result.labels)
    title = f"{run}: {len(mistakes):,} of {wrong:,} mistakes in {images:,} images, the most confident first"
    caption = f"{about['checkpoint']}, {about['data']}, at {about['size']} px"
    return draw_sheet([Section(title, caption, mistakes)], COLUMNS, SIDE)
