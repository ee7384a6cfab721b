"""Write images to a .beton file, as read by the ffcv package and `loaders.storage.beton`."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError
from common.whole_files import whole_file
from loaders.errors import reason
from loaders.images.decoding import open_file, open_image
from loaders.storage.beton import ALLOCATION, FIELD, HEADER, INT, JPG, RAW, RGB_IMAGE, SAMPLE, VERSION

PAGE_SIZE = 1 << 23  # bytes: ffcv's default; a larger image needs a larger page
LARGEST_PAGE = 1 << 31  # bytes: the largest power of two that fits the header's 32 bits
AHEAD = 4  # finished images per worker that may wait to be written


class Stored(NamedTuple):
    """One sample as stored in the file: an unchanged JPEG, or pixels row by row."""

    mode: int
    width: int
    height: int
    data: bytes
    label: int


def write_beton(
    path: Path,
    count: int,
    image: Callable[[int], tuple[bytes, int]],
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a split of `count` images to one file; its bytes do not depend on the number of workers.

    Gray and color JPEGs are copied without decoding them, so check them first; all others are stored as RGB pixels. The
    file is written as PATH.part, which no reader takes for a data set, and renamed when it is complete.

    Args:
        path: the file to write or replace.
        count: at least 1.
        image: index -> (encoded image, label); called in threads, once per index, in any order.
        workers: threads; each holds at most AHEAD finished images.
        progress: called after each image with the number written.

    Raises:
        DataError: an image cannot be read or stored, or the disk cannot be written to or is full.
        Exception: whatever `image` raises.
    """
    if count < 1:
        raise DataError(f"{path}: there are no images to write. Give a folder that holds some.")
    with contextlib.ExitStack() as stack:
        with _unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A fixed name, so that the next conversion overwrites the file of a killed one (up to 100 GB).
            part = stack.enter_context(whole_file(path, path.with_name(f"{path.name}.part"), durable=True))
            # Unbuffered, so that closing it after an error writes nothing more.
            file = stack.enter_context(part.open("wb", buffering=0))
        with contextlib.closing(_in_order(image, count, workers)) as images:
            _write_all(file.fileno(), path, count, images, progress)
        with _unwritable(path):
            stack.close()


def stored(encoded: bytes, label: int) -> Stored:
    """Convert one image, of any format that PIL reads, to its stored form.

    Raises:
        DataError: the image exceeds the format's 16-bit sides or its pages.
        Exception: whatever PIL raises for bytes that are not an image.
    """
    with open_file(encoded) as image:
        width, height = image.size
        # MPO: a JPEG followed by further ones, as some cameras write. Not CMYK, which ffcv cannot decode.
        is_copied = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
    size = len(encoded) if is_copied else 3 * width * height
    if max(width, height) >= 1 << 16 or size > LARGEST_PAGE:
        raise DataError(
            f"{width} x {height} pixels, {size} bytes: a .beton file holds images of at most 65535 pixels a side and "
            f"{LARGEST_PAGE} bytes. Give a smaller --max-size."
        )
    data = encoded if is_copied else np.asarray(open_image(encoded)).tobytes()
    return Stored(JPG if is_copied else RAW, width, height, data, label)


def _in_order(image: Callable[[int], tuple[bytes, int]], count: int, workers: int) -> Generator[Stored, None, None]:
    """Yield samples 0 to count - 1, which threads prepare ahead."""

    def make(index: int) -> Stored:
        encoded, label = image(index)
        try:
            return stored(encoded, label)
        except Exception as error:
            cause = str(error) if isinstance(error, DataError) else reason(error)
            raise DataError(f"image {index} cannot be stored ({cause}).") from error

    waiting: deque[Future[Stored]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for index in range(count):
            waiting.append(pool.submit(make, index))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_all(
    file: int, path: Path, count: int, images: Iterator[Stored], progress: Callable[[int], None] | None
) -> None:
    """Write the images, each within a page, then the tables, and the header last."""
    samples, allocations = np.zeros(count, SAMPLE), np.zeros(count, ALLOCATION)
    fields = np.array([(RGB_IMAGE, b"image", b""), (INT, b"label", b"")], FIELD)
    page = PAGE_SIZE
    end = _aligned(HEADER.itemsize + fields.nbytes + samples.nbytes, page)
    for index, (mode, width, height, data, label) in enumerate(images):
        # The page size may grow: an image within a small page is also within the larger page around it.
        page = max(page, 1 << (len(data) - 1).bit_length())
        address = end if end % page + len(data) <= page else _aligned(end, page)
        _write(file, path, address, data)
        samples[index] = (mode, width, height, address, label)
        allocations[index] = (index, address, len(data))
        end = address + len(data)
        if progress:
            progress(index + 1)
    end = _aligned(end, page)
    header = np.array([(VERSION, len(fields), page, count, end)], HEADER)
    _write(file, path, end, allocations.tobytes())
    _write(file, path, 0, header.tobytes() + fields.tobytes() + samples.tobytes())


def _aligned(position: int, page: int) -> int:
    """Round up to a multiple of `page`, in bytes."""
    return -(-position // page) * page


def _write(file: int, path: Path, address: int, data: bytes) -> None:
    """Write all of `data`; a nearly full disk accepts a part of it and raises at the next call."""
    left = memoryview(data)
    with _unwritable(path):
        while left:
            written = os.pwrite(file, left, address)
            address, left = address + written, left[written:]


@contextlib.contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    """Turn an OSError about a file being written into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}). Free some space or choose another folder; "
            f"`df {path.parent}` shows what is left."
        ) from error
