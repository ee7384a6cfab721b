"""At exit, a rank waits for the others only after success."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.runs import ROOT

# A group of gloo's, because there is no GPU; by name it is `backend`.
EXIT = """
import atexit, sys, torch
from training import devices
backend, fails = sys.argv[1:]
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), world_size=1, rank=0)
torch.distributed.get_backend = lambda: backend
destroy = torch.distributed.destroy_process_group
torch.distributed.destroy_process_group = lambda: (destroy(), print("destroyed"))
devices.time.sleep = lambda seconds: print("slept")
atexit.register(devices._leave)
with devices.leaving():
    if fails == "error":
        raise RuntimeError("one rank's")
    if fails == "signal":
        sys.exit(143)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "end", "does"),
    [
        ("nccl", "success", "destroyed"),
        ("nccl", "signal", "destroyed"),  # all ranks stop together
        ("nccl", "error", ""),  # the others may be waiting in a collective
        ("gloo", "success", "slept"),
        ("gloo", "error", "slept"),
    ],
)
def test_the_process_group_at_exit(backend: str, end: str, does: str) -> None:
    done = subprocess.run([sys.executable, "-c", EXIT, backend, end], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == (does, {"success": 0, "signal": 143, "error": 1}[end]), done.stderr
