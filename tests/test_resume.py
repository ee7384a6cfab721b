"""A killed run resumes from its last checkpoint and reaches the weights of an uninterrupted run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from config import load as load_run
from main import cli, main
from recipes.callbacks.early_stopper import EarlyStopper
from tests.image_files import make_shards
from tests.runs import (
    COMPOSER,
    ROOT,
    assert_same_weights,
    metrics,
    run_main,
    small_yaml,
    start_main,
    summary,
    wait_for,
)
from training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow

SMALL = ["train_dataset.batch_size=12", "eval_dataset.crop_size=16", "scheduler.t_warmup=1ba"]
# Recipes scaled down to two epochs of four batches at 16 px, with every stateful algorithm.
RECIPES = {
    "baseline": [],
    "mild": ["algorithms.ema.half_life=2ba", "algorithms.ema.update_interval=1ba"],
    "medium": ["algorithms.ema.half_life=2ba", "algorithms.ema.update_interval=1ba", "algorithms.sam.interval=2"],
    "torchvision_v2": [*SMALL, "algorithms.ema.update_interval=1ba", "algorithms.random_erasing.p=0.5"],
    "schedulefree_sgd": [*SMALL, "optimizer.lr=0.1"],
}
STREAMED = "baseline, streamed"
KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from main import cli
from training.checkpoints import Checkpoints
save = Checkpoints.batch_checkpoint

def save_and_die(self, state, logger):
    save(self, state, logger)
    if state.timestamp.batch == 3:
        os.killpg(0, signal.SIGKILL)

Checkpoints.batch_checkpoint = save_and_die
if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
"""
"""main.py, killed with its workers once the checkpoint of the third batch is written."""


def words(recipe: str, yaml: Path, name: str) -> list[str]:
    small = ["train_dataset.crop_size=16", "eval_dataset.resize_size=20", "max_duration=2ep", "seed=3"]
    saving = ["save_interval=1ba", "save_num_checkpoints_to_keep=-1", "autoresume=true", f"run_name={name}"]
    return [str(yaml), f"recipe_name={recipe}", *small, *saving, *RECIPES[recipe]]


