"""One picture that shows what the model is given: a batch of training and one of evaluation, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from common.terminal import printable

COLUMNS, ROWS = 8, 3  # per section
TILE, GAP, MARGIN = 136, 12, 32  # pixels
_LABEL, _CAPTION = 22, 46  # heights in pixels
_PAPER, _INK, _SOFT, _EDGE = "#ffffff", "#1f2328", "#656d76", "#d0d7de"


@dataclass(frozen=True)
class Section:
    """A batch and what to say of it.

    Args:
        title: in large letters.
        caption: beside it, in small ones.
        images: uint8 [B, 3, H, W].
        labels: int64 [B].
    """

    title: str
    caption: str
    images: torch.Tensor
    labels: torch.Tensor

    @property
    def shown(self) -> int:
        """How many of the batch fit."""
        return min(len(self.images), COLUMNS * ROWS)

    @property
    def height(self) -> int:
        """In pixels, caption included."""
        rows = -(-self.shown // COLUMNS)
        return _CAPTION + rows * (TILE + _LABEL + GAP)


def draw_contact_sheet(sections: Sequence[Section], classes: Sequence[str] | None) -> Image.Image:
    """Draw the sections below one another.

    Args:
        sections: what to draw.
        classes: names by label; None writes the numbers.
    """
    width = 2 * MARGIN + COLUMNS * TILE + (COLUMNS - 1) * GAP
    height = 2 * MARGIN + sum(section.height for section in sections) + GAP * (len(sections) - 1)
    sheet = Image.new("RGB", (width, height), _PAPER)
    top = MARGIN
    for section in sections:
        _draw_section(sheet, section, top, classes)
        top += section.height + GAP
    return sheet


def write_contact_sheet(path: Path, sections: Sequence[Section], classes: Sequence[str] | None) -> Path:
    """Draw the sections and save them as a PNG; returns where, in full."""
    draw_contact_sheet(sections, classes).save(path)
    return path.resolve()


def _draw_section(sheet: Image.Image, section: Section, top: int, classes: Sequence[str] | None) -> None:
    """Draw a caption and rows of labelled pictures, from `top` pixels downwards."""
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(22), ImageFont.load_default(14)
    pen.text((MARGIN, top + 22), section.title, font=large, fill=_INK, anchor="ls")
    indent = MARGIN + pen.textlength(section.title, font=large) + GAP
    pen.text((indent, top + 22), section.caption, font=small, fill=_SOFT, anchor="ls")
    for number in range(section.shown):
        row, column = divmod(number, COLUMNS)
        left = MARGIN + column * (TILE + GAP)
        upper = top + _CAPTION + row * (TILE + _LABEL + GAP)
        sheet.paste(_tile(section.images[number]), (left, upper))
        pen.rectangle((left - 1, upper - 1, left + TILE, upper + TILE), outline=_EDGE)
        label = int(section.labels[number])
        name = classes[label] if classes and label < len(classes) else f"class {label}"
        pen.text((left, upper + TILE + 5), _fitted(pen, printable(name), small), font=small, fill=_INK)


def _tile(image: torch.Tensor) -> Image.Image:
    """A uint8 [3, H, W] tensor as a picture of TILE pixels; small ones keep their pixels visible."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    enlarges = max(picture.size) < TILE
    return picture.resize((TILE, TILE), Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text`, cut with an ellipsis to a tile's width."""
    if pen.textlength(text, font=font) <= TILE:
        return text
    while text and pen.textlength(text + "...", font=font) > TILE:
        text = text[:-1]
    return text + "..."
