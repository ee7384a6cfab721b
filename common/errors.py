"""The mistakes a user can make: each prints as a sentence, never as a traceback, a DataLoader worker's too."""

import re

_ENDED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([\w ]+)")  # torch's words
_REASONS = {
    "Killed": "most likely the machine's memory ran out; fewer workers need less: train_dataset.num_workers=1",
    "Bus error": "most likely shared memory is full; look: df -h /dev/shm; a container gets more by --shm-size=8g",
    "Terminated": "another program or the scheduler stopped it",
}
_CRASH = "a library or the decoder crashed; train_dataset.decoder=pil does without ours"
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*): ", re.MULTILINE)


class UserError(Exception):
    """A fault that the user can mend; main prints it alone and exits with `exit_status`."""

    exit_status = 1


class ConfigError(UserError, ValueError):
    """Everything that is wrong with a configuration, all at once.

    Args:
        problems: one finished sentence per fault: what was given, what is allowed, the closest match.
    """

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set that cannot be read as asked: the sentence names the path, what is wrong, and what to type next."""


class TrainingError(UserError):
    """A run that cannot go on (a loss that is not a number, a checkpoint that does not fit)."""


def sentence_of(exc: BaseException) -> str | None:
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


def named(names: list[str], most: int = 5) -> str:
    """A short list for a sentence: `a, b, c and 7 more`.

    Args:
        names: what to list.
        most: how many to name.
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
