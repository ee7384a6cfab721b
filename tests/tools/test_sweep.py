"""Sweeps: planning, resuming, failing runs, and emitting commands or jobs."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from common import command
from config import ConfigError
from tests.runs import ROOT, metrics, small_yaml, start_main, summary, wait_for
from tools.sweep.__main__ import main
from tools.sweep.plan import read
from tools.sweep.running import composer

SWEEP = (sys.executable, "-m", "tools.sweep")


def sweep_yaml(folder: Path, **keys: Any) -> str:
    """Write a sweep over folder/small.yaml; return its path."""
    said = {"yaml": str(folder / "small.yaml"), "recipes": ["baseline"], "seeds": 1, **keys}
    (folder / "sweep.yaml").write_text(yaml.safe_dump({key: value for key, value in said.items() if value is not None}))
    return "sweep.yaml"


def test_plan(workdir: Path, image_folder: Path) -> None:
    """Each recipe once before any repeats, each run with its own name; the command line overrides the YAML."""
    small_yaml(workdir, image_folder, seed=5)
    keys = {"ratios": [0.5, 1], "seeds": 2, "recipes": ["baseline", "mild"]}
    path = sweep_yaml(workdir, overrides={"optimizer.lr": 0.1, "algorithms": {"ema": {}}, "precision": "fp32"}, **keys)
    plan = read(path, ["optimizer.lr=0.2"])
    assert [run.name for run in plan.runs[:5]] == [
        "baseline-x0.5-seed5",
        "mild-x0.5-seed5",
        "baseline-seed5",
        "mild-seed5",
        "baseline-x0.5-seed6",
    ]
    assert len({run.name for run in plan.runs}) == len(plan.runs) == 8
    assert composer(plan, plan.runs[1])[:3] == ["composer", "-n", "1"]
    words = plan.runs[1].words
    assert words[1:] == (
        *("algorithms.ema={}", "optimizer.lr=0.1", "precision=fp32", "optimizer.lr=0.2"),
        *("recipe_name=mild", "seed=5", "scale_schedule_ratio=0.5"),
        *("run_name=mild-x0.5-seed5", "runs_folder=runs/sweep", "autoresume=true"),
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"recipe": ["mild"]}, "recipe: no such key; did you mean recipes?"),
        ({"recipes": None}, "recipes is missing: a list of names"),
        ({"recipes": "mild"}, "recipes: 'mild' given, but it must be a list"),
        ({"recipes": ["mild", "mild"]}, "recipes: mild is listed twice"),
        ({"recipes": ["midl"]}, "midl-seed17: recipe_name: unknown recipe 'midl'; did you mean mild?"),
        ({"recipes": ["decentralized"]}, "decentralized-seed17: "),
        ({"seeds": [1, 1]}, "seeds: 1 is listed twice"),
        ({"seeds": "x"}, "seeds: 'x' given"),
        ({"ratios": ["long"]}, "ratios: ['long'] given, but it must be a list of scale_schedule_ratio"),
        (
            {"overrides": {"optimizer.momentun": 0.9}},
            "optimizer.momentun: decoupled_sgdw has no such argument; did you mean momentum?",
        ),
        ({"overrides": ["x"]}, "overrides: ['x'] given"),
        ({"processes": 5}, "is not divisible by"),
        ({"yaml": "yamls/nothing.yaml"}, "yamls/nothing.yaml: no such file"),
    ],
)
def test_bad_sweeps(keys: dict[str, Any], said: str, workdir: Path, image_folder: Path, capsys) -> None:
    small_yaml(workdir, image_folder)
    sweep_yaml(workdir, **keys)
    assert command.run(main, ["sweep.yaml"]) == 2
    assert said in capsys.readouterr().err
    assert not (workdir / "runs").exists()


def test_a_missing_sweep_lists_the_existing_ones(workdir: Path, capsys) -> None:
    assert command.run(main, ["digits.yaml"]) == 2
    assert "yamls/sweeps/digits.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_differ_and_a_failing_run_stops_no_other(workdir: Path, image_folder: Path, capsys) -> None:
    """Later runs still run; the same command repeats only the failed ones."""
    small_yaml(workdir, image_folder, max_duration="1ep")
    shutil.copytree(image_folder, workdir / "damaged")
    image = next((workdir / "damaged/train").rglob("*.jpeg"))
    whole = image.read_bytes()
    image.write_bytes(b"no image")
    (workdir / "fails.yaml").write_text("train_dataset: {path: damaged}")
    words = [sweep_yaml(workdir, recipes=["./fails.yaml", "baseline"], seeds=[3, 4]), "device=cpu"]
    assert main(words) == 1
    runs = workdir / "runs/sweep"
    first, second = (metrics(runs / f"baseline-seed{seed}")[0] for seed in (3, 4))
    assert first["train_loss"] != second["train_loss"] and first["val_loss"] != second["val_loss"]
    printed = capsys.readouterr().out
    assert "2 of 4 runs failed; repeat the command to try them again" in printed
    assert "; its whole output is in runs/sweep/fails-seed3/logs/output.log" in printed
    assert f"{image.name}" in printed.split("its whole output")[1], "its last lines say why"

    made = [(runs / f"baseline-seed{seed}/summary.json").stat().st_mtime_ns for seed in (3, 4)]
    image.write_bytes(whole)
    assert main(words) == 0
    assert made == [(runs / f"baseline-seed{seed}/summary.json").stat().st_mtime_ns for seed in (3, 4)]
    assert all(summary(runs / f"fails-seed{seed}")["ended"] == "finished" for seed in (3, 4))
    assert "4 runs in runs/sweep, 2 of them finished already" in capsys.readouterr().out
    assert command.run(main, [*words, "optimizer.lr=0.3"]) == 2
    assert "holds a run with another configuration (optimizer.lr: 0.05 -> 0.3)" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_and_resuming(workdir: Path, image_folder: Path) -> None:
    """The run saves and stops with the sweep; the same command resumes it."""
    small_yaml(workdir, image_folder, max_duration="24ep", train_dataset__num_workers=0)
    path = sweep_yaml(workdir)
    run = workdir / "runs/sweep/baseline-seed17"
    process = start_main(path, "device=cpu", cwd=workdir, launcher=SWEEP, PYTHONPATH=str(ROOT))
    wait_for(lambda: (run / "metrics.csv").exists() and len(metrics(run)) > 1, process=process)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, out + err
    assert "stopped; repeat the command to continue" in err
    stopped = summary(run)
    assert stopped["ended"] == "interrupted by SIGINT" and 2 <= stopped["epoch"] < 24
    before = metrics(run)
    assert main([path, "device=cpu"]) == 0
    assert metrics(run)[: len(before)] == before and len(metrics(run)) == 24


@pytest.mark.slow
def test_two_sweeps_at_once(workdir: Path, image_folder: Path, capsys) -> None:
    small_yaml(workdir, image_folder)
    path = sweep_yaml(workdir)
    (workdir / "runs/sweep").mkdir(parents=True)
    with (workdir / "runs/sweep/.sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command.run(main, [path]) == 1
    assert "runs/sweep: another sweep is at work there" in capsys.readouterr().err


@pytest.mark.slow
def test_emitted_commands_and_jobs(workdir: Path, image_folder: Path, capsys) -> None:
    """Works without the data; an array task runs the command in its line of the list."""
    small_yaml(workdir, image_folder, train_dataset__path="/nowhere/at all", train_dataset__batch_size=12)
    path = sweep_yaml(workdir, seeds=3, processes=4, slurm={"preset": "4xA100", "account": "us"})
    printed = {}
    for kind in ("commands", "shell", "slurm"):
        assert main([path, "--emit", kind]) == 0
        printed[kind] = capsys.readouterr().out
    listed = printed["commands"].splitlines()
    assert len(listed) == 3 and listed[1].startswith("composer -n 4 ") and "seed=18" in listed[1]

    (workdir / "composer").write_text('#!/bin/sh\nprintf "%s " composer "$@"; echo; exit 3\n')
    (workdir / "composer").chmod(0o755)
    paths = {"PATH": f"{workdir}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", printed["shell"]], capture_output=True, text=True, env=os.environ | paths)
    assert [line.strip() for line in done.stdout.splitlines()] == [line.replace("'", "") for line in listed]
    assert done.returncode == 3

    assert "\n#SBATCH --array=0-2\n" in printed["slurm"] and "\n#SBATCH --account=us\n" in printed["slurm"]
    choice = printed["slurm"].split("case ")[1].split("esac")[0]
    script = f'case {choice}esac; echo "${{words[@]}}"'
    chosen = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={"SLURM_ARRAY_TASK_ID": "1"})
    assert chosen.stdout.strip() == " ".join(listed[1].split()[3:]).replace("'", "")
    assert subprocess.run(["bash", "-n"], input=printed["slurm"], text=True).returncode == 0

    with pytest.raises(ConfigError, match="processes: 2 given, but a job of this shape has 4"):
        main([sweep_yaml(workdir, processes=2, slurm={"preset": "4xA100"}), "--emit", "slurm"])
    with pytest.raises(ConfigError, match="preset: unknown value 4xA10; did you mean 4xA100"):
        main([sweep_yaml(workdir, slurm={"preset": "4xA10"}), "--emit", "slurm"])


def test_shipped_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe of the digits' sweep exists and runs in a single process."""
    monkeypatch.chdir(ROOT)
    assert len({run.recipe for run in read("yamls/sweeps/digits.yaml", []).runs}) == 9
    assert len(read("yamls/sweeps/imagenet.yaml", [], elsewhere=True).runs) == 48
