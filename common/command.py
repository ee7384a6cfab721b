"""What every program in tools/ ends with: a sentence and an exit status in place of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from common.errors import UserError, sentence_of
from common.output import take_any_text

INTERRUPTED = 130  # the exit status after Ctrl-C


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None, stopped: str = "stopped") -> int:
    """The exit status of a program.

    Args:
        main: does the work, given the words of the command line.
        argv: those words; None takes the process's own.
        stopped: what to say after Ctrl-C.
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
    except UserError as error:
        print(f"\n{sentence_of(error) or error}", file=sys.stderr)
        return error.exit_status
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"\n{sentence}", file=sys.stderr)
        return 1
