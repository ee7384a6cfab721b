"""A few images for the page to offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from common.errors import DataError
from config.schema import Config
from loaders.class_names import all_shown
from loaders.images.decoding import Source, open_file
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.kinds import kind_of, open_dataset
from loaders.transport.remote import is_remote
from tools.predict import inputs

MOST = 8
MOST_BYTES = 1_000_000  # of one
KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
"""What browsers show: PIL's format -> media type."""


@dataclass(frozen=True)
class Example:
    """An encoded image, its media type, and what to call it."""

    data: bytes
    kind: str
    shown: str


def of_files(folder: str) -> list[Example]:
    """Return the first images of a folder; ConfigError if it holds none."""
    return _chosen((inputs.read(name), Path(name).stem) for name in islice(inputs.find([folder]), 4 * MOST))


def of_run(config: Config) -> list[Example]:
    """Return images of a run's val/, called by their classes; none if it is not on this machine."""
    given = config.eval_dataset
    folder = (given.local if given.is_streaming else given.path) or ""
    if not kind_of(given.storage).reads_path or not folder or is_remote(folder) or not Path(folder).is_dir():
        return []
    try:
        return _chosen(_spread(config))
    except DataError:  # it is no longer there, or not whole
        return []


def _spread(config: Config) -> Iterator[tuple[Source, str]]:
    """Yield images at equal distances, so that each is of another class if they are sorted by it."""
    given = config.eval_dataset
    dataset = open_dataset(
        given.storage,
        given.path or "",
        is_streaming=bool(given.is_streaming),
        local=given.local,
        split="val",
        pipeline=EvaluationPipeline(given.resize_size, given.crop_size),
        seed=0,
    )
    classes = dataset.classes or []
    names = all_shown(classes, dataset.class_names or classes)
    for number in range(MOST):
        source, label = dataset.read((2 * number + 1) * len(dataset) // (2 * MOST))
        yield source, names[label] if label < len(names) else str(label)


def _chosen(images: Iterable[tuple[Source, str]]) -> list[Example]:
    """Keep those that a browser shows."""
    found = []
    for data, shown in images:
        if isinstance(data, bytes) and len(data) <= MOST_BYTES:
            with open_file(data) as image:
                kind = KINDS.get(image.format or "") if image.mode != "CMYK" else None
            if kind:
                found.append(Example(data, kind, shown))
    return found[:MOST]