@pytest.mark.parametrize("recipe", ["baseline", "mild", "medium", "torchvision_v2", STREAMED])
def test_a_killed_run_resumes_in_mid_epoch(recipe: str, tmp_path: Path, image_folder: Path) -> None:
    yaml = small_yaml(tmp_path, image_folder)
    if recipe == STREAMED:
        recipe, shards = "baseline", tmp_path / "mds"
        make_shards(image_folder, shards, size_limit=16_000)
        source = {"is_streaming": True, "path": str(shards), "local": str(tmp_path / "cache")}
        changes = {
            f"{name}__{key}": value for name in ("train_dataset", "eval_dataset") for key, value in source.items()
        }
        yaml = small_yaml(tmp_path, image_folder, **changes)
    # Keeping all checkpoints takes about 1 GB.
    whole = run_main(*words(recipe, yaml, "whole"), "save_num_checkpoints_to_keep=1", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    (tmp_path / "runs/whole/checkpoints/best-rank0.pt").unlink()

    killed = [*words(recipe, yaml, "killed"), "save_num_checkpoints_to_keep=1"]
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    assert run_main(*killed, cwd=tmp_path, launcher=(sys.executable, str(program))).returncode == -signal.SIGKILL
    assert (tmp_path / "runs/killed/checkpoints/ep0-ba3-rank0.pt").exists()

    again = run_main(*killed, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming from runs/killed/checkpoints/ep0-ba3-rank0.pt" in again.stdout
    runs = tmp_path / "runs"
    assert_same_weights(runs / "whole/checkpoints/ep2-ba8-rank0.pt", runs / "killed/checkpoints/ep2-ba8-rank0.pt")
    assert figures(runs / "whole") == figures(runs / "killed")

    finished = run_main(*killed, cwd=tmp_path) if recipe == "baseline" else None
    if finished:
        assert finished.returncode == 0, "starting a finished run again must succeed"
        assert summary(runs / "killed")["ended"] == "finished"


def figures(run: Path) -> list[list[str]]:
    """Return a run's metrics.csv without clocks."""
    exact = ("epoch", "step", "train_loss", "val_loss", "top1", "top5", "lr", "image_size")
    return [[row[name] for name in exact] for row in metrics(run)]


@pytest.mark.usefixtures("few_channels")
def test_schedule_free_resumes_in_mid_epoch(workdir: Path, image_folder: Path) -> None:
    """Both sets of weights, BatchNorm statistics and figures, after losing the later checkpoints."""
    command = words("schedulefree_sgd", small_yaml(workdir, image_folder), "run")
    assert cli(command) == 0
    run = workdir / "runs/run"
    before, final = figures(run), run / "checkpoints/ep2-ba8-rank0.pt"
    final.rename(workdir / "uninterrupted.pt")
    for batch in (4, 5, 6, 7):
        (final.parent / f"ep1-ba{batch}-rank0.pt").unlink()
    assert cli(command) == 0
    assert figures(run) == before
    assert_same_weights(workdir / "uninterrupted.pt", final)


def test_damaged_latest_checkpoint(tmp_path: Path, image_folder: Path) -> None:
    yaml = small_yaml(tmp_path, image_folder)
    command = [*words("baseline", yaml, "run"), "save_num_checkpoints_to_keep=4"]
    assert run_main(*command, cwd=tmp_path).returncode == 0
    folder = tmp_path / "runs/run/checkpoints"
    final = folder / "ep2-ba8-rank0.pt"
    content = final.read_bytes()
    final.rename(tmp_path / "uninterrupted.pt")

    (folder / "ep1-ba7-rank0.pt").write_bytes(content[: len(content) // 2])
    flipped = bytearray((folder / "ep1-ba6-rank0.pt").read_bytes())
    flipped[len(flipped) // 2] ^= 1  # one bit in the tensors, which torch.load would not notice
    (folder / "ep1-ba6-rank0.pt").write_bytes(flipped)
    again = run_main(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "ep1-ba7-rank0.pt is damaged" in again.stdout
    assert "ep1-ba6-rank0.pt is damaged" in again.stdout
    assert "resuming from runs/run/checkpoints/ep1-ba5-rank0.pt" in again.stdout
    assert_same_weights(tmp_path / "uninterrupted.pt", final)


def signal_group(process: subprocess.Popen, signum: int) -> None:
    """Signal every process of the job, as `timeout`, a terminal, systemd and SLURM do."""
    os.killpg(process.pid, signum)


def signal_process(process: subprocess.Popen, signum: int) -> None:
    """Signal only the trainer or the launcher, as `kill` and a container's engine do."""
    os.kill(process.pid, signum)


def signal_workers(process: subprocess.Popen, signum: int) -> None:
    """Signal the trainer's workers, then the trainer."""
    for worker in psutil.Process(process.pid).children(recursive=True):
        os.kill(worker.pid, signum)
    os.kill(process.pid, signum)


PYTHON, ONE_RANK, TWO_RANKS = (sys.executable,), (COMPOSER, "-n", "1"), (COMPOSER, "-n", "2")
STOPS = [
    (PYTHON, signal_group, signal.SIGTERM),
    (PYTHON, signal_process, signal.SIGTERM),
    (PYTHON, signal_workers, signal.SIGTERM),
    (PYTHON, signal_group, signal.SIGINT),
    (ONE_RANK, signal_group, signal.SIGTERM),
    (TWO_RANKS, signal_group, signal.SIGTERM),
    (TWO_RANKS, signal_process, signal.SIGTERM),
    (TWO_RANKS, signal_group, signal.SIGINT),
]


@pytest.mark.parametrize(("launcher", "send", "signum"), STOPS)
def test_stop_signals(launcher: tuple[str, ...], send, signum: int, tmp_path: Path, image_folder: Path) -> None:
    """Whichever process gets the signal, the current batch is finished and saved; in a bare shell's environment."""
    yaml = small_yaml(tmp_path, image_folder, max_duration="500ep", save_interval="100ep", run_name="run")
    process = start_main(yaml, cwd=tmp_path, launcher=launcher)
    wait_for((tmp_path / "runs/run/metrics.csv").exists, process=process)
    send(process, signum)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signum, out + err
    assert "Traceback" not in err and "killed by a signal" not in err
    run = tmp_path / "runs/run"
    ended = summary(run)
    assert ended["ended"] == f"interrupted by {signal.Signals(signum).name}"
    (saved,) = (run / "checkpoints").glob("ep*.pt")
    assert saved.name == f"ep{ended['epoch']}-ba{ended['step']}-rank0.pt"
    assert not list((run / "checkpoints").glob(".*tmp"))


def test_save_overwrite(workdir: Path, image_folder: Path) -> None:
    """save_overwrite=true removes every checkpoint of the earlier run, even later ones."""
    yaml = str(small_yaml(workdir, image_folder, max_duration="3ep", run_name="run"))
    assert cli([yaml]) == 0
    assert cli([yaml, "save_overwrite=true", "max_duration=2ep", "save_interval=1ba", "seed=5"]) == 0
    folder = workdir / "runs/run/checkpoints"
    kept = {"best-rank0.pt", "ep1-ba7-rank0.pt", "ep2-ba8-rank0.pt", "latest-rank0.pt"}
    assert {file.name for file in folder.iterdir()} == kept
    assert (folder / "latest-rank0.pt").resolve().name == "ep2-ba8-rank0.pt"


@pytest.mark.parametrize("duration", ["6ba", "2ep"])
def test_best_checkpoint_holds_the_weights_that_were_best(duration: str, workdir: Path, image_folder: Path) -> None:
    """Whether or not the run ends in mid-epoch, and whatever the save interval."""
    yaml = str(small_yaml(workdir, image_folder, max_duration=duration, save_interval="4ba", run_name="run"))
    assert cli([yaml, "save_num_checkpoints_to_keep=-1"]) == 0
    rows = metrics(workdir / "runs/run")
    best = max(rows, key=lambda row: float(row["top1"]))  # ties go to the first, as in saving
    state = torch.load(workdir / "runs/run/checkpoints/best-rank0.pt", weights_only=False)["state"]
    assert state["timestamp"]["Timestamp"]["batch"] == int(best["step"])


def test_command_line_overrides_a_checkpoint(workdir: Path, image_folder: Path) -> None:
    """Stock Composer would continue with the checkpoint's learning rate."""
    yaml = str(small_yaml(workdir, image_folder, max_duration="1ep", run_name="first"))
    assert cli([yaml]) == 0
    load = "load_path=runs/first/checkpoints/latest-rank0.pt"
    trainer = main(load_run([yaml, load, "run_name=second", "max_duration=2ep", "optimizer.lr=0.01"]))
    group = trainer.state.optimizers[0].param_groups[0]
    assert group["initial_lr"] == 0.01 and group["lr"] < 0.01


def test_two_runs_in_one_second(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20200101-000000")
    yaml = str(small_yaml(workdir, image_folder, max_duration="2ba", save_folder=None))
    assert cli([yaml]) == cli([yaml]) == 0
    assert sorted(path.name for path in (workdir / "runs").iterdir()) == [
        "small-baseline-20200101-000000",
        "small-baseline-20200101-000000-2",
    ]


def test_a_new_run_has_its_own_best(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run started from load_path does not inherit the best figure of the run that saved the checkpoint."""
    stop = "callbacks.early_stopper={monitor: MulticlassAccuracy, dataloader_label: eval, patience: 1ba}"
    words = [str(small_yaml(workdir, image_folder)), "eval_interval=1ba", "save_interval=1ba", "optimizer.lr=0", stop]
    reached = {"Checkpoints": {"best": 1.0}, "EarlyStopper": {"best": torch.tensor(1.0), "epoch": 0, "batch": 0}}
    with monkeypatch.context() as old:
        old.setattr(Checkpoints, "state_dict", lambda _: reached["Checkpoints"])
        old.setattr(EarlyStopper, "state_dict", lambda _: reached["EarlyStopper"])
        assert cli([*words, "run_name=old", "max_duration=2ba"]) == 0
    checkpoint = workdir / "runs/old/checkpoints/latest-rank0.pt"
    assert cli([*words, "run_name=new", "max_duration=2ep", f"load_path={checkpoint}"]) == 0
    new = workdir / "runs/new"
    assert (new / "checkpoints/best-rank0.pt").exists()
    tops = [float(row["top1"]) for row in metrics(new)]
    assert summary(new)["best_top1"] == max(tops) and len(tops) >= 2, "the first evaluation counts as the best so far"
