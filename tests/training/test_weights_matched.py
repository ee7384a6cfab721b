"""Which names of pretrained weights match, and what becomes of the head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from config import ConfigError
from model import build_composer_resnet, head_of
from recipes.algorithms.blurpool import BlurPool
from tests.pretrained import Convolutional, Own, equal, prefixed, resnet18, run_with, start
from training.weights.matched import stripped


@pytest.fixture(autouse=True)
def small(workdir: Path, few_channels: None) -> None:
    """Each test in its folder, with a ResNet-18 of few channels."""


def test_the_prefix_under_which_most_names_match_is_removed() -> None:
    """A user's network may have such names itself."""
    wanted = {"backbone.conv1.weight": 0, "fc.weight": 0}
    held = {"module.model.backbone.conv1.weight": 1, "module.model.fc.weight": 2}
    assert stripped(held, wanted, "w.pth") == ({"backbone.conv1.weight": 1, "fc.weight": 2}, [])
    for plain in ({"backbone.conv1.weight": 1}, {"module.x": 1}):
        assert stripped(plain, wanted, "w.pth") == (plain, [])


def test_what_is_outside_of_the_prefix_is_ignored_by_name_but_a_head() -> None:
    held, head = resnet18(), {"head.weight": torch.zeros(9), "queue": torch.zeros(1)}
    body = {name: tensor for name, tensor in held.items() if not name.startswith("fc.")}
    own = {name: tensor for name, tensor in held.items() if name.startswith("fc.")}
    torch.save(prefixed("backbone.", body) | own | head, "w.pth")
    model, loaded = start(run_with("w.pth"))
    assert equal(model.module, held) and loaded.match.ignored == ["head.weight", "queue"] and not loaded.new
    torch.save(prefixed("backbone.", body) | head, "w.pth")
    assert start(run_with("w.pth"))[1].why == "the weights have no head"


