"""What all tests share: few threads, no network, small images, and runs made in a folder of their own."""

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

# Two cores carry the tests: ranks and loader workers must not each start a thread per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("PYTHONFAULTHANDLER", "1")
os.environ.setdefault("RECIPES_COMMIT", "c0ffee")  # else each run would ask git, twice


STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
SLOW_FIXTURES = {"moto_server", "encode"}  # a server, a compiler: the first test that asks for one pays for all
quick: list[str] = []
"""The test in progress, if `make quick` runs it."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a fixture that starts a process."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note whether the test may start processes and train, its fixtures included."""
    quick[:] = [] if item.get_closest_marker("slow") or item.get_closest_marker("network") else [item.nodeid]
    result = yield
    quick.clear()
    return result


def only_if_slow(what: str) -> None:
    """Fail a test that does what `make quick` has no time for, in whichever run."""
    frame: FrameType | None = sys._getframe()
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    if quick and not frame:  # what a package starts once, when it is imported, is not the test's doing
        pytest.fail(f"{what}: mark the test with pytest.mark.slow, which `make quick` leaves out")


sys.addaudithook(lambda event, args: only_if_slow(f"{event} {args[:2]}") if event in STARTS_A_PROCESS else None)


@pytest.fixture(scope="session", autouse=True)
def signals_stop_the_suite() -> None:
    """Composer, when it is imported, makes an exit of both signals, which pytest counts as one failed test."""
    import composer.core.engine  # noqa: F401

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageFolder of three classes: 16 images of 32 px each for training, 7 each for evaluation."""
    from tests.image_files import make_imagefolder

    root = make_imagefolder(tmp_path_factory.mktemp("images"), per_class=16)
    for surplus in (root / "val").glob("*/*.jpeg"):
        if int(surplus.stem) >= 7:
            surplus.unlink()  # 21 images: no number of ranks or batches divides them evenly
    return root


@pytest.fixture(autouse=True)
def trainers_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Composer keeps each Trainer that nobody closed, with its model and its workers, until the process ends."""
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
        # torch's cache, whose keys are models; newer ones (2.11) have none
        getattr(state_dict._get_fqns, "cache_clear", lambda: None)()
        gc.collect()


@pytest.fixture(autouse=True)
def processes_end_with_their_test() -> Iterator[None]:
    """Those of `start_main`: a test that fails leaves none to slow down the others."""
    from tests.runs import started

    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that runs/ lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ResNet-18 with an eighth of its channels, where many checkpoints are kept: not a MB each, in place of 90."""
    import torch
    from torchvision.models.resnet import BasicBlock, ResNet

    class Small(ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            return super()._make_layer(block, planes // 8, *args, **kwargs)

    def resnet18(num_classes: int = 1000, **kwargs: Any) -> ResNet:
        model = Small(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, **kwargs)
        model.fc = torch.nn.Linear(64, num_classes)
        return model

    monkeypatch.setattr("torchvision.models.resnet18", resnet18)
