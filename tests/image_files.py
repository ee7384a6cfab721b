"""Synthetic data sets: a few small images, one color per class, as folders or as MDS shards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_imagefolder(
    root: Path | str,
    classes: Sequence[str] = ("cat", "dog", "person"),
    per_class: int = 4,
    size: int = 32,
    seed: int = 0,
) -> Path:
    """Write train/ and val/, each with `per_class` JPEGs of `size` pixels per class; return the folder."""
    rng = np.random.default_rng(seed)
    root = Path(root)
    for split in ("train", "val"):
        for label, name in enumerate(sorted(classes)):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            colour = np.array([(label * 83) % 256, (label * 151 + 90) % 256, (label * 211 + 180) % 256])
            for number in range(per_class):
                pixels = np.clip(colour + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:04}.jpeg", quality=95)
    return root


def make_mds(
    split_dir: Path | str,
    out: Path | str,
    compression: str | None = None,
    size_limit: int = 1 << 26,
    hashes: Sequence[str] = ("sha1", "xxh64"),
) -> Path:
    """Convert one split of an image folder to MDS shards with the published converter's columns; return `out`.

    Args:
        split_dir: .../train or .../val.
        out: folder for index.json and the shards.
        compression: e.g. `zstd:3`.
        size_limit: bytes per shard.
        hashes: recorded in the index.
    """
    from streaming import MDSWriter

    split_dir, out = Path(split_dir), Path(out)
    columns = {"i": "int", "x": "jpeg", "y": "int"}
    names = sorted(path.name for path in split_dir.iterdir())
    files = [(path, label) for label, name in enumerate(names) for path in sorted((split_dir / name).iterdir())]
    with MDSWriter(
        out=os.fspath(out), columns=columns, compression=compression, hashes=list(hashes), size_limit=size_limit
    ) as writer:
        for number, (path, label) in enumerate(files):
            with Image.open(path) as image:
                writer.write({"i": number, "x": image, "y": label})
    return out


def make_shards(folder: Path, root: Path, **options: Any) -> Path:
    """Convert both splits of an image folder with `make_mds`, passing on its options; return `root`."""
    for split in ("train", "val"):
        make_mds(folder / split, root / split, **options)
    return root
