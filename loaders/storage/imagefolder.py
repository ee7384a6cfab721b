"""Image folders in torchvision's layout, with a folder per class: PATH/train/CLASS/*.JPEG and PATH/val/..."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError, counted, named
from loaders.archives.table_rows import unread_tables
from loaders.class_names import are_imagenet, wordnet_ids
from loaders.dataset import ImageDataset
from loaders.images.decoding import Stored, shape_of
from loaders.images.native import Encoded
from loaders.images.transforms import Pipeline
from loaders.storage.seek_file import FolderTables, read_file
from loaders.storage.unpacking import packed_inside, unpacking
from loaders.transport.remote import is_remote

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".jfif")

_MEASURED = 100  # images, of whose mean the size of all is estimated
OF_PROGRAMS = (
    "look like folders made by programs; images in them are used like others. Remove them if that is not intended."
)
_PROGRAMS = re.compile(r"[.@#$].*|__MACOSX|lost\+found")  # .ipynb_checkpoints, .Trash-1000, @eaDir, $RECYCLE.BIN


class ImageFolderDataset(ImageDataset):
    """One split of an image folder; a DataError lists all faults that show without opening an image."""

    classes: list[str]
    labels_are_free = False

    def __init__(self, path: str | os.PathLike[str], split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        if is_remote(os.fspath(path)):
            raise DataError(f"{path}: is in a store. Set is_streaming=true local=/a/cache/folder, or copy it here.")
        problems = structure_faults(Path(path), needed=(split,))
        if problems:
            raise DataError("\n".join(problems))
        self.folder = Path(path) / split
        self._prefix = os.fsencode(self.folder) + b"/"
        self.classes, per_class, self.remarks, fault = list_split(self.folder)
        if fault:
            raise DataError(fault)
        # One array, because reference counting would make every worker copy the pages of 1.28 million Python strings.
        self.names = np.array([os.fsencode(name) for names in per_class for name in names], dtype=np.bytes_)
        self.labels = np.repeat(np.arange(len(self.classes)), [len(names) for names in per_class])
        self.tables = FolderTables(self.folder, len(self.names), self.key_of) if pipeline.native else None

    def __len__(self) -> int:
        return len(self.names)

    def key_of(self, index: int) -> bytes:
        """Return CLASS/NAME of an image."""
        return os.fsencode(self.classes[self.labels[index]]) + b"/" + self.names[index].item()

    def path_of(self, index: int) -> Path:
        """Return the path of an image."""
        return self.folder / os.fsdecode(self.key_of(index))

    @property
    def stored_bytes(self) -> int:
        with contextlib.suppress(OSError):  # reading the image will report it
            some = range(0, len(self), -(-len(self) // _MEASURED))
            return sum(self.path_of(index).stat().st_size for index in some) * len(self) // len(some)
        return 0

    def name_of(self, index: int) -> str:
        return str(self.path_of(index))

    def read(self, index: int) -> tuple[bytes, int]:
        return self.contents(index)[0], int(self.labels[index])

    def borrow(self, index: int) -> tuple[Stored, int]:
        data, status = self.contents(index)
        table = self.tables.of(index, status) if self.tables else None
        return Encoded(data, table) if table else data, int(self.labels[index])

    def contents(self, index: int) -> tuple[bytes, os.stat_result]:
        """Return an image's file and its status; raises a DataError if it cannot be read."""
        try:
            return read_file(self._prefix + self.key_of(index))
        except OSError as error:
            path = self.path_of(index)
            raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error

    def remark(self) -> str | None:
        return self.tables.remark() if self.tables else None

    def measure(self, index: int) -> tuple[int, int, int]:
        try:
            return *shape_of(self.path_of(index)), int(self.labels[index])
        except Exception as error:
            raise self.unreadable(index, error) from error


def class_names(folder: Path) -> list[str]:
    """Return the sorted names of the folders in `folder`; raises a DataError if it cannot be listed."""
    with _scanning(folder):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def is_image(name: str) -> bool:
    """Whether a file name has an image's extension."""
    return name.lower().endswith(EXTENSIONS)


def is_of_a_program(name: str) -> bool:
    """Whether a folder's name looks as if a program had made it, such as .ipynb_checkpoints."""
    return _PROGRAMS.fullmatch(name) is not None


