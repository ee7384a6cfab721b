"""Fine-tuning and linear probing as runs: what they change, reach and record, how they resume, and their advice."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_small
from torchvision.models.resnet import BasicBlock, ResNet

from loaders.storage.digits import make_digits
from main import cli
from tests.following import assert_advice_trains
from tests.pretrained import Convolutional, resnet18
from tests.runs import COMPOSER, ROOT, assert_same_weights, metrics, run_main, small_yaml, weights
from tools.networks.opened import open_network

pytestmark = pytest.mark.slow

NO_WORKERS = {"train_dataset__num_workers": 0, "eval_dataset__num_workers": 0}
SIZES = ["train_dataset.crop_size=16", "train_dataset.batch_size=12", "eval_dataset.resize_size=20"]
SIZES += ["eval_dataset.crop_size=16", "max_duration=2ep"]


@pytest.fixture(autouse=True)
def small(workdir: Path, few_channels: None) -> None:
    """Each test in its folder, with a ResNet-18 of few channels."""


def digests(tensors: dict[str, torch.Tensor], part: str = "") -> dict[str, str]:
    """Return the SHA-256 of each tensor's bytes, by name, without the head or of one part."""
    plain = {name.removeprefix("module.").replace(".conv.", "."): tensor for name, tensor in tensors.items()}
    return {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in plain.items()
        if not name.startswith("fc.") and name.startswith(part) and not name.endswith((".blur_filter", ".filt2d"))
    }


def checkpoint(run: str, name: str = "latest-rank0.pt") -> Path:
    """Return the path of a checkpoint of a run."""
    return Path("runs", run, "checkpoints", name)


MILD = ["algorithms.blurpool.min_channels=8", "algorithms.ema.half_life=2ba", "algorithms.ema.update_interval=1ba"]
MILD += ["algorithms.progressive_resizing={}"]


