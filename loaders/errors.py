"""What a data set's faults look like, and how to get the sentence back out of a worker's traceback."""

import contextlib
import re
from collections.abc import Iterator

from config.errors import DataError, UserError

_ENDED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([\w ]+)")  # torch's words
_REASONS = {
    "Killed": "most likely the machine's memory ran out; fewer workers need less: train_dataset.num_workers=1",
    "Bus error": "most likely shared memory is full; look: df -h /dev/shm; a container gets more by --shm-size=8g",
    "Terminated": "another program or the scheduler stopped it",
}
_CRASH = "a library or the decoder crashed; train_dataset.decoder=pil does without ours"
_OWN_KEY = re.compile(r"(?<![\w.])(?:is_streaming|local|storage|pack_size|decoder)=")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*): ", re.MULTILINE)


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


def plain(exc: BaseException) -> str | None:
    """The sentence a user should read, from an exception or anything it was raised from.

    A fault inside a DataLoader worker arrives as an exception of the same type, whose message is the worker's whole
    traceback; the sentence is what follows the exception's name on the traceback's last frame.

    Args:
        exc: what was caught.

    Returns:
        The sentence without traceback, or None when neither a user's mistake nor a worker's end is behind it.
    """
    seen: set[int] = set()
    current: BaseException | None = exc
    killed: re.Match[str] | None = None
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, UserError):
            return _without_traceback(str(current))
        killed = killed or _ENDED.search(str(current))
        current = current.__cause__ or current.__context__
    if killed:
        return f"worker process {killed[1]} was ended by a signal ({killed[2]}): {_REASONS.get(killed[2], _CRASH)}"
    return None


def _without_traceback(text: str) -> str:
    """The last raised user's mistake in `text`, or `text` itself where it is no traceback."""
    if "Traceback (most recent call last)" not in text:
        return text
    names = {kind.__name__ for kind in _subclasses(UserError)}
    starts = [found.end() for found in _RAISED.finditer(text) if found.group(1) in names]
    return text[starts[-1] :].strip() if starts else text


def _subclasses(kind: type[UserError]) -> set[type[UserError]]:
    """`kind` and every class derived from it."""
    found = {kind}
    for child in kind.__subclasses__():
        found |= _subclasses(child)
    return found


def reason(error: Exception) -> str:
    """What a decoder raised, in a line without memory addresses: the same words in every run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", (str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {text}"


def unreadable(error: Exception) -> str:
    """What is wrong with a picture, as the rest of a sentence that begins with its name."""
    if isinstance(error, DamagedScan):
        return f"is damaged ({error})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"cannot be read as a picture ({reason(error)})"


def named(names: list[str], most: int = 5) -> str:
    """A short list for a sentence: `a, b, c and 7 more`.

    Args:
        names: what to list.
        most: how many to name.
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
