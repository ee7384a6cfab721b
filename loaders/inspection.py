"""Looks for everything that can be wrong with a data set, without training on it."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.addresses import is_s3
from common.errors import DataError
from loaders.errors import unreadable
from loaders.images.decoding import check, is_too_deep, unchecked
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.imagefolder import (
    SPLITS,
    class_names,
    empty_classes,
    list_class,
    listing_remarks,
    structure_faults,
)
from loaders.storage.shard_index import files_of
from loaders.storage.streaming import ShardDataset, are_same, check_index
from loaders.transport.checksums import hash_of, recorded_hash
from loaders.transport.preloading.source_files import list_s3
from loaders.transport.remote import StoreOutOfReach, is_remote, join

SMALL = 5000  # pictures: up to here all are decoded
SAMPLE = 500  # pictures decoded of a larger set
SHARDS = 4  # shards downloaded of a larger set
_SAMPLE_SEED = 0


@dataclass
class SplitReport:
    """What was found in one split."""

    split: str
    classes: int | None = None
    images: int = 0
    bytes: int = 0
    per_class: list[int] = field(default_factory=list)
    deep: int = 0  # of those decoded, how many are grey with more than 8 bits
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height in pixels, of those decoded
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def remark_on_depth(self) -> None:
        """Say of deep pictures what they are in training, when all were looked at."""
        if self.deep:
            what = "1 picture is" if self.deep == 1 else f"{self.deep:,} pictures are"
            self.remarks.append(
                f"{self.split}: {what} grey with more than 8 bits a pixel; what is above 255 is white in training. "
                "Convert them to 8 bits."
            )


def inspect_folder(root: Path) -> tuple[list[SplitReport], list[str]]:
    """Inspect an image folder: the names and sizes of all files, and a sample of them (or all, if few) decoded.

    Returns:
        One report per split, and the faults of the folder as a whole.
    """
    faults = structure_faults(root)
    reports = [_inspect_pictures(root / split) for split in SPLITS if (root / split).is_dir()] if root.is_dir() else []
    return reports, faults


def _inspect_pictures(folder: Path) -> SplitReport:
    """Look at every file's name and size, and into some."""
    names = class_names(folder)
    report = SplitReport(folder.name, classes=len(names))
    pictures: list[Path] = []
    found = [list_class(folder / name) for name in names]
    for name, listing in zip(names, found, strict=True):
        pictures += [folder / name / file for file in listing.pictures]
        report.per_class.append(len(listing.pictures))
    if empty := [name for name, count in zip(names, report.per_class, strict=True) if not count]:
        report.faults.append(empty_classes(folder, empty))
    report.remarks += listing_remarks(folder, names, found)
    pictures.sort()
    report.images = len(pictures)
    lengths = [_length(path) for path in pictures]
    report.bytes = sum(filter(None, lengths))
    report.faults += [
        f"{path}: is an empty file. Copy it again, or delete it."
        for path, length in zip(pictures, lengths, strict=True)
        if length == 0
    ]
    _decode(report, [path for path, length in zip(pictures, lengths, strict=True) if length != 0], _read_file)
    return report


