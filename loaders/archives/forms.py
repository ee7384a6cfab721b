"""The table of forms in which people have data sets, and how each is recognized and opened.

A new form needs its file and its row here; a test writes the table of docs/archives.md.
"""

from __future__ import annotations

import argparse
import pkgutil
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import DataError, counted, named
from common.suggest import did_you_mean, listing
from loaders.archives.catalog import Catalog, DataCopy, check_labels
from loaders.archives.place import Place
from loaders.class_names import are_imagenet, wordnet_ids


@dataclass(frozen=True)
class ReadOptions:
    """What the content does not say."""

    kind: str | None = None  # a name in FORMS, where the content could be several
    label: str | None = None  # what holds the label; each form says what that may be
    label_offset: int = 0  # added to each stored number


class OptionNeeded(DataError):
    """A fault that one of ReadOptions may avoid; the message names the option."""


@dataclass(frozen=True)
class Form:
    """One form; functions are given as package.module:name and imported when they are needed."""

    reads: str  # files, for the docs
    recognize: str  # a function (Place) -> bool, which looks at names and first bytes only
    open: str  # a function (Place, ReadOptions) -> DataCopy


FORMS = {
    "imagenet": Form(
        "ImageNet's archives, whole or unpacked one level, and Kaggle's tree",
        "loaders.archives.imagenet:is_imagenet",
        "loaders.archives.imagenet:open_imagenet",
    ),
    "webdataset": Form(
        "WebDataset tars: `NAME.jpg`, `NAME.cls`",
        "loaders.archives.webdataset:is_webdataset",
        "loaders.archives.webdataset:open_webdataset",
    ),
    "parquet": Form(
        "parquet files with columns `image` and `label`, as Hugging Face has them",
        "loaders.archives.parquet:is_parquet",
        "loaders.archives.parquet:open_parquet",
    ),
    "tfrecord": Form(
        "TFRecord files with `image/encoded` and `image/class/label`, or TensorFlow Datasets' `image` and `label`",
        "loaders.archives.tfrecord:is_tfrecord",
        "loaders.archives.tfrecord:open_tfrecord",
    ),
    "hf-tars": Form(
        "the tars of Hugging Face's former ImageNet: `train_images_0.tar.gz`, `val_images.tar.gz`",
        "loaders.archives.folder_tars:is_hugging_face_tars",
        "loaders.archives.folder_tars:open_hugging_face_tars",
    ),
    "tar": Form(
        "tars, `.tar` or `.tgz`, that hold `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`",
        "loaders.archives.folder_tars:is_folder_tar",
        "loaders.archives.folder_tars:open_folder_tar",
    ),
    "table": Form(
        "tables of paths, CSV, TSV or JSON lines: `path,label[,split]`; `metadata.csv` of Hugging Face's image folders",
        "loaders.archives.tables:is_tables",
        "loaders.archives.tables:open_tables",
    ),
    "folder": Form(
        "image folders in a store: `s3://.../train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`",
        "loaders.archives.folders:is_folder_in_store",
        "loaders.archives.folders:open_folder_in_store",
    ),
}
"""In the order in which they are tried."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ReadOptions to a program's."""
    group = parser.add_argument_group("data sets in other forms")
    group.add_argument("--kind", metavar="KIND", help=f"what it is, if the content leaves doubt: {listing(FORMS)}")
    group.add_argument("--label", metavar="KEY", help="what holds the labels, such as a column's name")
    group.add_argument("--label-offset", type=int, default=0, metavar="N", help="add N to each label; -1: from 1")


def read_options(given: argparse.Namespace) -> ReadOptions:
    """Return the options that `add_options` has parsed."""
    return ReadOptions(given.kind, given.label, given.label_offset)


def recognize(place: Place, options: ReadOptions) -> str | None:
    """Return the form of a data set, a key of FORMS, or the one that `options` names; None if it has none of them."""
    if options.kind is not None and options.kind not in FORMS:
        raise DataError(f"--kind {options.kind}: must be {listing(FORMS)}{did_you_mean(options.kind, FORMS)}")
    return options.kind or next((name for name, form in FORMS.items() if _function(form.recognize)(place)), None)


def open_copy(path: str, options: ReadOptions) -> DataCopy | None:
    """Open the data set at a path or an s3:// address; None if it has none of these forms.

    Raises:
        DataError: it is damaged, or its images and labels do not fit together; the message names the first place.
    """
    place = Place(path)
    name = recognize(place, options)
    return open_as(name, place, options) if name else None


def open_as(name: str, place: Place, options: ReadOptions) -> DataCopy:
    """Open a data set in the form that `recognize` has named; raises as `open_copy`."""
    _check_links(place)  # before minutes of indexing
    copy: DataCopy = _function(FORMS[name].open)(place, options)
    _check_links(place)  # in the folders that were listed meanwhile
    if not any(len(catalog) for catalog in copy.splits.values()):
        raise DataError(f"{place.given}: holds no images.")
    for catalog in copy.splits.values():
        check_labels(catalog.labels, copy.classes, catalog.name_of)
        check_wordnet_ids(catalog, copy.classes)
    if copy.classes is None:
        copy.remarks.extend(_unused(np.concatenate([catalog.labels for catalog in copy.splits.values()])))
    return copy


def _unused(labels: np.ndarray) -> list[str]:
    """Return a remark on numbers below the largest label that no image has, of labels without names."""
    unused = np.setdiff1d(np.arange(labels.max()), labels).tolist()
    if not unused:
        return []
    if unused == [0]:
        return ["No image has the label 0. Are the labels counted from 1? Add --label-offset -1"]
    count = counted(len(unused), "label below it has", "labels below it have")
    return [f"The largest label is {labels.max():,}; {count} no images ({named(list(map(str, unused)))})."]


def _check_links(place: Place) -> None:
    """Raise a DataError for links to nothing, as of a disk that is not mounted: nothing else would miss their files."""
    if dangling := place.dangling():
        links = counted(len(dangling), "link leads to nothing", "links lead to nothing")
        raise DataError(f"{place.given}: {links} ({named(dangling)}). Is a disk not mounted? Otherwise remove them.")


def _function(name: str) -> Any:
    return pkgutil.resolve_name(name)


def check_wordnet_ids(catalog: Catalog, classes: list[str] | None) -> None:
    """Raise a DataError at the first image whose name holds a WordNet id other than its label's class."""
    if classes is None or not are_imagenet(classes):
        return
    for index, (name, label) in enumerate(zip(catalog.names.tolist(), catalog.labels.tolist(), strict=True)):
        found = set(wordnet_ids(name.rpartition(b"/")[2]) or wordnet_ids(name))
        if found and classes[label] not in found:
            raise OptionNeeded(
                f"{catalog.name_of(index)}: its name says {named(sorted(found))}, but its label, {label}, is "
                f"{classes[label]}. Are the labels in another order, or counted from 1? (--label-offset -1)"
            )
