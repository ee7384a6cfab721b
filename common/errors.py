"""Errors for mistakes that users can make, printed as a sentence without traceback, even from a DataLoader worker."""

import re

from common.output import visible

_ENDED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([\w ]+)")  # torch's wording
_REASONS = {
    "Killed": "most likely the machine ran out of memory; fewer workers need less: train_dataset.num_workers=1",
    "Bus error": "most likely shared memory is full (see df -h /dev/shm); give a container more with --shm-size=8g",
    "Terminated": "another program or the scheduler stopped it",
}
_CRASH = "a library or the decoder crashed; train_dataset.decoder=pil avoids our decoder"
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*): ", re.MULTILINE)


class UserError(Exception):
    """A mistake that the user can correct; main prints it without traceback and exits with `exit_status`."""

    exit_status = 1


class ConfigError(UserError, ValueError):
    """All problems with a configuration at once, each a sentence: what was given, what is allowed, what was meant."""

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set that cannot be read; the message names the path, the problem, and what to type next."""


class TrainingError(UserError):
    """A run that cannot continue, because of a NaN loss or a checkpoint that does not fit, for example."""


def sentence_of(exc: BaseException) -> str | None:
    """Return the message of the UserError, or killed worker, that caused an exception; None if neither did."""
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
        return f"worker process {killed[1]} was killed by a signal ({killed[2]}): {_REASONS.get(killed[2], _CRASH)}"
    return None


def _without_traceback(text: str) -> str:
    """Return the last UserError in a traceback's text, or `text` itself if it is not a traceback.

    An error in a DataLoader worker arrives as an exception of the same type whose message is the worker's entire
    traceback; the sentence follows the exception's name after the last frame.
    """
    if "Traceback (most recent call last)" not in text:
        return text
    kinds: list[type[UserError]] = [UserError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    names = {kind.__name__ for kind in kinds}
    starts = [match.end() for match in _RAISED.finditer(text) if match.group(1) in names]
    return text[starts[-1] :].strip() if starts else text


def named(names: list[str], most: int = 5) -> str:
    """Format a list for a sentence, naming at most `most`: `a, b, c and 7 more`."""
    shown = visible(", ".join(names[:most])).replace("\n", "\\n")
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(count: int, one: str, many: str) -> str:
    """Format a number for a sentence: `1 file is` or `1,024 files are`."""
    return f"{count:,} {one if count == 1 else many}"
