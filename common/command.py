"""Command lines and exit statuses of programs: a user's mistake prints a sentence, never a traceback."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from common.errors import UserError, sentence_of
from common.output import take_any_text, visible

INTERRUPTED = 130  # the exit status after Ctrl-C


def parser(program: str, description: str | None, **more: Any) -> argparse.ArgumentParser:
    """Return a parser for `python -m program` whose help shows the description as it is written."""
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m {program}", description=description, formatter_class=layout, **more)


def restore_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, after the import of Composer, whose handler exits silently."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def answer(error: Exception, explain: Callable[[Exception], str | None] = sentence_of) -> int:
    """Print the sentence for an error, after its traceback if RECIPES_DEBUG=1, and return the exit status.

    `explain` returns the sentence for an exception, or None for a bug, which is raised again.
    """
    is_mistake = isinstance(error, UserError)
    sentence = (sentence_of(error) or str(error)) if is_mistake else explain(error)
    if sentence is None:
        raise error
    if os.environ.get("RECIPES_DEBUG", "0") != "0":
        traceback.print_exception(error)
    print(f"\n{visible(sentence)}", file=sys.stderr)
    return error.exit_status if isinstance(error, UserError) else 1


def run(
    main: Callable[[Sequence[str]], int],
    argv: Sequence[str] | None = None,
    stopped: str = "stopped",
    explain: Callable[[Exception], str | None] = sentence_of,
) -> int:
    """Run a program on the arguments `argv`, by default the process's own, and return its exit status.

    `stopped` is the message after Ctrl-C; `explain` is as for `answer`.
    """
    take_any_text()
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except (KeyboardInterrupt, SystemExit) as end:
        # Composer, which the loaders import, turns Ctrl-C into a silent exit.
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print(f"\n{stopped}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return answer(error, explain)
