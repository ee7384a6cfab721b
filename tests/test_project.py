"""The project's metadata is consistent: extras, pins and version."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.pages import README, ROOT
from tests.test_docker import canonical, pinned

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_extra_is_pinned() -> None:
    for extra, names in PROJECT["optional-dependencies"].items():
        assert {canonical(name) for name in names} <= set(pinned()), extra


def test_requirements_are_as_pinned() -> None:
    for file in ("requirements.txt", "tests/requirements.txt"):
        lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
        for name, _, version in (line.partition("==") for line in lines if line):
            if name != "pip":  # not part of the runtime environment
                assert pinned()[canonical(name.partition("[")[0])] == version, name


def test_the_two_locks_differ_in_torch_and_cuda_alone() -> None:
    pins, newer = pinned(), pinned("constraints-next.txt")
    differing = {name for name in pins.keys() | newer.keys() if pins.get(name) != newer.get(name)}
    cuda = {name for name in differing if name.startswith(("nvidia-", "cuda-"))}
    assert all(re.search("-cu12$|-cuda120$", name) for name in cuda & pins.keys())
    assert not [name for name in cuda & newer.keys() if re.search("-cu12$|-cuda120$", name)]
    assert {"torch", "torchvision", "triton"} <= pins.keys() & newer.keys() & differing
    # A new environment of Python 3.12 has no setuptools, which torch needs, and Python 3.13 no audioop; three are for
    # benchmarks alone, and one of those is compiled.
    of_python = {"setuptools", "audioop-lts", "pyyaml-ft"}
    assert differing - cuda == {"torch", "torchvision", "triton", "ffcv", "numba", "spdl"} | of_python


def test_the_newer_lock_is_complete() -> None:
    """It is installed without resolving: only Composer's bounds on torch are exceeded. Reads what is installed here."""
    pins, unmet = pinned("constraints-next.txt"), set()
    for package in distributions():
        if pins.get(canonical(package.name)) != package.version:
            continue  # the other lock's, or not locked
        for line in package.requires or ():
            needed = Requirement(line)
            version = pins.get(canonical(needed.name), "")
            pythons = [{"extra": "", "python_version": python} for python in ("3.12", "3.13")]
            applies = not needed.marker or any(map(needed.marker.evaluate, pythons))
            if applies and not (version and needed.specifier.contains(version, prereleases=True)):
                unmet.add(f"{package.name} {needed.name}")
    assert unmet == {"mosaicml torch", "mosaicml torchvision"}


def test_the_declared_pythons_agree() -> None:
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    declared = SpecifierSet(PROJECT["requires-python"])
    assert named == {f"3.{minor}" for minor in range(20) if f"3.{minor}.5" in declared}
    assert named == set(re.findall(r"3\.1\d(?!\.)", re.search("^You need .*?\n\n", README.read_text(), re.M | re.S)[0]))  # type: ignore[index]


def test_the_newest_change_is_the_version() -> None:
    newest = re.search(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest[1] == PROJECT["version"]
