"""tools.evaluate --model and tools.predict FILE: networks from elsewhere, and files that are none."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import UserError
from loaders.class_names import imagenet
from tests.image_files import make_imagefolder, make_shards
from tests.tools.conftest import WNIDS
from tools.evaluate import results
from tools.evaluate.__main__ import run as evaluate
from tools.networks.files import open_file
from tools.networks.inputs import Input
from tools.predict.__main__ import run as predict

slow = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ["--resize=20", "--crop=16"]
FLOATS = [*SIZES, "--mean=0.485,0.456,0.406", "--std=0.229,0.224,0.225"]


class Colors(nn.Module):
    """Scores each class by an image's distance from its color in make_imagefolder; all are told apart."""

    def __init__(self, classes: int = 3, takes: torch.dtype = torch.float32, softmax: bool = False) -> None:
        super().__init__()
        labels = torch.arange(classes)[:, None]
        # 1000 classes have 256 colors: those of the first three alone matter.
        colors = (labels * torch.tensor([83, 151, 211]) + torch.tensor([0, 90, 180])) % 256
        colors[3:] = 10_000
        self.register_buffer("colors", colors / 255)
        self.register_buffer("mean", torch.tensor(MEAN))
        self.register_buffer("std", torch.tensor(STD))
        self.takes_bytes, self.softmax = takes == torch.uint8, softmax

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        color = images.float().mean(dim=(2, 3))
        color = color / 255 if self.takes_bytes else color * self.std + self.mean
        scores = -10 * ((color[:, None] - self.colors) ** 2).sum(dim=2)
        return scores.softmax(1) if self.softmax else scores


def traced(file: str, module: nn.Module, takes: torch.dtype = torch.float32, **texts: str) -> str:
    torch.jit.trace(module, torch.zeros(2, 3, 16, 16, dtype=takes)).save(file, _extra_files=texts)  # type: ignore
    return file


