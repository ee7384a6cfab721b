"""Open a network from a file: ONNX, TorchScript, or torch.export's pt2, written by this project or any other."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import ConfigError, UserError, counted
from common.pointers import POINTER, is_pointer
from common.suggest import did_you_mean, listing
from loaders.class_names import names_of
from loaders.images.decoders import INTERPOLATIONS
from tools.networks.inputs import INSTALL, Input, Triple
from tools.networks.opened import Network

KINDS = ("ONNX (.onnx)", "TorchScript (.pt)", "torch.export's .pt2")
_INPUT = "one tensor of bytes or floats, [B, 3, S, S]"
_EXTRA = re.compile(r"[^/]+/extra/(.+)|extra_files/(.+)")  # texts in archives of TorchScript and pt2
_OF_PT2 = ("serialized_exported_program.json", "/archive_format")  # records that only pt2 has, by torch's version
_MOST_PIXELS = 2**26  # of the images of one call: as floats, 0.8 GB
_SUM = 1e-3  # by how much the sum of an image's probabilities may differ from 1


@dataclass(frozen=True)
class Loaded:
    """A network in memory, and what its file says about it."""

    call: Callable[[Tensor], Any]  # [B, 3, S, S] on its device to one output, or a list or mapping of them
    floats: bool | None  # whether it takes floats; False: bytes; None if the file does not say
    shape: tuple[int | None, int | None]  # images per call and their side; None if it is free
    texts: Mapping[str, str]  # metadata
    device: torch.device


def open_file(path: Path, stated: Input, outside_code: bool = False) -> Network:
    """Open a network file; its classes are numbers unless its metadata name them.

    Args:
        path: the file.
        stated: overrides what the file says.
        outside_code: whether to load a file of torch's, which is a program.

    Raises:
        UserError: it is not a network, or how to prepare images is not known.
    """
    loaded = load(path, outside_code)
    taken = _input(path, loaded, stated)
    module = FromFile(path, loaded, taken.mean, taken.std).eval()
    assert taken.resize_size is not None and taken.crop_size is not None
    outputs = module(torch.zeros(1, 3, taken.crop_size, taken.crop_size, dtype=torch.uint8)).shape[1]
    classes = _texts(path, loaded.texts, "classes", outputs) or [str(label) for label in range(outputs)]
    names = _texts(path, loaded.texts, "class_names", outputs) or names_of(classes)
    how = _how(loaded.texts) if stated.resize_size is None else ()
    return Network(path.name, classes, names, taken.resize_size, taken.crop_size, module, loaded.device, *how)


class FromFile(nn.Module):
    """A loaded network as Network takes it: bytes in, probabilities out."""

    def __init__(self, path: Path, loaded: Loaded, mean: Triple | None, std: Triple | None) -> None:
        super().__init__()
        self.path, self.loaded = path, loaded
        self.scale = None if mean is None or std is None else (_channels(mean), _channels(std))
        self.are_probabilities: bool | None = None  # what the first images say about the outputs

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images, uint8 [B, 3, S, S], to probabilities, float32 [B, classes]."""
        if self.scale:
            mean, std = (values.to(images.device) for values in self.scale)
            images = (images / 255 - mean) / std
        size = self.loaded.shape[0] or len(images)
        scores = torch.cat([self._scores(images[at : at + size], size) for at in range(0, len(images), size)])
        if self.are_probabilities is None:
            sums = scores.sum(dim=1)
            self.are_probabilities = bool((scores >= 0).all() and (sums - 1).abs().max() < _SUM)
        return scores if self.are_probabilities else scores.softmax(dim=1)

    def _scores(self, images: Tensor, size: int) -> Tensor:
        """Return the outputs for at most `size` images, [B, classes]; fills up a batch of fixed size."""
        missing = size - len(images)
        given = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        try:
            found = self.loaded.call(given.contiguous())
        except Exception as error:  # onnxruntime and torch raise their own
            what = f"takes other images than {_described(given)}"
            raise UserError(f"{self.path}: {what} ({_first(error)}); see --crop, --mean and --std") from error
        while isinstance(found, Mapping | list | tuple) and found:
            found = next(iter(found.values())) if isinstance(found, Mapping) else found[0]
        try:
            found = torch.as_tensor(found).float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.path}: its outputs are not numbers; a classifier gives [B, classes]") from error
        if found.ndim < 2 or len(found) != size or found[0].numel() != found.shape[1] or found.shape[1] < 2:
            what = f"gives {list(found.shape)} for {counted(size, 'image', 'images')}"
            raise UserError(f"{self.path}: {what}, but a classifier gives [{size}, classes]")
        return found.flatten(1)[: len(images)]


