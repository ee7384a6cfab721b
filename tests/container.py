"""The image without an engine: its tree from the RUN lines, and a container made of Linux namespaces."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from tests.runs import ROOT, started, wait_for

DOCKERFILE = ROOT / "Dockerfile"
USER = 12345
"""User of the container, without a name, a home or anything of its own."""
VOLUMES = ("runs", "data", "cache")
Instruction = tuple[str, str]

# The kernel's part of `docker run --user 12345:12345 --read-only --tmpfs /tmp -v .../runs:/app/runs ...`; process 1 of
# the container becomes the command. Of this machine it sees what the image has from apt, python:slim and pip.
ENTER = f"""
mount -t tmpfs -o mode=755 none "$BOX" && cd "$BOX"
for path in $SEEN; do
    [ ! -e "$path" ] || {{ mkdir -p ".$path" && mount --rbind "$path" ".$path"; }}
done
mkdir app proc tmp && mount -t proc none proc && mount -t tmpfs -o mode=1777 none tmp && mount --bind "$TREE" app
for name in {" ".join(VOLUMES)}; do mount --bind "$HELD/$name" "app/$name"; done
mount -o remount,bind,ro app && mount -o remount,ro "$BOX"
exec chroot --userspec={USER}:{USER} --groups= . env -i --chdir=/app "$@"
"""


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage as (name, rest), without comments; the first list is before any FROM."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found: list[list[Instruction]] = [[]]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


def all_of(name: str, stage: int = -1) -> list[str]:
    """Return the arguments of each instruction with this name, in the stage that becomes the image."""
    return [rest for instruction, rest in stages()[stage] if instruction == name]


def run_line(word: str) -> str:
    """Return the one RUN line that contains a word."""
    (line,) = [line for line in all_of("RUN") if word in line]
    return line


def environment(**arguments: str) -> dict[str, str]:
    """Return what the ENV lines set, given the build arguments."""
    known = {"PATH": "/usr/local/bin:/usr/bin:/bin", **arguments}
    words = [word.partition("=") for line in all_of("ENV") for word in shlex.split(line)]
    return {name: string.Template(value).substitute(known) for name, _, value in words}


def excluded(folder: str, names: list[str]) -> set[str]:
    """Return the names that .dockerignore excludes from a folder of the checkout, for shutil.copytree."""
    patterns = (ROOT / ".dockerignore").read_text().split()
    inside = os.path.relpath(folder, ROOT)
    paths = {name: os.path.normpath(os.path.join(inside, name)) for name in names}
    return {
        name
        for name, path in paths.items()
        for pattern in patterns
        if fnmatch.fnmatch(name if pattern.startswith("**/") else path, pattern.removeprefix("**/"))
    }


def build(tree: Path) -> Path:
    """Make /app of the image: COPY, then the RUN line after it, with this environment's packages instead of pip's."""
    shutil.copytree(ROOT, tree, ignore=excluded)
    for name, mode in (("main.py", 0o600), ("training", 0o700), ("launch/composer", 0o700)):
        (tree / name).chmod(mode)  # as after a checkout with umask 077
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree / ".venv"], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(tree / ".venv")}))
    (packages / "of_the_tests.pth").write_text(f"{Path(sysconfig.get_path('purelib')).resolve()}\n")
    done = subprocess.run(["sh", "-ec", run_line("decode.so")], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def start(tree: Path, folder: Path, *command: str) -> tuple[subprocess.Popen, int]:
    """Run a command in a container, with folder/runs, data and cache as volumes.

    Returns:
        The process that has the command's exit status and output, and the pid, seen from here, of the container's
        process 1, to which an engine sends its signals.
    """
    for name in VOLUMES:
        (folder / name).mkdir()
        os.chown(folder / name, USER, USER)
    (folder / "box").mkdir()
    packages = Path(sysconfig.get_path("purelib")).resolve()
    seen = ["/bin", "/lib", "/lib64", "/usr", "/etc", "/dev", "/sys", sys.base_prefix, str(packages)]
    outside = {"PATH": os.environ["PATH"], "BOX": str(folder / "box"), "TREE": str(tree), "HELD": str(folder)}
    variables = {**environment(COMMIT="c0ffee"), "OMP_NUM_THREADS": "1"}  # the tests share two cores
    words = [f"{name}={value}" for name, value in variables.items()]
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh", *words, *command],
        env={**outside, "SEEN": " ".join(seen)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    (first,) = wait_for(lambda: psutil.Process(process.pid).children(), process=process)
    return process, first.pid


def require_namespaces() -> None:
    """Skip the test, saying why, where no namespaces can be made."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare: a container needs Linux and util-linux")
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a container needs root and namespaces; {done.stderr.strip()}")
