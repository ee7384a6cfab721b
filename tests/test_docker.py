"""The Dockerfile without Docker: its lines are replayed as far as they go, its command in a container of namespaces."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.container import USER, VOLUMES, all_of, build, environment, require_namespaces, run_line, stages, start
from tests.runs import ROOT, summary, wait_for

INDEX_SECONDS = 550  # pip reads the metadata of about 200 packages; old versions download them whole
INFINIBAND = {"rdma-core", "libibverbs1", "ibverbs-providers", "librdmacm1"}


def pinned(lock: str = "constraints.txt") -> dict[str, str]:
    """Return the packages of a list of versions: name -> version."""
    lines = [re.split("[#;]", line)[0].strip() for line in (ROOT / lock).read_text().splitlines()]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def canonical(name: str) -> str:
    """Return a package's normalized name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def debian_packages() -> list[str]:
    """Return the packages that the image installs with apt-get."""
    words = shlex.split(run_line("apt-get").split("&&")[1])
    assert words[:2] == ["apt-get", "install"]
    return [word for word in words[2:] if not word.startswith("-")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/app of the image."""
    return build(tmp_path_factory.mktemp("image") / "app")


def test_every_base_has_a_digest() -> None:
    """And the name by which the build argument PYTHON selects it."""
    before, *bases, _ = stages()
    python = dict(word.split("=") for name, word in before if name == "ARG")["PYTHON"]
    for ((_, line),) in bases:
        found = re.fullmatch(r"python:(3\.\d+\.\d+)-slim-bookworm@sha256:[0-9a-f]{64} AS python-\1", line)
        assert found, line
    assert bases[0][0][1].endswith(f" AS python-{python}")
    assert all_of("FROM") == ["${BASE}"] and ("ARG", "BASE=python-${PYTHON}") in before


def test_labels() -> None:
    """Version, source and revision; the version is the project's."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in all_of("ARG")
    (labels,) = all_of("LABEL")
    for name, argument in (("source", "SOURCE"), ("version", "VERSION"), ("revision", "COMMIT")):
        assert f"org.opencontainers.image.{name}=${argument}" in labels.split()


def test_copied_files_exist() -> None:
    for words in map(shlex.split, all_of("COPY")):
        assert all(word == "." or list(ROOT.glob(word)) for word in words[:-1]), words


def test_a_compiler_and_infiniband_are_installed() -> None:
    """compile=true needs g++; without verbs NCCL silently uses TCP."""
    assert {"g++", *INFINIBAND} <= set(debian_packages())


@pytest.mark.parametrize("path", [".venv", ".venv-next", ".git", *VOLUMES])
def test_excluded_from_the_build_context(path: str) -> None:
    """Large and private files are not sent to the builder."""
    patterns = (ROOT / ".dockerignore").read_text().split()
    assert path in patterns or f"{path.removesuffix('-next')}*" in patterns
    assert not [pattern for pattern in patterns if pattern.startswith("!")]


@pytest.mark.slow
def test_any_user_can_read_the_tree(tree: Path) -> None:
    """Whatever the modes in the checkout; and write the three folders, mounted or not."""
    for path in [tree, *tree.rglob("*")]:
        if ".venv" not in path.parts:
            needed = 0o005 if path.is_dir() or path.name == "composer" else 0o004
            assert path.stat().st_mode & needed == needed, path
    assert all((tree / name).stat().st_mode & 0o7777 == 0o1777 for name in VOLUMES)
    assert list((tree / "training/__pycache__").glob("*.pyc")), "each start would compile the modules"


@pytest.mark.slow
def test_starts_the_readmes_command(tree: Path) -> None:
    """`docker run` runs what `make train` runs, and make treats the image's environment as complete."""
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "train"], cwd=tree, capture_output=True, text=True, check=True
    )
    (command,) = all_of("CMD")
    made = f".venv/bin/{' '.join(json.loads(command))}"
    assert [made] == [line.strip() for line in done.stdout.splitlines()], done.stderr
    assert all_of("ENTRYPOINT") == ["[]"]


