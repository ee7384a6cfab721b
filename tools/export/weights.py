"""Weights without a program: torchvision's names and network, in torch's own format and in safetensors."""

from __future__ import annotations

import io
import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from common.errors import ConfigError
from common.outside import is_outside
from common.suggest import listing
from config.schema import MODELS
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD, NormalizationFn
from recipes import networks
from recipes.algorithms.blurpool import BlurConv2d, BlurMaxPool2d
from tools.export.formats import CODE, FORMATS, PROGRAMS
from tools.export.subject import Subject, filled
from training import build

Reader = Callable[[Tensor], Tensor]


def write_pth(subject: Subject, path: Path) -> None:
    """Write a state dict, and its metadata next to it."""
    buffer = io.BytesIO()  # on a full disk, torch raises errors of its own
    torch.save(_tensors(subject), buffer)
    path.write_bytes(buffer.getbuffer())
    path.with_name(f"{path.name}.json").write_text(json.dumps(subject.texts("logits"), indent=2) + "\n")


def read_pth(subject: Subject, path: Path) -> Reader:
    """Load a state dict as torchvision's documentation says, or with the code next to it."""
    return _reader(subject, path, torch.load(path, weights_only=True))


def write_safetensors(subject: Subject, path: Path) -> None:
    """Write tensors, with metadata."""
    # Not save_file, whose file nobody else may read.
    path.write_bytes(save(_tensors(subject), {"format": "pt", **subject.texts("logits")}))


def read_safetensors(subject: Subject, path: Path) -> Reader:
    """Load tensors into torchvision's network, or with the code next to it."""
    return _reader(subject, path, load_file(path))


def _tensors(subject: Subject) -> dict[str, Tensor]:
    # In channels_last, as trained, safetensors rejects them.
    return {name: tensor.contiguous() for name, tensor in subject.plain.state_dict().items()}


def _reader(subject: Subject, path: Path, tensors: dict[str, Tensor]) -> Reader:
    if subject.given.with_code:
        network = runpy.run_path(str(path.with_name(CODE)))["load"](str(path))
    else:
        network = _librarys(subject)
        network.load_state_dict(tensors)
    return on_bytes(network)


def on_bytes(network: nn.Module) -> Reader:
    """Return a function from uint8 images to the outputs of a network that takes normalized ones."""
    normalize = NormalizationFn(CHANNEL_MEAN, CHANNEL_STD)
    network.eval()
    return lambda images: network(normalize((images, images))[0])


def called(subject: Subject) -> str:
    """Return what the network is called in its library."""
    name = subject.config.model.name
    return name if networks.is_timms(name) else f"torchvision's {name}"


def _librarys(subject: Subject) -> nn.Module:
    return networks.build(subject.config.model.name, len(subject.network.classes), subject.network.crop_size)


def check_fits(subject: Subject, formats: Sequence[str]) -> None:
    """Raise a ConfigError for formats of weights if no network of a library has them; its outputs come later."""
    problems = []
    for name in formats:
        kind, model = FORMATS[name], subject.config.model.name
        if not kind.is_weights:
            continue
        with_code = kind.takes_code and subject.given.with_code
        if is_outside(model):
            problems.append(f"--format {name}: holds weights of torchvision's or timm's networks, but {model} is yours")
        elif with_code and model not in MODELS:
            problems.append(f"--with-code: {CODE} is for torchvision's ResNets, and {model} needs none; leave it out")
        elif "timm" in kind.packages and model not in MODELS and not networks.is_timms(model):
            problems.append(f"--format {name}: timm's networks have other layers than torchvision's {model}")
        elif "timm" in kind.packages and subject.network.resize_size < 0:
            how = "crops them first" if subject.network.crop_ratio else "does not"
            problems.append(f"--format {name}: timm always resizes images, but the run's evaluation {how}")
        elif "timm" in kind.packages and subject.network.interpolation == "area":
            problems.append(f"--format {name}: timm has no interpolation=area, with which the run's evaluation resizes")
        elif _shapes(subject.plain) != _shapes(_holder(subject, with_code)):
            holder = f"{CODE}, for networks with BlurPool alone," if with_code else called(subject)
            problems.append(f"--format {name}: {holder} cannot hold this network{surgeries(subject)}")
    if problems:
        raise ConfigError(*(f"{problem}; {works(subject)}" for problem in problems))


def _holder(subject: Subject, with_code: bool) -> nn.Module:
    """Return the network that shall load the weights, without memory."""
    space: dict[str, Any] = {}
    # Others compute with tensors when they are built, which takes values.
    with torch.device("meta" if subject.config.model.name in MODELS else "cpu"):
        if not with_code:
            return _librarys(subject)
        exec(code(subject), space)
        return space["build"]()


def works(subject: Subject) -> str:
    """Return what to do about a network that torchvision does not have."""
    code = f", or --format safetensors --with-code, which also writes {CODE}" if _is_blurred(subject) else ""
    return f"give --format {listing(PROGRAMS)}, which hold any network{code}"


def surgeries(subject: Subject) -> str:
    """Return the algorithms that made a network which torchvision does not have, as the end of a sentence."""
    made = dict(zip(subject.config.algorithms, build.algorithms(subject.config), strict=True))
    changed = {name: algorithm for name, algorithm in made.items() if type(algorithm).required_on_load()}
    homes = {layer.__module__ for layer in _foreign(subject)}
    names = [name for name, algorithm in changed.items() if type(algorithm).__module__ in homes] or list(changed)
    return f", which {' and '.join(names)} changed" if names else ""


def _is_blurred(subject: Subject) -> bool:
    foreign = _foreign(subject)
    return bool(foreign) and foreign <= {BlurConv2d, BlurMaxPool2d}


def _foreign(subject: Subject) -> set[type]:
    """Return the types of layers that torchvision's network does not have."""
    if subject.config.model.name not in MODELS:
        return set()
    known = {type(layer) for layer in _holder(subject, with_code=False).modules()}
    return {type(layer) for layer in subject.plain.modules()} - known


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def code(subject: Subject) -> str:
    """Return the text of CODE."""
    layers = dict(subject.plain.named_modules())
    return filled(
        CODE,
        ARCHITECTURE=subject.config.model.name,
        CLASSES=len(subject.network.classes),
        **{
            "CONVOLUTIONS: dict[str, bool]": {
                n: one.blur_first for n, one in layers.items() if isinstance(one, BlurConv2d)
            },
            "POOLS: list[str]": [n for n, one in layers.items() if isinstance(one, BlurMaxPool2d)],
        },
    )
