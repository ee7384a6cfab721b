"""WebDataset tars, such as timm/imagenet-1k-wds: in a folder, or in train/ and val/."""

from __future__ import annotations

import json
import re

from common.addresses import without_credentials
from common.errors import DataError, counted, named
from loaders.archives.catalog import DataCopy
from loaders.archives.forms import ReadOptions
from loaders.archives.labels import Images, classes_by_names, index_files, labeled
from loaders.archives.place import GZIPPED, Place, is_tar, read_range
from loaders.archives.samples import is_image, samples, split_name
from loaders.archives.splits import by_split, split_of
from loaders.archives.tars import first_names
from loaders.class_names import are_imagenet, imagenet

INFO = ("_info.json", "info.json")  # timm's: which tars there are, and how many samples each holds
_NUMBERED = re.compile(r"(.*?)(\d+)(\.tar.*|\.tgz)")
_HEAD = 12  # members that are looked at to recognize one
_TRIED = 3  # tars that are looked at: the first may be damaged


def tars_of(place: Place) -> list[str]:
    """Return the tars in a place, or else those in its folders of splits."""
    names = place.names()
    if tars := [name for name in names if is_tar(name)]:
        return tars
    folders = [name for name in names if name.endswith("/") and split_of(name)]
    return [folder + name for folder in folders for name in place.names(folder[:-1]) if is_tar(name)]


def is_webdataset(place: Place) -> bool:
    """Whether a place holds tars with an image and another member of the same name."""
    return any(_holds_samples(first_names(place.address(name), _HEAD)) for name in tars_of(place)[:_TRIED])


def _holds_samples(names: list[str]) -> bool:
    keys = [split_name(name) for name in names]
    images = {key for key, extension in keys if is_image(extension)}
    return any(key in images and not is_image(extension) for key, extension in keys)


def open_webdataset(place: Place, options: ReadOptions) -> DataCopy:
    """Open tars; `options.label` is the extension of the members that hold labels, or a key of the .json members."""
    tars = tars_of(place)
    lengths, remarks = _expected(place, tars)
    found, left_out = by_split(place, tars)
    read = {split: _read(place, names, options, lengths) for split, names in found.items()}
    known = list(imagenet()) if any("imagenet1k" in name for name in tars) else None
    splits, classes = labeled(read, read_range, options, known)
    classes = classes or classes_by_names(splits.values())
    if are_imagenet(classes) and not any(name.endswith(GZIPPED) for name in tars):
        # Its names give the order of the image folder; files of gzip are not read in any order but their own.
        splits = {split: catalog.by_name() for split, catalog in splits.items()}
    return DataCopy("WebDataset tars", splits, classes, [*remarks, *left_out])


def _read(place: Place, names: list[str], options: ReadOptions, lengths: dict[str, int]) -> Images:
    """Index the tars of a split."""
    files = [place.address(name) for name in names]

    def index(file: int) -> Images:
        part = Images(files)
        for sample in samples(files[file]):
            image = sample.image()
            part.add(file, image.name, image.offset, image.size, sample.label(options.label))
        if not part.values:
            raise DataError(f"{without_credentials(files[file])}: holds no samples. Copy it again, or remove it.")
        if len(part.values) != (expected := lengths.get(names[file], len(part.values))):
            count = f"{len(part.values):,} samples, but {expected:,} by its info file"
            raise DataError(f"{place.given}: {names[file]} holds {count}. Download it again.")
        return part

    return index_files(files, index)


def _expected(place: Place, tars: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return how many samples tars should hold, and remarks; DataError if some of those that should be there are not.

    That is said by timm's _info.json, as far as a split has been copied at all, or by the numbers in the names.
    """
    given, lengths = set(tars), dict[str, int]()
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
