"""The project's metadata is consistent: extras, pins and version."""

from __future__ import annotations

import re
import tomllib

from tests.runs import ROOT
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


def test_the_newest_change_is_the_version() -> None:
    newest = re.search(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest[1] == PROJECT["version"]
