"""Where pretrained weights come from, and what is known about them besides their tensors."""

import hashlib
import json
import math
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from composer.utils import dist

from common.folders import Folder
from common.suggest import did_you_mean, listing
from config import ConfigError
from config.schema import Model
from config.weights import CONFIG, TORCHVISION, find, torchvision_name
from training.devices import on_all_ranks, on_local_leaders
from training.secrets import redacted
from training.weights.content import Content, read_content


@dataclass(frozen=True)
class Measured:
    """How the images were prepared when the weights were measured: sizes in pixels, and top-1 in percent if known."""

    resize_size: int
    crop_size: int
    top1: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Origin:
    """A file of weights on this node."""

    address: str  # of the file: as the user may type it
    path: Path
    sha256: str = ""
    scratch: Path | None = None  # folder that the file was fetched to, to be removed
    classes: list[str] | None = None  # by label, of a timm or Hub folder
    measured: Measured | None = None


@dataclass(frozen=True)
class Pretrained:
    """Weights as they were read, on every rank."""

    origin: Origin
    content: Content

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, by label, if they are known."""
        return self.content.classes or self.origin.classes

    @property
    def record(self) -> dict[str, str]:
        """What a run records about its weights."""
        return redacted({"source": self.origin.address, "sha256": self.origin.sha256})


def read(model: Model) -> Pretrained:
    """Read model.weights on every rank, after fetching the file once per node; ConfigError on every rank if it fails.

    No code of the file is run.
    """
    origin = on_local_leaders(_fetched, model)
    try:
        if len(set(dist.all_gather_object(origin.sha256))) > 1:
            raise ConfigError(
                f"model.weights: {origin.address} is a different file on each node; give one that all share"
            )
        return Pretrained(origin, on_all_ranks(read_content, origin.path, origin.address))
    finally:
        if dist.get_local_rank() == 0 and origin.scratch:
            shutil.rmtree(origin.scratch, ignore_errors=True)


def _fetched(model: Model) -> Origin:
    assert model.weights is not None
    name = torchvision_name(model.weights)
    if name is not None:
        return _in_cache(model.name, name)
    folder, file = find(model.weights)
    scratch = Path(tempfile.mkdtemp(prefix="weights-"))
    try:
        path = folder.fetch(file, scratch)
        is_named = file == model.weights.rstrip("/").rpartition("/")[2]
        about = _described(folder, file) if not is_named and CONFIG in folder.names() else {}
        return Origin(f"{folder}/{file}".removeprefix("./"), path, _sha256(path), scratch, **about)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _in_cache(architecture: str, name: str) -> Origin:
    """Return torchvision's weights from its local cache; ConfigError if the file is missing or damaged.

    torchvision itself checks the hash in a file's name only when it downloads the file.
    """
    known = torchvision.models.get_model_weights(architecture)
    if name and name not in known.__members__:
        raise ConfigError(
            f"model.weights: {TORCHVISION} has no {name} for {architecture}{did_you_mean(name, known.__members__)}; "
            f"give {listing(f'{TORCHVISION}:{other}' for other in known.__members__)}"
        )
    chosen = known[name] if name else known.DEFAULT
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    path = cache / Path(chosen.url).name
    called = f"{TORCHVISION}:{chosen.name}"
    if not path.is_file():
        there = [other.name for other in known if (cache / Path(other.url).name).is_file()]
        instead = f", or type model.weights={TORCHVISION}:{there[0]}, which is there" if there else ""
        raise ConfigError(
            f"model.weights: {called} of {architecture} is not in {cache}, and a run downloads nothing. Type "
            f"wget -P {shlex.quote(str(cache))} {chosen.url}{instead}"
        )
    digest = _sha256(path)
    if not digest.startswith(path.stem.rpartition("-")[2]):
        raise ConfigError(
            f"model.weights: {path} is damaged: its SHA-256 starts with {digest[:8]}, not as its name says; delete it, "
            f"and type wget -P {shlex.quote(str(cache))} {chosen.url}"
        )
    preset, top1 = chosen.transforms(), chosen.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    sizes, normalized = (preset.resize_size[0], preset.crop_size[0]), (tuple(preset.mean), tuple(preset.std))
    measured = Measured(*sizes, top1, *normalized, preset.interpolation.value)
    return Origin(f"{called} ({path.name})", path, digest, measured=measured)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(folder: Folder, file: str) -> dict[str, Any]:
    """Return what the config.json of a timm or Hub folder says, as fields of Origin; it may be anyone's."""
    try:
        said = json.loads(folder.read(CONFIG))
        names, how = said.get("label_names"), said.get("pretrained_cfg", {})
        classes = [str(name) for name in names] if isinstance(names, list) else None
        measured = None
        if "input_size" in how:
            crop = int(how["input_size"][-1])
            sizes = math.floor(crop / float(how.get("crop_pct", 1.0))), crop  # as timm rounds
            mean, std = (tuple(map(float, how.get(key, ()))) for key in ("mean", "std"))
            measured = Measured(*sizes, None, mean, std, str(how.get("interpolation", "bilinear")))
    except (
        AttributeError,
        LookupError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ) as error:
        why = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"model.weights: {folder}/{CONFIG} is not a timm model's ({why}); repair it, or give the file of weights "
            f"itself: model.weights={folder}/{file}"
        ) from error
    return {"classes": classes, "measured": measured}
