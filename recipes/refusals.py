"""What an installed class raises over its arguments, as a sentence; what is raised in our code stays a traceback."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from config.errors import ConfigError, UserError

ROOT = Path(__file__).parent.parent


class Refusal(contextlib.ContextDecorator):
    """Turns an exception into a ConfigError that names the key that it is about, and gives the original reason.

    An exception that passed through our own code, or a contributor's, is a bug and is let through with its traceback.

    Args:
        where: the place in the configuration, as in loggers.wandb.
        args: what is given there.
        what: who does what, as in `WandBLogger refuses its arguments`.
        ours: whether the class is ours: then its ValueErrors are sentences too.
    """

    def __init__(self, where: str, args: Mapping, what: str, ours: bool = False) -> None:
        self.where, self.args, self.what, self.ours = where, args, what, ours

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise the sentence, if the exception is to be one."""
        if not isinstance(error, Exception) or isinstance(error, (ImportError, UserError)):
            return
        called = list(traceback.walk_tb(trace))[1:]
        if any(is_ours(Path(frame.f_code.co_filename)) for frame, _ in called):
            if not (self.ours and isinstance(error, ValueError)):
                return
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{blamed(self.where, self.args, reason)}: {self.what}: {reason}") from error


def is_ours(file: Path) -> bool:
    """Whether a source file is of this repository, and of no package that is installed in it."""
    return file.is_relative_to(ROOT) and "site-packages" not in file.parts


def blamed(where: str, args: Mapping, reason: str) -> str:
    """The key whose value, or else whose name, a reason mentions; or the only one that is given; or `where`."""
    given = list(_leaves(args, where))
    by_value = [key for key, value in given if _mentions(reason, value)]
    by_name = [key for key, _ in given if _mentions(reason, key.rpartition(".")[2])]
    return [*by_value, *by_name, *(key for key, _ in given if len(given) == 1), where][0]


def _mentions(reason: str, word: object) -> bool:
    return bool(str(word)) and re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", reason, re.IGNORECASE) is not None


def _leaves(tree: Mapping, prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value