def load(path: Path, outside_code: bool) -> Loaded:
    """Load a network file; UserError if it is not one, or is a program that was not allowed."""
    if not path.is_file():
        what, near = "is a folder" if path.is_dir() else "no such file", path.parent
        meant = did_you_mean(path.name, sorted(one.name for one in near.iterdir()) if near.is_dir() else [])
        raise ConfigError(f"{path}: {what}; give a network: {listing(KINDS)}{meant}")
    if is_pointer(path):
        raise UserError(f"{path}: {POINTER}")
    if not zipfile.is_zipfile(path):
        if path.suffix.lower() == ".onnx":
            return _load_onnx(path)
        raise UserError(f"{path}: is not a network, or is damaged; give {listing(KINDS)}")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        texts = {match[1] or match[2]: _text(archive, name) for name in names if (match := _EXTRA.fullmatch(name))}
    is_script = any("/code/" in name for name in names)
    is_pt2 = not is_script and (path.suffix.lower() == ".pt2" or any(name.endswith(_OF_PT2) for name in names))
    if not is_script and not is_pt2:
        raise UserError(f"{path}: holds tensors, but no network; give {listing(KINDS)}, or evaluate a run")
    if not outside_code:
        # sympy evaluates expressions of a pt2; TorchScript's operators read and write files.
        raise ConfigError(f"{path}: is a program, which loading would run; if you trust it, add --outside-code")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own files
            return _load_pt2(path, texts, device) if is_pt2 else _load_torchscript(path, texts, device)
    except UserError:
        raise
    except Exception as error:  # torch raises anything
        raise UserError(f"{path}: cannot be loaded ({_first(error)}); give {listing(KINDS)}") from error


def _load_onnx(path: Path) -> Loaded:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: needs onnxruntime; type: {INSTALL}") from error
    known = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in known]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises its own
        raise UserError(f"{path}: is not a network that onnxruntime can load ({_first(error)})") from error
    inputs = session.get_inputs()
    types = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    if len(inputs) != 1 or inputs[0].type not in types or len(inputs[0].shape) != 4:
        raise _takes(path, [f"{one.type} {_sizes(one.shape)}" for one in inputs])
    kind, name = types[inputs[0].type], inputs[0].name
    shape = _shape(path, [size if isinstance(size, int) else None for size in inputs[0].shape])

    def call(images: Tensor) -> Any:
        return session.run(None, {name: images.numpy().astype(kind, copy=False)})

    texts = session.get_modelmeta().custom_metadata_map
    return Loaded(call, kind is not np.uint8, shape, texts, torch.device("cpu"))


def _load_pt2(path: Path, texts: Mapping[str, str], device: torch.device) -> Loaded:
    program = torch.export.load(path)
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    values = [nodes.get(str(name)) for name in program.graph_signature.user_inputs]
    value = values[0] if len(values) == 1 else None
    if not isinstance(value, Tensor) or value.ndim != 4 or value.dtype not in (torch.uint8, torch.float32):
        raise _takes(path, [_described(one) if isinstance(one, Tensor) else "a number" for one in values])
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    return Loaded(program.module().to(device), value.dtype != torch.uint8, _shape(path, sizes), texts, device)


def _load_torchscript(path: Path, texts: Mapping[str, str], device: torch.device) -> Loaded:
    return Loaded(torch.jit.load(path, map_location=device).eval(), None, (None, None), texts, device)


