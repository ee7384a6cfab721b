"""Whose mistake an exception is that a class raises while it is made: the user's, or its author's."""

from __future__ import annotations

import dis


def is_validation(error: Exception, made: type) -> bool:
    """Whether a `raise` in the packages of a class and its bases made this error, so that it is about the arguments.

    An operation that fails (`len(3)`), or a `raise` in a package that the class only uses, is a bug of the class.

    Args:
        error: what calling the class raised.
        made: the class.
    """
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return False
    package = str(step.tb_frame.f_globals.get("__name__")).split(".")[0]
    raised = dis.opname[step.tb_frame.f_code.co_code[step.tb_lasti]] == "RAISE_VARARGS"
    return raised and package in {base.__module__.split(".")[0] for base in made.__mro__}


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
