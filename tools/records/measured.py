"""Speeds measured with this project on GPUs, in results/measured/*.json: the schema, its checks, and their table.

They are shown next to runs and never averaged with them.
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from re import fullmatch
from typing import Any, NamedTuple

from common.errors import DataError
from common.suggest import did_you_mean, listing
from config.load import recipe_files
from config.read import ROOT
from config.schema import PRECISIONS
from tools.records.trust import is_count, is_number, mapping

MEASURED = ROOT / "results/measured"
VERSION = 1
STATUSES = ("PASS", "FAIL", "SKIP")


class Field(NamedTuple):
    """A field of the schema."""

    meaning: str
    allowed: str
    fits: Callable[[Any], bool]


def _one_of(meaning: str, names: tuple[str, ...]) -> Field:
    return Field(meaning, listing(names), lambda value: isinstance(value, str) and value in names)


def _or_null(field: Field) -> Field:
    return Field(field.meaning, f"{field.allowed}, or null", lambda value: value is None or field.fits(value))


def _text(meaning: str) -> Field:
    return Field(meaning, "text", lambda value: isinstance(value, str) and bool(value.strip()))


def _count(meaning: str) -> Field:
    return Field(meaning, "a whole number of at least 1", is_count)


def _positive(meaning: str) -> Field:
    return Field(meaning, "a number above 0", lambda value: is_number(value) and value > 0)


def _up_to(most: int, meaning: str) -> Field:
    return Field(meaning, f"a number from 0 to {most}", lambda value: is_number(value) and 0 <= value <= most)


def _list(meaning: str) -> Field:
    return Field(meaning, "a list of objects", lambda value: isinstance(value, list))


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_commit(value: Any) -> bool:
    return isinstance(value, str) and fullmatch("[0-9a-f]{7,40}", value) is not None


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_count, value))


FILE = {
    "version": Field("of this schema", str(VERSION), lambda value: value == VERSION and is_count(value)),
    "hardware": Field("the machine", "an object", lambda value: isinstance(value, dict)),
    "commit": Field("of the code", "7 to 40 hexadecimal digits, of a commit without changes", _is_commit),
    "date": Field("of the measurement", "a date such as 2026-11-27", _is_date),
    "command": _text("repeats the measurement"),
    "runs": _list("what was measured"),
    "stages": _list("what benchmarks.gpu_proof checked; empty for other measurements"),
}
HARDWARE = {
    "gpu": _text("the GPU's name, from torch.cuda.get_device_name()"),
    "count": _count("number of GPUs that a run used"),
    "driver": _text("version of the driver"),
    "torch": _text("version of torch"),
    "cuda": _text("version of CUDA that torch was built with"),
}
RUN = {
    "recipe": _one_of("the recipe", tuple(recipe_files())),
    "model": _text("the network, such as resnet50"),
    "data": _text("the images, and where they are read from"),
    "image_sizes": Field("sizes that were trained, in pixels", "a list of whole numbers", _are_sizes),
    "batch_size": _count("images per step over all GPUs"),
    "precision": _one_of("of the training steps", PRECISIONS),
    "compile": Field("whether the model was compiled", "true or false", lambda value: isinstance(value, bool)),
    "images_per_second": _positive("over all GPUs, in training"),
    "by_hand": _or_null(_positive("img/s of a hand-written loop, measured in turn with the run")),
    "mfu": _or_null(_up_to(1, "fraction of the GPUs' peak that the model's own operations reach")),
    "seconds": _positive("of training that were measured"),
    "top1": _or_null(_up_to(100, "final top-1 in percent, if the run was trained to its end")),
}
STAGE = {
    "name": _text("the stage"),
    "status": _one_of("the outcome", STATUSES),
    "seconds": Field("that it took", "a number of at least 0", lambda value: is_number(value) and value >= 0),
    "said": _text("what was found"),
}

HEAD = ("recipe", "model", "px", "batch", "precision", "compiled", "img/s", "by hand", "MFU", "top-1, %", "data")


def problems(content: dict[str, Any]) -> list[str]:
    """Return everything that a file's content must change to fit the schema, a sentence each."""
    version = content.get("version")
    if is_count(version) and version != VERSION:
        return [f"version: {version} given; this checkout knows version {VERSION}"]
    found = _misfits(content, FILE, "")
    if isinstance(content.get("hardware"), dict):
        found += _misfits(content["hardware"], HARDWARE, "hardware.")
    for key, fields in (("runs", RUN), ("stages", STAGE)):
        for number, row in enumerate(content[key] if isinstance(content.get(key), list) else []):
            is_object = isinstance(row, dict)
            found += _misfits(row, fields, f"{key}[{number}].") if is_object else [f"{key}[{number}]: is not an object"]
    if content.get("runs") == [] and content.get("stages") == []:
        found.append("runs: are empty, and so are stages; a file holds at least one measurement")
    return found


def _misfits(tree: dict[str, Any], fields: dict[str, Field], prefix: str) -> list[str]:
    found = [f"{prefix}{key}: no such field{did_you_mean(key, fields)}" for key in tree if key not in fields]
    for key, field in fields.items():
        if key not in tree:
            found.append(f"{prefix}{key}: is missing; it must be {field.allowed}")
        elif not field.fits(tree[key]):
            found.append(f"{prefix}{key}: {str(tree[key])[:60]!r} given; it must be {field.allowed}")
    return found


def read_measured(file: Path) -> dict[str, Any]:
    """Read a file; DataError with every problem if it is missing, damaged, or does not fit the schema."""
    try:
        content = mapping(file)
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f"{file}: is not a file of measurements ({error}); docs/evidence.md describes one") from error
    if found := problems(content):
        raise DataError("\n".join(f"{file}: {problem}" for problem in found))
    return content


def read_all(folder: Path = MEASURED) -> list[dict[str, Any]]:
    """Read all files of a folder, sorted by name."""
    return [read_measured(file) for file in sorted(folder.glob("*.json"))]


def rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the HEAD for each run."""
    return [
        (
            run["recipe"],
            run["model"],
            _sizes(run["image_sizes"]),
            f"{run['batch_size']:,}",
            run["precision"],
            "yes" if run["compile"] else "no",
            f"{run['images_per_second']:,.0f}",
            "" if run["by_hand"] is None else f"{run['by_hand']:,.0f}",
            "" if run["mfu"] is None else f"{run['mfu']:.1%}",
            "" if run["top1"] is None else f"{run['top1']:.2f}",
            run["data"],
        )
        for run in content["runs"]
    ]


def _sizes(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"


def title(content: dict[str, Any]) -> str:
    """Return what a file's rows share: hardware, versions, date and commit."""
    on = content["hardware"]
    versions = f"driver {on['driver']}, torch {on['torch']}, CUDA {on['cuda']}"
    return f"{on['count']}x {on['gpu']}, {versions}, {content['date']}, commit {str(content['commit'])[:9]}"


def markdown(content: dict[str, Any]) -> str:
    """Return the rows as a table for the README, below a line with what they share."""
    lines = [HEAD, ["---"] * len(HEAD), *rows(content)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"Measured: {title(content)}; `{content['command']}`.\n\n{table}"
