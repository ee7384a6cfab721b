"""Files of weights: what is read as data, and where it is found."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from config import ConfigError
from config.weights import find
from tests.pretrained import equal, prefixed, resnet18, run_with, start
from training.weights import read, show
from training.weights.content import read_content


class Program:
    """Makes a folder `ran` when Python unpickles it."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.fixture(autouse=True)
def small(workdir: Path, few_channels: None) -> None:
    """Each test in its folder, with a ResNet-18 of few channels."""


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "weights.pth": lambda held: held,
    "timm.pth.tar": lambda held: {"epoch": 3, "state_dict": held, "args": argparse.Namespace(lr=1)},
    "averaged.pth": lambda held: {"state_dict": {"x": held["bn1.weight"]}, "state_dict_ema": held},
    "references.pth": lambda held: {
        "model": {"x": held["bn1.weight"]},
        "model_ema": {**prefixed("module.module.", held), "n_averaged": torch.tensor(3)},
    },
    "ddp.pt": lambda held: {"model": prefixed("module.", held), "optimizer": {"state": {}}},
    "compiled.bin": lambda held: {"net": prefixed("_orig_mod.module.", held)},
    "lightning.ckpt": lambda held: {"state_dict": prefixed("model.backbone.", held)},
    "without_ema.pth": lambda held: {"state_dict": held, "state_dict_ema": None},
    "ours.pt": lambda held: {"state": {"model": prefixed("module.", held), "algorithms": []}, "rng": []},
    "tutorial.tar": lambda held: {"model_state_dict": held, "optimizer_state_dict": {"state": {}}},
    "own_key.pth": lambda held: {"best": torch.tensor(3.0), "weights": held},
    "compiled_stage.pth": lambda held: {name.replace("layer1.", "layer1._orig_mod."): t for name, t in held.items()},
    "larger_network.pth": lambda held: prefixed("module.encoder_q.", held),
    "odd_record.pth": lambda held: {
        "state": {"model": prefixed("module.", held), "algorithms": 5, "dataset_state": {"train": 7}}
    },
    "odd_surgery.pth": lambda held: {
        "state": {"model": prefixed("module.", held), "algorithms": [("blurpool", {}), ("__file__", {})]}
    },
    "old.pth": lambda held: {name: t for name, t in held.items() if not name.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_form_is_read(name: str, is_zip: bool, capsys: pytest.CaptureFixture) -> None:
    """torch.save's two formats, wrapped and prefixed as timm, torchvision, DDP, torch.compile and Lightning do."""
    held = resnet18()
    torch.save(FORMS[name](held), name, _use_new_zipfile_serialization=is_zip)
    run = run_with(name)
    model, loaded = start(run)
    assert equal(model.module, FORMS["old.pth"](held)) and not loaded.new
    show(loaded, run.config.eval_dataset, model)
    said = capsys.readouterr().out
    assert "head       kept: the data have the same 3 classes" in said and f"weights: {name}, SHA-256 " in said
    assert ("the averaged weights of the file" in said) == (name in ("averaged.pth", "references.pth"))
    assert ("ignored    n_averaged" in said) == (name == "references.pth")


def test_safetensors_whatever_their_name() -> None:
    held = resnet18()
    save_file(held, "pytorch_model.bin")
    model, loaded = start(run_with("pytorch_model.bin"))
    assert equal(model.module, held)
    digest = hashlib.sha256(Path("pytorch_model.bin").read_bytes()).hexdigest()
    assert loaded.given.record == {"source": "pytorch_model.bin", "sha256": digest}


def write_bytes(name: str, content: bytes) -> None:
    """Write a file."""
    Path(name).write_bytes(content)


def cut(name: str) -> None:
    """Write half of a file of weights of this name."""
    save_file(resnet18(), name) if name.endswith(".safetensors") else torch.save(resnet18(), name)
    write_bytes(name, Path(name).read_bytes()[: Path(name).stat().st_size // 2])


def cut_old(name: str) -> None:
    """Write half of a file in torch's first format."""
    torch.save(resnet18(), name, _use_new_zipfile_serialization=False)
    write_bytes(name, Path(name).read_bytes()[:3000])


def script(name: str) -> None:
    """Write a TorchScript program."""
    torch.jit.script(nn.Linear(1, 1)).save(name)


def zipped(name: str) -> None:
    """Write an archive as they are downloaded, with a file of weights in it."""
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net.pth", bytes(9999))


def export(name: str) -> None:
    """Write a program of torch.export."""
    torch.export.save(torch.export.export(nn.Linear(1, 1), (torch.zeros(1, 1),)), name)


WRONG: dict[str, tuple[Callable[[str], None], str]] = {
    "cut.pth": (cut, "is damaged"),
    "cut.safetensors": (cut, "is damaged"),
    "cut_old.pth": (cut_old, "is damaged"),
    "empty.pth": (lambda name: write_bytes(name, b""), "is damaged"),
    "full_disk.pth": (lambda name: write_bytes(name, bytes(100)), "is damaged"),
    "text.pth": (lambda name: write_bytes(name, b"hello"), "is not a file of weights; give a torch file"),
    "header.safetensors": (lambda name: write_bytes(name, b"\x02" + bytes(7) + b"{]" + bytes(9)), "is damaged"),
    "script.pt": (script, "is a program of TorchScript or torch.export, which would run code"),
    "export.pt2": (export, "is a program of TorchScript or torch.export, which would run code"),
    "pickle.pth": (
        lambda name: write_bytes(name, pickle.dumps(Program())),
        "is a pickle that torch did not write; nothing was loaded or run",
    ),
    "module.pt": (
        lambda name: torch.save(nn.Linear(1, 1), name),
        r"holds torch\.nn\.modules\.linear\.Linear, which is not data; nothing was loaded or run",
    ),
    "list.pt": (lambda name: torch.save([1], name), "holds list, and no tensors by name; give a torch file"),
    "other.pt": (lambda name: torch.save({"a": 1, "b": 2}, name), "holds a, b, and no tensors by name"),
    "nothing.pt": (lambda name: torch.save({}, name), "holds nothing, and no tensors by name"),
    "two.pt": (
        lambda name: torch.save(dict.fromkeys(("student", "teacher"), resnet18()), name),
        "holds tensors under student and teacher; save those you mean to a file of their own",
    ),
    "array.npz": (lambda name: np.savez(name, a=np.zeros(1)), r"is an archive that torch did not write \(a\.npy\)"),
    "zipped.pth": (zipped, r"is an archive that torch did not write \(net\.pth\)"),
    "pointer.safetensors": (
        lambda name: write_bytes(name, b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"),
        "is a pointer of Git LFS, not the file; type git lfs pull",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_read(name: str) -> None:
    write, said = WRONG[name]
    write(name)
    with pytest.raises(ConfigError, match=rf"^model\.weights: {name}.*{said}"):
        read_content(Path(name), name)


@pytest.mark.parametrize("is_zip", [True, False])
def test_no_code_is_run(is_zip: bool) -> None:
    for content in (Program(), {**resnet18(), "x": Program()}, {"state_dict": resnet18(), "args": Program()}):
        torch.save(content, "evil.pth", _use_new_zipfile_serialization=is_zip)
        with pytest.raises(ConfigError, match=r"it holds (posix\.)?mkdir, which is not data"):
            read(run_with("evil.pth").config.model)
    assert not Path("ran").exists()


def hub(folder: str = "hub", **said: Any) -> dict[str, Tensor]:
    """Write a Hub folder, with a config.json of these keys; return its tensors."""
    Path(folder).mkdir(exist_ok=True)
    held = resnet18()
    save_file(held, f"{folder}/model.safetensors")
    Path(folder, "config.json").write_text(json.dumps(said))
    return held


def test_a_hub_folder(capsys: pytest.CaptureFixture) -> None:
    how = {
        "input_size": [3, 224, 224],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    held = hub(architecture="resnet18", label_names=["a", "b", "c"], pretrained_cfg=how)
    run = run_with("hub/")
    model, loaded = start(run, ["a", "b", "c"])
    assert equal(model.module, held)
    show(loaded, run.config.eval_dataset, model)
    said = capsys.readouterr().out
    assert "measured with resize 235 and crop 224, this run evaluates with resize 256 and crop 224" in said
    assert "normalized with mean (0.5, 0.5, 0.5)" in said
    assert "for the same, type eval_dataset.interpolation=bicubic" in said
    run.config.eval_dataset.interpolation = "bicubic"
    show(loaded, run.config.eval_dataset, model)
    assert "bicubic" not in capsys.readouterr().out
    assert start(run, ["a", "b", "d"])[1].why == "label 2 was 'c' and is 'd' in the data"


NO_CONFIGS = [
    "[",
    "3",
    "[" * 99999,
    '{"pretrained_cfg": {"input_size": []}}',
    '{"pretrained_cfg": {"input_size": [1], "mean": 3}}',
]


@pytest.mark.parametrize("text", NO_CONFIGS, ids=range(len(NO_CONFIGS)))
def test_a_hub_folder_with_another_config(text: str) -> None:
    """It is named, and so is the way around it."""
    held = hub()
    Path("hub/config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"hub/config\.json is not a timm model's.*model\.weights=hub/model\.saf"):
        start(run_with("hub"))
    assert equal(start(run_with("hub/model.safetensors"))[0].module, held)


def test_folders() -> None:
    """A run's best checkpoint before its latest; a pipe would never end."""
    checkpoints = Path("runs/it/checkpoints")
    checkpoints.mkdir(parents=True)
    for name in ("ep1-ba4-rank0.pt", "latest-rank0.pt"):
        (checkpoints / name).touch()
    assert [str(part) for part in find("runs/it/")] == ["runs/it/checkpoints", "latest-rank0.pt"]
    (checkpoints / "best-rank0.pt").touch()
    assert find("runs/it/checkpoints")[1] == "best-rank0.pt"
    os.mkfifo("pipe.pth")
    Path("empty").mkdir()
    Path("more").mkdir()
    Path("more/epoch9.pth").touch()
    Path("runs/early/checkpoints").mkdir(parents=True)
    Path("runs/early/checkpoints/ep1-ba4-rank0.pt").touch()
    Path("large").mkdir()
    for name in ("1-of-00002.safetensors", "2-of-00002.safetensors", "1-of-00001.bin"):
        (Path("large") / f"model-0000{name}").touch()
    assert find("large/model-00001-of-00001.bin")[1] == "model-00001-of-00001.bin"
    for given, said in (
        ("runs/early", "its file: model.weights=runs/early/checkpoints/ep1-ba4-rank0.pt"),
        ("large", "large/model-00001-of-00002.safetensors holds .* together with 1 more .* save the tensors as one"),
        ("large/model-00002-of-00002.safetensors", "together with 1 more"),
        ("pipe.pth", "no such file or folder: pipe.pth"),
        ("empty", "empty holds nothing, and no weights"),
        ("more", "more is a folder; name its file: model.weights=more/epoch9.pth"),
        ("runs/its", "no such file or folder: runs/its.*did you mean model.weights=runs/it\\?"),
        ("torchvison", "did you mean model.weights=torchvision"),
        ("runs", "runs holds early/, it/, and no weights; give a file"),
    ):
        with pytest.raises(ConfigError, match=said):
            find(given)


def test_torchvisions_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """From the local cache alone; torchvision does not check the hash of a file that is there."""
    monkeypatch.setenv("TORCH_HOME", "cache")
    run = run_with("torchvision")
    with pytest.raises(
        ConfigError, match=r"IMAGENET1K_V1 of resnet18 is not in cache/hub/checkpoints, .*wget -P .*https:"
    ) as error:
        start(run)
    address = str(error.value).split()[-1]
    assert address == torchvision.models.ResNet18_Weights.DEFAULT.url
    cached = Path("cache/hub/checkpoints", Path(address).name)
    cached.parent.mkdir(parents=True)
    torch.save(resnet18(1000), cached)
    with pytest.raises(
        ConfigError, match=r"is damaged: its SHA-256 starts with \w{8}, not as its name says; delete it"
    ):
        start(run)
    right = hashlib.sha256(cached.read_bytes()).hexdigest()[:8]
    cached = cached.rename(cached.with_name(f"resnet18-{right}.pth"))
    monkeypatch.setitem(torchvision.models.ResNet18_Weights.DEFAULT.value.__dict__, "url", cached.name)
    model, loaded = start(run)
    assert loaded.given.origin.address == f"torchvision:IMAGENET1K_V1 ({cached.name})"
    run.config.eval_dataset.resize_size = 232
    show(loaded, run.config.eval_dataset, model)
    assert "note       their 69.76 % were measured with resize 256 and crop 224" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"torchvision has no IMAGENET1K_V7 for resnet18; did you mean IMAGENET1K_V1"):
        start(run_with("torchvision:IMAGENET1K_V7"))


def test_another_version_of_torchvisions_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "cache")
    Path("cache/hub/checkpoints").mkdir(parents=True)
    Path("cache/hub/checkpoints/resnet50-0676ba61.pth").touch()
    with pytest.raises(
        ConfigError, match=r"V2 of resnet50 is not in .*or type model\.weights=torchvision:IMAGENET1K_V1,"
    ):
        start(run_with("torchvision", name="resnet50"))
