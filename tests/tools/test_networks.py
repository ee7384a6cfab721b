"""tools.networks: a run's network gives the answers that main.py evaluates, with the preprocessing inside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from config import UserError, load
from loaders.images.transforms import NormalizationFn
from main import main
from recipes.algorithms.stochastic_depth import STOCHASTIC
from tests.runs import run_main, small_yaml
from tools.networks.opened import classes_of, open_network
from tools.networks.shipped import Shipped, plain

ALGORITHMS = {
    "stochastic_depth": {"target_layer_name": "ResNetBasicBlock", "drop_rate": 0.3},
    "ema": {"half_life": "1ba", "update_interval": "1ba"},
    "blurpool": {},
    "channels_last": {},
}


def stochastic(network: nn.Module, keep: float) -> nn.Module:
    """Make every block stochastic, and its statistics those of a trained network."""
    for module in list(network.modules()):
        if type(module) in STOCHASTIC:
            module.__class__ = STOCHASTIC[type(module)]
            module.keep_probability, module.drop_per_sample = keep, False
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.eval()


@pytest.mark.parametrize(("build", "block"), [(resnet18, BasicBlock), (resnet50, Bottleneck)])
def test_stochastic_depth_becomes_part_of_torchvisions_blocks(build, block: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network, images = stochastic(build(num_classes=5), 0.7), torch.randn(2, 3, 32, 32)
    folded, same_weights = plain(network), build(num_classes=5).eval()
    same_weights.load_state_dict(network.state_dict())
    blocks = [module for module in folded.modules() if isinstance(module, block)]
    assert blocks and all(type(module) is block for module in blocks)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(folded(images), expected, rtol=1e-5, atol=1e-5)
        # What a strict load into torchvision's network would silently compute without the folding.
        assert (same_weights(images) - expected).abs().max() > 0.01 * expected.abs().max()
        assert torch.equal(network(images), expected), "the network itself must not change"


def test_a_shipped_network_normalizes_and_returns_probabilities_or_logits() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    network = resnet18(num_classes=5).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = network((images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(Shipped(network, logits=True)(images), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(Shipped(network)(images), logits.softmax(1), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """Folder of a short run whose network differs from torchvision's; tests do not write to it."""
    folder = tmp_path_factory.mktemp("networks")
    done = run_main(small_yaml(folder, image_folder, algorithms=ALGORITHMS), "run_name=it", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "it"


@pytest.mark.slow
def test_a_runs_network_gives_the_answers_of_its_evaluation(trained: Path) -> None:
    network = open_network(trained, device="cpu")
    words = [f"load_path={trained}/checkpoints/best-rank0.pt", "is_train=false", "device=cpu"]
    state = main(load([str(trained / "config.yaml"), *words])).state
    model, config = state.model.eval(), load([str(trained / "config.yaml"), "dry_run=true"]).config
    spec = state.evaluators[0].dataloader
    right = total = 0
    for images, labels in spec.dataloader:
        with torch.no_grad():
            expected = model(NormalizationFn()((images, labels))).softmax(1)
        answers = network.probabilities(images)
        torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-5)
        right, total = right + int((answers.argmax(1) == labels).sum()), total + len(labels)
    assert right / total == pytest.approx(float(state.eval_metrics["eval"]["MulticlassAccuracy"].compute()))
    sizes = config.eval_dataset.resize_size, config.eval_dataset.crop_size
    assert (network.resize_size, network.crop_size) == sizes
    assert network.called == "it, best-rank0.pt"
    assert list(network.classes) == sorted(path.name for path in Path(config.eval_dataset.path, "val").iterdir())
    assert not [module for module in network.module.modules() if type(module) in STOCHASTIC.values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("was", "now", "sentence"),
    [
        ("blurpool:", "cutout:", "it was trained with BlurPool"),
        ("name: resnet18", "name: resnet34", "looks like a resnet18"),
        ("num_classes: 3", "num_classes: 4", "looks like a resnet18 of 3 classes"),
    ],
)
def test_a_checkpoint_of_another_network_is_rejected(
    trained: Path, tmp_path: Path, was: str, now: str, sentence: str
) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    text = (trained / "config.yaml").read_text()
    assert was in text
    (folder / "config.yaml").write_text(text.replace(was, now, 1))
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    with pytest.raises(UserError, match=sentence) as caught:
        open_network(folder)
    assert "--checkpoint PATH" in str(caught.value)


@pytest.mark.parametrize(
    ("state", "classes"),
    [
        ({"train": {"classes": ["a", "b"]}}, ["a", "b"]),
        ({"train": {"classes": ["a", "b", "c"]}}, ["0", "1"]),
        ({"train": {"classes": [1, 2]}}, ["0", "1"]),
        ({"train": {"classes": None}}, ["0", "1"]),
        (None, ["0", "1"]),
    ],
)
def test_classes_come_from_the_checkpoint_or_are_labels(state: object, classes: list[str]) -> None:
    assert classes_of(state, 2) == classes
