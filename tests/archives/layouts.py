"""One small ImageNet in each of the forms in which people have it."""

from __future__ import annotations

import functools
import io
import json
import shutil
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loaders.class_names import imagenet
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.streaming import ShardDataset
from tests.tools.conversions import PIPELINE, convert, files_of

CLASSES = [list(imagenet())[number] for number in (0, 3, 217, 530, 999)]
TRAIN, VAL = 8, 4  # images of a class

Sample = tuple[str, bytes, str]
"""Name, bytes and class of an image, as in the folder."""


def make_folder(root: Path) -> Path:
    """Write the images as the image folder that the other forms hold: train/CLASS/CLASS_N.JPEG, val/CLASS/ILSVRC..."""
    random = np.random.default_rng(0)
    for number in range(len(CLASSES) * (TRAIN + VAL)):
        label, count = number % len(CLASSES), number // len(CLASSES)
        # Numbers of different length, which no sorting by number orders as names are.
        name = f"{CLASSES[label]}_{count * 97}.JPEG" if count < TRAIN else f"ILSVRC2012_val_{number - 39:08}.JPEG"
        path = root / ("train" if count < TRAIN else "val") / CLASSES[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = random.integers(24, 60, 2)
        pixels = np.full((height, width, 3), 40 * label, np.uint8) + random.integers(0, 30, (height, width, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=85)
    return root


def samples(folder: Path, split: str) -> list[Sample]:
    """Return the images of a split of the folder, in its order."""
    dataset = ImageFolderDataset(folder, split, PIPELINE, seed=0)
    return [(path.name, path.read_bytes(), path.parent.name) for path in map(dataset.path_of, range(len(dataset)))]


def write_tar(path: Path | io.BytesIO, members: Iterable[tuple[str, bytes]], mode: str = "w") -> None:
    """Write a tar of these files."""
    given = {"fileobj": path} if isinstance(path, io.BytesIO) else {"name": path}
    with tarfile.open(mode=mode, **given) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_webdataset(folder: Path, root: Path, per_tar: int = 15) -> Path:
    """Write WebDataset tars as timm/imagenet-1k-wds has them, in shuffled order, with labels of ImageNet."""
    labels = list(imagenet())
    root.mkdir(parents=True)
    for split, called in (("train", "train"), ("val", "validation")):
        given = samples(folder, split)
        shuffled = [given[at] for at in np.random.default_rng(1).permutation(len(given))]
        for number, start in enumerate(range(0, len(shuffled), per_tar)):
            members = []
            for name, data, one in shuffled[start : start + per_tar]:
                stem, label = name.removesuffix(".JPEG"), labels.index(one)
                described = json.dumps({"label": label, "filename": name}).encode()
                members += [(f"{stem}.cls", b"%d" % label), (f"{stem}.jpg", data), (f"{stem}.json", described)]
            write_tar(root / f"imagenet1k-{called}-{number:04}.tar", members)
    return root


def make_folder_tar(folder: Path, path: Path, prefix: str = "", *, in_order: bool = False) -> Path:
    """Write train/CLASS/NAME and val/CLASS/NAME into a tar, compressed if its name says so."""
    members = [
        (f"{prefix}{split}/{one}/{name}", data)
        for split in ("train", "val")
        for name, data, one in samples(folder, split)
    ]
    if not in_order:
        members = [members[at] for at in np.random.default_rng(2).permutation(len(members))]
    write_tar(path, [*members, (f"{prefix}noisy_imagenette.csv", b"path")], "w" if path.suffix == ".tar" else "w:gz")
    return path


def make_hugging_face_tars(folder: Path, root: Path) -> Path:
    """Write the tars of Hugging Face's former copy, with the class at the end of each name."""
    root.mkdir(parents=True, exist_ok=True)
    train, val = (
        [(f"{Path(name).stem}_{one}.JPEG", data) for name, data, one in samples(folder, split)]
        for split in ("train", "val")
    )
    test = [("ILSVRC2012_test_00000001.JPEG", b"")]
    named = {"train_images_0": train[:15], "train_images_1": train[15:], "val_images": val, "test_images": test}
    for name, members in named.items():
        write_tar(root / f"{name}.tar.gz", members, "w:gz")
    return root


def make_table(folder: Path, path: Path) -> Path:
    """Write a table of paths, JSON lines, with the images beside it, in the order of their reversed names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = shutil.copytree(folder, path.parent / "images")
    files = sorted(images.rglob("*.JPEG"), key=lambda file: file.name[::-1])
    rows = [
        {"label": file.parent.name, "split": file.parts[-3], "path": f"images/{file.relative_to(images)}"}
        for file in files
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table_of(rows: list[Sample], classes: list[str]) -> Any:
    """Return images as a table of Hugging Face's; skips the test where pyarrow is not installed."""
    pyarrow = pytest.importorskip("pyarrow")
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": data, "path": f"{Path(name).stem}_{one}.JPEG"} for name, data, one in rows]
    labels = [classes.index(one) if one in classes else -1 for _, _, one in rows]
    table = pyarrow.table({"image": pyarrow.array(images, image), "label": pyarrow.array(labels, pyarrow.int64())})
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return table.replace_schema_metadata(about)


def make_parquet(folder: Path, root: Path, classes: list[str], *, in_order: bool = False) -> Path:
    """Write parquet files as Hugging Face has ImageNet, two for train and one each for val and test."""
    parquet = pytest.importorskip("pyarrow.parquet")
    root.mkdir(parents=True, exist_ok=True)
    for split, called in (("train", "train"), ("val", "validation")):
        rows = samples(folder, split)
        if not in_order:
            rows = [rows[at] for at in np.random.default_rng(3).permutation(len(rows))]
        step = 24
        for number, start in enumerate(range(0, len(rows), step)):
            table = table_of(rows[start : start + step], classes)
            name = f"{called}-{number:05}-of-{-(-len(rows) // step):05}.parquet"
            parquet.write_table(table, root / name, row_group_size=5)
    parquet.write_table(table_of([("x.JPEG", b"x", "")], classes), root / "test-00000-of-00001.parquet")
    return root


def example(**features: bytes | int | float) -> bytes:
    """Return a tf.train.Example, written by protobuf; keys have two underscores in place of a slash."""
    made = _example_class()()
    for key, value in features.items():
        kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(value)]
        getattr(made.features.feature[key.replace("__", "/")], kind).value.append(value)
    return made.SerializeToString(deterministic=True)


@functools.cache
def _example_class() -> Any:
    """Return the class of TensorFlow's message, from its definition in tensorflow/core/example."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, int, str]) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for called, number, label, kind, of in fields:
            made.field.add(name=called, number=number, label=label, type=kind, type_name=of or None)
        return made

    one, many, inner = field.LABEL_OPTIONAL, field.LABEL_REPEATED, field.TYPE_MESSAGE
    message("BytesList", ("value", 1, many, field.TYPE_BYTES, ""))
    message("FloatList", ("value", 1, many, field.TYPE_FLOAT, ""))
    message("Int64List", ("value", 1, many, field.TYPE_INT64, ""))
    lists = [("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List")]
    message("Feature", *((name, number, one, inner, f".tensorflow.{kind}") for name, number, kind in lists))
    features = message("Features", ("feature", 1, many, inner, ".tensorflow.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=inner, type_name=".tensorflow.Feature")
    message("Example", ("features", 1, one, inner, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a TFRecord file, its checksums computed by Google's library."""
    crc32c = pytest.importorskip("google_crc32c")

    def masked(data: bytes) -> bytes:
        crc = crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    with path.open("wb") as out:
        for record in records:
            length = struct.pack("<Q", len(record))
            out.write(length + masked(length) + record + masked(record))


def make_tfrecord(folder: Path, root: Path, *, slim: bool = False) -> Path:
    """Write TFRecord files as TensorFlow Datasets has ImageNet, or the older ones, whose labels start at 1."""
    root.mkdir(parents=True, exist_ok=True)
    labels = list(imagenet())
    for split, called in (("train", "train"), ("val", "validation")):
        given = samples(folder, split)
        shuffled = [given[at] for at in np.random.default_rng(4).permutation(len(given))]
        for number in range(2):
            records = []
            for name, data, one in shuffled[number::2]:
                file, label = name.encode(), labels.index(one)
                if slim:
                    about = {"image__filename": file, "image__class__label": label + 1, "image__height": 3}
                    records.append(example(image__encoded=data, image__class__synset=one.encode(), **about))
                else:
                    records.append(example(image=data, label=label, file_name=file, score=0.5))
            name = f"{called}-{number:05}-of-00002"
            write_records(root / (name if slim else f"imagenet2012-{called}.tfrecord-{number:05}-of-00002"), records)
    return root


def make_train_tar(folder: Path, path: Path) -> Path:
    """Write the tar of a tar per class; neither these nor their images are in the order of labels."""
    inner = []
    for one in reversed(CLASSES):
        held = io.BytesIO()
        write_tar(held, [(name, data) for name, data, of in reversed(samples(folder, "train")) if of == one])
        inner.append((f"{one}.tar", held.getvalue()))
    write_tar(path, inner)
    return path


def make_val_tar(folder: Path, path: Path) -> Path:
    """Write the flat tar of the validation images."""
    write_tar(path, sorted((name, data) for name, data, _ in samples(folder, "val")))
    return path


def make_val_table(folder: Path, path: Path) -> Path:
    """Write Kaggle's table of the validation images' classes."""
    rows = [f"{Path(name).stem},{one} 1 2 30 40 {one} 5 6 7 8 \n" for name, _, one in samples(folder, "val")]
    path.write_text("ImageId,PredictionString\n" + "".join(rows))
    return path


def make_archives(folder: Path, root: Path) -> Path:
    """Write ImageNet's two archives, next to Kaggle's table."""
    root.mkdir()
    make_train_tar(folder, root / "ILSVRC2012_img_train.tar")
    make_val_tar(folder, root / "ILSVRC2012_img_val.tar")
    make_val_table(folder, root / "LOC_val_solution.csv")
    return root


def contents(shards: Path, split: str) -> list[tuple[bytes, int]]:
    """Return the images and labels in converted shards, in order."""
    dataset = ShardDataset(str(shards), str(shards), split, PIPELINE, seed=0)
    return [dataset.read(index) for index in range(len(dataset))]  # type: ignore[misc]


def converted(source: Path | str, target: Path, *words: object) -> dict[str, bytes]:
    """Convert a data set, and return the files of the result."""
    if target.exists():
        shutil.rmtree(target)
    assert convert(source, target, "--shard-mb", 0.02, *words) == 0
    return files_of(target)
