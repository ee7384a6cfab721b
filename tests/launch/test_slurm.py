"""The SLURM job: the options of each preset, and a two-node run that its script starts, stops and resumes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import main
from launch.slurm.__main__ import cli, presets
from launch.slurm.job import seconds_of
from tests.runs import ROOT, bare_shell, small_yaml, summary, wait_for

DIGITS = str(ROOT / "yamls" / "digits.yaml")
DECENTRALIZED = ["algorithms.decentralized.topology=alternating_exp_ring", "train_dataset.batch_size=60"]
DECENTRALIZED += ["eval_dataset.batch_size=60"]

# Starts the command once per node, each in its own session, and forwards SIGTERM to all processes, as SLURM does.
SRUN = """
import itertools, os, signal, subprocess, sys
command = list(itertools.dropwhile(lambda word: word.startswith("--"), sys.argv[1:]))
nodes = [
    subprocess.Popen(command, env={**os.environ, "SLURM_NODEID": str(node)}, start_new_session=True)
    for node in range(int(os.environ["SLURM_NNODES"]))
]
signal.signal(signal.SIGTERM, lambda signum, frame: [os.killpg(node.pid, signum) for node in nodes])
with open("srun.pids", "w") as file:
    print(os.getpid(), *(node.pid for node in nodes), file=file)
codes = [node.wait() for node in nodes]
os.remove("srun.pids")
sys.exit(max(128 - code if code < 0 else code for code in codes))
"""
SCONTROL = """
import sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1\\n127.0.0.1")
else:
    open("scontrol.log", "a").write(" ".join(sys.argv[1:]) + "\\n")
"""
SBATCH = """
import sys
text = sys.stdin.read()
if "--account" not in text:
    sys.exit("sbatch: error: no account")
open("job.sh", "w").write(text)
print("Submitted batch job 7")
"""


@pytest.fixture
def cluster(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with SLURM's programs on the PATH, for two nodes on this machine; kills their processes afterwards."""
    programs = workdir / "slurm"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("sbatch", SBATCH)):
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield workdir
    if (workdir / "srun.pids").exists():
        srun, *nodes = map(int, (workdir / "srun.pids").read_text().split())
        for node in nodes:
            os.killpg(node, signal.SIGKILL)
        os.kill(srun, signal.SIGKILL)


def job_number() -> int:
    """Return a job number whose port is free."""
    for number in range(20000, 30000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 10000 + number % 20000)):
                return number
    raise AssertionError("no port is free")


