"""Contact sheets: sections below one another, each with a heading and rows of captioned image tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont

from common.terminal import printable

PAPER, INK, SOFT, EDGE = "#ffffff", "#1f2328", "#656d76", "#d0d7de"
MARGIN, GAP, HEADING, LINE = 32, 14, 62, 18  # pixels

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """An image and its caption."""

    image: torch.Tensor  # uint8 [3, H, W]
    lines: Sequence[tuple[str, str]]  # text and color; all tiles of a section have as many


@dataclass(frozen=True)
class Section:
    """Tiles under a title in large type and a caption in small type."""

    title: str
    caption: str
    tiles: Sequence[Tile]


def draw_sheet(sections: Sequence[Section], columns: int, side: int) -> Image.Image:
    """Draw the sections from top to bottom, with `columns` tiles of `side` pixels per row."""
    lines = [max((len(tile.lines) for tile in section.tiles), default=0) for section in sections]
    steps = [side + LINE * count + 6 + GAP for count in lines]  # from one row of tiles to the next
    rows = [-(-len(section.tiles) // columns) for section in sections]
    heights = [HEADING + count * step for count, step in zip(rows, steps, strict=True)]
    sheet = Image.new("RGB", (2 * MARGIN + columns * (side + GAP) - GAP, 2 * MARGIN + sum(heights) - GAP), PAPER)
    pen, top = ImageDraw.Draw(sheet), MARGIN
    large, small = ImageFont.load_default(22), ImageFont.load_default(14)
    for section, step, height in zip(sections, steps, heights, strict=True):
        room = sheet.width - 2 * MARGIN
        pen.text((MARGIN, top), _fitted(pen, section.title, large, room), font=large, fill=INK)
        pen.text((MARGIN, top + 30), _fitted(pen, section.caption, small, room), font=small, fill=SOFT)
        for number, tile in enumerate(section.tiles):
            row, column = divmod(number, columns)
            left, upper = MARGIN + column * (side + GAP), top + HEADING + row * step
            sheet.paste(_scaled(tile.image, side), (left, upper))
            pen.rectangle((left - 1, upper - 1, left + side, upper + side), outline=EDGE)
            for at, (text, color) in enumerate(tile.lines):
                corner = left, upper + side + 5 + at * LINE
                pen.text(corner, _fitted(pen, text, small, side), font=small, fill=color)
        top += height
    return sheet


def _scaled(image: torch.Tensor, side: int) -> Image.Image:
    """Resize an image to a tile; the pixels of small images stay visible."""
    drawn = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    enlarges = max(drawn.size) < side
    return drawn.resize((side, side), Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """Return the printable text, cut with an ellipsis to a width in pixels."""
    shown = text = printable(text)
    while text and pen.textlength(shown, font=font) > width:
        text = text[:-1]
        shown = text + "..."
    return shown
