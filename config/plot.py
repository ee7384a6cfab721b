"""Plot a curve as text: braille characters of 2 x 4 dots with labeled axes, or stars where only ASCII is available."""

from __future__ import annotations

from collections.abc import Callable

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot in a braille character, by row and column."""
PLAIN = {0x2800: " ", **dict.fromkeys(range(0x2801, 0x2900), "*"), **dict(zip(map(ord, "┤│└─"), "+|+-", strict=True))}
"""The ASCII replacement for each character of a plot."""


def curve(
    f: Callable[[float], float],
    end: float,
    top: float,
    unit: str,
    width: int = 60,
    height: int = 8,
    label: str = "",
    ascii_only: bool = False,
) -> list[str]:
    """Return the lines of a plot of f from 0 to `end`.

    Args:
        f: a function of the step.
        end: the last step.
        top: the greatest value, where the y axis ends.
        unit: of the steps, shown on the x axis.
        width: of the plot in characters, without the y axis.
        height: of the plot in characters.
        label: what is plotted.
        ascii_only: whether to avoid braille and box-drawing characters.
    """
    columns, rows = width * 2, height * 4
    cells = [[0] * width for _ in range(height)]
    before: int | None = None
    for column in range(columns):
        value = f(end * column / (columns - 1))
        row = rows - 1 - round(max(0.0, min(1.0, value / top if top else 0.0)) * (rows - 1))
        # Fill the rows between neighboring columns, so that steep stretches have no gaps.
        last = row if before is None else before
        for y in range(min(row, last), max(row, last) + 1):
            cells[y // 4][column // 2] |= DOTS[y % 4][column % 2]
        before = row
    marks = {0: f"{top:.4g}", height // 2: f"{top / 2:.4g}", height - 1: "0"}
    margin = max(len(mark) for mark in marks.values())
    lines = [f"{'':{margin}}  {label}"] if label else []
    for number, cell in enumerate(cells):
        axis = "┤" if number in marks else "│"
        lines.append(f"{marks.get(number, ''):>{margin}} {axis}" + "".join(chr(0x2800 + bits) for bits in cell))
    lines += x_axis(end, unit, width, margin)
    return [line.translate(PLAIN) for line in lines] if ascii_only else lines


def x_axis(end: float, unit: str, width: int, margin: int) -> list[str]:
    """Return the x axis and its labels at the start, the middle and the end."""
    middle = f"{end / 2:g}"
    last = f"{end:g} {unit}"
    left = width // 2 - len(middle) // 2
    line = "0" + " " * (left - 1) + middle
    line += " " * max(1, width - len(line) - len(last) + 1) + last
    return [f"{'':{margin}} └" + "─" * width, f"{'':{margin}}  {line}"]
