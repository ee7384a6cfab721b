"""Errors of data sets, and how their messages are worded."""

import contextlib
import re
from collections.abc import Iterator

from common.errors import DataError

_OWN_KEY = re.compile(r"(?<![\w.])(?:is_streaming|local|cache_limit|storage|pack_size|decoder)=")


class LocalMissing(DataError, ValueError):
    """Streaming without a cache folder (a ValueError too, as in the published example)."""


class BatchTooLarge(DataError):
    """A batch, of all `ranks` together, larger than a data set of so many `images`; `facts` says so without advice."""

    def __init__(self, batch_size: int, images: int, ranks: int) -> None:
        self.images, self.ranks = images, ranks
        self.facts = f"a batch of {batch_size} images is larger than the data set of {images}"
        super().__init__(f"{self.facts}: set train_dataset.batch_size={images // ranks * ranks} or less.")


class DamagedScan(Exception):
    """A JPEG that PIL decodes but libjpeg-turbo warns about; the message is libjpeg-turbo's."""


@contextlib.contextmanager
def in_section(name: str) -> Iterator[None]:
    """Prefix the keys in a data set's error messages with its section: train_dataset or eval_dataset."""
    try:
        yield
    except DataError as error:
        error.args = (_OWN_KEY.sub(rf"{name}.\g<0>", str(error)),)
        raise


def reason(error: Exception) -> str:
    """Format a decoder's exception in one line, without memory addresses: the same text in every run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", (str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {text}"


def unreadable(error: Exception) -> str:
    """Describe what is wrong with an image, to follow its name in a message."""
    if isinstance(error, DamagedScan):
        return f"is damaged ({error})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"cannot be read as an image ({reason(error)})"
