"""A terminal for the tests: programs that it starts see one, and what they write is shown as on its screen."""

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
    """Run a program in a terminal of so many columns; its exit status, and all that it wrote.

    Args:
        env: over a bare shell's; an empty value takes a variable away.
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
    except OSError:  # all ends of the program's are closed
        pass
    os.close(ours)
    return process.wait(), written.decode()


def screen(written: str, columns: int) -> list[str]:
    """The lines that are on a terminal's screen in the end, scrolled ones included; too long ones are broken."""
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
