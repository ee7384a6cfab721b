"""Writing images to a .beton file that the ffcv package and `loaders.storage.beton` read."""

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

PAGE_SIZE = 1 << 23  # bytes: ffcv's usual page; a larger image needs a larger one
LARGEST_PAGE = 1 << 31  # bytes: the largest power of two that the header's 32 bits hold
AHEAD = 4  # images per worker that may wait for their turn to be written


class Stored(NamedTuple):
    """One sample as it goes to the file: a JPEG as it was, or pixels row by row."""

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
    """Write a data set's split to one file; the same images give the same bytes, whatever the number of workers.

    Grey and colour JPEGs are copied as they are, without decoding them: pass on only what is known to decode. All
    else is stored as RGB pixels. The file appears under its name when it is complete; until then, and if the process
    is killed, there is PATH.part, which no reader takes for a data set.

    Args:
        path: the file to write; one that is there is replaced.
        count: how many images there are, at least 1.
        image: index -> (encoded image, label); called in threads, for each index once, in any order.
        workers: threads; each holds at most AHEAD finished images.
        progress: told how many images are written, after each.

    Raises:
        DataError: an image that cannot be read or stored, or a disk that cannot be written to or is full.
        Exception: whatever `image` raises.
    """
    if count < 1:
        raise DataError(f"{path}: there are no images to write. Give a folder that holds some.")
    with contextlib.ExitStack() as stack:
        with _unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A fixed name: a killed conversion's file, maybe of 100 GB, is overwritten by the next one.
            part = stack.enter_context(whole_file(path, path.with_name(f"{path.name}.part"), durable=True))
            file = stack.enter_context(part.open("wb", buffering=0))  # closing it after a fault writes nothing more
        with contextlib.closing(_in_order(image, count, workers)) as images:
            _write_all(file.fileno(), path, count, images, progress)
        with _unwritable(path):
            stack.close()


def stored(encoded: bytes, label: int) -> Stored:
    """How one image goes to the file.

    Args:
        encoded: a file's bytes, of any format that PIL reads.
        label: the class.

    Raises:
        DataError: the image does not fit the format's 16-bit sides or its pages.
        Exception: whatever PIL raises for bytes that are no image.
    """
    with open_file(encoded) as image:
        width, height = image.size
        # MPO: a JPEG with further ones behind it, as some cameras write. CMYK is left out: ffcv cannot decode it.
        as_it_is = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
    size = len(encoded) if as_it_is else 3 * width * height
    if max(width, height) >= 1 << 16 or size > LARGEST_PAGE:
        raise DataError(
            f"{width} x {height} pixels, {size} bytes: a .beton file holds images of at most 65535 pixels a side and "
            f"{LARGEST_PAGE} bytes. Give a smaller --max-size."
        )
    data = encoded if as_it_is else np.asarray(open_image(encoded)).tobytes()
    return Stored(JPG if as_it_is else RAW, width, height, data, label)


def _in_order(image: Callable[[int], tuple[bytes, int]], count: int, workers: int) -> Generator[Stored, None, None]:
    """Samples 0 to count - 1, made ahead of their turn by threads."""

    def make(index: int) -> Stored:
        encoded, label = image(index)
        try:
            return stored(encoded, label)
        except Exception as error:
            what = str(error) if isinstance(error, DataError) else reason(error)
            raise DataError(f"image {index} cannot be stored ({what}).") from error

    waiting: deque[Future[Stored]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for index in range(count):
            waiting.append(pool.submit(make, index))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_all(
    file: int, path: Path, count: int, images: Iterator[Stored], progress: Callable[[int], None] | None
) -> None:
    """Images first, each inside a page, then the tables, and the header at the very end."""
    samples, allocations = np.zeros(count, SAMPLE), np.zeros(count, ALLOCATION)
    fields = np.array([(RGB_IMAGE, b"image", b""), (INT, b"label", b"")], FIELD)
    page = PAGE_SIZE
    end = _aligned(HEADER.itemsize + fields.nbytes + samples.nbytes, page)
    for index, (mode, width, height, data, label) in enumerate(images):
        # A page may grow on the way: what lies inside a small page lies inside the larger one around it too.
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
    """The next multiple of `page`, bytes."""
    return -(-position // page) * page


def _write(file: int, path: Path, address: int, data: bytes) -> None:
    """Write all of `data`; a disk that is nearly full takes part of it, and complains the next time."""
    left = memoryview(data)
    with _unwritable(path):
        while left:
            written = os.pwrite(file, left, address)
            address, left = address + written, left[written:]


@contextlib.contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    """Turn the system's complaints about a file being written into a sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}). Free some space or choose another folder; "
            f"`df {path.parent}` says what is left."
        ) from error
