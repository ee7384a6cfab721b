"""Device settings: threads, precision, microbatches, compilation."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from composer.core import Callback

from config import ConfigError, load
from main import cli, main
from tests.runs import pretend_gpu, small_yaml
from training import devices

NEW_TF32 = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # torch 2.9 or newer


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


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["imagefolder", "synthetic"])
def test_a_run_on_the_cpu_leaves_the_gpu_alone(
    storage: str, workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With device=cpu on a machine with a GPU, no memory is pinned there and no batch is copied to it."""
    pretend_gpu(monkeypatch)
    words = ["device=cpu", f"train_dataset.storage={storage}", "max_duration=2ba", "save_folder=null"]
    trainer = main(load([str(small_yaml(workdir, image_folder)), *words]))
    assert trainer.state.timestamp.batch == 2
    assert not trainer.state.train_dataloader.pin_memory and trainer.state.batch[0].device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "compiler", "triton", "said"),
    [
        ("gpu", "gcc", True, "compiled, for the GPU, with gcc"),
        ("gpu", None, True, "not compiled, because there is no C compiler"),
        ("gpu", "gcc", False, "not compiled, because Triton does not support this GPU, or is not installed"),
        ("cpu", "gcc", True, "not compiled, because the run uses the CPU"),
    ],
)
def test_compile_auto(
    device: str, compiler: str | None, triton: bool, said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(devices, "has_triton", lambda: triton)
    assert devices._compiles("auto", device, compiler) == said.startswith("compiled")
    assert capsys.readouterr().out == f"compile: auto: the network is {said}\n"
    assert devices._compiles(True, device, compiler) and not devices._compiles(False, device, compiler)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("word", ["compile=auto", "compile=null", "compile=false"])
def test_compile_on_a_cpu(word: str, workdir: Path, image_folder: Path, capsys, monkeypatch) -> None:
    """Where it would be an error with true: there is no compiler."""
    monkeypatch.setattr("training.devices.shutil.which", lambda _: None)
    devices.prepare(run := load([str(small_yaml(workdir, image_folder, device="cpu")), word]))
    assert not run.machine.compile
    said = "compile: auto: the network is not compiled, because the run uses the CPU\n"
    assert capsys.readouterr().out == ("" if word == "compile=false" else said)


def test_tf32_is_on_by_both_apis(workdir: Path, image_folder: Path) -> None:
    """torch 2.9 has a second one, and raises an error if they differ where one is read."""
    devices.prepare(load([str(small_yaml(workdir, image_folder, device="cpu"))]))
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        assert backend.allow_tf32
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn.conv) if NEW_TF32 else ():
        assert backend.fp32_precision == "tf32"


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


@pytest.fixture
def tracer_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Give torch.compile the eager backend, because a CPU's code generation takes minutes; further options as set.

    Reaching its limit of graphs is an error, instead of running the network uncompiled.
    """
    from torch._dynamo.utils import counters

    compile_model, options = torch.compile, {"backend": "eager"}
    monkeypatch.setattr(torch, "compile", lambda model, **given: compile_model(model, **given, **options))
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=True):
        yield options
    torch._dynamo.reset()


@pytest.mark.slow
def test_compile_makes_a_graph_for_every_size(
    workdir: Path, image_folder: Path, tracer_only: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten sizes, each compiled for itself, as inductor does on a GPU: no size runs uncompiled."""
    from torch._dynamo.utils import counters

    tracer_only["dynamic"] = False
    (workdir / "pooled.py").write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), *pooled)\n"
    )
    resizing = {"initial_scale": 0.4, "delay_fraction": 0, "finetune_fraction": 0, "size_increment": 1, "max_sizes": 10}
    words = [f"algorithms.progressive_resizing.{name}={value}" for name, value in resizing.items()]
    words += ["compile=true", "max_duration=40ba", "eval_interval=10ba", "save_folder=null"]
    sizes = set()

    class Sizes(Callback):
        def after_forward(self, state, logger) -> None:
            sizes.add(state.batch[0].shape[-1])

    monkeypatch.setattr("training.build.callbacks", lambda _config: [Sizes()])
    main(load([str(small_yaml(workdir, image_folder)), "model.name=pooled:net", *words]))
    assert len(sizes) == 10
    assert counters["stats"]["unique_graphs"] == len(sizes) + 2, "10 to train, and 2 to evaluate batches of 12 and of 9"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["baseline", "hot"])
def test_compile_has_no_graph_break(
    recipe: str, workdir: Path, image_folder: Path, tracer_only: dict[str, Any]
) -> None:
    from torch._dynamo.utils import counters

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