class Listing(NamedTuple):
    """Contents of a class folder, following links; paths are relative to it."""

    images: list[str]  # in torchvision's order
    others: list[str]  # files that are ignored, such as pipes and those without an image's extension
    programs: list[str]  # folders that look as if programs had made them


def list_class(folder: Path) -> Listing:
    """List a class folder recursively; DataError if one cannot be listed, contains itself or has a dangling link."""
    return _list_below(folder, "", tuple(map(str, Path(os.path.realpath(folder)).parents)), Listing([], [], []))


def _list_below(folder: Path, prefix: str, above: tuple[str, ...], listing: Listing) -> Listing:
    """Add one folder of a class recursively; `above` are the real paths of the folders that contain it."""
    path, below = folder / prefix, []
    real = os.path.realpath(path)
    if real in above:
        remedy = shlex.join(["rm", str(path)])
        raise DataError(f"{path}: is a link to {real}, which contains it. Remove it: {remedy}")
    with _scanning(path):
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            if entry.is_dir():
                below.append(prefix + entry.name)
            elif _is_dangling(entry) and not is_image(entry.name):  # reading an image reports its dangling link
                raise DataError(_unmounted(path, [entry.name]))
            elif is_image(entry.name) and (entry.is_file() or _is_dangling(entry)):
                listing.images.append(prefix + entry.name)
            else:
                listing.others.append(prefix + entry.name)
    listing.programs.extend(name for name in below if is_of_a_program(os.path.basename(name)))
    for name in below:
        _list_below(folder, name + os.sep, (*above, real), listing)
    return listing


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _unmounted(folder: Path, names: list[str]) -> str:
    if len(names) == 1:
        return f"{folder}: {names[0]} is a dangling link. Is a disk not mounted? Otherwise remove it."
    return f"{folder}: {named(names)} are dangling links. Is a disk not mounted? Otherwise remove them."


@contextlib.contextmanager
def _scanning(folder: Path) -> Iterator[None]:
    """Turn an OSError about a folder into a DataError."""
    try:
        yield
    except OSError as error:
        path = error.filename or folder
        raise DataError(f"{path}: cannot be listed ({error.strerror}). Make it readable, or remove it.") from error


def list_split(folder: Path) -> tuple[list[str], list[list[str]], list[str], str | None]:
    """Return a split's classes, the images of each, remarks, and a fault: empty classes, or an image of another one."""
    classes = class_names(folder)
    listings = [list_class(folder / name) for name in classes]
    fault = _misplaced(folder, classes, listings)
    if empty := [name for name, listing in zip(classes, listings, strict=True) if not listing.images]:
        fault = (
            f"{folder}: no images in {len(empty)} of its classes ({named(empty)}). "
            f"Add some ({', '.join(EXTENSIONS)}), or remove the folders from both train/ and val/."
        )
    return classes, [listing.images for listing in listings], _remarks(folder, classes, listings), fault


def _misplaced(folder: Path, classes: list[str], listings: Sequence[Listing]) -> str | None:
    """Describe the first image whose name holds the WordNet id of a class of ImageNet other than its folder's."""
    if not are_imagenet(classes):
        return None
    for one, listing in zip(classes, listings, strict=True):
        for name in listing.images:
            own = name.rpartition(os.sep)[2]
            if not own.startswith(one) and (ids := wordnet_ids(os.fsencode(own))) and one not in ids:
                return f"{folder / one / name}: its name says {named(ids)}. Move it to that class, or delete it."
    return None


def _remarks(folder: Path, classes: list[str], listings: Sequence[Listing]) -> list[str]:
    """List remarks on a split's folder that are not faults, one sentence each."""
    with _scanning(folder):
        loose = sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    others = [name for listing in listings for name in listing.others]
    programs = [name for name in classes if is_of_a_program(name)]
    programs += [
        f"{name}/{below}" for name, listing in zip(classes, listings, strict=True) for below in listing.programs
    ]
    remarks = []
    if loose:
        files = counted(len(loose), "file next to the class folders is", "files next to the class folders are")
        remarks.append(f"{folder.name}: {files} ignored ({named(loose)}).")
    if others:
        kinds = sorted({os.path.splitext(name)[1] or os.path.basename(name) for name in others})
        one, many = "file is not an image by name or type, and is", "files are not images by name or type, and are"
        remarks.append(f"{folder.name}: {counted(len(others), one, many)} ignored ({named(kinds)}).")
    if programs:
        remarks.append(f"{folder.name}: {named(programs)} {OF_PROGRAMS}")
    return remarks


