"""Columns of any encoding in shards: every reader reads them correctly or rejects them with a sentence."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streaming import MDSWriter

from common.errors import DataError
from loaders.images import native
from loaders.images.native import View
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.columns import Columns, WrongValue
from loaders.storage.inspection import inspect
from loaders.storage.streaming import ShardDataset
from tools.convert.__main__ import main as convert
from tools.verify.__main__ import run as verify

pytestmark = pytest.mark.slow

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
IMAGE = Image.fromarray(COLOURS[..., :3])
DECODERS = [name for name in ("native", "torchvision", "pil") if name != "native" or native.available()]


def write(root: Path, columns: dict[str, str], *samples: dict[str, Any]) -> Path:
    """Write train/ and val/ with these samples; columns x (PNG) and y (int) have defaults."""
    columns = {"x": "png", "y": "int"} | columns
    for split in ("train", "val"):
        with MDSWriter(out=os.fspath(root / split), columns=columns, hashes=["sha1"]) as writer:
            for sample in samples:
                writer.write({"x": IMAGE, "y": 0} | sample)
    return root


def opened(root: Path, decoder: str = "auto") -> ShardDataset:
    return ShardDataset(str(root), str(root), "val", EvaluationPipeline(-1, 20, decoder), seed=0)


def refused_by_all(root: Path, said: str, capsys: pytest.CaptureFixture, converts: bool = True) -> None:
    """Check that training, data.py, verify and convert report this, once per split, and nothing else."""
    with pytest.raises(DataError) as error:
        opened(root).read(0)
    assert said in str(error.value) and "image (" not in str(error.value)
    assert any(said in fault for fault in inspect(str(root), str(root))[1])
    commands: list[Callable[[], int]] = [lambda: verify([str(root), "--workers=1"])]
    if converts:
        commands.append(lambda: convert([str(root), str(root) + "-out", "--workers=1"]))
    for command in commands:
        assert command() == 1
        text = " ".join("".join(capsys.readouterr()).split())
        assert said in text and "is damaged" not in text
        assert "as an image" not in text and "skip-unreadable" not in text


@pytest.mark.parametrize("form", ["fixed", "any size", "any kind"])
@pytest.mark.parametrize("shape", ["gray", "one", "three", "four"])
def test_arrays_equal_pils_images(shape: str, form: str, tmp_path: Path) -> None:
    array = {"gray": COLOURS[..., 0], "one": COLOURS[..., :1], "three": COLOURS[..., :3], "four": COLOURS}[shape]
    sizes = ",".join(map(str, array.shape))
    encoding = {"fixed": f"ndarray:uint8:{sizes}", "any size": "ndarray:uint8", "any kind": "ndarray"}[form]
    root = write(tmp_path / "set", {"x": encoding}, {"x": np.ascontiguousarray(array)})
    wanted = Image.fromarray(array[..., 0] if shape == "one" else array).convert("RGB").crop((5, 0, 25, 20))
    for decoder in DECODERS:
        assert np.array_equal(opened(root, decoder)[0][0].permute(1, 2, 0).numpy(), np.array(wanted))
        assert np.array_equal(opened(root, decoder).__getitems__([(0, 0)])[0][0].permute(1, 2, 0), np.array(wanted))
    assert verify([str(root), "--workers=1"]) == 1  # fails only because val has train's image
    assert inspect(str(root), str(root))[1] == []


@pytest.mark.parametrize(
    ("encoding", "array", "said"),
    [
        ("ndarray:uint16", COLOURS[..., :3].astype("u2"), "column x is encoded as ndarray:uint16; an image is"),
        ("ndarray:uint8:3,20,30", COLOURS[..., :3].transpose(2, 0, 1), "column x is encoded as ndarray:uint8:3,20,30;"),
        ("ndarray:float32:20,30,3", COLOURS[..., :3].astype("f4"), "column x is encoded as ndarray:float32:20,30,3;"),
        ("ndarray:uint8:600", COLOURS[..., 0].reshape(-1), "column x is encoded as ndarray:uint8:600;"),
        (
            "ndarray:uint8",
            COLOURS[..., :3].transpose(2, 0, 1),
            "sample 0: its image (column x) is an array of uint8 [3",
        ),
        (
            "ndarray:uint8",
            COLOURS[..., :2],
            "sample 0: its image (column x) is an array of uint8 [20, 30, 2]; pixels",
        ),
        ("ndarray:uint8", COLOURS[None], "sample 0: its image (column x) is an array of uint8 [1, 20, 30, 4]"),
        ("ndarray", COLOURS.astype("i8"), "sample 0: its image (column x) is an array of int64 [20, 30, 4]"),
    ],
)
def test_other_arrays_are_rejected(
    encoding: str, array: np.ndarray, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = write(tmp_path / "set", {"x": encoding}, {"x": np.ascontiguousarray(array)})
    with pytest.raises(DataError) as error:
        opened(root).read(0)
    assert said in str(error.value)
    assert said in inspect(str(root), str(root))[1][0]
    assert verify([str(root), "--workers=1"]) == 1
    assert said in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.skipif(not native.available(), reason="the native decoder is not built")
@pytest.mark.parametrize("pixels", [np.zeros((9, 9), "u1"), np.zeros((9, 9, 3), "u2"), np.zeros((9, 9, 4), "u1")])
def test_the_native_decoder_rejects_other_pixels(pixels: np.ndarray) -> None:
    view = View(0, 0, 9, 9, 9, 9, 0, 0, 9, 9)
    for call in (
        lambda: native.view_pixels(pixels, view),
        lambda: native.Batch([pixels]),
        lambda: native.Batch([pixels.reshape(-1)]),
    ):
        with pytest.raises(ValueError, match=r"pixels are uint8 \[H, W, 3\], not "):
            call()


@pytest.mark.parametrize(
    ("encoding", "values"),
    [
        *(
            (kind, (0, 1, 2))
            for kind in ("int", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
        ),
        *(("str_int", (0, 1, 2)), ("str", ("0", "1", "2"))),
        *(
            (f"ndarray:{kind}", tuple(np.array([n], kind.split(":")[0]) for n in range(3)))
            for kind in ("uint8", "int64:1")
        ),
        ("ndarray", tuple(np.array([[n]], "i4") for n in range(3))),
    ],
)
def test_labels_of_every_integer_encoding(encoding: str, values: tuple[Any, ...], tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"x": "png", "y": encoding}, *({"y": value} for value in values))
    dataset = opened(root)
    assert [dataset.read(place)[1] for place in range(3)] == [0, 1, 2]
    assert all(type(dataset.read(place)[1]) is int for place in range(3))
    assert inspect(str(root), str(root))[0][0].per_class == [1, 1, 1]
    assert convert([str(root), str(tmp_path / "out"), "--workers=1"]) == 0
    assert [opened(tmp_path / "out").read(place)[1] for place in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("encoding", "value", "said"),
    [
        ("float64", 1.7, "column y is encoded as float64; a label is int, "),
        ("str_float", 1.0, "column y is encoded as str_float; a label is int, "),
        ("json", {"label": 1}, "column y is encoded as json; a label is int, "),
        ("bytes", b"1", "column y is encoded as bytes; a label is int, "),
        ("pkl", 1, "column y is encoded as pkl; a label is int, "),
        ("ndarray:float32:3", np.array([0, 1, 0], "f4"), "column y is encoded as ndarray:float32:3; a label is int, "),
        ("ndarray:uint8:3", np.array([0, 1, 0], "u1"), "column y is encoded as ndarray:uint8:3; a label is int, "),
        ("ndarray", np.array([0.0, 1.0]), "sample 0: its label (column y) is an array of float64 [2]; a label is an"),
        ("ndarray", np.array([0.7]), "sample 0: its label (column y) is an array of float64 [1]; a label is an"),
        ("str", "cat", "sample 0: its label (column y) is 'cat'; a label is an integer from 0 to "),
        ("str", "1.0", "sample 0: its label (column y) is '1.0'; a label is"),
        ("int", -1, "sample 0: its label (column y) is -1; a label is"),
        ("str", "-1", "sample 0: its label (column y) is -1; a label is"),
        ("uint64", 2**63, f"sample 0: its label (column y) is {2**63}; a label is"),
    ],
)
def test_other_labels_are_rejected(
    encoding: str, value: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    refused_by_all(write(tmp_path / "set", {"y": encoding}, {"y": value}), said, capsys)


def test_labels_without_a_class_are_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write(tmp_path / "set", {}, {"y": 1}, {"y": 2})
    (root / "classes.json").write_text('["cat", "dog"]')
    assert convert([str(root), str(tmp_path / "out"), "--workers=1", "--skip-unreadable"]) == 1
    said = " ".join("".join(capsys.readouterr()).split())
    assert "shard.00000.mds, sample 1: its label is 2, outside of the classes (0 to 1, by classes.json)" in said


class Program:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["meta", "i"])
def test_an_unneeded_pickle_is_not_loaded(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert pickle.loads(pickle.dumps(Program(mark))) is None and mark.is_file()
    mark.unlink()
    root = write(tmp_path / "set", {name: "pkl"}, *({name: Program(mark), "y": label} for label in (0, 1)))
    dataset = opened(root)
    assert [dataset[place][1] for place in range(2)] == [0, 1]
    assert inspect(str(root), str(root))[1] == []
    verify([str(root), "--workers=1"])
    assert convert([str(root), str(tmp_path / "out"), "--workers=1"]) == 0
    assert torch.equal(opened(tmp_path / "out")[1][0], dataset[1][0])
    assert not mark.exists()


def test_a_pickled_image_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write(tmp_path / "set", {"x": "pkl"}, {"x": Program(tmp_path / "ran")})
    refused_by_all(root, "column x is encoded as pkl; an image is jpeg, png, bytes, pil, or", capsys)
    assert not (tmp_path / "ran").exists()


def test_strings_as_ids(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write(tmp_path / "set", {"i": "str"}, {"i": "img_0.jpg"}, {"i": "img_1.jpg", "y": 1})
    verify([str(root), "--workers=1"])
    assert "damaged" not in "".join(capsys.readouterr())
    assert convert([str(root), str(tmp_path / "out"), "--workers=1"]) == 0
    index = json.loads((tmp_path / "out/val/index.json").read_text())
    assert index["shards"][0]["samples"] == 2


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (100, 100), (0, 0)])
def test_declared_sizes_do_not_allocate_memory(size: tuple[int, int]) -> None:
    """PIL allocates the size that an image declares before it checks the data."""
    entry = {"column_names": ["x", "y"], "column_encodings": ["pil", "int"], "column_sizes": [None, 8]}
    columns = Columns(entry)
    image = np.array([*size, 3], np.uint32).tobytes() + b"RGB" + bytes(8)
    sample = np.uint32(len(image)).tobytes() + image + np.int64(1).tobytes()
    if 0 in size:
        assert columns.read(sample)[1] == 1
    else:
        with pytest.raises(WrongValue, match=f"{size[0]} x {size[1]} px in 23 bytes, which is not all of it"):
            columns.read(sample)
