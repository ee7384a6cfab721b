"""The folder to split, SRC/CLASS/*.jpg: what is in it, and whether SRC and DST can be what was meant."""

from __future__ import annotations

import os
import shlex
import unicodedata
from pathlib import Path
from typing import NamedTuple

from common.errors import DataError, counted, named
from common.folders import check_folder
from common.terminal import printable
from loaders.storage.imagefolder import EXTENSIONS, SPLITS, class_names, is_image, is_of_a_program, list_class
from loaders.transport.remote import is_remote

_SIDES = {"train", "training", "val", "valid", "validation", "test", "testing"}  # names of folders of a split data set
RECORD = "split.csv"  # in DST
ADVICE = "Expected one folder per class, as in {}/cat/1.jpg."


class Source(NamedTuple):
    """The images of a folder of classes, or of another source."""

    folder: Path | str
    classes: list[str]
    names: list[str]  # CLASS/NAME
    labels: list[int]  # indices of `classes`
    remarks: list[str]  # one sentence each


def check_places(source: str, target: str) -> None:
    """Raise a DataError unless SRC is a folder on this machine, and DST one that can be made outside of it."""
    for name in (source, target):
        if is_remote(name):
            raise DataError(f"{name}: is in a store, but images are split in local folders only. Copy them here first.")
    if os.path.isfile(source):
        raise DataError(f"{source}: is a file. If it is an archive, unpack it, and give the folder.")
    if not os.path.isdir(source):
        raise DataError(f"{source}: no such folder. {ADVICE.format(source)}")
    if not target:
        raise DataError("DST is empty; give a new folder, for train/ and val/.")
    if os.path.islink(target):
        raise DataError(f"{target}: is a link, but DST must be a new folder. Choose another name.")
    here, there = Path(source).resolve(), Path(target).resolve()
    beside = f"Choose another folder, such as {here.parent / f'{here.name}-split'}."
    if there == here or here in there.parents:
        raise DataError(f"{target}: is inside {source}, where its folders would become a class. {beside}")
    if there in here.parents:
        raise DataError(f"{target}: contains {source}. {beside}")
    if os.path.lexists(target) and not os.path.isdir(target):
        raise DataError(f"{target}: exists and is not a folder. Choose another name.")
    if os.path.isdir(target) and (names := os.listdir(target)):
        remove = f", or remove it: {shlex.join(['rm', '-r', target])}" if RECORD in names else "."
        raise DataError(f"{target}: is not empty. Choose another folder{remove}")
    for folder in (there, there.parent):  # the first may have an impossible name
        check_folder(folder, target, "choose another folder")


def read_source(folder: Path, target: str) -> Source:
    """List the images of every class; a DataError says what to do if the folder is not a folder of classes."""
    made = [name for name in class_names(folder) if is_of_a_program(name)]
    classes = [name for name in class_names(folder) if name not in made]
    _check_layout(folder, target, classes)
    listings = [list_class(folder / name) for name in classes]
    images = [[name for name in listing.images if not _is_in_programs_folder(name)] for listing in listings]
    if empty := [name for name, found in zip(classes, images, strict=True) if not found]:
        raise DataError(
            f"{folder}: no images in {len(empty)} of its {counted(len(classes), 'folder', 'folders')} "
            f"({named(empty)}). Add some ({', '.join(EXTENSIONS)}), or move the folders out of {folder}."
        )
    remarks = []
    ignored = sum(len(listing.others) for listing in listings)
    ignored += sum(not entry.is_dir() for entry in os.scandir(folder))
    if ignored:
        files = counted(ignored, "file", "files")
        remarks.append(f"Ignored: {files} outside of the class folders or without an image's extension.")
    made += [f"{name}/{below}" for name, listing in zip(classes, listings, strict=True) for below in listing.programs]
    if made:
        remarks.append(f"Folders of programs are left out: {named(list(map(printable, made)))}.")
    names = [f"{name}/{image}" for name, found in zip(classes, images, strict=True) for image in found]
    labels = [label for label, found in enumerate(images) for _ in found]
    remarks += [*_same_but_for_case(classes), *_links_out(folder, names)]
    return Source(folder, classes, names, labels, remarks)


def _check_layout(folder: Path, target: str, classes: list[str]) -> None:
    """Raise a DataError for a folder that is split already, holds loose images, or has fewer than two classes."""
    again = ["python", "-m", "tools.split"]
    if set(SPLITS) <= set(classes):
        check = shlex.join(["python", "data.py", str(folder)])
        raise DataError(f"{folder}: is split already: it has train/ and val/. To look at it: {check}")
    if "train" in classes and set(classes) <= _SIDES:
        if other := [name for name in classes if name != "train"]:
            rename = shlex.join(["mv", str(folder / other[0]), str(folder / "val")])
            raise DataError(f"{folder}: is split already, but {other[0]}/ must be called val/. Rename it: {rename}")
        inner = shlex.join([*again, str(folder / "train"), target])
        raise DataError(f"{folder}: has train/ alone. To split that: {inner}")
    if len(classes) == 1 and len(below := class_names(folder / classes[0])) > 1:
        inner = shlex.join([*again, str(folder / classes[0]), target])
        raise DataError(f"{folder}: holds one folder, {classes[0]}/, with {len(below)} in it. To split that: {inner}")
    if len(classes) < 2:
        loose = sum(is_image(name) for name in os.listdir(folder))
        what = f"{counted(loose, 'image lies', 'images lie')} directly in it, and " if loose else ""
        holds = f"it holds {'one class folder' if classes else 'no class folders'}; at least 2 classes are needed"
        raise DataError(f"{folder}: {what}{holds}. {ADVICE.format(folder)}")


def _is_in_programs_folder(name: str) -> bool:
    return any(is_of_a_program(part) for part in name.split("/")[:-1])


def _same_but_for_case(classes: list[str]) -> list[str]:
    """Return a remark on classes that may be one, such as Cat and cat."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), []).append(name)
    pairs = [printable(" and ".join(found)) for found in alike.values() if len(found) > 1]
    differ = "Their names differ only in case, spaces or how accents are encoded"
    return [f"Are these one class? {differ}: {named(pairs)}."] if pairs else []


def _links_out(folder: Path, names: list[str]) -> list[str]:
    """Return a remark on images that a link takes from elsewhere."""
    root = os.path.realpath(folder)
    real: dict[str, str] = {}  # of each folder, because resolving every path would take long
    outside = []
    for name in names:
        path = os.path.join(root, name)
        above = os.path.dirname(path)
        if above not in real:
            real[above] = os.path.realpath(above)
        target = os.path.realpath(path) if os.path.islink(path) else real[above]
        if os.path.commonpath([root, target]) != root:
            outside.append(printable(name))
    images = counted(len(outside), "image is a link", "images are links")
    return [f"{images} out of {folder} ({named(outside, 3)})."] if outside else []
