"""torchvision's and timm's networks by name. Names and image sizes are read from source, without importing torch."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from common.outside import TIMM
from common.suggest import did_you_mean, listing
from config.schema import MODELS
from recipes import source

if TYPE_CHECKING:
    from torch import nn

_BUILDER = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_MIN_SIZE = re.compile(r'"min_size": \((\d+), \d+\)')
_SIZE_ARGUMENTS = {"vision_transformer": "image_size", "maxvit": "input_size"}
"""torchvision's modules of networks for images of one size -> the argument that gives it."""
_MAXVIT_STEP = 224  # 32, by which MaxViT reduces an image, times the 7 of its windows
_AUXILIARY = ("googlenet", "inception")  # torchvision's modules of networks with auxiliary heads


@functools.cache
def builders(package: str) -> Mapping[str, Path]:
    """Return the file that defines each network, by name, of torchvision.models or timm.models; empty if missing."""
    init = source.locate(package)
    files = sorted(init.parent.glob("*.py")) if init else []
    return {name: file for file in files for name in _BUILDER.findall(file.read_text(encoding="utf-8"))}


def problem(name: str) -> str:
    """Return why there is no such network; an empty string if there is."""
    if name in MODELS:
        return ""
    known = builders("torchvision.models")
    if not is_timms(name):
        meant = did_you_mean(name, [*MODELS, *known])
        more = "another classification network of torchvision, as vit_b_16, timm:NAME, or package.module:Class"
        return "" if name in known else f"unknown value {name!r}{meant} (choose {', '.join(MODELS)}, {more})"
    inner, _, tag = name.removeprefix(TIMM).partition(".")
    if not (timms := builders("timm.models")):
        return f"{name} needs timm; type: pip install -c constraints.txt timm"
    if inner not in timms:
        return f"timm has no {inner}{did_you_mean(inner, timms)} (timm.list_models() names them all)"
    if tag:
        return f".{tag} names weights; type model.name={TIMM}{inner} and model.weights=FILE"
    return ""


def is_timms(name: str) -> bool:
    """Whether a name is that of a network of timm."""
    return name.startswith(TIMM)


def _module(name: str) -> str:
    file = builders("torchvision.models").get(name)
    return file.stem if file else ""


def smallest(name: str) -> int:
    """Return the side in pixels of the smallest images that a network of torchvision takes, as its weights state it.

    A Swin transformer's state the size that they were trained at; it pads smaller images.
    """
    file = builders("torchvision.models")[name]
    if file.stem == "swin_transformer":
        return 1
    return max(map(int, _MIN_SIZE.findall(file.read_text(encoding="utf-8"))), default=1)


def size_step(name: str) -> int | None:
    """Return what divides the image size of a torchvision network for images of one size; None for the others."""
    argument = _SIZE_ARGUMENTS.get(_module(name))
    if argument is None:
        return None
    return _MAXVIT_STEP if argument == "input_size" else int(name.rpartition("_")[2])  # vit_b_16: patches of 16 pixels


def has_auxiliary(name: str) -> bool:
    """Whether torchvision's own training gave a network further heads, which ours does not."""
    return _module(name) in _AUXILIARY


def has_no_negative_logits(name: str) -> bool:
    """Whether a network's last layer is followed by a ReLU, so that sigmoids of its logits are at least 1/2."""
    return _module(name) == "squeezenet"


def takes_one_size(name: str) -> bool:
    """Whether a network takes images of one size only; imports timm for a network of timm's."""
    if not is_timms(name):
        return size_step(name) is not None
    import timm

    return bool(getattr(timm.models.get_pretrained_cfg(name.removeprefix(TIMM)), "fixed_input_size", False))


def check_sizes(name: str, own: int, others: Iterable[int], option: str) -> None:
    """Raise a ConfigError if a program's option asks for sizes that a network for images of `own` pixels lacks."""
    if (wrong := [size for size in others if size != own]) and takes_one_size(name):
        raise ConfigError(f"{option} {listing(map(str, wrong))}: {name} takes images of {own} px only; leave it out")


def build(name: str, num_classes: int, image_size: int) -> nn.Module:
    """Build a network of torchvision, or timm's for timm:NAME, at its own initialization and without auxiliary heads.

    Args:
        name: one that `problem` knows nothing against.
        num_classes: number of outputs.
        image_size: side in pixels of the images, for a network that takes images of one size.

    Raises:
        ConfigError: timm cannot build it.
    """
    if is_timms(name):
        return _of_timm(name, num_classes, image_size)
    import torchvision

    options: dict[str, Any] = {}
    if has_auxiliary(name):
        options = {"aux_logits": False, "init_weights": True}
    elif argument := _SIZE_ARGUMENTS.get(_module(name)):
        options = {argument: image_size if argument == "image_size" else (image_size, image_size)}
    return getattr(torchvision.models, name)(num_classes=num_classes, **options)


def _of_timm(name: str, num_classes: int, image_size: int) -> nn.Module:
    import timm

    options: dict[str, Any] = {"img_size": image_size} if takes_one_size(name) else {}
    with unfit(name, image_size):
        return timm.create_model(name.removeprefix(TIMM), num_classes=num_classes, **options)


@contextlib.contextmanager
def unfit(name: str, image_size: int) -> Iterator[None]:
    """Turn what a network of timm raises over images of a size into a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # timm asserts, and torch raises anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"model.name: {name} does not work with images of {image_size} px ({why}); give another crop_size, as in "
            "train_dataset.crop_size=224 eval_dataset.crop_size=224"
        ) from error
