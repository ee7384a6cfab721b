"""What a data set's faults look like."""

import contextlib
import re
from collections.abc import Iterator

from common.errors import DataError

_OWN_KEY = re.compile(r"(?<![\w.])(?:is_streaming|local|cache_limit|storage|pack_size|decoder)=")


class LocalMissing(DataError, ValueError):
    """Streaming was asked for without a cache folder (a ValueError too, as in the published example)."""


class DamagedScan(Exception):
    """A JPEG that PIL decodes, but libjpeg-turbo warns of; the message is its warning."""


@contextlib.contextmanager
def in_section(name: str) -> Iterator[None]:
    """Complete the keys in a data set's error message: it does not know the section that it is built from.

    Args:
        name: train_dataset or eval_dataset.
    """
    try:
        yield
    except DataError as error:
        error.args = (_OWN_KEY.sub(rf"{name}.\g<0>", str(error)),)
        raise


def reason(error: Exception) -> str:
    """What a decoder raised, in a line without memory addresses: the same words in every run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", (str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {text}"


def unreadable(error: Exception) -> str:
    """What is wrong with an image, as the rest of a sentence that begins with its name."""
    if isinstance(error, DamagedScan):
        return f"is damaged ({error})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"cannot be read as an image ({reason(error)})"
