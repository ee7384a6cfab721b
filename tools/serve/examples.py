"""A few images for the page to offer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, DataError
from common.sizes import amount
from common.suggest import listing
from config.schema import Config, EvalDataset
from loaders.class_names import all_shown
from loaders.dataset import ImageDataset
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
    """Return the first images of a folder; ConfigError if it holds none that browsers show."""
    found = []
    for name in inputs.find([folder]):
        with contextlib.suppress(Exception):  # PIL raises anything
            found += _shown(inputs.read(name), Path(name).stem)
        if len(found) == MOST:
            break
    if not found:
        kinds = listing(KINDS)
        raise ConfigError(f"--examples {folder}: holds no {kinds} of at most {amount(MOST_BYTES)}; name another folder")
    return found


def of_run(config: Config) -> list[Example]:
    """Return images of a run's val/, called by their classes; none if it is not on this machine."""
    given = config.eval_dataset
    path = given.path or ""
    if not kind_of(given.storage).reads_path or not path or is_remote(path) or not Path(path).is_dir():
        return []
    try:
        dataset = _opened(given)
        # At equal distances, so that each is of another class if they are sorted by it.
        read = [dataset.read((2 * number + 1) * len(dataset) // (2 * MOST)) for number in range(MOST)]
    except DataError:  # it is no longer there, or not whole
        return []
    classes = dataset.classes or []
    names = dict(enumerate(all_shown(classes, dataset.class_names or classes)))
    found = []
    for source, label in read:
        with contextlib.suppress(Exception):
            found += _shown(source, names.get(label, str(label)))
    return found


def _opened(given: EvalDataset) -> ImageDataset:
    return open_dataset(
        given.storage,
        given.path or "",
        is_streaming=bool(given.is_streaming),
        local=given.local,
        split="val",
        pipeline=EvaluationPipeline(given.resize_size, given.crop_size),
        seed=0,
    )


def _shown(source: Source, called: str) -> list[Example]:
    """Return the example of an image that browsers show, or none; raises as `open_file`."""
    if not isinstance(source, bytes) or len(source) > MOST_BYTES:
        return []
    with open_file(source) as image:
        kind = KINDS.get(image.format or "") if image.mode != "CMYK" else None
    return [Example(source, kind, called)] if kind else []
