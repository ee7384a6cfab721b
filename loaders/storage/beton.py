"""FFCV's .beton files, format version 2: ROOT/train.beton and ROOT/val.beton, each with all images of a split.

The files are those of the ffcv package, but read here and decoded by the same pipeline as every other storage: order,
augmentation and pixels are those of the image folder, and ffcv itself need not be installed.

A file consists of, little-endian throughout: a header; a descriptor per field; a row per sample (how its image is
stored, width, height, address; label); from a page's boundary on the images, none of which crosses a boundary; and
the table of allocations, in any order, up to the file's end: only it knows how many bytes an image takes.
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
from loaders.transport.remote import is_remote

VERSION = 2
HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page_size", "<u4"), ("samples", "<u8"), ("allocations_at", "<u8")]
)
FIELD = np.dtype([("kind", "u1"), ("name", "S16"), ("arguments", "V1024")])
SAMPLE = np.dtype(
    {
        "names": ["mode", "width", "height", "address", "label"],
        "formats": ["u1", "<u2", "<u2", "<u8", "<i8"],
        "offsets": [0, 1, 3, 5, 16],  # the image's columns lie packed, the label at a multiple of 8
        "itemsize": 24,
    }
)
ALLOCATION = np.dtype([("sample", "<u8"), ("address", "<u8"), ("size", "<u8")])

INT, RGB_IMAGE = 1, 2  # kinds of fields
JPG, RAW = 0, 1  # modes of images
_KINDS = ("FloatField", "IntField", "RGBImageField", "BytesField", "NDArrayField", "JSONField", "TorchTensorField")
_AGAIN = "Write it again: python -m tools.convert SRC DST --to ffcv"


class BetonDataset(ImageDataset):
    """One split of a data set in .beton files, read by index.

    The two tables are kept as arrays, 32 bytes per image. Images are read with pread and not from a memory map,
    because a disk's fault in a map ends the process by a signal, without a sentence.

    Args:
        path: the folder that holds train.beton and val.beton (and classes.json), or one such file of any name.
        split: `train` or `val`.
        pipeline: image -> uint8 tensor.
        seed: the run's seed.

    Raises:
        DataError: no such file, one that is cut short, of another version, or of other fields than image and label.
    """

    def __init__(self, path: str | os.PathLike[str], split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        self.path = beton_file(path, split)
        self._open()
        self.samples, self.sizes = read_tables(self._file, self.path)
        self.classes = read_classes(self.path, self.samples["label"])

    def _open(self) -> None:
        """Open the file: once, since pread leaves no position behind that forked workers could disturb."""
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
        try:
            count = os.preadv(self._file.fileno(), [data.data], int(sample["address"]))
        except OSError as error:
            raise DataError(f"{self.name_of(index)}: cannot be read ({error.strerror}).") from error
        if count != len(data):
            raise DataError(f"{self.name_of(index)}: the file has been cut since the run began. {_AGAIN}")
        if sample["mode"] == JPG:
            return data.tobytes(), int(sample["label"])
        return data.reshape(sample["height"], sample["width"], 3), int(sample["label"])


def beton_file(path: str | os.PathLike[str], split: str) -> Path:
    """The file of a split.

    Args:
        path: a folder, or the file itself.
        split: `train` or `val`.

    Raises:
        DataError: there is none.
    """
    if is_remote(os.fspath(path)):
        raise DataError(
            f"{path}: .beton files are read from disks of this machine only. "
            f"Copy them first: python -m tools.preload {shlex.quote(str(path))} /local/folder"
        )
    file = Path(path) if Path(path).is_file() else Path(path, f"{split}.beton")
    if not file.is_file():
        root = shlex.quote(str(file.parent))
        raise DataError(f"{file}: no such file. Write it: python -m tools.convert SRC {root} --to ffcv")
    return file


def read_tables(file: BinaryIO, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every sample's row and the bytes of its image: SAMPLE [N], uint64 [N].

    Raises:
        DataError: the file is none, is cut short, or does not hold images with labels.
    """
    end = os.fstat(file.fileno()).st_size
    cut = DataError(
        f"{path}: ends after {end} bytes, too early for what its header says; was it cut while it was copied? {_AGAIN}"
    )
    header = np.fromfile(file, HEADER, 1)
    if not len(header):
        raise cut
    version, fields, _, count, table_at = header[0].tolist()
    if version != VERSION:
        raise DataError(f"{path}: is no .beton file of version {VERSION} (it says {version}). {_AGAIN}")
    if table_at == 0:
        raise DataError(f"{path}: is unfinished; the program that wrote it was stopped. {_AGAIN}")
    descriptors = np.fromfile(file, FIELD, fields)
    if len(descriptors) < fields:
        raise cut
    _check_fields(descriptors, path)
    if not file.tell() + count * SAMPLE.itemsize <= table_at <= end - count * ALLOCATION.itemsize:
        raise cut
    if count == 0:
        raise DataError(f"{path}: holds no images. {_AGAIN}")
    samples = np.fromfile(file, SAMPLE, count)
    file.seek(table_at)
    return samples, _sizes(samples, np.fromfile(file, ALLOCATION), table_at, path)


def _check_fields(fields: np.ndarray, path: Path) -> None:
    """Refuse what is not an image and a label, in this order."""
    if fields["kind"].tolist() == [RGB_IMAGE, INT]:
        return
    kinds = [_KINDS[kind] if kind < len(_KINDS) else "a field of its own" for kind in fields["kind"].tolist()]
    names = [name.decode("ascii", "replace") for name in fields["name"].tolist()]
    found = [f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True)] or ["none"]
    raise DataError(
        f"{path}: has the fields {named(found)}, but images with labels are an RGBImageField and an IntField, in "
        f"this order and nothing else. {_AGAIN}"
    )


def _sizes(samples: np.ndarray, allocations: np.ndarray, end: int, path: Path) -> np.ndarray:
    """The bytes of each sample's image, uint64 [N].

    Args:
        samples: SAMPLE [N].
        allocations: ALLOCATION [at least N], in any order.
        end: where the pages end, bytes.
        path: the file, for messages.
    """
    allocations = allocations[np.argsort(allocations["address"])]
    found = np.searchsorted(allocations["address"], samples["address"]).clip(max=len(allocations) - 1)
    sizes = allocations["size"][found]
    pixels = 3 * samples["width"].astype(np.uint64) * samples["height"]
    lost = allocations["address"][found] != samples["address"]
    beyond = (samples["address"] > end) | (sizes > end - np.minimum(samples["address"], end))
    wrong = np.where(samples["mode"] == RAW, sizes != pixels, samples["mode"] != JPG) | (sizes == 0)
    faulty = np.flatnonzero(lost | beyond | wrong)
    if len(faulty):
        raise DataError(
            f"{path}, sample {faulty[0]}: the file's tables place no image here ({len(faulty)} of {len(samples)} "
            f"samples are so). The file is damaged. {_AGAIN}"
        )
    return sizes


def read_classes(path: Path, labels: np.ndarray) -> list[str] | None:
    """The class names from classes.json (a list, by label) beside a file; None where there is no such file.

    Args:
        path: the .beton file.
        labels: of its samples, int64 [N].

    Raises:
        DataError: classes.json cannot be read, or the labels are of other classes.
    """
    place = path.with_name("classes.json")
    names = None
    if place.is_file():
        names = class_list(place, place)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (names is not None and highest >= len(names)):
        allowed = f"{place} names {len(names)} classes" if names is not None else "a class is 0 or more"
        raise DataError(f"{path}: has labels from {lowest} to {highest}, but {allowed}. {_AGAIN}")
    return names
