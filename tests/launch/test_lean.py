"""The lean environment: its list is complete, and nothing else is imported by a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from launch.lean import mcli
from tests.image_files import make_shards
from tests.runs import ROOT, bare_shell, metrics, small_yaml
from tests.s3 import s3_client, upload
from tests.test_docker import canonical, pinned

LEAN = ROOT / "launch" / "lean"
UNUSED = {"azure-identity", "azure-storage-blob", "azure-storage-file-datalake", "google-cloud-storage", "oci"}
UNUSED |= {"mosaicml-cli", "paramiko", "torch-optimizer"}
UNRESOLVED = {"mosaicml", "mosaicml-streaming"}  # installed without their requirements

WITHOUT = """
import importlib.machinery, importlib.metadata, re, runpy, sys
absent, kept = (set(word.split(",")) for word in sys.argv[1:3])
finder, packages = importlib.machinery.PathFinder, importlib.metadata.Distribution
find, read = finder.find_spec, packages.from_name

def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in absent else find(name, path, target)

def from_name(cls, name):
    if re.sub(r"[-_.]+", "-", name).lower() not in kept:
        raise importlib.metadata.PackageNotFoundError(name)
    return read(name)

finder.find_spec, packages.from_name = classmethod(find_spec), classmethod(from_name)
sys.argv[:3] = ["main.py"]
runpy.run_path("main.py", run_name="__main__")
"""
"""Runs main.py as if packages were not installed. Arguments: modules that are absent, packages that are installed."""


def listed(file: Path) -> set[str]:
    """Return the names in a list of requirements."""
    lines = [line.partition("#")[0].partition("==")[0].strip() for line in file.read_text().splitlines()]
    return {canonical(line) for line in lines if line}


def required(name: str) -> set[str]:
    """Return the packages that an installed one requires here."""
    found = [Requirement(line) for line in requires(name) or ()]
    return {canonical(one.name) for one in found if not one.marker or one.marker.evaluate({"extra": ""})}


def closure(names: Iterable[str]) -> set[str]:
    """Return the packages, and all that they require."""
    found: set[str] = set()
    left = set(names)
    while left:
        found.add(name := left.pop())
        left |= required(name) - found
    return found


def test_the_list_is_complete() -> None:
    """It is what a run, Composer and Streaming require, less what is not used, and both locks have it."""
    needed = listed(ROOT / "requirements.txt").union(*map(required, UNRESOLVED))
    assert needed >= UNUSED and listed(LEAN / "requirements.txt") == needed - UNUSED - UNRESOLVED
    assert needed < pinned().keys() and needed < pinned("constraints-next.txt").keys()


def test_the_stand_in_says_what_it_is() -> None:
    with pytest.raises(AttributeError, match=r"^mcli.update_run_metadata: the lean environment has no mosaicml-cli"):
        mcli.update_run_metadata  # noqa: B018


@pytest.mark.slow
def test_a_run_imports_nothing_else(s3_server: str, tmp_path: Path, image_folder: Path) -> None:
    """A recipe with most algorithms, shards and checkpoints in S3."""
    kept = closure(listed(LEAN / "requirements.txt")) | UNRESOLVED
    absent = {top for top, names in packages_distributions().items() if not kept & {*map(canonical, names)}}
    assert {"azure", "google", "mlflow", "oci", "pandas"} < absent and not {"boto3", "torch", "transformers"} & absent
    upload(make_shards(image_folder, tmp_path / "mds"), "images", "set")
    s3_client().create_bucket(Bucket="runs")
    data = [
        f"{name}.{word}"
        for name in ("train_dataset", "eval_dataset")
        for word in ("is_streaming=true", "path=s3://images/set", f"local={tmp_path / 'cache'}")
    ]
    words = [str(small_yaml(tmp_path, image_folder)), "recipe_name=hot", "max_duration=1ep", *data]
    words += ["algorithms.ema.update_interval=2ba", "algorithms.sam.interval=2"]
    words += ["run_name=lean", f"runs_folder={tmp_path / 'runs'}", "save_folder=s3://runs/lean"]
    command = [sys.executable, "-c", WITHOUT, ",".join(absent - {"mcli"}), ",".join(kept), *words]
    done = subprocess.run(
        command, cwd=ROOT, env=bare_shell(PYTHONPATH=f"{LEAN}:{ROOT}"), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(metrics(tmp_path / "runs/lean")) == 1
    assert any(one["Key"].endswith(".pt") for one in s3_client().list_objects_v2(Bucket="runs")["Contents"])
