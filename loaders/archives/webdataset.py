"""WebDataset tars, such as timm/imagenet-1k-wds: in a folder, or in train/ and val/."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError, counted, named
from loaders.archives.catalog import UNSPLIT, Catalog, DataCopy, Rows
from loaders.archives.forms import ReadOptions
from loaders.archives.labels import resolve
from loaders.archives.place import GZIPPED, Place, is_tar, read_range
from loaders.archives.samples import is_image, samples, split_name
from loaders.archives.tars import first_names
from loaders.class_names import imagenet
from loaders.transport.remote import is_remote

INFO = ("_info.json", "info.json")  # timm's: which tars there are, and how many samples each holds
TEST = "test"
_SPLITS = {
    split: re.compile(rf"(?<![a-z])({words})(?![a-z])", re.I)
    for split, words in (("val", "val|valid|validation"), ("train", "train|training"), (TEST, "test"))
}
_NUMBERED = re.compile(r"(.*?)(\d+)(\.tar.*|\.tgz)")
_HEAD = 12  # members that are looked at to recognize one
_TRIED = 3  # tars that are looked at: the first may be damaged
THREADS = {False: 1, True: 16}  # a store answers one request per round trip


def split_of(name: str) -> str | None:
    """Return the split that a file's or a folder's name tells, `train`, `val` or TEST; None for no or several ones."""
    found = [split for split, pattern in _SPLITS.items() if pattern.search(name)]
    return found[0] if len(found) == 1 else None


def split_tars(place: Place) -> dict[str | None, list[str]]:
    """Return the tars by the split of their name, or of the folder that they are in."""
    found: dict[str | None, list[str]] = {}
    for name in place.names():
        if is_tar(name):
            found.setdefault(split_of(name), []).append(name)
    if found or place.only:
        return found
    for folder in place.names():
        if folder.endswith("/") and (split := split_of(folder)):
            tars = [folder + name for name in place.names(folder[:-1]) if is_tar(name)]
            found.setdefault(split, []).extend(tars)
    return {split: tars for split, tars in found.items() if tars}


def is_webdataset(place: Place) -> bool:
    """Whether a place holds tars with an image and another member of the same name."""
    tars = [name for names in split_tars(place).values() for name in names][:_TRIED]
    return any(_holds_samples(first_names(place.address(name), _HEAD)) for name in tars)


def _holds_samples(names: list[str]) -> bool:
    keys = [split_name(name) for name in names]
    images = {key for key, extension in keys if is_image(extension)}
    return any(key in images and not is_image(extension) for key, extension in keys)


def open_webdataset(place: Place, options: ReadOptions) -> DataCopy:
    """Open tars; `options.label` is the extension of the members that hold labels, or a key of the .json members."""
    by_split = split_tars(place)
    lengths, remarks = _expected(place, by_split)
    if tests := by_split.pop(TEST, []):
        remarks.append(f"{counted(len(tests), 'tar is', 'tars are')} left out, as test images ({named(tests)}).")
    if odd := by_split.pop(None, []):
        if by_split:
            raise DataError(f"{place.given}: the names of {named(odd)} say neither train nor val. Rename or move them.")
        by_split = {UNSPLIT: odd}
    if not by_split:
        raise DataError(f"{place.given}: holds tars of test images alone. To use them as val/, rename them.")
    read = {str(split): _read(place, tars, options, lengths) for split, tars in sorted(by_split.items(), key=str)}
    of_imagenet = any("imagenet1k" in name for tars in by_split.values() for name in tars)
    places = [(split, index) for split, rows in read.items() for index in range(len(rows.values))]
    labels, classes = resolve(
        [read[split].values[index] for split, index in places],
        options,
        list(imagenet()) if of_imagenet else None,
        lambda at: read[places[at][0]].where(places[at][1]),
    )
    ends = np.cumsum([len(rows.values) for rows in read.values()])
    parts = np.split(labels, ends[:-1])
    splits = {split: rows.catalog(part) for (split, rows), part in zip(read.items(), parts, strict=True)}
    if of_imagenet and not any(name.endswith(GZIPPED) for tars in by_split.values() for name in tars):
        # Its names give the order of the image folder; files of gzip are not read in any order but their own.
        splits = {split: catalog.by_name() for split, catalog in splits.items()}
    return DataCopy("WebDataset tars", splits, classes, remarks)


@dataclass
class _Split:
    """Images of a split, whose labels have yet to be understood."""

    files: list[str]
    rows: Rows
    values: list[str]  # what is stored as each image's label

    def where(self, index: int) -> str:
        """Return where an image is, for messages."""
        return f"{without_credentials(self.files[self.rows.file[index]])}, {self.rows.names[index].decode()}"

    def catalog(self, labels: np.ndarray) -> Catalog:
        """Return the images with these labels."""
        return replace(self.rows.catalog(self.files, read_range, mixed=True), labels=labels)


def _read(place: Place, names: list[str], options: ReadOptions, lengths: dict[str, int]) -> _Split:
    """Index the tars of a split."""
    files = [place.address(name) for name in names]
    whole = _Split(files, Rows(), [])
    with ThreadPoolExecutor(THREADS[is_remote(place.root)]) as pool:
        for name, part in zip(
            names, pool.map(lambda at: _read_tar(files, at, options), range(len(files))), strict=True
        ):
            if len(part.values) != lengths.get(name, len(part.values)):
                found = f"{len(part.values):,} samples, but {lengths[name]:,} by its info file"
                raise DataError(f"{place.given}: {name} holds {found}. Download it again.")
            whole.rows.extend([part.rows])
            whole.values += part.values
    return whole


def _read_tar(files: list[str], file: int, options: ReadOptions) -> _Split:
    """Index one tar."""
    part = _Split(files, Rows(), [])
    for sample in samples(files[file]):
        image = sample.image()
        part.values.append(sample.label(options.label))
        part.rows.add(file, image.name, image.offset, image.size, 0)
    if not part.values:
        raise DataError(f"{without_credentials(files[file])}: holds no samples. Copy it again, or remove it.")
    return part


def _expected(place: Place, by_split: dict[str | None, list[str]]) -> tuple[dict[str, int], list[str]]:
    """Return how many samples tars should hold, and remarks; DataError if some of those that should be there are not.

    That is said by timm's _info.json, as far as a split has been copied at all, or by the numbers in the names.
    """
    given, lengths = {name for names in by_split.values() for name in names}, dict[str, int]()
    for info in [name for name in INFO if name in place.names() and not place.only][:1]:
        for names, counts in _splits_of_info(place, info):
            missing = [name for name in names if name not in given]
            if missing and len(missing) < len(names):
                raise DataError(
                    f"{place.given}: {info} lists {counted(len(missing), 'tar that is', 'tars that are')} not there "
                    f"({named(missing)}). Download what is missing, or remove {info} to do without."
                )
            lengths |= dict(zip(names, counts, strict=False))
    numbers: dict[tuple[str, str], set[int]] = {}
    for name in given:
        if match := _NUMBERED.fullmatch(name):
            numbers.setdefault((match[1], match[3]), set()).add(int(match[2]))
    remarks = [
        f"The tars {start}*{end} end with number {max(found)}, but only {len(found)} are there: is one missing?"
        for (start, end), found in sorted(numbers.items())
        if not lengths and max(found) - min(found) + 1 > len(found)
    ]
    return lengths, remarks


def _splits_of_info(place: Place, name: str) -> list[tuple[list[str], list[int]]]:
    """Return the names of the tars of each split in timm's info file, and the number of samples in each."""
    try:
        splits = json.loads(place.read(name))["splits"].values()
        return [
            ([str(file) for file in one["filenames"]], [int(count) for count in one["shard_lengths"]]) for one in splits
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # some other program's
