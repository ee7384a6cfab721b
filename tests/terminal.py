"""Run programs in a pseudoterminal and render what they write as on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.runs import bare_shell

PIECES = re.compile(r"\x1b\[(?P<number>\??\d*)(?:;\d+)*(?P<command>[A-Za-z])|(?P<text>[^\x1b])", re.DOTALL)


def in_terminal(words: Sequence[str], columns: int, cwd: Path, **env: str) -> tuple[int, str]:
    """Run a program in a terminal with the given number of columns; return its exit status and its output.

    Args:
        env: added to a bare shell's environment; an empty value removes a variable.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shell = bare_shell(TERM="xterm-256color", LANG="C.UTF-8", COLUMNS="") | env
    kept = {name: value for name, value in shell.items() if value}
    process = subprocess.Popen(words, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=kept)
    os.close(theirs)
    written = bytearray()
    try:
        while block := os.read(ours, 65536):
            written += block
    except OSError:  # the program closed its end
        pass
    os.close(ours)
    return process.wait(), written.decode()


def screen(written: str, columns: int) -> list[str]:
    """Return a terminal's final lines, including those scrolled away; lines longer than `columns` are wrapped."""
    lines, row, column = [""], 0, 0
    for piece in PIECES.finditer(written):
        if letter := piece["text"]:
            if letter == "\r":
                column = 0
                continue
            if letter == "\n" or column == columns:
                row, column = row + 1, 0 if column == columns else column
                lines += [""] * (row == len(lines))
            if letter != "\n":
                lines[row] = lines[row].ljust(column)[:column] + letter + lines[row][column + 1 :]
                column += 1
        elif piece["command"] == "A":
            row -= int(piece["number"])
        elif piece["command"] == "K":
            lines[row] = ""
        else:
            assert piece["command"] in "mhl", piece[0]
    return [line.rstrip() for line in lines]
