"""Folders of pictures, one per class, as torchvision lays them out: PATH/train/CLASS/*.JPEG and PATH/val/..."""

import os
from pathlib import Path

import numpy as np

from config.errors import DataError
from loaders.dataset import PictureDataset
from loaders.decoding import shape_of
from loaders.errors import named
from loaders.transforms import Pipeline

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageFolderDataset(PictureDataset):
    """One split of an image folder.

    Names are kept in one numpy array: 1.28 million Python strings would be copied into every worker, page by page, as
    their reference counts are touched.

    Args:
        root: the folder that holds train/ and val/.
        split: `train` or `val`.
        pipeline: bytes -> uint8 tensor.
        seed: the run's seed.

    Raises:
        DataError: every fault of the folder's structure that can be seen without opening a picture.
    """

    classes: list[str]
    labels_are_free = False

    def __init__(self, root: str | os.PathLike[str], split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        problems = structure_faults(Path(root), needed=(split,))
        if problems:
            raise DataError("\n".join(problems))
        self.folder = Path(root) / split
        self.classes = class_names(self.folder)
        per_class = [pictures_in(self.folder / name) for name in self.classes]
        empty = [name for name, names in zip(self.classes, per_class, strict=True) if not names]
        if empty:
            raise DataError(empty_classes(self.folder, empty))
        self.names = np.array([os.fsencode(name) for names in per_class for name in names], dtype=np.bytes_)
        self.labels = np.repeat(np.arange(len(self.classes)), [len(names) for names in per_class])

    def __len__(self) -> int:
        return len(self.names)

    def path_of(self, index: int) -> Path:
        """A picture's file."""
        return self.folder / self.classes[self.labels[index]] / os.fsdecode(self.names[index])

    def name_of(self, index: int) -> str:
        return str(self.path_of(index))

    def read(self, index: int) -> tuple[bytes, int]:
        path = self.path_of(index)
        try:
            return path.read_bytes(), int(self.labels[index])
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error

    def measure(self, index: int) -> tuple[int, int, int]:
        try:
            return *shape_of(self.path_of(index)), int(self.labels[index])
        except Exception as error:
            raise self.unreadable(index, error) from error


def class_names(folder: Path) -> list[str]:
    """The sorted names of the folders in `folder`."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def is_picture(name: str) -> bool:
    """Whether a file's name ends like a picture's."""
    return name.lower().endswith(EXTENSIONS)


def pictures_in(folder: Path) -> list[str]:
    """Every picture below a class' folder as a path relative to it, in torchvision's order."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        below = os.path.relpath(parent, folder)
        prefix = "" if below == os.curdir else below + os.sep
        found += [prefix + name for name in sorted(names) if is_picture(name)]
    return found


def structure_faults(root: Path, needed: tuple[str, ...] = SPLITS) -> list[str]:
    """What is wrong with the folders, without looking at a single file inside a class.

    Args:
        root: the folder that should hold train/ and val/.
        needed: the splits that must be there; the other one is compared if it happens to be.

    Returns:
        One sentence per fault.
    """
    if not root.exists():
        return [f"{root}: no such folder. It should hold train/ and val/, with one folder per class in each."]
    if not root.is_dir():
        return [f"{root}: is a file. A data set is a folder with train/ and val/ in it; unpack archives first."]
    missing = [split for split in needed if not (root / split).is_dir()]
    problems = [_missing_split(root, split) for split in missing]
    there = [split for split in SPLITS if (root / split).is_dir()]
    for split in there:
        problems += _split_faults(root / split) if split in needed else []
    if not problems and len(there) == len(SPLITS):
        problems += _class_faults(root)
    return problems


def _missing_split(root: Path, split: str) -> str:
    """The sentence for a folder without train/ or val/, with a guess at what it is instead."""
    if split == "val" and (root / "test").is_dir():
        return f"{root}: has no val/ but has test/. Rename it: mv {root / 'test'} {root / 'val'}"
    if (root / f"{split}.beton").is_file():
        return f"{root}: holds {split}.beton, an FFCV file. Set storage=ffcv to train from it; it is not verified here."
    folders = class_names(root)
    found = f"it holds {named([name + '/' for name in folders])}" if folders else "it holds no folders"
    return f"{root}: has no {split}/ ({found}). Expected {root / split}/CLASS/*.JPEG."


def _split_faults(folder: Path) -> list[str]:
    """A split without class folders: shards, pictures lying flat, or nothing."""
    if class_names(folder):
        return []
    names = sorted(os.listdir(folder))
    if "index.json" in names:
        return [f"{folder}: holds MDS shards, no pictures. Set is_streaming=true and local=/a/cache/folder."]
    flat = sum(map(is_picture, names))
    if flat:
        return [
            f"{folder}: {flat} pictures lie directly in it, as in ImageNet's archive of validation pictures. "
            "They must be sorted into one folder per class, with the class names of train/: python -m tools.verify "
            f"{folder.parent} --fold MAPPING"
        ]
    return [f"{folder}: is empty. Expected one folder per class."]


def _class_faults(root: Path) -> list[str]:
    """Classes that one split has and the other has not: every label after the first would be wrong."""
    train, val = (set(class_names(root / split)) for split in SPLITS)
    problems = []
    for here, there, only in (("train", "val", train - val), ("val", "train", val - train)):
        if only:
            names = named(sorted(only))
            problems.append(
                f"{root}: {len(only)} classes are in {here}/ but not in {there}/ ({names}), so that the labels of the "
                "two would disagree. Add the missing folders or remove the surplus ones."
            )
    return problems


def empty_classes(folder: Path, empty: list[str]) -> str:
    """The sentence for class folders without a picture."""
    return (
        f"{folder}: no pictures in {len(empty)} of its classes ({named(empty)}). "
        f"Add some ({', '.join(EXTENSIONS)}), or remove the folders from train/ and val/ both."
    )