def structure_faults(root: Path, needed: tuple[str, ...] = SPLITS) -> list[str]:
    """List what is wrong with train/ and val/, one sentence per fault, without looking at files inside a class.

    The splits in `needed` must exist; if both exist, their classes are compared.
    """
    if not root.exists():
        return [f"{root}: no such folder. It should hold train/ and val/, with one folder per class in each."]
    if not root.is_dir():
        what = unpacking(root) or "is a file. A data set is a folder with train/ and val/ in it."
        return [f"{root}: {what}"]
    present = [split for split in SPLITS if (root / split).is_dir()]
    if not present and (fault := not_split(root) or packed_inside(root)):
        return [fault]
    problems = [_missing_split(root, split) for split in needed if split not in present]
    problems += unread_tables(root) if not present else []
    problems += [fault for split in present if split in needed for fault in _split_faults(root / split)]
    if not problems and len(present) == len(SPLITS):
        problems += _class_faults(root)
    return problems


def not_split(root: Path) -> str:
    """Describe a folder of classes that has yet to be split; empty if it is something else."""
    classes = class_names(root) if root.is_dir() else []
    with _scanning(root):
        if len(classes) < 2 or not all(any(map(is_image, os.listdir(root / name))) for name in classes[:2]):
            return ""
    whole = root.absolute().parent
    if root.absolute().name in SPLITS and all((whole / split).is_dir() for split in SPLITS):
        return f"{root}: is one side of a split data set. Give the folder that holds both: {shlex.quote(str(whole))}"
    command = shlex.join(["python", "-m", "tools.split", str(root), f"{root}-split"])
    return f"{root}: holds folders of images ({named(classes)}), but no train/ and val/. To split it: {command}"


def _missing_split(root: Path, split: str) -> str:
    """Describe a folder without train/ or val/, with a guess at what it is instead."""
    if (root / split).is_symlink():
        return _unmounted(root, [split])
    if split == "val" and (root / "test").is_dir():
        return f"{root}: has no val/ but has test/. Rename it: mv {shlex.join([f'{root}/test', f'{root}/val'])}"
    if (root / f"{split}.beton").is_file():
        return f"{root}: holds {split}.beton, an FFCV file. Set storage=ffcv to train on it; it is not verified here."
    folders = class_names(root)
    contents = f"it holds {named([name + '/' for name in folders])}" if folders else "it holds no folders"
    return f"{root}: has no {split}/ ({contents}). Expected {root / split}/CLASS/*.JPEG."


def _split_faults(folder: Path) -> list[str]:
    """Describe a split without class folders: shards, loose images, or nothing."""
    with _scanning(folder):
        dangling = sorted(entry.name for entry in os.scandir(folder) if _is_dangling(entry))
    if dangling:
        return [_unmounted(folder, dangling)]
    if class_names(folder):
        return []
    names = sorted(os.listdir(folder))
    if "index.json" in names:
        return [f"{folder}: holds MDS shards, not images. Set is_streaming=true local=/a/cache/folder."]
    if loose := sum(map(is_image, names)):
        return [
            f"{folder}: {counted(loose, 'image lies', 'images lie')} directly in it, as in ImageNet's validation "
            "archive. Sort them into one folder per class, named as in train/: "
            f"python -m tools.verify {shlex.quote(str(folder.parent))} --fold MAPPING"
        ]
    return [f"{folder}: is empty. Expected one folder per class."]


def _class_faults(root: Path) -> list[str]:
    """Describe classes that only one split has; they would shift the labels of all classes after them."""
    train, val = (set(class_names(root / split)) for split in SPLITS)
    return [
        f"{root}: {counted(len(only), 'class is', 'classes are')} in {here}/ but not in {other}/ "
        f"({named(sorted(only))}), so their labels would disagree. Add the missing folders or remove the extra ones."
        for here, other, only in (("train", "val", train - val), ("val", "train", val - train))
        if only
    ]
