"""Read every image once: its hash, its thumbnail, and whether it can be decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from PIL import Image

from loaders.errors import unreadable
from loaders.images.decoding import open_file, open_image
from tools.split.duplicates import SIDE

EMPTY = "is an empty file"


@dataclass
class Looked:
    """What was found in some images, one item per image in all but `start`."""

    start: int  # index of the first image
    digests: np.ndarray  # uint64, hashes of the files' bytes
    thumbnails: np.ndarray  # uint8 [N, SIDE, SIDE], gray
    faults: list[str]  # why an image cannot be used, to follow its name; empty if it can


def look(start: int, paths: list[Path], progress: Callable[[int], None]) -> Looked:
    """Look at some images, whose first index is `start`; call `progress` with 1 after each."""
    found = Looked(start, np.zeros(len(paths), np.uint64), np.zeros((len(paths), SIDE, SIDE), np.uint8), [])
    for number, path in enumerate(paths):
        fault = ""
        try:
            data = path.read_bytes()
            found.digests[number] = xxhash.xxh3_64_intdigest(data)
            if data:
                found.thumbnails[number] = thumbnail(data)
            else:
                fault = EMPTY
        except Exception as error:  # each format of PIL raises its own
            fault = unreadable(error)
        found.faults.append(fault)
        progress(1)
    return found


def thumbnail(data: bytes) -> np.ndarray:
    """Reduce an encoded image to gray, uint8 [SIDE, SIDE]; raises whatever PIL raises for a damaged one."""
    image = open_file(data)
    image.draft("RGB", (4 * SIDE, 4 * SIDE))  # decodes a large JPEG at down to an eighth of its size
    gray = open_image(image).convert("L")
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
