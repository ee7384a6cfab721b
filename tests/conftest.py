"""Fixtures for all tests: few threads, no network, small images, and a working folder per test."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.s3 import moto_server, s3_server

__all__ = ["image_folder", "moto_server", "s3_server", "workdir"]

# The tests share two cores: ranks and loader workers must not start a thread per core each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("PYTHONFAULTHANDLER", "1")
os.environ.setdefault("RECIPES_COMMIT", "c0ffee")  # otherwise each run would call git twice
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "STACK", "LEAN"):  # `make test STACK=next` passes them on
    os.environ.pop(name, None)


STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
SLOW_FIXTURES = {"moto_server", "encode"}  # start a server, run a compiler; the first test to use one pays for all
quick: list[str] = []
"""ID of the test in progress, if `make quick` runs it."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow whose fixtures start a process."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Record whether the test and its fixtures may start processes and train."""
    quick[:] = [] if item.get_closest_marker("slow") or item.get_closest_marker("network") else [item.nodeid]
    result = yield
    quick.clear()
    return result


def only_if_slow(what: str) -> None:
    """Fail a test that does something too slow for `make quick`, even when `make test` runs it."""
    frame: FrameType | None = sys._getframe()
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    if quick and not frame:  # a package's import may start processes
        pytest.fail(f"{what}: mark the test with pytest.mark.slow, which `make quick` leaves out")


sys.addaudithook(lambda event, args: only_if_slow(f"{event} {args[:2]}") if event in STARTS_A_PROCESS else None)


@pytest.fixture(scope="session", autouse=True)
def restore_signal_handlers() -> None:
    """Undo Composer's signal handlers: they raise SystemExit, which pytest counts as one failed test."""
    import composer.core.engine  # noqa: F401

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageFolder of three classes: 16 images of 32 px per class for training, 7 per class for evaluation."""
    from tests.image_files import make_imagefolder

    root = make_imagefolder(tmp_path_factory.mktemp("images"), per_class=16)
    for surplus in (root / "val").glob("*/*.jpeg"):
        if int(surplus.stem) >= 7:
            surplus.unlink()  # 21 images: not divisible by 2 or 4 ranks, nor by 12
    return root


@pytest.fixture(autouse=True)
def close_trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close each Trainer after its test; Composer would keep its model and workers until the process exits."""
    from composer.core.engine import Engine
    from torch.distributed.checkpoint import state_dict

    made: list[Engine] = []
    stock = Engine.__init__

    def noted(self: Engine, *args: object, **kwargs: object) -> None:
        made.append(self)
        stock(self, *args, **kwargs)  # type: ignore[arg-type]
        only_if_slow("a Trainer is made")

    monkeypatch.setattr(Engine, "__init__", noted)
    yield
    if made:
        while made:
            engine = made.pop()
            engine.close()
            atexit.unregister(engine._close)
            del engine
        # torch caches by model; torch 2.11 removed the cache
        getattr(state_dict._get_fqns, "cache_clear", lambda: None)()
        gc.collect()


@pytest.fixture(autouse=True)
def kill_processes() -> Iterator[None]:
    """Kill the processes of `start_main` that a failed test left running."""
    from tests.runs import started

    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, so that runs/ is written there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give ResNet-18 an eighth of its channels: checkpoints take less than 1 MB instead of 90."""
    import torch
    from torchvision.models.resnet import BasicBlock, ResNet

    from training import loading

    class Small(ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            return super()._make_layer(block, planes // 8, *args, **kwargs)

    def resnet18(num_classes: int = 1000, **kwargs: Any) -> ResNet:
        model = Small(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, **kwargs)
        model.fc = torch.nn.Linear(64, num_classes)
        return model

    monkeypatch.setattr("torchvision.models.resnet18", resnet18)
    loading._built.cache_clear()
    yield
    loading._built.cache_clear()  # another test must not compare its networks with this one
