"""Write the images for a loading benchmark: the user's own, or photographs cut to ImageNet's sizes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from loaders.dataset import ImageDataset
from loaders.storage.imagefolder import SPLITS

CLASSES = 10
LONGER = 500  # longer side in pixels; with a shorter side of 3/4 of it, ImageNet's most frequent size
_NOISE = 5.0  # of 255: makes the files as large as ImageNet's, 110 kB on average


def make_images(root: Path, count: int, longer: int = LONGER) -> None:
    """Write `count` JPEGs like ImageNet's as train/ and val/ of an image folder, the same files each time.

    They are random crops of scikit-learn's two photographs, resized to 500x375 or 375x500, with noise added: about
    110 kB each, 60 % with 4:2:0 subsampling.

    Args:
        root: of the image folder.
        count: number of images.
        longer: longer side in pixels.
    """
    sides = longer * 3 // 4, longer
    from sklearn.datasets import load_sample_images

    photos, rng = load_sample_images().images, np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        height = int(rng.integers(150, 427))
        width = min(640, height * 4 // 3)
        top, left = rng.integers(0, 427 - height + 1), rng.integers(0, 640 - width + 1)
        size = sides[::-1] if rng.random() < 0.75 else sides
        image = Image.fromarray(photo[top : top + height, left : left + width]).resize(size)
        pixels = np.asarray(image, np.float32) + rng.normal(0, _NOISE, (size[1], size[0], 3)).astype(np.float32)
        out = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
            out, "JPEG", quality=int(rng.integers(92, 97)), subsampling=2 if rng.random() < 0.6 else 0
        )
        _write(root, number, out.getvalue(), number % CLASSES)


def copy_images(dataset: ImageDataset, root: Path, count: int) -> None:
    """Write `count` random images of a data set as train/ and val/ of an image folder."""
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    for number, index in enumerate(chosen.tolist()):
        source, _ = dataset.read(index)
        if not isinstance(source, bytes):
            out = io.BytesIO()
            (Image.fromarray(source) if isinstance(source, np.ndarray) else source).save(out, "PNG")
            source = out.getvalue()
        _write(root, number, source, number % CLASSES)


def write_tars(folder: Path, root: Path) -> Path:
    """Write the images of an image folder as WebDataset tars, one for each split, and return `root`."""
    root.mkdir()
    for split in SPLITS:
        classes = sorted(path.name for path in (folder / split).iterdir())
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for path in sorted((folder / split).rglob("*.jpeg"), key=lambda path: path.name):
                archive.add(path, path.name)
                label = str(classes.index(path.parent.name)).encode()
                info = tarfile.TarInfo(f"{path.stem}.cls")
                info.size = len(label)
                archive.addfile(info, io.BytesIO(label))
    return root


def _write(root: Path, number: int, content: bytes, label: int) -> None:
    """Write a file to train/, and a hard link to it to val/."""
    train, val = (root / split / f"class{label}" / f"{number:06}.jpeg" for split in SPLITS)
    for path in (train, val):
        path.parent.mkdir(parents=True, exist_ok=True)
    train.write_bytes(content)
    os.link(train, val)