def in_onnx(file: str, takes: torch.dtype) -> None:
    """Write Colors, whose squares of distances are linear but for a term that all classes share."""
    from onnx import TensorProto, helper, numpy_helper, save

    colors, kind = Colors().colors.double(), TensorProto.FLOAT
    mean, std = (MEAN, STD) if takes == torch.float32 else ((0, 0, 0), (1 / 255,) * 3)
    slope = 20 * colors.T * torch.tensor(std, dtype=torch.float64)[:, None]
    offset = (2 * colors * torch.tensor(mean) - colors**2).sum(1) * 10
    constants = {"axes": np.array([2, 3]), "slope": slope.float().numpy(), "offset": offset.float().numpy()}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=kind),
        helper.make_node("ReduceMean", ["floats", "axes"], ["color"], keepdims=0),
        helper.make_node("Gemm", ["color", "slope", "offset"], ["scores"]),
    ]
    given = kind if takes == torch.float32 else TensorProto.UINT8
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("images", given, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", kind, ["batch", 3])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)


def summary(folder: str) -> dict:
    return json.loads(Path(folder, "summary.json").read_text())


@pytest.fixture
def data(workdir: Path) -> str:
    """ImageNet's first three classes by these colors; a network of three or 1000 classes is always right."""
    return str(make_imagefolder("data", list(imagenet())[:3], per_class=3, size=40))


@slow
def test_floats_and_bytes_and_classes(data: str, capsys: pytest.CaptureFixture) -> None:
    """Logits or probabilities; classes by number, by ImageNet's order, or in the file's own order, which is kept."""
    words = ["--data", data, "--outside-code"]
    for module in (Colors(), Colors(1000), Colors(softmax=True)):
        assert evaluate(["--model", traced("net.pt", module), *words, *FLOATS]) == 0
        found = summary("net-evaluation")
        assert (found["top1"], found["images"], found["size"], found["flip"]["top1"]) == (100, 9, 16, 100)
        assert (found["checkpoint"], found["data"]) == ("net.pt", data)
    made = Colors(takes=torch.uint8)
    texts = {"resize_size": "20", "crop_size": "16", "classes": json.dumps(list(imagenet())[:3])}
    traced("own.pt", made, torch.uint8, **texts, class_names='["one", "two", "three"]')
    assert evaluate(["--model", "own.pt", *words, "-o", "own"]) == 0 and summary("own")["top1"] == 100
    assert predict(["own.pt", data, "--top=1", "--outside-code"]) == 0
    assert f"two ({list(imagenet())[1]})" in capsys.readouterr().out

    made.colors = made.colors.flip(0)  # the same network with its outputs in another order
    texts["classes"] = json.dumps(list(imagenet())[2::-1])
    traced("own.pt", made, torch.uint8, **texts)
    assert evaluate(["--model", "own.pt", *words, "-o", "own"]) == 0 and summary("own")["top1"] == 100


@slow
def test_shards_and_pt2(data: str) -> None:
    make_shards(Path(data), Path("shards"))
    program = torch.export.export(Colors(), (torch.zeros(2, 3, 16, 16),), strict=False)  # batches of two
    torch.export.save(program, "net.pt2")
    words = ["--model=net.pt2", "--data=shards", "--outside-code", "--no-flip", "--resize=20", *FLOATS[2:]]
    assert evaluate([*words, "-o", "out"]) == 0
    assert summary("out")["top1"] == 100 and summary("out")["images"] == 9


@slow
def test_onnx(data: str, capsys: pytest.CaptureFixture) -> None:
    """Its type says whether it takes floats, its shape the crop; it needs no --outside-code."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    for takes, words in ((torch.float32, FLOATS[2:]), (torch.uint8, [])):
        in_onnx("net.onnx", takes)
        assert evaluate(["--model=net.onnx", "--data", data, "--resize=20", *words, "-o", "out"]) == 0
        assert summary("out")["top1"] == 100
    capsys.readouterr()
    for words, said in (
        (["--mean=0.5", "--std=0.5"], "net.onnx: takes bytes; add --resize, the short side before the crop"),
        (["--resize=20", "--crop=32"], "--crop 32: it takes images of 16 px"),
    ):
        assert evaluate(["--model=net.onnx", "--data", data, *words]) == 2
        assert said in capsys.readouterr().err
    model = onnx.load("net.onnx")
    model.metadata_props.add(key="classes", value='["a"]')
    model.metadata_props.add(key="resize_size", value="20")
    onnx.save(model, "odd.onnx")
    assert predict(["odd.onnx", data]) == 1
    assert "odd.onnx: its metadata 'classes' does not list its 3 outputs" in capsys.readouterr().err
    Path("cut.onnx").write_bytes(Path("net.onnx").read_bytes()[:100])
    assert predict(["cut.onnx", data]) == 1
    assert "cut.onnx: is not a network that onnxruntime can load" in capsys.readouterr().err


def test_onnx_without_onnxruntime(data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    Path("net.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert evaluate(["--model=net.onnx", "--data", data]) == 1
    assert "needs onnxruntime; type: pip install -c constraints.txt '.[export]'" in capsys.readouterr().err
    assert not Path("net-evaluation").exists()


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_files_that_are_no_network(data: str) -> None:
    """None of them runs code."""
    torch.save({"fc.weight": torch.zeros(3, 3)}, "weights.pth")
    Path("pickle.pt").write_bytes(pickle.dumps(Harmful()))
    torch.save(Harmful(), "harmful.pth")
    Path("empty.pt").touch()
    with zipfile.ZipFile("program.pt2", "w") as archive:
        archive.writestr("serialized_state_dict.pt", Path("harmful.pth").read_bytes())
    for name, said in (
        ("weights.pth", "holds tensors, but no network; give ONNX"),
        ("harmful.pth", "holds tensors, but no network; give ONNX"),
        ("pickle.pt", "is not a network, or is damaged; give ONNX"),
        ("empty.pt", "is not a network, or is damaged"),
        ("program.pt2", "is a program, which loading would run; if you trust it, add --outside-code"),
        ("data", "is a folder; give a network"),
        ("none.pt", "no such file; give a network"),
    ):
        with pytest.raises(UserError, match=f"^{name}: {said}"):
            open_file(Path(name), Input(20, 16))
    assert not Path("ran").exists()
    with pytest.raises(UserError, match=r"program.pt2: cannot be loaded \("):
        open_file(Path("weights.pth").rename("program.pt2"), Input(20, 16), outside_code=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a run folder, runs/NAME, or the file of a network: --model FILE"),
        (["--model=net.pt"], "--model net.pt: add the data set to evaluate it on: --data PATH"),
        (["--model=ne.pt", "--data=data"], "--model ne.pt: no such file; did you mean net.pt?"),
        (["--model=data", "--data=data"], "--model data: is a folder, not the file of a network"),
        (["--model=net.pt", "--data=dta"], "--data dta: no such folder"),
        (["--model=net.pt", "--data=s3://a/b"], "--data s3://a/b: shards need a cache folder: --local FOLDER"),
        (["runs/a", "--model=net.pt", "--data=data"], "runs/a, --model net.pt: give a run or a network, not both"),
        (["--model=net.pt", "--data=data", "--sizes=160"], "--sizes: is for a run; --model takes images of one size"),
        (["--model=net.pt", "--data=data", "--checkpoint=best"], "--checkpoint: is for a run"),
        (["runs/a", "--crop=16", "--std=1"], "--crop, --std: for --model FILE; a run knows its own"),
    ],
)
def test_bad_words(words: list[str], said: str, data: str, capsys: pytest.CaptureFixture) -> None:
    Path("net.pt").touch()
    assert evaluate(words) == 2
    assert said in capsys.readouterr().err


@slow
def test_descriptions_that_do_not_fit(data: str, capsys: pytest.CaptureFixture) -> None:
    traced("net.pt", Colors())
    traced("four.pt", Colors(4))
    traced("regression.pt", nn.Flatten(0))
    traced("layers.pt", nn.Sequential(nn.Flatten(), nn.Linear(768, 3)))
    nan = Colors()
    nan.colors = nan.colors * torch.nan
    traced("nan.pt", nan)
    for words, said in (
        (["net.pt"], "add --crop, the side of the images that it takes, as in --crop 224; add --resize"),
        (["net.pt", *SIZES, "--mean=0.5"], "add --mean and --std, of images in 0..1"),
        (["four.pt", *FLOATS], "four.pt: has 4 outputs, which it does not name, but data has 3 classes"),
        (["regression.pt", *FLOATS], "regression.pt: gives [768] for 1 image, but a classifier gives [1, classes]"),
        (
            ["layers.pt", "--crop=20", "--resize=20", *FLOATS[2:]],
            "layers.pt: takes other images than float32 [1, 3, 20",
        ),
        (["nan.pt", *FLOATS], "outputs are not finite numbers for 9 of 9 images at 16 px"),
    ):
        assert evaluate(["--model", words[0], "--data", data, "--outside-code", *words[1:]]) in (1, 2), words
        printed = capsys.readouterr().err
        assert said in printed and "Traceback" not in printed
    assert not list(Path().glob("*-evaluation"))
    assert predict(["net.pt", data, "--checkpoint=best"]) == 2
    assert "--checkpoint best: is for a run; net.pt is no folder" in capsys.readouterr().err
    assert predict(["data", data, "--crop=16"]) == 2
    assert "--crop: for the file of a network; a run knows its own" in capsys.readouterr().err
    traced("own.pt", Colors(), classes='["a", "b", "c"]')
    assert evaluate(["--model=own.pt", "--data", data, "--outside-code", *FLOATS]) == 1
    said = "own.pt: has no output for n01440764, n01443537, n01484850 of data, but for a, b, c; give a data set"
    assert said in capsys.readouterr().err


def evaluated(files: list[str], predicted: list[int], classes: list[str]) -> results.Evaluated:
    images = type("Images", (), {"name_of": lambda _, at: f"val/x/{files[at]}", "__len__": lambda _: len(files)})()
    result = SimpleNamespace(plain=SimpleNamespace(predicted=np.array(predicted)))
    return results.Evaluated("net", "net.pt", "data", images, classes, classes, {16: result}, 16)  # type: ignore


def test_accuracy_by_imagenet_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images without a label do not count; other names, or no timm, give nothing. Predictions are of a subset."""
    names, classes = [f"ILSVRC2012_val_{number:08}.JPEG" for number in (3, 1, 2, 4)], list(WNIDS)
    label = list(imagenet()).index(classes[1])
    (tmp_path / "timm/data/_info").mkdir(parents=True)
    (tmp_path / "timm/__init__.py").write_text("raise RuntimeError")  # is not imported
    listed = [[0], [], [5, label], [7]]
    (tmp_path / "timm/data/_info/imagenet_real_labels.json").write_text(json.dumps(listed))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert results.real_top1(evaluated(names, [1, 0, 0, 1], classes)) == {"real_top1": 66.6667, "real_images": 3}
    assert results.real_top1(evaluated(["a.jpg", *names[1:]], [1, 0, 0, 1], classes)) == {}
    assert results.real_top1(evaluated(["ILSVRC2012_val_00000005.JPEG"], [1], classes)) == {}
    assert results.real_top1(evaluated(names, [1, 0, 0, 1], ["a", "b", "c"])) == {}
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert results.real_top1(evaluated(names, [1, 0, 0, 1], classes)) == {}


def test_the_real_accuracy_is_shown() -> None:
    from rich.console import Console

    from tools.evaluate import figures, files
    from tools.evaluate.figures import Answers, Pass

    answers = Answers(np.array([1]), np.array([0.5]), np.array([True]), np.array([0.7]))
    result, text = Pass(32, np.array([1]), answers, answers), io.StringIO()
    found = figures.findings(result, ["b", "c"])
    files.show(Console(file=text, width=100), found, {32: result}, "it", {"real_top1": 90.0, "real_images": 1})
    assert "top-1 by ImageNet-ReaL" in text.getvalue() and "90.00 %" in text.getvalue()
