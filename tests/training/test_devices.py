"""Device settings: threads, precision, microbatches, compilation."""

import os
from pathlib import Path

import pytest
import torch

from config import ConfigError, load
from main import cli, main
from tests.runs import small_yaml
from training import devices


def test_cores_are_shared_among_the_ranks_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composer leaves the launcher's setting, which is none, so that each rank starts a thread per core."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    try:
        devices._set_threads("cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["amp_bf16", "amp_fp16"])
def test_half_precision_needs_a_gpu(
    precision: str, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli([str(small_yaml(workdir, image_folder)), f"precision={precision}"]) == 2
    assert f"precision: {precision} needs a GPU" in capfd.readouterr().err
    assert not (workdir / "runs").exists()


def test_gpu_that_does_not_exist(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU here"):
        main(load([str(small_yaml(workdir, image_folder)), "device=gpu"]))


@pytest.mark.parametrize(
    ("word", "microbatch"),
    [
        ("device_train_microbatch_size=null", 12),
        ("device_train_microbatch_size=auto", 12),
        ("grad_accum=auto", 12),
        ("device_train_microbatch_size=5", 5),
        ("grad_accum=3", 4),
    ],
)
def test_microbatch(
    word: str, microbatch: int, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    run = load([str(small_yaml(workdir, image_folder, device="cpu")), word])
    devices.prepare(run)
    assert run.machine.microbatch == microbatch
    said = capfd.readouterr().out
    assert said.count("\n") == ("auto" in word), "one line for auto on a CPU, otherwise none"


@pytest.mark.slow
def test_microbatches_train_like_the_whole_batch(workdir: Path, image_folder: Path) -> None:
    """Without BatchNorm, whose statistics are those of a microbatch, the gradients of all microbatches add up."""
    (workdir / "no_norm.py").write_text(
        "from torch.nn import Conv2d, Flatten, LazyLinear, Sequential\n"
        "def net(num_classes): return Sequential(Conv2d(3, 4, 3, 2), Flatten(), LazyLinear(num_classes))\n"
    )
    weights = {}
    for size in (4, 5, 12):
        words = [f"device_train_microbatch_size={size}", "max_duration=2ba", f"run_name=m{size}", "save_folder=null"]
        trainer = main(load([str(small_yaml(workdir, image_folder)), "model.name=no_norm:net", *words]))
        assert trainer.state.device_train_microbatch_size == size
        weights[size] = torch.cat([p.detach().flatten() for p in trainer.state.model.parameters()])
    torch.testing.assert_close(weights[4], weights[12])
    torch.testing.assert_close(weights[5], weights[12])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["baseline", "hot"])
def test_compile_has_no_graph_break(
    recipe: str, workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run under torch.compile's tracer (with the eager backend: a CPU's code generation takes minutes)."""
    from torch._dynamo.utils import counters

    compile_model = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **given: compile_model(model, backend="eager", **given))
    torch._dynamo.reset()
    counters.clear()
    small = ["train_dataset.crop_size=16", "eval_dataset.resize_size=20", "max_duration=1ep", "scheduler.t_warmup=1ba"]
    if recipe == "hot":
        small += ["algorithms.sam.interval=2", "algorithms.ema.update_interval=1ba"]
    words = [f"recipe_name={recipe}", "compile=true", "run_name=compiled", "save_num_checkpoints_to_keep=1", *small]
    trainer = main(load([str(small_yaml(workdir, image_folder)), *words]))
    assert trainer.state.timestamp.batch == 4
    assert counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert not counters["graph_break"]
    saved = torch.load(workdir / "runs/compiled/checkpoints/latest-rank0.pt", weights_only=False)["state"]["model"]
    assert not [name for name in saved if "_orig_mod" in name or name.startswith("module.module")]
    torch._dynamo.reset()