@pytest.mark.parametrize("more", [[], MILD], ids=["plain", "with algorithms of mild"])
def test_linear_probing_changes_no_byte_of_the_backbone(
    more: list[str], workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Nor of its running statistics; the head changes, and the run says and records what it trains."""
    given = resnet18(7)
    torch.save(given, "w.pth")
    own = str(small_yaml(workdir, image_folder, **NO_WORKERS))
    words = [own, "recipe_name=linear_probe", "model.weights=w.pth", "device_train_microbatch_size=6", *SIZES, *more]
    assert cli([*words, "run_name=probe"]) == 0
    after = weights(checkpoint("probe"))
    assert digests(after) == digests(given)
    assert any(name.endswith("running_mean") for name in digests(after)) and any("num_batches" in n for n in given)
    said = capsys.readouterr().out
    assert re.search(r"^training 195 of [\d,]+ parameters; frozen: backbone$", said, re.MULTILINE)
    recorded = json.loads(Path("runs/probe/environment.json").read_text())
    assert (recorded["trained_parameters"], recorded["frozen"]) == (195, "backbone")
    state = torch.load(checkpoint("probe"), weights_only=False)["state"]
    [[_, optimizer]] = state["optimizers"].items()
    assert [name.split(".")[-2] for name in optimizer["state"]] == ["fc", "fc"], "momentum of the head alone"
    given_again = [own, "recipe_name=linear_probe", f"load_path={checkpoint('probe')}", "is_train=false", *SIZES]
    assert cli([*given_again, *more]) == 0, "its evaluation knows no length of an epoch"
    if more:
        average = dict(state["algorithms"])["EMA"]["ema_model"]
        assert {name.split(".")[-2] for name in average["named_parameters_dict"]} == {"fc"}
        assert not any("running" in name for name in average["named_buffers_dict"])


def test_statistics_alone_can_follow_the_new_images(workdir: Path, image_folder: Path) -> None:
    given = resnet18(7)
    torch.save(given, "w.pth")
    own = str(small_yaml(workdir, image_folder, **NO_WORKERS))
    words = ["recipe_name=linear_probe", "model.weights=w.pth", "model.freeze_batchnorm=false", *SIZES]
    assert cli([own, *words, "run_name=probe"]) == 0
    before, after = digests(given), digests(weights(checkpoint("probe")))
    changed = {name.rpartition(".")[2] for name in before if before[name] != after[name]}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


RESUMED = {
    "finetune": ["recipe_name=finetune", "optimizer.layer_decay=0.5", "model.freeze=through:layer1", *MILD],
    "schedule-free": [
        *("recipe_name=schedulefree_sgd", "optimizer.head_lr_multiplier=10", "optimizer.layer_decay=0.5"),
        *("model.freeze=stem", "model.weights=w.pth", "optimizer.lr=0.05", "algorithms.schedule_free.num_samples=24"),
    ],
    "squeeze-excite": ["recipe_name=finetune", "algorithms.squeeze_excite.min_channels=8", "model.freeze=layer2"],
}


@pytest.mark.parametrize("words", RESUMED.values(), ids=list(RESUMED))
def test_a_resumed_run_is_bit_exact_and_needs_no_weights(words: list[str], workdir: Path, image_folder: Path) -> None:
    given = resnet18(7)
    torch.save(given, "w.pth")
    own = str(small_yaml(workdir, image_folder, **NO_WORKERS))
    words = [own, *words, "model.weights=w.pth", "scheduler.t_warmup=1ba", *SIZES]
    assert cli([*words, "run_name=whole"]) == 0
    shutil.copytree("runs/whole", "runs/half", symlinks=True)
    for name in ("ep2-ba8-rank0.pt", "latest-rank0.pt", "best-rank0.pt"):
        checkpoint("half", name).unlink()
    Path("runs/half/summary.json").unlink()
    Path("w.pth").unlink()
    assert cli([*words, "run_name=half", "autoresume=true"]) == 0
    assert_same_weights(checkpoint("whole", "ep2-ba8-rank0.pt"), checkpoint("half", "ep2-ba8-rank0.pt"))
    assert [row["lr"] for row in metrics(Path("runs/half"))] == [row["lr"] for row in metrics(Path("runs/whole"))]
    part = re.search(r"model\.freeze=(?:through:)?(\w+)", " ".join(words))
    assert part
    frozen, now = digests(given, part[1]), digests(weights(checkpoint("half")), part[1])
    assert not frozen.items() - now.items()
    assert digests(given, "layer4").items() - digests(weights(checkpoint("half")), "layer4").items()


def test_rates_are_the_runs_not_the_checkpoints(workdir: Path, image_folder: Path) -> None:
    """A run goes on from a whole checkpoint with other multipliers; its decay is spared where it says so."""
    own = str(small_yaml(workdir, image_folder, **NO_WORKERS))
    words = [own, "optimizer.head_lr_multiplier=4", "optimizer.layer_decay=0.5"]
    assert cli([*words, "run_name=first", "max_duration=1ep"]) == 0
    words = [own, "optimizer.head_lr_multiplier=8", f"load_path={checkpoint('first')}"]
    assert cli([*words, "run_name=second", "max_duration=2ep", "optimizer.weight_decay_on=weights"]) == 0
    [[_, optimizer]] = torch.load(checkpoint("second"), weights_only=False)["state"]["optimizers"].items()
    found = {(group["initial_lr"], group["weight_decay"]) for group in optimizer["param_groups"]}
    assert found == {(0.05, 5e-4), (0.05, 0.0), (0.4, 5e-4), (0.4, 0.0)}


def test_a_frozen_network_is_shipped_as_torchvisions(workdir: Path, image_folder: Path) -> None:
    """Neither its BatchNorms nor its stochastic blocks are of other classes, so it can be exported as plain weights."""
    torch.save(resnet18(7), "w.pth")
    own = str(small_yaml(workdir, image_folder, **NO_WORKERS))
    words = ["recipe_name=finetune", "model.weights=w.pth", "model.freeze=through:layer2", *SIZES, "max_duration=1ba"]
    words += ["scheduler.t_warmup=0ba", "algorithms.stochastic_depth.target_layer_name=ResNetBasicBlock"]
    assert cli([own, *words, "run_name=tuned"]) == 0
    kinds = {type(module) for module in open_network("runs/tuned").module.modules()}
    assert {BasicBlock, torch.nn.BatchNorm2d} <= kinds
    assert not any("Frozen" in kind.__name__ or "Stochastic" in kind.__name__ for kind in kinds)


def test_two_ranks_probe_alike(workdir: Path, image_folder: Path) -> None:
    given = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=7).state_dict()  # of all channels, as in another process
    torch.save(given, "w.pth")
    own = small_yaml(workdir, image_folder, **NO_WORKERS)
    words = [own, "recipe_name=linear_probe", "model.weights=w.pth", *SIZES, "max_duration=2ba", "eval_interval=2ba"]
    done = run_main(*words, "run_name=probe", "scheduler.t_warmup=0ba", cwd=workdir, launcher=(COMPOSER, "-n", "2"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(weights(checkpoint("probe"))) == digests(given)


MOBILE = ["model.name=torchvision.models:mobilenet_v3_small"]
MISTAKES = {
    "surgery": (resnet18, ["model.freeze=backbone", "algorithms.factorize={min_channels: 16, latent_channels: 4}"]),
    "freezing stages": (mobilenet_v3_small, [*MOBILE, "model.freeze=layer1"]),
    "rates of stages": (mobilenet_v3_small, [*MOBILE, "optimizer.layer_decay=0.5"]),
    "freezing without a head": (Convolutional, ["model.name=tests.pretrained:Convolutional", "model.freeze=backbone"]),
    "rate without a head": (
        Convolutional,
        ["model.name=tests.pretrained:Convolutional", "optimizer.head_lr_multiplier=2"],
    ),
}


@pytest.mark.parametrize("mistake", ["whole checkpoint", *MISTAKES])
def test_advice_makes_the_run_train(
    mistake: str, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    def start(folder: Path) -> list[str]:
        if mistake == "whole checkpoint":
            own = small_yaml(folder, image_folder, **NO_WORKERS, max_duration="1ba", scheduler__t_warmup="0ba")
            torch.save(resnet18(), "w.pth")
            assert cli([str(own), "model.weights=w.pth", "model.freeze=backbone", "run_name=probe"]) == 0
            return [str(own), f"load_path={checkpoint('probe')}", "run_name=more", "max_duration=2ba"]
        network, words = MISTAKES[mistake]
        made = network(num_classes=3)
        torch.save(made if isinstance(made, dict) else made.state_dict(), "w.pth")
        own = small_yaml(folder, image_folder, **NO_WORKERS, max_duration="1ba", scheduler__t_warmup="0ba")
        return [str(own), "model.weights=w.pth", "save_folder=null", *words]

    assert_advice_trains(start, str, workdir, capfd)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits 0 to 4, and 5 to 9, as two data sets, low/ and high/."""
    folder = tmp_path_factory.mktemp("halves")
    whole = make_digits(folder / "digits")
    for half, names in (("low", "01234"), ("high", "56789")):
        for split in ("train", "val"):
            (folder / half / split).mkdir(parents=True)
            for name in names:
                (folder / half / split / name).symlink_to(whole / split / name)
    return folder


def test_fine_tuning_beats_training_from_scratch(halves: Path, capsys: pytest.CaptureFixture) -> None:
    """From the digits 0 to 4 to the digits 5 to 9, after one epoch, with each of three seeds.

    Measured: 75, 69 and 75 % compared with 46, 21 and 21 %.
    """
    digits = [str(ROOT / "yamls/digits.yaml"), "train_dataset.num_workers=0", "eval_dataset.num_workers=0"]
    digits += ["model.num_classes=auto", "scheduler.t_warmup=5ba", "train_dataset.batch_size=32"]
    low, high = (
        [f"{section}.path={halves / half}" for section in ("train_dataset", "eval_dataset")] for half in ("low", "high")
    )
    assert cli([*digits, *low, "run_name=low", "max_duration=6ep", "eval_interval=6ep"]) == 0
    for seed in range(3):
        short = [*high, f"seed={seed}", "max_duration=1ep", "save_folder=null"]
        tuned = ["recipe_name=finetune", "train_dataset.batch_size=32", "optimizer.lr=0.03", "model.weights=runs/low"]
        assert cli([*digits, *short, *tuned, f"run_name=tuned{seed}"]) == 0
        assert cli([*digits, *short, f"run_name=scratch{seed}"]) == 0
        ours, theirs = (float(metrics(Path(f"runs/{name}{seed}"))[-1]["top1"]) for name in ("tuned", "scratch"))
        assert ours > theirs
