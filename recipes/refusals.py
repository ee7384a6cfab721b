"""Turn an exception that a class raises over its arguments into a ConfigError; bugs keep their traceback."""

from __future__ import annotations

import contextlib
import dis
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping

from common.errors import ConfigError, UserError
from common.trees import leaves

STANDARD_LIBRARY = sysconfig.get_path("stdlib")


@contextlib.contextmanager
def refusal(where: str, args: Mapping, what: str, ours: Callable | None = None) -> Iterator[None]:
    """Turn an exception into a ConfigError that names the key to blame and keeps the original reason.

    An exception from our own or the user's code is a bug and keeps its traceback, unless a class raised it over its
    arguments.

    Args:
        where: the key of `args` in the configuration, such as loggers.wandb.
        what: what went wrong, such as `WandBLogger rejects its arguments`.
        ours: the class or function that is called, if it is ours or the user's.
    """
    try:
        yield
    except (ImportError, UserError):
        raise
    except Exception as error:
        # Without the frames of this function and of its caller.
        called = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)][2:]
        if not (is_validation(error, ours) if ours else all(map(is_installed, called))):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{blamed(where, args, reason)}: {what}: {reason}") from error


def is_installed(file: str) -> bool:
    """Whether a source file belongs to an installed package or to Python itself."""
    return "site-packages" in file or file.startswith((STANDARD_LIBRARY, "<"))


def blamed(where: str, args: Mapping, reason: str) -> str:
    """Return the key whose value, or else whose name, the reason mentions; else the only key given; else `where`."""
    given = [(f"{where}.{key}", value) for key, value in leaves(args)]
    by_value = [key for key, value in given if _mentions(reason, value)]
    by_name = [key for key, _ in given if _mentions(reason, key.rpartition(".")[2])]
    return [*by_value, *by_name, *(key for key, _ in given if len(given) == 1), where][0]


def _mentions(reason: str, word: object) -> bool:
    return bool(str(word)) and re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", reason, re.IGNORECASE) is not None


def is_validation(error: Exception, made: Callable) -> bool:
    """Whether an error is about the arguments of `made`: raised explicitly, in a package of it or of its bases.

    A failing operation (`len(3)`), or a `raise` in a package that it only uses, is a bug.
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
    """Name the missing package and the command that installs it; else return the error's own words."""
    names = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            names.append(cause.name.split(".")[0])
        cause = cause.__cause__ or cause.__context__
    if not names:
        return " ".join(str(error).split())
    return f"{names[-1]} is not installed; type: pip install -c constraints.txt {names[-1]}"