def start_job(folder: Path) -> subprocess.Popen:
    """Run the batch script as SLURM would on the first node."""
    job = {"SLURM_JOB_ID": str(job_number()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}
    return subprocess.Popen(
        ["bash", "job.sh"],
        cwd=folder,
        env=bare_shell(**job),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_two_nodes_stop_in_time_and_resume(cluster: Path, image_folder: Path, capsys) -> None:
    """The submitted job trains on two nodes, saves on SLURM's signal, is requeued, and finishes."""
    yaml = small_yaml(cluster, image_folder, max_duration="40ep", eval_interval="5ep", save_interval="40ep")
    shape = ["--nodes=2", "--gpus-per-node=1", "--account=us", "--env=GREETING=it's $HOME", "--submit"]
    assert cli([*shape, str(yaml), "device=cpu"]) == 0
    assert capsys.readouterr().out == "Submitted batch job 7\n"
    assert "\nexport GREETING='it'\"'\"'s $HOME'\n" in (cluster / "job.sh").read_text()

    job = start_job(cluster)
    wait_for(lambda: list(cluster.glob("runs/*/metrics.csv")), seconds=240, process=job)
    (run,) = (cluster / "runs").iterdir()
    os.kill(int((cluster / "srun.pids").read_text().split()[0]), signal.SIGTERM)
    output = job.communicate(timeout=240)[0]
    assert job.returncode == 143, output
    stopped = summary(run)
    assert stopped["ended"] == "interrupted by SIGTERM" and 20 <= stopped["step"] < 160
    assert '"world_size": 2' in (run / "environment.json").read_text()
    assert re.fullmatch(r"requeue \d+\n", (cluster / "scontrol.log").read_text())

    # Run the same words again in one process, which is cheaper; it resumes what two ranks saved.
    (line,) = [line for line in (cluster / "job.sh").read_text().splitlines() if line.endswith("|| status=$?")]
    words = shlex.split(line.removeprefix("' composer ").removesuffix(" || status=$?"))
    assert words[0].endswith("main.py") and main.cli(words[1:]) == 0
    resumed = f"resuming from runs/{run.name}/checkpoints/ep{stopped['epoch']}-ba{stopped['step']}-rank0.pt"
    assert resumed in capsys.readouterr().out
    assert summary(run)["ended"] == "finished" and summary(run)["step"] == 160


SHAPES = {
    "4xA40": (1, "A40:4", "8:00:00", 4, ["--switches=1"]),
    "4xA100": (1, "A100:4", "4:00:00", 4, ["--constraint=MEM512"]),
    "4xV100": (1, "V100:4", "8:00:00", 4, ["--switches=1"]),
    "8xA100": (2, "A100:4", "6:00:00", 8, ["--switches=1"]),
    "8xV100": (2, "V100:4", "6:00:00", 8, ["--switches=1"]),
    "16xA100": (4, "A100:4", "4:00:00", 16, ["--switches=1"]),
    "32xT4": (4, "T4:8", "8:00:00", 32, ["--switches=1"]),
}


@pytest.mark.slow
def test_presets(workdir: Path, capsys) -> None:
    """Each preset gives a valid bash script with the published options and one launcher per node."""
    assert presets().keys() == SHAPES.keys()
    for name, (nodes, gpus, time, world_size, options) in SHAPES.items():
        assert cli(["--preset", name, DIGITS, "run_name=r"]) == 0
        script = capsys.readouterr().out
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        asked = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
        wanted = [f"--nodes={nodes}", f"--gpus-per-node={gpus}", f"--time={time}", "--job-name=r", *options]
        assert {*wanted, "--signal=TERM@300", "--requeue", "--ntasks-per-node=1"} <= set(asked)
        processes = gpus.partition(":")[2]
        assert f"composer -n {processes} --world_size {world_size} --node_rank " in script
        assert ("export NCCL_IB_HCA==mlx5_0:1" in script) == (name == "32xT4")
        assert script.count("run_name=r") == 2 and " autoresume=true ||" in script  # the first is in a comment


def test_options_win_over_the_preset(workdir: Path, capsys) -> None:
    shape = ["--preset=4xA100", "--gpus-per-node=A100:2", "--constraint=MEM256", "--partition=long", "--account=me"]
    assert cli([*shape, "--time=1-00", "--sbatch=--comment=two words", DIGITS, "run_name=r", "autoresume=true"]) == 0
    script = capsys.readouterr().out
    for option in ("--gpus-per-node=A100:2", "--constraint=MEM256", "--partition=long", "--account=me", "--time=1-00"):
        assert f"#SBATCH {option}\n" in script
    assert "MEM512" not in script and "composer -n 2 --world_size 2" in script
    assert "#SBATCH '--comment=two words'\n" in script
    assert "autoresume=true autoresume" not in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset=4xA41", DIGITS], "did you mean 4xA40?"),
        ([DIGITS], "--gpus-per-node: missing"),
        (["--gpus-per-node=A40", DIGITS], "give a number, as in 4"),
        (["--preset=4xA40", "--nodes=0", DIGITS], "--nodes 0: give at least 1"),
        (["--preset=4xA40", "--time=soon", DIGITS], "--time soon: is not a time"),
        (["--preset=4xA40", "--time=0:05:00", DIGITS], "too short to save in time"),
        (["--preset=4xA40", "--env=2=3", DIGITS], "--env 2"),
        (["--preset=4xA40", "--sbatch=mem", DIGITS], "--sbatch mem"),
        (["--preset=4xA40", "--account=me\nrm -r /", DIGITS], "a line break"),
        (["--preset=4xA40", DIGITS, "optimizer.lrr=1"], "optimizer.lrr"),
        (["--preset=4xA40", DIGITS, "save_folder=null"], "autoresume: without checkpoints there is nothing"),
        (["--preset=32xT4", DIGITS, "train_dataset.batch_size=100"], "is not divisible by 32 devices"),
        (["--preset=4xA40", str(ROOT / "yamls/resnet50.yaml")], "train_dataset.path: missing"),
        (["--preset=8xA100", "--nodes=3", DIGITS, *DECENTRALIZED], "12 ranks on 3 nodes; the nearest are 2 and 4"),
    ],
)
def test_bad_input(words: list[str], expected: str, workdir: Path, capsys) -> None:
    assert cli(words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and not captured.out


def test_data_that_only_the_nodes_have(workdir: Path, capsys) -> None:
    assert cli(["--preset=4xA40", DIGITS, "train_dataset.path=$TMPDIR/digits"]) == 0
    captured = capsys.readouterr()
    assert "'train_dataset.path=$TMPDIR/digits'" in captured.out and "fine if the nodes have it" in captured.err


@pytest.mark.slow
def test_sbatch_fails_or_is_missing(cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert cli(["--preset=4xA40", "--submit", DIGITS]) == 1
    assert "sbatch rejected the job: sbatch: error: no account" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli(["--preset=4xA40", "--submit", DIGITS]) == 1
    assert "sbatch: not found" in capsys.readouterr().err


def test_time_limits() -> None:
    limits = {"90": 5400, "90:30": 5430, "1:30:00": 5400, "1-2": 93600, "1-2:30": 95400, "1-2:30:01": 95401, "x": -1}
    assert {text: seconds_of(text) for text in limits} == limits
