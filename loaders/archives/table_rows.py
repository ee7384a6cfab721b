"""The rows of a table of paths: CSV, TSV, or JSON lines; each with the number of its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import DataError, named
from common.suggest import listing
from common.terminal import printable
from loaders.archives.forms import OptionNeeded

TABLES = (".csv", ".tsv", ".jsonl")
PATHS = {"path", "file_name", "filename", "image"}  # columns that hold the path; Hugging Face's is file_name
LABEL, SPLIT = "label", "split"
_HEAD = 1 << 16  # bytes, in which the first line ends
_AGAIN = "Save it as CSV in UTF-8 again."


class Row(NamedTuple):
    """A line of a table; `label` and `split` may be empty."""

    line: int
    path: str
    label: str
    split: str


def is_table(name: str) -> bool:
    """Whether a file can be a table, by its name."""
    return name.lower().endswith(TABLES)


def columns(name: str, head: bytes) -> list[str]:
    """Return the columns that a table's first line names; none if it is something else."""
    line = head[:_HEAD].removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", "replace")
    if not name.lower().endswith(".jsonl"):
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(name, line)), [])]
        except csv.Error:
            return []
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []


def unread_tables(folder: Path) -> list[str]:
    """Describe the tables in a folder that was not recognized as a data set, one sentence each."""
    found = []
    for path in sorted(folder.iterdir()):
        if is_table(path.name) and path.is_file():
            with path.open("rb") as file:
                found.append((path, columns(path.name, file.read(_HEAD))))
    return [
        f"{path}: has the columns {_named(names)}. A table of paths has path and label: rename them in its first "
        "line, or give the table itself, with --label COLUMN."
        for path, names in found
        if names
    ]


def rows(where: str, data: bytes, label: str) -> Iterator[Row]:
    """Yield a table's rows.

    Args:
        where: its path or address, whose ending says what it is.
        data: its bytes.
        label: the column that holds labels.

    Raises:
        DataError: it is not such a table; the message names the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}, line {line}: is not UTF-8 (byte {data[error.start]:#04x}). {_AGAIN}") from error
    found = _objects(where, text) if where.lower().endswith(".jsonl") else _cells(where, text)
    path = ""
    for line, values in found:
        place = f"{where}, line {line}"
        path = path or next((name for name in values if name in PATHS), "")
        if not path or path not in values:
            raise DataError(
                f"{place}: there is no column of paths ({listing(sorted(PATHS))}), {_given(values)}. The first line "
                "should name the columns: path,label"
            )
        if label not in values:
            raise OptionNeeded(
                f"{place}: there is no column {label}, {_given(values)}. Name the one of the labels: --label COLUMN"
            )
        row = Row(line, *(_text(place, name, values.get(name)) for name in (path, label, SPLIT)))
        if not row.path:
            raise DataError(f"{place}: its {path} is empty. Fill it in, or remove the line.")
        for name, value in zip((path, label, SPLIT), row[1:], strict=True):
            if not value.isprintable():
                raise DataError(f"{place}: its {name}, {value[:80]!r}, holds unprintable characters. Replace them.")
        yield row


def _named(columns: Iterable[str]) -> str:
    return named([printable(column) for column in columns])


def _given(values: Iterable[str]) -> str:
    return f"only {_named(values)}" if values else "nothing"


def _text(place: str, name: str, value: Any) -> str:
    """Return a cell as text."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: its {name} is {str(value)[:40]}; it must be text or a whole number.")
    return str(value).strip()


def _cells(where: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of CSV after the first, which names the columns."""
    first = text.partition("\n")[0]
    separator = _delimiter(where, first)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    header: list[str] = []
    start = 1  # line of the next row, which may go on for several
    try:
        for cells in lines:
            line, start = start, lines.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if twice := sorted({name for name in header if header.count(name) > 1 and name}):
                    raise DataError(f"{where}, line {line}: has two columns {_named(twice)}. Rename one.")
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where}, line {line}: has {len(cells)} cells for {len(header)} columns ({_named(header)}). "
                    "A cell that holds a comma must be quoted."
                )
            yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{where}, line {start}: is not CSV ({error}). Is a quotation mark missing?") from error
    if not header:
        raise DataError(f"{where}: is empty. Its first line should name the columns: path,label")


def _delimiter(name: str, first: str) -> str:
    """Return what separates cells: tabs, or commas, for which some spreadsheets write semicolons."""
    return "\t" if name.lower().endswith(".tsv") else max(",;\t", key=first.count)


def _objects(where: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of JSON."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}, line {number}: is not JSON ({error}).") from error
        if not isinstance(found, dict):
            raise DataError(f'{where}, line {number}: is not an object such as {{"path": "a.jpg", "label": "cat"}}.')
        yield number, found
