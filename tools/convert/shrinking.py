"""What becomes of one image: kept bit for bit, or made smaller."""

import io
from dataclasses import dataclass

from PIL import Image

from loaders.images.decoding import check, open_image


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored.

    Args:
        max_size: the longer side of larger images becomes this many pixels (FFCV's max_resolution); None keeps all.
        quality: of the JPEGs that smaller images are stored as, 1 to 100.
    """

    max_size: int | None
    quality: int

    def remake(self, data: bytes) -> bytes:
        """An image's encoded bytes as they are to be stored, after making sure that every pixel can be decoded.

        Args:
            data: the encoded bytes as they are; the same are returned for an image that is small enough.

        Raises:
            Exception: as `loaders.images.decoding.check`, for bytes that are no image, damaged, or end too early.
        """
        size = None
        height, width = check(data)
        if self.max_size is not None:
            size = fitting((width, height), self.max_size)
        if size is None:
            return data
        out = io.BytesIO()
        open_image(data).resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=self.quality)
        return out.getvalue()


def fitting(size: tuple[int, int], max_size: int) -> tuple[int, int] | None:
    """Width and height in pixels that bring the longer side down to `max_size`; None for what is small enough."""
    longer = max(size)
    if longer <= max_size:
        return None
    width, height = (max(1, round(side * max_size / longer)) for side in size)
    return width, height
