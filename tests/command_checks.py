"""Checks of the commands in the README and docs/, by program: KINDS."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from config import Machine, check_world, load
from tests.container import VOLUMES
from tests.pages import PAGES, ROOT, blocks


def leave_record(folder: Path, words: list[str]) -> None:
    """Write the record that a run writes when it starts."""
    from training.record import RunFolder

    run = load([*words, "dry_run=true"])
    run.config.dry_run, run.prepared = False, Machine("cpu", "fp32", run.config.train_dataset.batch_size)
    RunFolder(folder, run).write_start()


def check_run(words: list[str], world_size: int = 1, per_node: int | None = None) -> None:
    """Check a run's YAML and its key=value words; folders of images need not exist.

    With `per_node`, the number of processes per node, check the topology as well.
    """
    run = load([*words, "dry_run=true"])
    check_world(run.config, world_size, per_node)
    for section in (run.config.train_dataset, run.config.eval_dataset):
        assert section.is_streaming == (section.path or "").startswith("s3://")


def check_script(script: str, words: list[str], world_size: int, per_node: int) -> None:
    """Check that a launcher starts main.py with valid words."""
    assert script == "main.py"
    check_run(words, world_size, per_node)


def by_composer(words: list[str], desk: SimpleNamespace) -> None:
    """`composer [-n N ...] main.py YAML ...`, parsed by Composer's own parser."""
    from composer.cli import launcher

    desk.monkeypatch.setattr(sys, "argv", words)
    desk.monkeypatch.setenv("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    given = launcher._parse_args()
    check_script(given.training_script, given.training_script_args, given.world_size, given.nproc)


def by_torchrun(words: list[str], desk: SimpleNamespace) -> None:
    """`torchrun --nproc_per_node N ... main.py YAML ...`, parsed by torch's own parser."""
    from torch.distributed.run import parse_args

    given = parse_args(words[1:])
    nodes, per_node = int(given.nnodes.split(":")[-1]), int(given.nproc_per_node)
    check_script(given.training_script, given.training_script_args, per_node * nodes, per_node)


def by_python(words: list[str], desk: SimpleNamespace) -> None:
    """`python main.py`, `python data.py` and `python -m MODULE`."""
    module = words[2] if words[1] == "-m" else None
    if words[1] == "main.py":
        check_run(words[2:])
    elif f"# {words[1]}" in {text.split("\n")[0] for page in PAGES for text in blocks(page, "python")}:
        assert len(words) == 2  # a script of the page's: tests/test_own_images.py runs it
    elif words[1] == "data.py":
        check_data(words[2:], desk)
    elif module in ("recipes", "recipes.__main__"):
        assert importlib.import_module("recipes.__main__").main(words[3:]) == 0
    elif module == "launch.slurm":
        assert importlib.import_module("launch.slurm.__main__").cli(words[3:]) == 0, "the job must be printed"
    elif module is not None and module.startswith(("tools.", "benchmarks.")):
        check_program(module, words[3:], desk)
    else:
        pytest.fail(f"no test for {words}")


def check_data(words: list[str], desk: SimpleNamespace) -> None:
    """`python data.py PATH [LOCAL]`, run on a small data set of the same kind."""
    from data import check_dataloader

    remote = words[0].startswith("s3://")
    assert len(words) == (2 if remote else 1)
    here = [str(desk.shards), str(desk.at / "cache")] if remote else [str(desk.folder)]
    desk.monkeypatch.setattr("loaders.storage.inspection.MEASURED", 0.01)
    desk.monkeypatch.setattr(sys, "argv", ["data.py", *here, "--batch-size=8", "--crop-size=16", "--workers=1"])
    check_dataloader()
    assert (desk.at / "contact_sheet.png").is_file()


def check_program(module: str, words: list[str], desk: SimpleNamespace) -> None:
    """`python -m tools.NAME` or benchmarks.NAME: --help lists the options, and words of a run are valid."""
    main = importlib.import_module(f"{module}.__main__" if module.startswith("tools.") else module).main
    options = [word for word in words if word.startswith("--")]
    printed: list[str] = []
    desk.monkeypatch.setattr("argparse.ArgumentParser._print_message", lambda _self, text, *_: printed.append(text))
    desk.monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        main(["--help"]) if module.startswith("tools.") else main()
    assert ended.value.code == 0 and printed
    assert all(option.split("=")[0] in printed[0] for option in options)
    run = [word for word in words if word.endswith(".yaml") or re.fullmatch(r"[a-z_.]+=\S+", word)]
    if module == "tools.sweep":
        assert main([*words, "--emit", "commands"]) == 0
    elif run:
        check_run(run)
    if module in ON_IMAGES:
        here = [word for word in words if "://" not in word and not word.startswith("/")]
        places = [str(desk.folder), *([str(desk.at / "made")] if module != "tools.verify" else [])]
        assert len(words) - len(here) == len(places), words
        assert main([*places, *here]) == 0

    if module in ON_RUNS:
        leave_finished_runs(desk.at / "runs")
        assert main(words) == 0


def leave_finished_runs(folder: Path) -> None:
    """Write records of two finished runs of mild and one of baseline."""
    from tests.tools.left_runs import leave_run

    for name in ("mild-1", "mild-2", "baseline-1"):
        recipe, seed = name.split("-")
        leave_run(folder / name, f"recipe_name={recipe}", f"seed={seed}", top1=76.0 + int(seed) / 10)


ON_RUNS = ("tools.compare", "tools.report")
"""Programs that are run on the records of a few finished runs."""
ON_IMAGES = ("tools.convert", "tools.preload", "tools.verify")
"""Programs that are run, on a small data set instead of the one in the command."""


def by_make(words: list[str], desk: SimpleNamespace) -> None:
    """`make TARGET [ARGS="..."]`: the target exists, and the arguments of train are valid."""
    given = [word for word in words[1:] if "=" not in word]
    done = subprocess.run(["make", "-n", *given], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    args = [word.removeprefix("ARGS=").split() for word in words[1:] if word.startswith("ARGS=")]
    if given == ["train"]:
        check_run(["yamls/digits.yaml", *(args[0] if args else [])])


def by_pip(words: list[str], desk: SimpleNamespace) -> None:
    """`pip install -c LOCK NAME ...`, or `.[EXTRA]`: each name is pinned, each extra exists."""
    assert words[1:3] == ["install", "-c"] and words[3] in ("constraints.txt", "constraints-next.txt")
    pinned = (ROOT / words[3]).read_text().splitlines()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in words[4:]:
        if name.startswith("."):
            assert name[2:-1] in extras, name
            continue
        assert any(line == name or line.startswith(f"{name}==") for line in pinned), name


def by_apt_get(words: list[str], desk: SimpleNamespace) -> None:
    """`apt-get install PACKAGE`: the package that the Dockerfile installs for the same purpose."""
    assert words[1] == "install" and len(words) == 3
    assert f" {words[2]} " in (ROOT / "Dockerfile").read_text()


def by_curl(words: list[str], desk: SimpleNamespace) -> None:
    """`curl --data-binary @FILE ADDRESS`: tools.serve answers it."""
    from tools.serve.server import ROUTES

    assert "--data-binary" in words and ROUTES[words[-1].removeprefix("http://127.0.0.1:8000")][0] == "POST"


def by_mcli(words: list[str], desk: SimpleNamespace) -> None:
    """`mcli run -f YAML`: its parameters are a valid run, and its command starts main.py."""
    assert words[1:3] == ["run", "-f"]
    job = yaml.safe_load(Path(words[3]).read_text())
    assert "composer main.py /mnt/config/parameters.yaml" in job["command"]
    Path("parameters.yaml").write_text(yaml.safe_dump(job["parameters"]))
    check_run(["parameters.yaml"], job["compute"]["gpus"])


def by_docker(words: list[str], desk: SimpleNamespace) -> None:
    """`docker [buildx] build`, `run`, `stop`: the Dockerfile has the arguments and folders; the command is valid."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    if words[-1] == ".":
        given = [word.partition("=") for word in words if re.match(r"[A-Z]+=", word)]
        assert given and all(f"ARG {name}=" in dockerfile for name, _, _ in given)
        assert all(f" AS python-{value}\n" in dockerfile for name, _, value in given if name == "PYTHON")
        return
    if words[1] == "stop":
        assert words[2] == "-t" and words[3].isdigit()
        return
    assert words[1] == "run"
    (image,) = [number for number, word in enumerate(words) if re.fullmatch(r"resnet-recipes(:\w+)?", word)]
    mounted = [word.split(":")[1] for option, word in pairwise(words[:image]) if option == "-v"]
    assert all(path == "/data" or f" {path.removeprefix('/app/')}" in dockerfile for path in mounted)
    inside = words[image + 1 :]
    if inside:
        KINDS[inside[0]](inside, desk)


def by_mkdir(words: list[str], desk: SimpleNamespace) -> None:
    """`mkdir -p FOLDER ...`: the folders that a container mounts."""
    assert words[1] == "-p" and set(words[2:]) <= set(VOLUMES)


def by_source(words: list[str], desk: SimpleNamespace) -> None:
    """`source .venv/bin/activate`: the path where the Makefile creates the environment."""
    assert words[1:] == [".venv/bin/activate"]
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()


KINDS: dict[str, Callable[[list[str], SimpleNamespace], None]] = {
    "apt-get": by_apt_get,
    "composer": by_composer,
    "curl": by_curl,
    "docker": by_docker,
    "find": lambda words, desk: by_python(words[words.index("|") + 1 :], desk),  # find ... | python ...
    "make": by_make,
    "mcli": by_mcli,
    "mkdir": by_mkdir,
    "pip": by_pip,
    "python": by_python,
    "source": by_source,
    "torchrun": by_torchrun,
}
