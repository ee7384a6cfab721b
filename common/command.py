"""What every program in tools/ ends with: a sentence and an exit status in place of a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from common.errors import UserError, sentence_of
from common.output import take_any_text

INTERRUPTED = 130  # the exit status after Ctrl-C


def answer(error: Exception, explain: Callable[[Exception], str | None] = sentence_of) -> int:
    """Print what a user should read of an error, after its traceback if RECIPES_DEBUG=1; the exit status.

    Args:
        error: what was caught, and is being handled.
        explain: gives the sentence; None for a bug, which is raised again.
    """
    is_mistake = isinstance(error, UserError)
    sentence = (sentence_of(error) or str(error)) if is_mistake else explain(error)
    if sentence is None:
        raise error
    if os.environ.get("RECIPES_DEBUG", "0") != "0":
        traceback.print_exception(error)
    print(f"\n{sentence}", file=sys.stderr)
    return error.exit_status if isinstance(error, UserError) else 1


def run(
    main: Callable[[Sequence[str]], int],
    argv: Sequence[str] | None = None,
    stopped: str = "stopped",
    explain: Callable[[Exception], str | None] = sentence_of,
) -> int:
    """The exit status of a program.

    Args:
        main: does the work, given the words of the command line.
        argv: those words; None takes the process's own.
        stopped: what to say after Ctrl-C.
        explain: as for `answer`.
    """
    take_any_text()
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except (KeyboardInterrupt, SystemExit) as end:
        # Composer, which the loaders import, makes an exit of Ctrl-C, without a word.
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print(f"\n{stopped}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return answer(error, explain)
