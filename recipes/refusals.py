"""What a class raises over its arguments, as a sentence; a bug of ours, or of a contributor, stays a traceback."""

from __future__ import annotations

import contextlib
import dis
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from common.errors import ConfigError, UserError

STANDARD_LIBRARY = sysconfig.get_path("stdlib")


class Refusal(contextlib.ContextDecorator):
    """Turns an exception into a ConfigError that names the key that it is about, and gives the original reason.

    An exception that passed through code of ours, or of the user's, is a bug and is let through with its traceback,
    unless a class of ours or of the user's has raised it over its arguments.

    Args:
        where: the place in the configuration, as in loggers.wandb.
        args: what is given there.
        what: who does what, as in `WandBLogger refuses its arguments`.
        ours: the class or function that is called, if it is ours or the user's.
    """

    def __init__(self, where: str, args: Mapping, what: str, ours: Callable | None = None) -> None:
        self.where, self.args, self.what, self.ours = where, args, what, ours

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise the sentence, if the exception is to be one."""
        if not isinstance(error, Exception) or isinstance(error, (ImportError, UserError)):
            return
        called = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)][1:]
        is_bug = not is_validation(error, self.ours) if self.ours else not all(map(is_installed, called))
        if is_bug:
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{blamed(self.where, self.args, reason)}: {self.what}: {reason}") from error


def is_installed(file: str) -> bool:
    """Whether a source file is of an installed package or of Python itself, neither ours nor the user's."""
    return "site-packages" in file or file.startswith((STANDARD_LIBRARY, "<"))


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


def is_validation(error: Exception, made: Callable) -> bool:
    """Whether a `raise` in the packages of a class and its bases made this error, so that it is about the arguments.

    An operation that fails (`len(3)`), or a `raise` in a package that the class only uses, is a bug of the class.

    Args:
        error: what calling the class raised.
        made: the class, or a function that makes its objects.
    """
    step = error.__traceback__ if isinstance(error, (TypeError, ValueError)) else None
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return False
    package = str(step.tb_frame.f_globals.get("__name__")).split(".")[0]
    raised = dis.opname[step.tb_frame.f_code.co_code[step.tb_lasti]] == "RAISE_VARARGS"
    sources = made.__mro__ if isinstance(made, type) else (made,)
    return raised and package in {source.__module__.split(".")[0] for source in sources}


def how_to_install(error: ImportError) -> str:
    """What is missing and the command that installs it, or the error's own words if no missing module is behind it."""
    names = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            names.append(cause.name.split(".")[0])
        cause = cause.__cause__ or cause.__context__
    if not names:
        return " ".join(str(error).split())
    return f"{names[-1]} is not installed; type: pip install -c constraints.txt {names[-1]}"
