"""Fixtures of the tests of programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.image_files import make_imagefolder
from tests.runs import ROOT, run_main, small_yaml

WNIDS = {"n01440764": "tench", "n02123045": "tabby", "n02123159": "tiger cat"}
"""Three of ImageNet's classes and their names."""


@pytest.fixture(scope="session")
def named_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a short run on three of ImageNet's classes, 8 images each in data/val; tests do not write to it."""
    folder = tmp_path_factory.mktemp("named")
    data = make_imagefolder(folder / "data", classes=tuple(WNIDS), per_class=8, size=40)
    done = run_main(small_yaml(folder, data, max_duration="1ep"), "run_name=it", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "it"


@pytest.fixture(scope="session")
def digit_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs/baseline, mild and hot, briefly trained on a part of the digits in data/; 120 images are in val/.

    mild and hot start from the weights of baseline. Tests do not write to it.
    """
    from config import load
    from loaders.storage.digits import make_digits
    from main import main

    folder = tmp_path_factory.mktemp("digits")
    data = make_digits(folder / "data")
    for split, most in (("train", 64), ("val", 12)):
        for one in (data / split).iterdir():
            for surplus in sorted(one.iterdir())[most:]:
                surplus.unlink()
    words = [f"train_dataset.path={data}", f"eval_dataset.path={data}", f"runs_folder={folder}/runs", "loggers={}"]
    words += ["train_dataset.num_workers=0", "eval_dataset.num_workers=0", "device=cpu", "scheduler.t_warmup=1ba"]
    short = ["max_duration=5ba", "algorithms.ema.half_life=1ba", f"model.weights={folder}/runs/baseline"]
    short += ["train_dataset.batch_size=32", "optimizer.lr=0.003"]
    for recipe, more in {
        "baseline": ["train_dataset.batch_size=16", "max_duration=1ep"],
        "mild": short,
        "hot": short,
    }.items():
        main(load([f"{ROOT}/yamls/digits.yaml", f"recipe_name={recipe}", f"run_name={recipe}", *words, *more])).close()
    return folder


@pytest.fixture
def photos(workdir: Path) -> Path:
    """Seven files of which four are images, one of them with an orientation tag."""
    folder = workdir / "photos"
    (folder / "b").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    image, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "a.jpg", exif=exif)
    image.convert("CMYK").save(folder / "b/=c.jpg")
    image.convert("RGBA").save(folder / "b/d.PNG")
    image.convert("L").save(folder / "e.webp")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("hello")
    (folder / "notes.txt").write_text("not named like an image")
    return folder
