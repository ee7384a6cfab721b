"""Read every image once: its hash, its thumbnail, and whether it can be decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xxhash
from PIL import Image

from common.errors import DataError
from loaders.errors import unreadable
from loaders.images.decoding import open_file, open_image
from tools.convert.sources import Part
from tools.split.duplicates import SIDE

EMPTY = "is an empty file"


@dataclass
class Looked:
    """What was found in some images, one item per image in all but `start`."""

    start: int  # index of the first image
    digests: np.ndarray  # uint64, hashes of the files' bytes
    thumbnails: np.ndarray  # uint8 [N, SIDE, SIDE], gray
    labels: np.ndarray  # int64
    faults: list[str]  # why an image cannot be used, to follow its name; empty if it can
    bytes: int = 0  # of their files

    @classmethod
    def of(cls, count: int, start: int = 0) -> Looked:
        """Return what is known of images before they are read."""
        thumbnails = np.zeros((count, SIDE, SIDE), np.uint8)
        return cls(start, np.zeros(count, np.uint64), thumbnails, np.zeros(count, np.int64), [""] * count)

    def put(self, part: Looked) -> None:
        """Take over what was found in a part of the images."""
        images = slice(part.start, part.start + len(part.faults))
        for name in ("digests", "thumbnails", "labels", "faults"):
            getattr(self, name)[images] = getattr(part, name)


def look(start: int, part: Part, progress: Callable[[int], None]) -> Looked:
    """Look at some images, whose first index is `start`; call `progress` with 1 after each."""
    found = Looked.of(len(part.indices), start)
    for place in range(len(part.indices)):
        try:
            data, found.labels[place] = part.read(place)
            found.bytes += len(data)
            found.digests[place] = xxhash.xxh3_64_intdigest(data)
            if data:
                found.thumbnails[place] = thumbnail(data)
            else:
                found.faults[place] = EMPTY
        except (DataError, MemoryError):
            raise
        except Exception as error:  # each format of PIL raises its own
            found.faults[place] = unreadable(error)
        progress(1)
    return found


def thumbnail(data: bytes) -> np.ndarray:
    """Reduce an encoded image to gray, uint8 [SIDE, SIDE]; raises whatever PIL raises for a damaged one."""
    image = open_file(data)
    image.draft("RGB", (4 * SIDE, 4 * SIDE))  # decodes a large JPEG at down to an eighth of its size
    gray = open_image(image).convert("L")
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
