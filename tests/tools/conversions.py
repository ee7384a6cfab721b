"""Shared by the converter's tests: a source with every kind of image, and readers of the results."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from loaders.images.transforms import EvaluationPipeline
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.streaming import ShardDataset
from tests.image_files import make_imagefolder
from tools.convert.__main__ import main

PIPELINE = EvaluationPipeline(resize_size=-1, crop_size=32)


def make_source(folder: Path) -> Path:
    """Write small JPEGs of three classes, and in val/dog two photographs and one image of each odd kind."""
    root = make_imagefolder(folder, per_class=8, size=40)
    photo, other = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    odd = root / "val" / "dog"
    photo.save(odd / "photo.JPEG", quality=92)
    other.convert("L").save(odd / "grey.jpeg")
    small = photo.crop((100, 100, 220, 200))
    small.convert("CMYK").save(odd / "cmyk.jpg")
    small.convert("P").save(odd / "palette.png", transparency=3)
    small.convert("RGBA").save(odd / "alpha.png")
    Image.fromarray(np.arange(90 * 70, dtype=np.uint16).reshape(90, 70) * 10).save(odd / "deep.png")
    return root


def convert(*words: object, workers: int = 2) -> int:
    """Run tools.convert in this process."""
    return main([*map(str, words), "--workers", str(workers)])


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def images_of(root: Path | str, split: str, local: Path | str | None = None) -> list[tuple[bytes, int]]:
    """Return the samples that our reader finds in shards, in order."""
    dataset = ShardDataset(str(root), str(local or root), split, PIPELINE, seed=0)
    assert dataset.classes == ["cat", "dog", "person"]
    return [dataset.read(index) for index in range(len(dataset))]  # type: ignore[misc]


def originals_of(root: Path, split: str) -> list[tuple[bytes, int]]:
    dataset = ImageFolderDataset(root, split, PIPELINE, seed=0)
    return [dataset.read(index) for index in range(len(dataset))]