def resnet50() -> dict[str, Tensor]:
    """Return tensors of a ResNet-50's names and shapes that take no room in a file."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in torchvision.models.resnet50().state_dict().items()}
    return {name: torch.zeros(1).expand(shape) if shape else torch.tensor(0) for name, shape in shapes.items()}


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "another architecture": (lambda _: resnet50(), "it looks like a resnet50's; type model.name=resnet50"),
    "a name is missing": (
        lambda held: {name: t for name, t in held.items() if name != "bn1.bias"},
        r"looks like a resnet18's, and 1 tensor is missing in it \(bn1\.bias\)\. Give weights of this architecture",
    ),
    "a name is unknown": (
        lambda held: {**held, "bn1.scale": torch.zeros(1)},
        r"1 tensor is not in the model \(bn1\.scale\)",
    ),
    "a shape is another": (
        lambda held: {**held, "bn1.bias": torch.zeros(7)},
        r"1 tensor is of another shape \(bn1\.bias \[7\] for \[64\]\)",
    ),
    "quantized": (
        lambda held: {**held, "conv1.weight": held["conv1.weight"].to(torch.int8)},
        r"conv1\.weight of w\.pth holds int8.*give dense floating-point numbers, which are not quantized",
    ),
    "without values": (
        lambda held: {**held, "bn1.bias": torch.zeros(64, device="meta")},
        r"bn1\.bias of w\.pth holds no values",
    ),
    "too large for 32 bits": (
        lambda held: {**held, "bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)},
        r"bn1\.bias of w\.pth has values that are not finite",
    ),
    "two networks": (
        lambda held: prefixed("encoder_q.", held) | prefixed("encoder_k.", held) | {"queue": torch.zeros(1)},
        r"holds more than one network, encoder_k\.\* and encoder_q\.\*; save the one you mean",
    ),
    "diverged": (
        lambda held: {**held, "bn1.bias": held["bn1.bias"] / 0},
        r"bn1\.bias of w\.pth has values that are not finite",
    ),
    "nothing in common": (lambda _: {"x": torch.zeros(1)}, r"looks like none of resnet18, .*missing in it"),
    "with BlurPool": (
        lambda held: blurred(held),
        r"was trained with BlurPool, without which the network is another one; type as well: algorithms\.blurpool=\{\}",
    ),
}


def blurred(held: dict[str, Tensor], call: str | None = None) -> dict[str, Any]:
    """Return the tensors after BlurPool; with the `call` that made it, as our checkpoint."""
    model = build_composer_resnet("resnet18", num_classes=3)
    model.module.load_state_dict(held)
    BlurPool()._replace(model.module, {})
    if call is None:
        return model.module.state_dict()
    return {"state": {"model": model.state_dict(), "algorithms": [("BlurPool", {"repr": call})]}}


@pytest.mark.parametrize("what", REFUSED)
def test_weights_that_do_not_fit(what: str) -> None:
    change, said = REFUSED[what]
    torch.save(change(resnet18()), "w.pth")
    with pytest.raises(ConfigError, match=rf"^model\.weights: .*{said}") as error:
        start(run_with("w.pth"))
    assert error.value.exit_status == 2


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point_numbers(kind: torch.dtype) -> None:
    held = resnet18() | {"bn1.bias": torch.full((64,), 0.5, dtype=kind)}
    torch.save(held, "w.pth")
    model, _ = start(run_with("w.pth"))
    assert model.module.bn1.bias.tolist() == [0.5] * 64


def test_surgery_is_repeated() -> None:
    """Weights of a run with BlurPool go into a network before its surgery; a tensor of other surgery cannot."""
    held = resnet18()
    torch.save(blurred(held, repr(BlurPool())), "w.pt")
    model, loaded = start(run_with("w.pt"), None, (BlurPool(),))
    assert equal(model.module, held) and not loaded.match.remarks
    _, loaded = start(run_with("w.pt"), None, (BlurPool(blur_first=False),))
    assert "trained with BlurPool(" in loaded.match.remarks[0]
    torch.save({"state": {"model": held, "algorithms": [("SqueezeExcite", {"repr": "SqueezeExcite()"})]}}, "se.pt")
    with pytest.raises(ConfigError, match=r"with SqueezeExcite, without which.*algorithms\.squeeze_excite=\{\}"):
        start(run_with("se.pt"))


def test_a_network_of_the_users() -> None:
    held = Own(9).state_dict()
    torch.save({"state_dict": prefixed("module.", held)}, "own.pt")
    model, loaded = start(run_with("own.pt", name="tests.pretrained:Own"))
    assert head_of(model.module, 3) == "classifier"
    assert equal(model.module, held, "classifier") and len(loaded.new) == 2
    torch.save(Convolutional(3).state_dict(), "conv.pt")
    model, _ = start(run_with("conv.pt", name="tests.pretrained:Convolutional"), ["a", "b", "c"])
    with pytest.raises(
        ConfigError, match=r"model\.head=new, but .* has no linear layer of 3 outputs.*model\.head=keep"
    ):
        start(run_with("conv.pt", name="tests.pretrained:Convolutional", head="new"))


def saved(classes: list[str] | None, number: int) -> dict[str, Any]:
    """Return a checkpoint of ours."""
    state = {"model": prefixed("module.", resnet18(number)), "algorithms": []}
    return {"state": {**state, "dataset_state": {"train": {"classes": classes}}}}


NAMES = ["a", "b", "c"]
HEADS = [  # head, classes of the weights, and their number; is it kept, and why
    ("auto", NAMES, 3, True, "the data have the same 3 classes"),
    ("auto", None, 3, True, "the data have the same 3 classes"),
    ("auto", ["a", "x", "c"], 3, False, "label 1 was 'x' and is 'b' in the data"),
    ("auto", None, 7, False, "the weights have 7 classes, the data 3"),
    ("new", NAMES, 3, False, "model.head=new"),
    ("keep", NAMES, 3, True, "model.head=keep"),
    ("keep", ["a", "x", "c"], 3, True, "model.head=keep, though label 1 was 'x' and is 'b' in the data"),
]


@pytest.mark.parametrize(("head", "classes", "number", "is_kept", "why"), HEADS)
def test_the_head(head: str, classes: list[str] | None, number: int, is_kept: bool, why: str) -> None:
    content = saved(classes, number)
    torch.save(content, "w.pt")
    model, loaded = start(run_with("w.pt", head=head), NAMES)
    assert (not loaded.new, loaded.why) == (is_kept, why)
    held = {name.removeprefix("module."): tensor for name, tensor in content["state"]["model"].items()}
    assert equal(model.module, held, "-" if is_kept else "fc.")
    if not is_kept:
        assert loaded.new[0] == f"fc.weight [{number}, 64] -> [3, 64]"
        assert not model.module.fc.bias.any() and 0 < model.module.fc.weight.abs().max() < 0.1


def test_a_head_that_cannot_be_kept() -> None:
    torch.save(resnet18(7), "w.pth")
    with pytest.raises(
        ConfigError, match=r"^model\.head: keep given, but the weights have 7 classes, the data 3; type"
    ):
        start(run_with("w.pth", head="keep"))
    torch.save({name: tensor for name, tensor in resnet18().items() if not name.startswith("fc.")}, "w.pth")
    with pytest.raises(ConfigError, match="keep given, but the weights have no head"):
        start(run_with("w.pth", head="keep"))
    run = run_with("w.pth")
    assert start(run)[1].new == ["fc.weight none -> [3, 64]", "fc.bias none -> [3]"]
    run.config.is_train = False
    with pytest.raises(ConfigError, match=r"no head, and a new, untrained head cannot be evaluated.*is_train=true"):
        start(run)


def test_a_new_head_starts_every_class_at_one_in_the_number() -> None:
    torch.save(resnet18(7), "w.pth")
    model, _ = start(run_with("w.pth", loss_name="binary_cross_entropy"))
    assert torch.allclose(model.module.fc.bias.sigmoid(), torch.tensor(1 / 4), atol=1e-6)  # exp(-log 3)
