"""The most confident mistakes on one sheet: what the network saw, what it is, and what it was taken for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from loaders.dataset import PictureDataset
from tools.evaluate.figures import Findings

COLUMNS = 6
TILE, GAP, MARGIN = 176, 16, 32  # pixels
LINE = 18  # pixels from one line of text to the next
_HEADING, _CAPTION = 64, 3 * LINE + 8  # heights in pixels
_PAPER, _INK, _SOFT, _EDGE, _RIGHT, _WRONG = "#ffffff", "#1f2328", "#656d76", "#d0d7de", "#1a7f37", "#cf222e"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for something else.

    Attributes:
        image: as the network saw it, uint8 [3, size, size].
        true: its class.
        predicted: what it was taken for.
        confidence: how sure the network was, 0 to 1.
        name: of its file.
    """

    image: torch.Tensor
    true: str
    predicted: str
    confidence: float
    name: str


def collect(pictures: PictureDataset, found: Findings, numbers: list[int]) -> list[Mistake]:
    """The pictures of those numbers, read again, with what is said of them.

    Args:
        pictures: the evaluation data, their pipeline at the size of the pass.
        found: of the pass.
        numbers: of pictures, in the data set's order.
    """
    labels, plain, names = found.result.labels, found.result.plain, found.names
    return [
        Mistake(
            pictures[n][0],
            names[labels[n]],
            names[plain.predicted[n]],
            float(plain.confidence[n]),
            Path(pictures.name_of(n)).name,
        )
        for n in numbers
    ]


def heading(run: str, found: Findings, shown: int, about: dict[str, Any]) -> tuple[str, str]:
    """Title and caption of the sheet.

    Args:
        run: its name.
        found: of the pass.
        shown: how many mistakes are on the sheet.
        about: checkpoint, data and size, as in summary.json.
    """
    wrong, images = int((~found.result.right).sum()), len(found.result.labels)
    title = f"{run}: {shown:,} of {wrong:,} mistakes in {images:,} pictures, the most confident first"
    return title, f"{about['checkpoint']}, {about['data']}, at {about['size']} px"


def draw(mistakes: list[Mistake], title: str, caption: str) -> Image.Image:
    """The sheet.

    Args:
        mistakes: in the order in which they are shown.
        title: in large letters.
        caption: below it, in small ones.
    """
    rows = -(-len(mistakes) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * (TILE + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + _HEADING + rows * (TILE + _CAPTION + GAP) - GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(22), ImageFont.load_default(14)
    pen.text((MARGIN, MARGIN), _fitted(pen, title, large, width - 2 * MARGIN), font=large, fill=_INK)
    pen.text((MARGIN, MARGIN + 30), _fitted(pen, caption, small, width - 2 * MARGIN), font=small, fill=_SOFT)
    for number, mistake in enumerate(mistakes):
        row, column = divmod(number, COLUMNS)
        place = MARGIN + column * (TILE + GAP), MARGIN + _HEADING + row * (TILE + _CAPTION + GAP)
        _draw_one(sheet, pen, mistake, place, small)
    return sheet


def _draw_one(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, mistake: Mistake, place: tuple[int, int], font: Font
) -> None:
    """A picture with its three lines; `place` is its upper left corner."""
    left, upper = place
    sheet.paste(_tile(mistake.image), place)
    pen.rectangle((left - 1, upper - 1, left + TILE, upper + TILE), outline=_EDGE)
    lines = (
        (f"is {mistake.true}", _RIGHT),
        (f"taken for {mistake.predicted}", _WRONG),
        (f"{100 * mistake.confidence:.1f} %  {mistake.name}", _SOFT),
    )
    for number, (text, colour) in enumerate(lines):
        text = _fitted(pen, text, font, TILE)
        pen.text((left, upper + TILE + 6 + number * LINE), text, font=font, fill=colour)


def _tile(image: torch.Tensor) -> Image.Image:
    """The picture at TILE pixels; small ones keep their pixels visible."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    how = Image.Resampling.NEAREST if picture.width < TILE else Image.Resampling.LANCZOS
    return picture.resize((TILE, TILE), how)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """`text`, cut with an ellipsis to a width in pixels."""
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
