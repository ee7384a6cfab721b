"""Several processes: each launcher, two nodes on loopback, equal weights, exact evaluation, a dying rank."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.runs import (
    COMPOSER,
    ROOT,
    TORCHRUN,
    assert_same_weights,
    metrics,
    run_main,
    small_yaml,
    start_main,
    summary,
    wait_for,
)
from tests.runs import weights as load_weights
from tests.s3 import free_port

pytestmark = pytest.mark.slow

LAUNCHERS = {
    "composer": (COMPOSER, "-n", "2"),
    "torchrun": (TORCHRUN, "--standalone", "--nproc_per_node", "2"),
}


def test_two_ranks(tmp_path: Path, image_folder: Path) -> None:
    """Both launchers train the same weights; each image is evaluated once; one rank can resume a run of two."""
    yaml = small_yaml(tmp_path, image_folder, recipe_name="mild", save_interval="2ba", save_num_checkpoints_to_keep=-1)
    words = [yaml, "train_dataset.crop_size=16", "eval_dataset.resize_size=20", "max_duration=2ep"]
    words += ["algorithms.ema.half_life=2ba", "algorithms.ema.update_interval=1ba"]
    for name, launcher in LAUNCHERS.items():
        kept = ["save_num_checkpoints_to_keep=1"] if name == "composer" else []  # keeping all of both takes over 1 GB
        done = run_main(*words, *kept, f"run_name={name}", cwd=tmp_path, launcher=launcher)
        assert done.returncode == 0, done.stdout + done.stderr
    runs = tmp_path / "runs"
    assert_same_weights(*(runs / name / "checkpoints/ep2-ba8-rank0.pt" for name in LAUNCHERS))
    assert (runs / "composer/logs/rank1.log").exists(), "the log of rank 1 is missing"
    # Two ranks evaluate 21 images as 11 + 10, each once; otherwise WholeEpochs would have failed.
    assert len(metrics(runs / "composer")) == 2

    # One rank resumes what two ranks saved: neither EMA's names nor the data's order depend on the world size.
    for later in ("ep2-ba8", "ep1-ba6", "ep1-ba4"):
        (runs / f"torchrun/checkpoints/{later}-rank0.pt").unlink()
    alone = run_main(*words, "run_name=torchrun", "autoresume=true", cwd=tmp_path)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert "resuming from runs/torchrun/checkpoints/ep0-ba2-rank0.pt" in alone.stdout
    assert summary(runs / "torchrun")["step"] == 8


SCRIPT = f"""
import os, sys, torch
sys.path.insert(0, {str(ROOT)!r})
from config import load
from main import main
from composer.utils import dist
if __name__ == "__main__":
    trainer = main(load(sys.argv[1:]))
    state = dict(trainer.state.model.module.state_dict())
    torch.save(state, f"weights-{{dist.get_global_rank()}}.pt")
"""


# Save each rank's state from before BatchNorm statistics are averaged. Stock Composer lets DDP overwrite the statistics
# of all ranks with rank 0's before each step.
STOCK = """
from training import guards
average = guards.average_batchnorm
def keep_first(state):
    if not os.path.exists(file := f"own-{dist.get_global_rank()}.pt"):
        torch.save(dict(state.model.module.module.state_dict()), file)
        assert not state.model.broadcast_buffers, "DDP would overwrite them"
    average(state)
guards.average_batchnorm = keep_first
if __name__"""


def test_ranks_agree_bit_for_bit(tmp_path: Path, image_folder: Path) -> None:
    """Weights are bitwise equal, and BatchNorm statistics are the mean of both ranks' (stock: rank 0's)."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("if __name__", STOCK))
    yaml = small_yaml(tmp_path, image_folder, max_duration="3ba", save_folder=None)
    process = start_main(yaml, cwd=tmp_path, launcher=(COMPOSER, "-n", "2", str(script)))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    one, other = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    own = [torch.load(tmp_path / f"own-{rank}.pt") for rank in (0, 1)]
    different = {name for name in own[0] if not torch.equal(own[0][name], own[1][name])}
    assert {name.rsplit(".", 1)[-1] for name in different} == {"running_mean", "running_var"}
    for name in different:
        torch.testing.assert_close(one[f"module.{name}"], (own[0][name] + own[1][name]) / 2)


@pytest.mark.parametrize("by", ["flags", "environment"])
def test_two_nodes_on_loopback(by: str, tmp_path: Path, image_folder: Path) -> None:
    yaml = small_yaml(tmp_path, image_folder, max_duration="1ep")
    nodes, port = [], str(free_port())
    for node in ("0", "1"):
        if by == "flags":
            flags = ("--world_size", "2", "--node_rank", node, "--master_addr", "127.0.0.1", "--master_port", port)
            nodes.append(start_main(yaml, "run_name=nodes", cwd=tmp_path, launcher=(COMPOSER, "-n", "1", *flags)))
        else:
            env = {"WORLD_SIZE": "2", "NODE_RANK": node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            nodes.append(start_main(yaml, "run_name=nodes", cwd=tmp_path, launcher=(COMPOSER, "-n", "1"), **env))
    outputs = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert summary(tmp_path / "runs/nodes")["step"] == 4
    assert '"world_size": 2' in (tmp_path / "runs/nodes/environment.json").read_text()
    assert load_weights(tmp_path / "runs/nodes/checkpoints/ep1-ba4-rank0.pt")


def test_batch_size_that_ranks_cannot_share(tmp_path: Path, image_folder: Path) -> None:
    yaml = small_yaml(tmp_path, image_folder, train_dataset__batch_size=13)
    done = run_main(yaml, cwd=tmp_path, launcher=(COMPOSER, "-n", "2"))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "train_dataset.batch_size" in said and "12" in said and "14" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_ranks_exit_when_the_launcher_is_killed(tmp_path: Path, image_folder: Path) -> None:
    yaml = small_yaml(tmp_path, image_folder, max_duration="500ep", save_interval="500ep", run_name="run")
    process = start_main(yaml, cwd=tmp_path, launcher=(COMPOSER, "-n", "2"))
    wait_for((tmp_path / "runs/run/metrics.csv").exists, process=process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for((tmp_path / "runs/run/summary.json").exists)
    assert summary(tmp_path / "runs/run")["ended"] == "interrupted by SIGTERM"
    assert list((tmp_path / "runs/run/checkpoints").glob("ep*.pt"))


def test_rank_that_dies_is_named(tmp_path: Path, image_folder: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        SCRIPT.replace(
            'if __name__ == "__main__":',
            "from training.guards import FiniteLoss\n"
            "def die(self, state, logger):\n"
            "    if dist.get_global_rank() == 1 and state.timestamp.batch == 2: raise RuntimeError('rank 1 broke')\n"
            "FiniteLoss.batch_end = die\n"
            'if __name__ == "__main__":',
        )
    )
    yaml = small_yaml(tmp_path, image_folder, run_name="run")
    process = start_main(yaml, cwd=tmp_path, launcher=(COMPOSER, "-n", "2", str(script)))
    out, err = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "rank 1" in out + err
    assert "rank 1 broke" in (tmp_path / "runs/run/logs/rank1.log").read_text()
