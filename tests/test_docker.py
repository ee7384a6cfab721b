"""The Dockerfile without Docker: the files that it copies exist, and its pip line resolves."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"
INDEX_SECONDS = 550  # pip reads the metadata of about 200 packages; old versions download them whole

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage as (name, rest), with continuations joined and comments removed."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


def all_of(stage: list[Instruction], name: str) -> list[str]:
    """Return the arguments of each of a stage's instructions with this name."""
    return [rest for instruction, rest in stage if instruction == name]


def pip_words(stage: list[Instruction]) -> list[str]:
    """Return the words of the one RUN command that installs packages, without the path of pip."""
    parts = [shlex.split(part) for run in all_of(stage, "RUN") for part in run.split("&&")]
    (words,) = [part[1:] for part in parts if part[0].endswith("/pip")]
    return words


def pinned(lock: str = "constraints.txt") -> dict[str, str]:
    """Return the packages of a lock file: name -> version."""
    lines = [line.split("#")[0].strip() for line in (ROOT / lock).read_text().splitlines()]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def canonical(name: str) -> str:
    """Return a package's normalized name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_copied_files_exist() -> None:
    """In the checkout, or built by the first stage for the same Python."""
    first, last = stages()
    assert all_of(first, "FROM")[0].split()[0] == all_of(last, "FROM")[0]
    for stage in (first, last):
        for words in map(shlex.split, all_of(stage, "COPY")):
            files = [word for word in words[:-1] if not word.startswith("--")]
            if "--from=build" in words:
                made = " ".join(all_of(first, "RUN")).split()
                assert {file.removeprefix("/app/") for file in files} <= set(made), words
            else:
                assert all((ROOT / file).exists() for file in files), words


def test_the_decoders_files_are_copied() -> None:
    """All that loaders/images/native/decode.c includes, into the stage that compiles it."""
    copied = " ".join(all_of(stages()[0], "COPY")).split()
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("loaders/images/native/*.[ch]")} <= set(copied)


@pytest.mark.slow
def test_starts_the_readmes_command(tmp_path: Path) -> None:
    """`docker run` runs `make train`, and make treats the image's environment as up to date."""
    assert all_of(stages()[-1], "CMD") == ['["make", "train"]']
    for name in ("Makefile", "requirements.txt", "constraints.txt", "launch", "loaders"):
        (tmp_path / name).symlink_to(ROOT / name)
    for folder in ("bin", "lib/python3.11/site-packages"):
        (tmp_path / ".venv" / folder).mkdir(parents=True)
    (finish,) = re.findall(r"touch .venv/.run && make [^&]*", " ".join(all_of(stages()[-1], "RUN")))
    done = subprocess.run(
        ["sh", "-ec", f"{finish}\nmake -n --no-print-directory train"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1].split() == [".venv/bin/composer", "main.py", "yamls/digits.yaml"], done.stderr
    assert "pip" not in done.stdout


@pytest.mark.parametrize("path", [".venv", ".venv-*", ".git", "runs", "data"])
def test_excluded_from_the_build_context(path: str) -> None:
    """Large and private files are not sent to the builder."""
    lines = [line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().split()]
    assert path in lines
    assert not [line for line in lines if line.startswith("!")]


@pytest.mark.network
def test_pip_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The RUN line's pip command, in a clean environment, resolves to exactly the pins of constraints.txt.

    Differences from the image: the environment's path, --dry-run, and fast-deps, which reads a wheel's metadata without
    downloading it. Only the files that the Dockerfile copies are present.
    """
    for name in shlex.split(all_of(stages()[0], "COPY")[0])[:-1]:
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / ".venv")], check=True)
    words = [word for word in pip_words(stages()[0]) if word != "--no-cache-dir"]
    assert words[0] == "install"
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / ".venv/bin/python"), "--disable-pip-version-check"]
    command = [*pip, "install", "--dry-run", "--use-feature=fast-deps", *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=INDEX_SECONDS)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"ERROR|Retrying|onnection", line)]
    assert done.returncode == 0, "\n".join(
        [
            "pip cannot resolve the Dockerfile's environment: no index in reach, or a package is gone from it.",
            *errors[-8:],
        ]
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Would install ")]
    found = line.split()[2:]
    assert {"torch-2.7.0", "mosaicml-0.32.1", "wandb-0.18.7"} <= set(found)
    versions = {canonical(name): version for name, _, version in (word.rpartition("-") for word in found)}
    loose = {name: version for name, version in versions.items() if pinned().get(name) != version}
    assert not loose, f"not pinned in constraints.txt: {loose}"
