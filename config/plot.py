"""Plot a curve as text: braille characters of 2 x 4 dots with labeled axes, or stars where only ASCII is available."""

from __future__ import annotations

from collections.abc import Callable

HEIGHT = 8  # characters, without the x axis
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot in a braille character, by row and column."""
PLAIN = {0x2800: " ", **dict.fromkeys(range(0x2801, 0x2900), "*"), **dict(zip(map(ord, "┤│└─"), "+|+-", strict=True))}
"""The ASCII replacement for each character of a plot."""


def curve(
    f: Callable[[float], float],
    end: float,
    top: float,
    unit: str,
    width: int,
    label: str,
    ascii_only: bool,
) -> list[str]:
    """Return the lines of a plot of f from 0 to `end`.

    Args:
        f: a function of the step.
        end: the last step.
        top: the greatest value, where the y axis ends.
        unit: of the steps.
        width: in characters, without the y axis.
        label: what is plotted.
        ascii_only: whether to avoid braille and box-drawing characters.
    """
    columns, rows = width * 2, HEIGHT * 4
    cells = [[0] * width for _ in range(HEIGHT)]
    last: int | None = None
    for column in range(columns):
        value = f(end * column / (columns - 1))
        row = rows - 1 - round(max(0.0, min(1.0, value / top if top else 0.0)) * (rows - 1))
        # Fill the rows between neighboring columns, so that steep stretches have no gaps.
        last = row if last is None else last
        for y in range(min(row, last), max(row, last) + 1):
            cells[y // 4][column // 2] |= DOTS[y % 4][column % 2]
        last = row
    marks = {0: f"{top:.4g}", HEIGHT // 2: f"{top / 2:.4g}", HEIGHT - 1: "0"}
    margin = max(len(mark) for mark in marks.values())
    lines = [f"{'':{margin}}  {label}"]
    for number, cell in enumerate(cells):
        axis = "┤" if number in marks else "│"
        lines.append(f"{marks.get(number, ''):>{margin}} {axis}" + "".join(chr(0x2800 + bits) for bits in cell))
    middle, right = f"{end / 2:g}", f"{end:g} {unit}"
    labels = "0".ljust(width // 2 - len(middle) // 2) + middle
    labels += " " * max(1, width - len(labels) - len(right) + 1) + right
    lines += [f"{'':{margin}} └" + "─" * width, f"{'':{margin}}  {labels}"]
    return [line.translate(PLAIN) for line in lines] if ascii_only else lines