def _length(path: Path) -> int | None:
    """Bytes of a file; None of one that is not there, as reading it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read_file(path: Path) -> tuple[str, bytes]:
    return str(path), path.read_bytes()


def _decode(report: SplitReport, keys: Sequence[Any], read: Callable[[Any], tuple[str, Any]]) -> None:
    """Decode all of a small set or a sample of a large one, and note sizes and faults.

    Args:
        report: what to add to.
        keys: the pictures.
        read: gives a picture's name and bytes.
    """
    if len(keys) > SMALL:
        chosen = np.random.default_rng(_SAMPLE_SEED).choice(len(keys), SAMPLE, replace=False)
        keys = [keys[number] for number in sorted(chosen)]
        report.remarks.append(f"{report.split}: {SAMPLE} of its {report.images} pictures were decoded.")

    def look(key: Any) -> tuple[tuple[int, int] | None, str, bool]:
        name = str(key)
        try:
            name, source = read(key)
            height, width = check(source)
            return (width, height), "", is_too_deep(source)
        except DataError as error:
            return None, str(error), False
        except Exception as error:
            return None, f"{name}: {unreadable(error)}. Replace or delete it.", False

    if (remark := unchecked()) and keys:
        report.remarks.append(f"{report.split}: {remark}")
    pool = ThreadPoolExecutor(max(1, os.cpu_count() or 1))
    try:
        for size, fault, deep in pool.map(look, keys):
            report.deep += deep
            if size:
                report.sizes.append(size)
            elif fault not in report.faults:
                report.faults.append(fault)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is looked at
    report.remark_on_depth()


def inspect_shards(remote: str, local: str) -> tuple[list[SplitReport], list[str]]:
    """Inspect MDS shards: the indexes, that every shard is there in its full length, and pictures of some shards.

    Returns:
        One report per split, and the faults that concern the whole store.
    """
    reports: list[SplitReport] = []
    for split in SPLITS:
        report = SplitReport(split)
        try:
            index = check_index(remote, local, split)
            _inspect_index(report, index, remote, local)
        except StoreOutOfReach as error:
            return reports, [str(error)]  # the other split would only repeat it
        except DataError as error:
            report.faults.append(str(error))
        reports.append(report)
    return reports, []


def _inspect_index(report: SplitReport, index: dict[str, Any], remote: str, local: str) -> None:
    """Compare the index with what is stored, then read pictures from the first shards."""
    shards = index["shards"]
    stored = [shard.get("zip_data") or shard["raw_data"] for shard in shards]
    report.images = sum(shard["samples"] for shard in shards)
    report.bytes = sum(info["bytes"] for info in stored)
    report.remarks.append(f"{report.split}: {len(shards)} shards.")
    report.faults += _shard_faults(join(remote, report.split), shards, are_same(remote, local))
    if report.faults:
        return
    dataset = ShardDataset(remote, local, report.split, EvaluationPipeline(-1, 1), seed=0)
    report.classes = len(dataset.classes) if dataset.classes else None
    if len(shards) > SHARDS:
        report.remarks.append(f"{report.split}: pictures of {SHARDS} shards were decoded.")
    last = sum(shard["samples"] for shard in shards[:SHARDS])
    labels: list[int] = []

    def read(number: int) -> tuple[str, Any]:
        source, label = dataset.read(number)
        labels.append(label)
        return dataset.name_of(number), source

    _decode(report, range(last), read)
    if last == report.images and len(labels) == last:
        report.per_class = np.bincount(labels).tolist()
        report.classes = report.classes or len(report.per_class)


def _shard_faults(folder: str, shards: list[dict[str, Any]], in_place: bool) -> list[str]:
    """Shards that are missing or of the wrong length; on a disk, the first ones' hashes too.

    Read in place, a compressed shard may lie there unpacked, or both ways, as for training.
    """
    if is_remote(folder) and not is_s3(folder):
        return []  # other stores are not listed; a missing shard is found when it is read
    if is_remote(folder):
        there = {file.name: file.size for file in list_s3(folder)}
    else:
        paths = {info["basename"]: Path(folder, info["basename"]) for shard in shards for info in files_of(shard)}
        there = {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
    faults = []
    for number, shard in enumerate(shards):
        stored = shard.get("zip_data") or shard["raw_data"]
        found = [info for info in (files_of(shard) if in_place else [stored]) if info["basename"] in there]
        if not found:
            place = join(folder, stored["basename"])
            faults.append(f"{place}: is missing, though index.json lists it. Copy or upload it again.")
        for info in found:
            place, size = join(folder, info["basename"]), there[info["basename"]]
            if size != info["bytes"]:
                wrong = f"{size} bytes instead of {info['bytes']}"
                faults.append(f"{place}: is damaged ({wrong}). Copy or upload it again.")
            elif number < SHARDS and not is_remote(folder) and not _hash_matches(place, info):
                faults.append(f"{place}: is damaged (its hash is not the recorded one). Copy it again.")
    return faults


def _hash_matches(place: str, info: dict[str, Any]) -> bool:
    """Whether a file has the hash that was recorded; True where none was."""
    recorded = recorded_hash(info)
    return not recorded or hash_of(place, recorded.partition(":")[0]) == recorded