def _shape(path: Path, sizes: Sequence[int | None]) -> tuple[int | None, int | None]:
    """Return images per call and their side, which are None if they are free."""
    batch, channels, height, width = sizes
    if channels not in (3, None) or height != width:
        raise UserError(f"{path}: takes images of {_sizes(sizes)}, but must take [B, 3, S, S]: channels first, square")
    return batch, height


def _input(path: Path, loaded: Loaded, stated: Input) -> Input:
    """Return how to prepare images: as stated, else as the file says; ConfigError for what nobody says."""
    texts, problems = loaded.texts, []
    resize = stated.resize_size if stated.resize_size is not None else _whole(texts.get("resize_size"))
    crop = stated.crop_size or _whole(texts.get("crop_size")) or loaded.shape[1]
    together = loaded.shape[0] or 1
    if crop is not None and together * crop**2 > _MOST_PIXELS:
        what = counted(together, "image", "images")
        problems.append(f"{what} of {crop:,} px at a time would not fit into memory; give another --crop or network")
    elif crop is None or crop < 1:
        problems.append("add --crop, the side of the images that it takes, as in --crop 224")
    elif loaded.shape[1] not in (None, crop):
        problems.append(f"--crop {crop}: it takes images of {loaded.shape[1]} px")
    if resize is None:
        problems.append("add --resize, the short side before the crop, as in --resize 256 (-1: not resized)")
    stated_scale = stated.mean is not None or stated.std is not None
    if loaded.floats is False and stated_scale:
        problems.append("--mean, --std: it takes bytes, and normalizes them itself")
    if (loaded.floats or stated_scale) and (stated.mean is None or stated.std is None):
        problems.append(
            "add --mean and --std, of images in 0..1, as in --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        )
    if problems:
        raise ConfigError(f"{path}: takes {_kind(loaded)}; {'; '.join(problems)}")
    return Input(resize, crop, stated.mean, stated.std)


def _how(texts: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the interpolation and the crop_ratio of the metadata, as tools.export writes them, or their defaults."""
    filter_name, ratio = texts.get("interpolation", "").split(" ")[0], texts.get("crop_ratio", "")
    known = filter_name if filter_name in INTERPOLATIONS else INTERPOLATIONS[0]
    return known, float(ratio) if re.fullmatch(r"0\.0*[1-9]\d*|1\.0", ratio) else None


def _kind(loaded: Loaded) -> str:
    return {True: "floats", False: "bytes", None: "images in a way that the file does not say"}[loaded.floats]


def _texts(path: Path, texts: Mapping[str, str], key: str, outputs: int) -> list[str] | None:
    """Return a list of the metadata, one text per output; None if there is none."""
    if key not in texts:
        return None
    try:
        found = json.loads(texts[key])
    except (ValueError, RecursionError):
        found = None

    if isinstance(found, list) and len(found) == outputs and all(map(_is_text, found)):
        return found
    raise UserError(f"{path}: its metadata {key!r} does not list its {outputs} outputs; write the file again")


def _is_text(one: object) -> bool:
    """Whether it is a text, not empty, that can be written to a file as names of files are."""
    with contextlib.suppress(UnicodeEncodeError):
        return isinstance(one, str) and bool(one.encode(errors="surrogateescape"))
    return False


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-1|[1-9]\d{0,4}", text) else None


def _text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        return file.read(1 << 24).decode(errors="replace")


def _takes(path: Path, inputs: Sequence[str]) -> UserError:
    return UserError(f"{path}: takes {' and '.join(inputs) or 'nothing'}, but must take {_INPUT}")


def _sizes(sizes: Sequence[object]) -> str:
    """Return a shape for a sentence; sizes that are free have names, or none."""
    return f"[{', '.join(str(size) if isinstance(size, int) else 'any' for size in sizes)}]"


def _channels(values: Triple) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def _described(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {_sizes(images.shape)}"


def _first(error: Exception) -> str:
    """Return the line of an error that says what happened; TorchScript's say it last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if lines[0].startswith("The following operation failed") else 0][:200]
