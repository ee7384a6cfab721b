"""Convert a source to FFCV's .beton files by way of shards, which are made, checked and resumed as any others."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.folders import LocalFolder
from common.terminal import ImageMeter
from loaders.images.decoding import decode
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.beton import BetonDataset
from loaders.storage.beton_writer import write_beton
from loaders.storage.unfinished import COMMAND, STAGE, WORK
from tools.convert.plan import recorded
from tools.convert.sources import ShardPart, ShardSource
from tools.convert.to_mds import CLASSES, INDEX, SKIPPED, Conversion, Row, check_room, removal

COMPARED = 100  # images per split, evenly spread


def convert(conversion: Conversion, workers: int) -> list[Row]:
    """Write train.beton and val.beton to the destination, a folder; DataError if it, the source or the disk fails."""
    target, splits = conversion.destination, [plan.split for plan in conversion.plans]
    assert isinstance(target, LocalFolder)
    stage = _stage(conversion, target)
    rows = {}
    if f"{WORK}/" in stage.names() or not all(INDEX in stage.names(split) for split in splits):
        check_room(target, 2 * sum(int(plan.sizes.sum()) for plan in conversion.plans))
        target.write(COMMAND, os.fsencode(conversion.command))
        conversion.destination = stage
        rows = {row.split: row for row in conversion.run(workers)}
    for name in (CLASSES, SKIPPED):
        if name in stage.names():
            target.write(name, stage.read(name))
    done = [_write(conversion, target, stage, split, workers, rows.get(split)) for split in splits]
    stage.remove("")
    target.remove(WORK)
    return done


def _stage(conversion: Conversion, target: LocalFolder) -> LocalFolder:
    """Return the folder of the intermediate shards; DataError if there is another conversion's, or a finished file."""
    plan = recorded(conversion.plans, conversion.rule, conversion.images, conversion.shards)
    own = STAGE + hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
    present = target.names()
    others = [name.rstrip("/") for name in present if name.startswith(STAGE) and name != f"{own}/"]
    if others:
        raise DataError(
            f"{target}: holds an unfinished conversion with other options. Give the same ones, or type: "
            f"{removal(target, *others)}"
        )
    files = [f"{plan.split}.beton" for plan in conversion.plans]
    if f"{own}/" not in present and (done := [name for name in files if name in present]):
        raise DataError(
            f"{target}/{done[0]}: exists already. Name another destination, or type: {removal(target, *done)}"
        )
    return LocalFolder(target.path / own, WORK)


def _write(
    conversion: Conversion, target: LocalFolder, stage: LocalFolder, split: str, workers: int, made: Row | None
) -> Row:
    """Write one split's file, unless it exists, check it, and return its row of the table."""
    source = ShardSource(str(stage), str(stage), split)
    count = len(source.sizes)
    part = source.part(np.arange(count))
    path = target.path / f"{split}.beton"
    began = time.monotonic()
    if not path.is_file():
        with ImageMeter(conversion.console, path.name, count, size=int(source.sizes.sum())) as meter:
            write_beton(path, count, part.read, workers, meter)
    _check(path, split, part)
    seconds = time.monotonic() - began + (made.seconds if made else 0.0)
    return Row(split, count, 1, path.stat().st_size, made.made if made else 0, seconds)


def _check(path: Path, split: str, part: ShardPart) -> None:
    """Read a file as training does; DataError if its length or one of some images differs from the shards'."""
    dataset = BetonDataset(path, split, EvaluationPipeline(-1, 1), seed=0)
    count = len(part.indices)
    if len(dataset) != count:
        raise DataError(f"{path}: holds {len(dataset)} images instead of {count}. Remove it and convert again.")
    for place in np.unique(np.linspace(0, count - 1, COMPARED).astype(np.int64)).tolist():
        (source, label), (image, written) = part.read(place), dataset.read(place)
        if label != written or not decode(image).equal(decode(source)):
            raise DataError(f"{path}: sample {place} is not {part.name_of(place)}. Remove it and convert again.")
