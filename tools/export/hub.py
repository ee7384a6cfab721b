"""Folders that timm and the Hugging Face Hub load: weights, their description, and a model card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from common.outside import TIMM
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD
from tools.export.subject import Subject
from tools.export.weights import Reader, on_bytes, write_safetensors
from training.secrets import redacted

STRIDE = 32  # by which a ResNet reduces an image

CARD = """---
{front}---

# {name}

A {architecture} for {classes} classes, trained with the recipe `{recipe}` of ResNet Recipes.

| | |
|---|---|
{rows}
{command}
```python
import timm

model = timm.create_model("hf-hub:USER/{name}", pretrained=True).eval()  # or local-dir:FOLDER
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
probabilities = model(transform(image)[None]).softmax(1)  # of a PIL image, in RGB
```
"""


def write_timm(subject: Subject, path: Path) -> None:
    """Write a folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
    path.mkdir()
    write_safetensors(subject, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config_of(subject), indent=2) + "\n")


def read_timm(_: Subject, path: Path) -> Reader:
    """Load a folder as timm's documentation says."""
    import timm

    return on_bytes(timm.create_model(f"local-dir:{path}", pretrained=True))


def write_hub(subject: Subject, path: Path) -> None:
    """Write the same folder with a model card, to be uploaded to the Hub."""
    write_timm(subject, path)
    (path / "README.md").write_text(card(subject))


read_hub = read_timm


def config_of(subject: Subject) -> dict[str, Any]:
    """Return config.json, in timm's form; timm's own writer would copy the card of its network of the same name."""
    network, model = subject.network, subject.config.model
    plain: Any = subject.plain
    own = getattr(plain, "pretrained_cfg", {})  # of timm's network
    crop, outputs = network.crop_size, len(network.classes)
    how = {
        "tag": subject.name,
        "num_classes": outputs,
        "input_size": [3, crop, crop],
        "pool_size": [math.ceil(crop / STRIDE)] * 2,
        # timm resizes to floor(crop / crop_pct); the exact quotient would lose a pixel of some sizes.
        "crop_pct": crop / (network.resize_size + 0.5),
        "crop_mode": "center",
        "interpolation": network.interpolation,
        "mean": list(CHANNEL_MEAN),
        "std": list(CHANNEL_STD),
        "first_conv": "conv1",
        "classifier": "fc",
    }
    how |= {key: own[key] for key in ("first_conv", "classifier", "fixed_input_size") if key in own}
    return {
        "architecture": model.name.removeprefix(TIMM),
        "num_classes": outputs,
        "num_features": plain.num_features if own else plain.fc.in_features,
        "label_names": list(network.classes),
        "label_descriptions": dict(zip(network.classes, network.names, strict=True)),
        "pretrained_cfg": how | ({"license": subject.given.license} if subject.given.license else {}),
    }


def card(subject: Subject) -> str:
    """Return the model card, made from the run's record; what the record does not say is left out."""
    record, network, figures = subject.record, subject.network, subject.figures
    data = record.environment.get("data")
    data = data if isinstance(data, dict) else {}
    images = {key: data[key] for key in ("train_images", "eval_images") if isinstance(data.get(key), int)}
    name, crop = Path(subject.config.train_dataset.path or "").name, network.crop_size
    rows: dict[str, Any] = {
        "top-1": f"{figures['top1']:.2f} %" if "top1" in figures else None,
        "evaluated on": f"{images['eval_images']:,} images" if "eval_images" in images else None,
        "trained on": f"{images['train_images']:,} images of {name}" if "train_images" in images else None,
        "epochs": figures.get("epochs"),
        "hardware": record.hardware,
        "images": f"short side of {network.resize_size} px ({network.interpolation}), central square of {crop} px",
        "commit": record.environment.get("commit"),
    }
    command = record.environment.get("command")
    return CARD.format(
        front=yaml.safe_dump(_front(subject, name), sort_keys=False),
        name=subject.name,
        architecture=subject.config.model.name,
        classes=f"{len(network.classes):,}",
        recipe=record.recipe,
        rows="".join(f"| {title} | {_cell(value)} |\n" for title, value in rows.items() if value is not None),
        command=f"```bash\n{redacted(command)}\n```\n" if isinstance(command, str) else "",
    )


def _front(subject: Subject, data: str) -> dict[str, Any]:
    """Return the metadata that the Hub reads."""
    task = {"type": "image-classification"}
    front: dict[str, Any] = {"library_name": "timm", "pipeline_tag": task["type"]}
    front |= {"tags": [task["type"], "timm", subject.config.model.name]}
    if subject.given.license:
        front["license"] = subject.given.license
    if "top1" in subject.figures:
        metric = {"type": "accuracy", "name": "top-1", "value": round(subject.figures["top1"] / 100, 6)}
        result = {"task": task, "dataset": {"type": "imagefolder", "name": data}, "metrics": [metric]}
        front["model-index"] = [{"name": subject.name, "results": [result]}]
    return front


def _cell(value: Any) -> str:
    return " ".join(str(redacted(value)).split()).replace("|", "\\|")
