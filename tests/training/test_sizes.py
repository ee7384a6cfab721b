"""Progressive resizing in the loader: the size of each batch, by epoch or batch, with workers, after resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config import load
from main import cli
from tests.runs import assert_same_weights, metrics, small_yaml
from training import build

pytestmark = pytest.mark.slow

ARGUMENTS = {"initial_scale": 0.5, "delay_fraction": 0.3, "finetune_fraction": 0.3}
GOLDEN = [16, 16, 16, 16, 20, 24, 28, 32, 32, 32]


def run_of(workdir: Path, image_folder: Path, algorithms: dict, duration: str, **changes):
    yaml = small_yaml(workdir, image_folder, max_duration=duration, train_dataset__crop_size=32, **changes)
    words = [f"algorithms.{name}.{key}={value}" for name, args in algorithms.items() for key, value in args.items()]
    return load([str(yaml), *words, "scheduler.t_warmup=0ba"])


def widths(data: build.Data, epochs: int) -> list[int]:
    found = []
    for epoch in range(epochs):
        data.train.dataloader.sampler.set_epoch(epoch)
        found += [images.shape[-1] for images, _ in data.train.dataloader]
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_by_batch_and_by_epoch(workers: int, workdir: Path, image_folder: Path) -> None:
    changes = {"train_dataset__num_workers": workers}
    run = run_of(workdir, image_folder, {"progressive_resizing": ARGUMENTS}, "10ba", **changes)
    assert widths(build.data(run, build.algorithms(run.config)), 3)[:10] == GOLDEN
    run = run_of(workdir, image_folder, {"progressive_resizing": ARGUMENTS}, "10ep", **changes)
    assert widths(build.data(run, build.algorithms(run.config)), 10) == [size for size in GOLDEN for _ in range(4)]


def test_resumed_in_mid_epoch(workdir: Path, image_folder: Path) -> None:
    run = run_of(workdir, image_folder, {"progressive_resizing": ARGUMENTS}, "10ba")
    data = build.data(run, build.algorithms(run.config))
    dataset = build.image_dataset(data.train)
    dataset.load_state_dict({"epoch": 1, "sample_in_epoch": 12, "size": len(dataset)})
    data.train.dataloader.sampler.set_epoch(1)
    assert [images.shape[-1] for images, _ in data.train.dataloader] == GOLDEN[5:8]


def test_colout_leaves_the_exact_size(workdir: Path, image_folder: Path) -> None:
    """The loader compensates for the dropped rows and columns, and gives full images at the end."""
    algorithms = {"colout": {"p_row": 0.1, "p_col": 0.1, "finetune_fraction": 0.3}, "progressive_resizing": ARGUMENTS}
    run = run_of(workdir, image_folder, algorithms, "10ba")
    given = widths(build.data(run, build.algorithms(run.config)), 3)[:10]
    assert [int(0.9 * size) for size in given[:7]] == [16, 16, 16, 16, 20, 24, 28] and given[7:] == [32, 32, 32]


def test_images_are_resized_once_from_the_same_box(workdir: Path, image_folder: Path) -> None:
    """The size changes neither box nor flip: the small image is the large one, reduced."""
    run = run_of(workdir, image_folder, {"progressive_resizing": ARGUMENTS}, "10ba")
    data = build.data(run, build.algorithms(run.config))
    dataset = build.image_dataset(data.train)
    for index in range(8):
        large, small = dataset[0, index, 32][0].float(), dataset[0, index, 16][0].float()
        assert small.shape == (3, 16, 16)
        assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 16, "the boxes differ"


def test_a_run_uses_the_sizes_and_resumes_exactly(workdir: Path, image_folder: Path) -> None:
    words = [f"algorithms.progressive_resizing.{key}={value}" for key, value in ARGUMENTS.items()]
    yaml = small_yaml(workdir, image_folder, train_dataset__crop_size=32, max_duration="10ba", save_interval="5ba")
    words += ["scheduler.t_warmup=0ba", "save_num_checkpoints_to_keep=-1", "eval_interval=1ba"]
    assert cli([str(yaml), *words, "run_name=whole"]) == 0
    rows = metrics(workdir / "runs/whole")
    assert [int(row["image_size"]) for row in rows] == GOLDEN
    middle = "load_path=runs/whole/checkpoints/ep1-ba5-rank0.pt"
    assert cli([str(yaml), *words, "run_name=resumed", middle]) == 0
    folders = [workdir / f"runs/{name}/checkpoints/ep2-ba10-rank0.pt" for name in ("whole", "resumed")]
    assert_same_weights(*folders)