@pytest.mark.slow
def test_docker_stop(tree: Path, tmp_path: Path) -> None:
    """SIGTERM to process 1, a user without a name, a read-only file system: the digits are saved, the status is 143."""
    require_namespaces()
    process, first = start(tree, tmp_path, *json.loads(all_of("CMD")[0]))
    wait_for(lambda: list(tmp_path.glob("runs/*/environment.json")), process=process)
    os.kill(first, signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 143, out + err
    (run,) = (tmp_path / "runs").iterdir()
    ended = summary(run)
    assert ended["ended"] == "interrupted by SIGTERM"
    assert (run / f"checkpoints/ep{ended['epoch']}-ba{ended['step']}-rank0.pt").stat().st_uid == USER
    assert not re.search(r"Traceback|Read-only|ermission denied|not writable", out + err), out + err


@pytest.mark.slow
def test_caches_are_in_the_volume(tree: Path, tmp_path: Path) -> None:
    """Of torch, matplotlib, and what follows HOME or XDG; nothing looks up the name of a user who has none."""
    require_namespaces()
    script = """
import getpass, os, pathlib, matplotlib
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir
default_cache_dir()
folders = [matplotlib.get_cachedir(), cache_dir(), pathlib.Path.home(), os.environ["HOME"]]
for folder in folders:
    pathlib.Path(folder, "written").touch()
print(*folders, os.getpid(), os.getuid())
"""
    process, _ = start(tree, tmp_path, "python", "-c", script)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and not err, err
    *folders, pid, uid = out.split()
    assert all(folder.startswith("/app/cache") for folder in folders), folders
    assert (pid, int(uid)) == ("1", USER)
    assert environment(COMMIT="")["WANDB_DIR"] == "/app/runs"


@pytest.mark.network
def test_pip_line(tmp_path: Path) -> None:
    """The RUN line in an empty folder resolves to exactly the pins of this Python's stack, without unused clients.

    Differences from the image: --dry-run, and fast-deps, which reads a wheel's metadata without downloading it. Only
    the files that the Dockerfile copies are present.
    """
    stack, lock = ("pinned", "constraints.txt") if sys.version_info < (3, 12) else ("next", "constraints-next.txt")
    (files, (folder, same), _) = map(shlex.split, all_of("COPY"))
    for file in (file for pattern in files[:-1] for file in ROOT.glob(pattern)):
        shutil.copy(file, tmp_path)
    assert folder == same
    shutil.copytree(ROOT / folder, tmp_path / folder)
    line = run_line("LEAN=1")
    assert line.startswith("PIP_NO_CACHE_DIR=1 make ")
    env = {
        **os.environ,
        "PATH": f"{sys.base_prefix}/bin:{os.environ['PATH']}",
        "STACK": stack,
        "TRACKERS": "wandb tensorboard mlflow comet-ml",
        # Not --quiet; and not PIP_DRY_RUN, which would keep pip from installing what builds launch/lean.
        "MAKEFLAGS": "PIP=.venv/bin/pip\\ install\\ --dry-run\\ --use-feature=fast-deps",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    command = ["sh", "-ec", line]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=INDEX_SECONDS)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"ERROR|Retrying|onnection", line)]
    assert done.returncode == 0, "\n".join(
        [
            "pip cannot resolve the Dockerfile's environment: no index in reach, or a package is gone from it.",
            *errors[-8:],
        ]
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("Would install ")]
    found = [word for line in lines for word in line.split()[2:] if not word.startswith("mcli")]
    assert {"mosaicml-0.32.1", "wandb-0.18.7"} <= set(found)
    versions = {canonical(name): version.split("+")[0] for name, _, version in (word.rpartition("-") for word in found)}
    loose = {name: version for name, version in versions.items() if pinned(lock).get(name) != version}
    assert "torch" in versions and not loose, f"not pinned in {lock}: {loose}"
    assert not {"azure-identity", "google-cloud-storage", "mosaicml-cli", "oci"} & versions.keys()


@pytest.mark.network
def test_apt_line(tmp_path: Path) -> None:
    """apt-get would install the packages on a system that has none, of the distribution of the base images."""
    if not shutil.which("apt-get") or "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("the packages are those of Debian bookworm")
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "status").touch()
    folders = {"State::lists": "lists", "State::status": "status", "Cache": "cache"}
    options = [word for name, path in folders.items() for word in ("-o", f"Dir::{name}={tmp_path / path}")]
    subprocess.run(["apt-get", *options, "update"], check=True, capture_output=True, timeout=INDEX_SECONDS)
    install = ["apt-get", *options, "install", "--simulate", "--no-install-recommends", *debian_packages()]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert INFINIBAND <= {line.split()[1] for line in done.stdout.splitlines() if line.startswith("Inst ")}
