"""How programs exit: Ctrl-C gives a sentence and exit status 130 at any time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from common.command import run
from tests.image_files import make_imagefolder
from tests.runs import ROOT, wait_for

VERIFY = "from tools.verify.__main__ import run; sys.exit(run([sys.argv[1], '--workers=1']))"
DATA = """
import data, loaders.storage.inspection
loaders.storage.inspection.MEASURED = 1000.0
sys.argv += ["--workers=1", "--crop-size=16"]
data.check_dataloader()
"""


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(130)], ids=["python", "composer"])
def test_ctrl_c(stop: BaseException, capsys: pytest.CaptureFixture) -> None:
    def main(_: object) -> int:
        raise stop

    assert run(main, [], "stopped here") == 130
    assert capsys.readouterr().err == "\nstopped here\n"


def test_other_exits_are_passed_on() -> None:
    with pytest.raises(SystemExit) as end:
        run(lambda _: sys.exit(2), [])
    assert end.value.code == 2


def busy_workers_of(trainer: int) -> list[psutil.Process]:
    """Return a trainer's forks that have computed for half a second; not helpers that imports start, such as ldconfig.

    Python loses a Ctrl-C that arrives while os.fork runs the hooks of the standard library in the trainer.
    """
    process = psutil.Process(trainer)
    with contextlib.suppress(psutil.NoSuchProcess):
        forks = [child for child in process.children() if child.cmdline() == process.cmdline()]
        return [fork for fork in forks if sum(fork.cpu_times()[:2]) > 0.5]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("program", [VERIFY, DATA], ids=["verify", "data"])
def test_ctrl_c_at_work(program: str, tmp_path: Path) -> None:
    """With a worker at work; large images keep verify's busy for minutes."""
    root = make_imagefolder(tmp_path / "set")
    if program == VERIFY:
        Image.new("RGB", (5000, 5000)).save(tmp_path / "large.png", compress_level=1)
        for number in range(500):
            (root / f"train/cat/large{number}.png").symlink_to(tmp_path / "large.png")
    words = [sys.executable, "-c", f"import sys\n{program}", str(root)]
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, cwd=tmp_path, env=settings, text=True, **pipes)
    try:
        wait_for(lambda: busy_workers_of(process.pid), process=process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1]
    finally:
        process.kill()
    assert process.returncode == 130 and said == "\nstopped\n"
