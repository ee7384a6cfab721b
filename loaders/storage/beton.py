"""FFCV's .beton files, format version 2: ROOT/train.beton and ROOT/val.beton, each with all images of a split.

ffcv itself need not be installed. The files are decoded by the same pipeline as every other storage kind, so that
order, augmentation and pixels are those of the image folder.

Format (little-endian): a header; a descriptor per field; a row per sample (mode, width, height and address of the
image; label); the images, starting at a page boundary and never crossing one; and up to the end of the file the
allocations, in any order, which hold the sizes of the images in bytes.
"""

import os
import shlex
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.errors import DataError, named
from loaders.dataset import ImageDataset, class_list
from loaders.images.transforms import Pipeline
from loaders.transport.remote import is_remote, read

VERSION = 2
HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page_size", "<u4"), ("samples", "<u8"), ("allocations_at", "<u8")]
)
FIELD = np.dtype([("kind", "u1"), ("name", "S16"), ("arguments", "V1024")])
SAMPLE = np.dtype(
    {
        "names": ["mode", "width", "height", "address", "label"],
        "formats": ["u1", "<u2", "<u2", "<u8", "<i8"],
        "offsets": [0, 1, 3, 5, 16],  # the image's columns are packed, the label is aligned to 8 bytes
        "itemsize": 24,
    }
)
ALLOCATION = np.dtype([("sample", "<u8"), ("address", "<u8"), ("size", "<u8")])

INT, RGB_IMAGE = 1, 2  # kinds of fields
JPG, RAW = 0, 1  # modes of images
_KINDS = ("FloatField", "IntField", "RGBImageField", "BytesField", "NDArrayField", "JSONField", "TorchTensorField")
_AGAIN = "Write it again: python -m tools.convert SRC DST --to ffcv"


class BetonDataset(ImageDataset):
    """One split of a data set in .beton files, read by index; the tables in memory take 32 bytes per image.

    `path` is the folder with train.beton and val.beton (and classes.json), or one such file of any name.

    Raises:
        DataError: the file is missing, truncated, of another version, or has fields other than image and label.
    """

    def __init__(self, path: str | os.PathLike[str], split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        self.path = beton_file(path, split)
        self._open()
        self.samples, self.sizes = read_tables(self._file, self.path)
        self.classes = read_classes(self.path, self.samples["label"])

    def _open(self) -> None:
        """Open the file, once for all forked workers, since pread uses no shared position."""
        try:
            self._file = open(self.path, "rb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}).") from error
        weakref.finalize(self, self._file.close)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.samples)

    def name_of(self, index: int) -> str:
        return f"{self.path}, sample {index}"

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        sample, data = self.samples[index], np.empty(int(self.sizes[index]), np.uint8)
        try:  # not a memory map, in which a disk error would kill the process by a signal, without a message
            count = os.preadv(self._file.fileno(), [data.data], int(sample["address"]))
        except OSError as error:
            raise DataError(f"{self.name_of(index)}: cannot be read ({error.strerror}).") from error
        if count != len(data):
            raise DataError(f"{self.name_of(index)}: the file was truncated during the run. {_AGAIN}")
        if sample["mode"] == JPG:
            return data.tobytes(), int(sample["label"])
        return data.reshape(sample["height"], sample["width"], 3), int(sample["label"])


def beton_file(path: str | os.PathLike[str], split: str) -> Path:
    """Find the file of a split in a folder, unless `path` is the file itself; raises a DataError if there is none."""
    if is_remote(os.fspath(path)):
        raise DataError(
            f"{path}: .beton files are only read from local disks. "
            f"Copy them first: python -m tools.preload {shlex.quote(str(path))} /local/folder"
        )
    file = Path(path) if Path(path).is_file() else Path(path, f"{split}.beton")
    if not file.is_file():
        root = shlex.quote(str(file.parent))
        raise DataError(f"{file}: no such file. Write it: python -m tools.convert SRC {root} --to ffcv")
    return file


def read_tables(file: BinaryIO, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the sample rows and the sizes of the images in bytes: SAMPLE [N], uint64 [N]; DataError for other files."""
    end = os.fstat(file.fileno()).st_size
    truncated = DataError(f"{path}: ends after {end} bytes, but its header needs more; was a copy cut short? {_AGAIN}")
    header = np.fromfile(file, HEADER, 1)
    if not len(header):
        raise truncated
    version, fields, _, count, table_at = header[0].tolist()
    if version != VERSION:
        raise DataError(f"{path}: is not a .beton file of version {VERSION} (its version is {version}). {_AGAIN}")
    if table_at == 0:
        raise DataError(f"{path}: is unfinished; the program that wrote it was stopped. {_AGAIN}")
    descriptors = np.fromfile(file, FIELD, fields)
    if len(descriptors) < fields:
        raise truncated
    _check_fields(descriptors, path)
    if not file.tell() + count * SAMPLE.itemsize <= table_at <= end - count * ALLOCATION.itemsize:
        raise truncated
    if count == 0:
        raise DataError(f"{path}: holds no images. {_AGAIN}")
    samples = np.fromfile(file, SAMPLE, count)
    file.seek(table_at)
    return samples, _sizes(samples, np.fromfile(file, ALLOCATION), table_at, path)


def _check_fields(fields: np.ndarray, path: Path) -> None:
    """Check that the fields are an image and a label, in this order."""
    if fields["kind"].tolist() == [RGB_IMAGE, INT]:
        return
    kinds = [_KINDS[kind] if kind < len(_KINDS) else "a custom field" for kind in fields["kind"].tolist()]
    names = [name.decode("ascii", "replace") for name in fields["name"].tolist()]
    given = [f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True)] or ["none"]
    raise DataError(
        f"{path}: has the fields {named(given)}; the fields must be an RGBImageField and an IntField, in this order "
        f"and nothing else. {_AGAIN}"
    )


def _sizes(samples: np.ndarray, allocations: np.ndarray, end: int, path: Path) -> np.ndarray:
    """Return the size of each sample's image in bytes, uint64 [N], in a file whose pages end at byte `end`."""
    allocations = allocations[np.argsort(allocations["address"])]
    rows = np.searchsorted(allocations["address"], samples["address"]).clip(max=len(allocations) - 1)
    sizes = allocations["size"][rows]
    pixels = 3 * samples["width"].astype(np.uint64) * samples["height"]
    lost = allocations["address"][rows] != samples["address"]
    beyond = (samples["address"] > end) | (sizes > end - np.minimum(samples["address"], end))
    wrong = np.where(samples["mode"] == RAW, sizes != pixels, samples["mode"] != JPG) | (sizes == 0)
    faulty = np.flatnonzero(lost | beyond | wrong)
    if len(faulty):
        raise DataError(
            f"{path}, sample {faulty[0]}: has no valid image in the file's tables ({len(faulty)} of {len(samples)} "
            f"samples have none); the file is damaged. {_AGAIN}"
        )
    return sizes


def read_classes(path: Path, labels: np.ndarray) -> list[str] | None:
    """Read the class names from classes.json next to a .beton file, if it exists; DataError if they do not fit."""
    file = path.with_name("classes.json")
    names = class_list(read(str(file)), file) if file.is_file() else None
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (names is not None and highest >= len(names)):
        allowed = f"{file} names {len(names)} classes" if names is not None else "a label is at least 0"
        raise DataError(f"{path}: has labels from {lowest} to {highest}, but {allowed}. {_AGAIN}")
    return names
