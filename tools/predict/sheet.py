"""The contact sheet of classified images."""

from __future__ import annotations

from pathlib import Path

import torch

from common.errors import UserError, counted
from common.whole_files import whole_file
from loaders.class_names import shown
from loaders.images.sheet import INK, SOFT, Section, Tile, draw_sheet
from tools.predict.formats import Prediction

MOST_TILES, COLUMNS, SIDE = 120, 6, 176  # images, tiles in a row, a tile's pixels


class Sheet:
    """A contact sheet of the first images with their answers, in the pixels that the network saw."""

    def __init__(self, called: str) -> None:
        self.called = called
        self.images = 0  # classified
        self.tiles: list[Tile] = []

    def add(self, prediction: Prediction, image: torch.Tensor | None) -> None:
        """Count an image, and keep a copy if it is given and there is room."""
        self.images += 1
        if image is None or len(self.tiles) == MOST_TILES:
            return
        best = prediction.answers[0] if prediction.answers else None
        lines = [
            (shown(best.one, best.name) if best else "-", INK),
            (f"{100 * best.probability:.1f} %" if best else "", SOFT),
            (Path(prediction.file).name, SOFT),
        ]
        self.tiles.append(Tile(image.clone(), lines))

    def save(self, file: Path) -> None:
        """Draw the sheet and write it whole."""
        caption = f"{len(self.tiles):,} of {counted(self.images, 'image', 'images')}"
        drawn = draw_sheet([Section(self.called, caption, self.tiles)], COLUMNS, SIDE)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as temporary:
                drawn.save(temporary, "PNG")
        except OSError as error:
            raise UserError(f"--sheet {file}: cannot be written ({error.strerror}); name another file") from error
