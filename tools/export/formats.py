"""The formats that networks are exported in: one row each. No torch."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from tools.networks.inputs import INSTALL

PREPROCESS, CODE = "preprocess.py", "network.py"
"""Files that are written with every network, and with the weights of one that torchvision does not have."""
INT8 = "onnx --int8"


@dataclass(frozen=True)
class Format:
    """A format. Its module has `write_NAME(subject, path)`, and `read_NAME(subject, path)`, which reads as users do.

    The latter returns a function from uint8 images [B, 3, S, S] to the outputs, [B, classes].
    """

    what: str  # for the help
    names: tuple[str, ...]  # of its files or folder, `{}` standing for the run's; the first holds the network
    module: str
    packages: tuple[str, ...] = ()  # optional ones that it needs
    is_weights: bool = False  # of torchvision's network, which gives logits; otherwise a program, which normalizes
    is_page: bool = False  # a folder with a program inside
    takes_code: bool = False  # whether the weights of another network may be written, with CODE
    is_exact: bool = True  # whether it must give the run's answers
    then: str = ""  # what to type next, `{}` standing for the folder


_WEIGHTS, _PROGRAMS = "tools.export.weights", "tools.export.programs"
_HUB, _OF_TIMM = "tools.export.hub", ("timm",)
_OF_ONNX = ("onnx", "onnxscript", "onnxruntime")

FORMATS = {
    "pth": Format("weights for torchvision", ("{}.pth", "{}.pth.json"), _WEIGHTS, is_weights=True, takes_code=True),
    "safetensors": Format("the same, in safetensors", ("{}.safetensors",), _WEIGHTS, is_weights=True, takes_code=True),
    "timm": Format("a folder for timm", ("{}-timm",), _HUB, _OF_TIMM, is_weights=True),
    "hub": Format(
        "the same with a model card, for the Hugging Face Hub",
        ("{}-hub",),
        _HUB,
        _OF_TIMM,
        is_weights=True,
        then="hf upload USER/NAME {}",
    ),
    "pt2": Format("a program of torch.export", ("{}.pt2",), _PROGRAMS),
    "torchscript": Format("a program of torch.jit", ("{}.pt",), _PROGRAMS),
    "onnx": Format("a program for onnxruntime and many others", ("{}.onnx",), "tools.export.onnx_file", _OF_ONNX),
    INT8: Format(
        "the same in 8 bits, less exact", ("{}-int8.onnx",), "tools.export.quantized", _OF_ONNX, is_exact=False
    ),
    "space": Format(
        "a page over ONNX, for a Hugging Face Space",
        ("{}-space",),
        "tools.export.space",
        _OF_ONNX,
        is_page=True,
        then="hf upload USER/NAME {} --repo-type space",
    ),
}
"""Name -> format."""
PROGRAMS = [name for name, one in FORMATS.items() if not one.is_weights and one.is_exact and not one.is_page]
"""Files that hold any network, and give its answers."""


def function(verb: str, name: str) -> Callable[..., Any]:
    """Return the function that writes or reads a format."""
    return pkgutil.resolve_name(f"{FORMATS[name].module}:{verb}_{name.replace(' --', '_')}")


def check_packages(formats: Iterable[str]) -> None:
    """Raise a UserError for the formats whose packages are not installed."""
    for name in formats:
        if missing := [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]:
            raise UserError(f"--format {name}: needs {', '.join(missing)}; type: {INSTALL}")
