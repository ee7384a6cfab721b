"""Shared by the decoders' tests: JPEGs, unusual images, and reference decoders."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from loaders.images import native, opened
from loaders.images.native import View
from loaders.images.transforms import EvaluationPipeline

built = pytest.mark.skipif(not native.available(), reason=f"{native.LIBRARY.name} is not built: {native.HOW_TO_BUILD}")
PHOTO = load_sample_images().images[0]
Encode = Callable[..., bytes]


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    """Compile one C file; skip the test if there is no compiler or no libjpeg-turbo header."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    probe = [compiler, "-xc", "-fsyntax-only", "-include", "stdio.h", "-include", "jpeglib.h", "/dev/null"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("libjpeg-turbo's headers are missing: apt-get install libjpeg62-turbo-dev")
    command = [compiler, "-Wall", "-Wextra", "-Werror", *flags, "-o", str(target), str(source), "-ljpeg", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


def odd_images() -> dict[str, bytes]:
    """Return images that are not plain RGB, by file name."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(load_sample_images().images[0][100:140, 200:250])
    encoded = {}

    def keep(name: str, image: Image.Image, kind: str, **options: object) -> None:
        out = io.BytesIO()
        image.save(out, kind, **options)
        encoded[name] = out.getvalue()

    for mode in ("L", "CMYK", "RGB"):
        keep(f"{mode}.jpeg", colours.convert(mode), "JPEG", quality=95)
    for mode in ("L", "LA", "RGBA", "1"):
        keep(f"{mode}.png", colours.convert(mode), "PNG")
    keep("palette.png", colours.convert("P"), "PNG", transparency=bytes(range(256)))
    keep("sixteen.png", Image.fromarray(rng.integers(0, 65_535, (40, 50)).astype(np.uint16)), "PNG")
    keep("named.jpeg", colours, "PNG")  # PNG data under a JPEG name
    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF: rotate by 90 degrees
    keep("turned.jpeg", colours, "JPEG", exif=turned, quality=95)
    keep("progressive.jpg", colours, "JPEG", progressive=True, quality=90)
    keep("image.webp", colours, "WEBP")
    keep("image.bmp", colours, "BMP")
    return encoded


def save_odd_images(folder: Path) -> None:
    """Write one file of each kind on which decoders disagree."""
    pixels = np.ascontiguousarray(load_sample_images().images[1][100:180:2, 200:320:2])
    colour, alpha = Image.fromarray(pixels), Image.fromarray(pixels)
    alpha.putalpha(Image.fromarray(pixels[..., 0]))
    turned = Image.Exif()
    turned[0x0112] = 6
    folder.mkdir(parents=True)
    colour.save(folder / "named.png", "jpeg", quality=90)
    colour.save(folder / "named.jpg", "png")
    colour.save(folder / "exif.jpg", exif=turned)
    colour.save(folder / "rgb.jpg", keep_rgb=True)
    for mode, kind in (("RGB", "webp"), ("RGB", "tiff"), ("L", "jpg"), ("L", "png"), ("1", "png"), ("CMYK", "jpg")):
        colour.convert(mode).save(folder / f"{mode}.{kind}")
    colour.quantize(16).save(folder / "palette.png", transparency=3)
    alpha.save(folder / "alpha.png")
    alpha.convert("LA").save(folder / "grey_alpha.png")
    Image.fromarray(pixels[..., 1].astype(np.uint16) * 257).save(folder / "sixteen.png")
    (folder / "longer.jpg").write_bytes((folder / "exif.jpg").read_bytes() + b"\0\0")


def by_pil(data: bytes, view: View) -> np.ndarray:
    """Reference view: decode the whole image, crop, resize, crop again, flip."""
    return opened.OpenedByPil(data).view(view).permute(1, 2, 0).numpy()


def outcome(decoder: str, data: bytes) -> str | bytes:
    """Return the pixels of an evaluation image, or the error message."""
    try:
        return EvaluationPipeline(-1, 24, decoder)(data).numpy().tobytes()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
