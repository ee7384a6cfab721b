"""Measured speeds: the schema, its errors, the files in results/measured/, and their place in the report."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from tests.tools.left_runs import leave_run
from tools.records import measured
from tools.report.__main__ import run as report

RUN: dict[str, Any] = {
    "recipe": "mild",
    "model": "resnet50",
    "data": "random images",
    "image_sizes": [88, 176],
    "batch_size": 2048,
    "precision": "amp_bf16",
    "compile": True,
    "images_per_second": 6064.4,
    "by_hand": 8229,
    "mfu": 0.096,
    "seconds": 12.5,
    "top1": None,
}
CONTENT: dict[str, Any] = {
    "version": 1,
    "hardware": {"gpu": "NVIDIA T9", "count": 1, "driver": "1.2", "torch": "2.7.0", "cuda": "12.6"},
    "commit": "c0ffee0",
    "date": "2026-11-27",
    "command": "python -m benchmarks.gpu_proof",
    "runs": [RUN],
    "stages": [{"name": "ops", "status": "PASS", "seconds": 3, "said": "bit-identical"}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the content with one value replaced."""
    content = copy.deepcopy(CONTENT)
    *outer, last = path.split(".")
    node: Any = content
    for key in outer:
        node = node[int(key) if key.isdigit() else key]
    node[last] = value
    return content


def test_the_files_of_the_repository() -> None:
    measured.read_all()


def test_a_valid_file(tmp_path: Path) -> None:
    (tmp_path / "t9.json").write_text(json.dumps(CONTENT))
    [content] = measured.read_all(tmp_path)
    assert content == CONTENT
    assert measured.read_all(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("version", 2, "version: 2 given; this checkout knows version 1"),
        ("version", True, "version: 'True' given; it must be 1"),
        ("hardware", [], "hardware: '[]' given; it must be an object"),
        ("hardware.count", 0, "hardware.count: '0' given; it must be a whole number of at least 1"),
        ("hardware.driver", None, "hardware.driver: 'None' given; it must be text"),
        ("commit", "c0ffee0+", "commit: 'c0ffee0+' given; it must be 7 to 40 hexadecimal digits, of a commit without"),
        ("date", "27.11.2026", "date: '27.11.2026' given; it must be a date such as 2026-11-27"),
        ("runs", {}, "runs: '{}' given; it must be a list of objects"),
        ("runs", [3], "runs[0]: is not an object"),
        ("runs.0.recipe", "mildd", "runs[0].recipe: 'mildd' given; it must be adam, baseline"),
        ("runs.0.precision", ["fp32"], "runs[0].precision: \"['fp32']\" given; it must be fp32, amp_bf16 or amp_fp16"),
        ("runs.0.image_sizes", 176, "runs[0].image_sizes: '176' given; it must be a list of whole numbers"),
        ("runs.0.image_sizes", [], "runs[0].image_sizes: '[]' given"),
        ("runs.0.images_per_second", 0, "runs[0].images_per_second: '0' given; it must be a number above 0"),
        ("runs.0.mfu", 9.6, "runs[0].mfu: '9.6' given; it must be a number from 0 to 1, or null"),
        ("runs.0.top1", float("nan"), "runs[0].top1: 'nan' given; it must be a number from 0 to 100, or null"),
        ("runs.0.compile", 1, "runs[0].compile: '1' given; it must be true or false"),
        ("runs.0.mfuu", 0.1, "runs[0].mfuu: no such field; did you mean mfu?"),
        ("stages.0.status", "OK", "stages[0].status: 'OK' given; it must be PASS, FAIL or SKIP"),
    ],
)
def test_each_mistake_is_named(path: str, value: Any, problem: str) -> None:
    [found] = measured.problems(changed(path, value))
    assert problem in found


def test_missing_fields() -> None:
    """Each field of each object is required."""
    for path, fields in (("", measured.FILE), ("hardware", measured.HARDWARE), ("runs", measured.RUN)):
        for name in fields:
            content = copy.deepcopy(CONTENT)
            node = content[path] if path else content
            del (node[0] if path == "runs" else node)[name]
            [found] = measured.problems(content)
            assert f"{name}: is missing; it must be" in found
    assert measured.problems(CONTENT | {"runs": [], "stages": []}) != []


@pytest.mark.parametrize("text", ["", "[1]", '{"version":', '{"a":' * 9999])
def test_damaged_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "t9.json").write_text(text)
    with pytest.raises(DataError, match=r"t9.json: is not a file of measurements .*docs/evidence.md describes one"):
        measured.read_measured(tmp_path / "t9.json")


def test_every_problem_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "t9.json").write_text(json.dumps(changed("date", 3) | {"commit": None}))
    with pytest.raises(DataError) as raised:
        measured.read_measured(tmp_path / "t9.json")
    assert [line.split(": ")[:2] for line in str(raised.value).splitlines()] == [
        [str(tmp_path / "t9.json"), "commit"],
        [str(tmp_path / "t9.json"), "date"],
    ]


def test_markdown() -> None:
    line, empty, head, _, row = measured.markdown(CONTENT).splitlines()
    assert line.startswith(
        "Measured: 1x NVIDIA T9, driver 1.2, torch 2.7.0, CUDA 12.6, 2026-11-27, commit c0ffee0; `py"
    )
    assert empty == "" and head.count("|") == row.count("|") == len(measured.HEAD) + 1
    assert row == "| mild | resnet50 | 88 to 176 | 2,048 | amp_bf16 | yes | 6,064 | 8,229 | 9.6% |  | random images |"


@pytest.mark.slow
def test_the_report_lists_them(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the published figures, in both forms; without any, there is no such heading."""
    leave_run(workdir / "runs/a", "max_duration=2ep")
    assert report(["runs", "-o", "page.md"]) == 0
    assert "Speeds measured on GPUs" not in Path("page.md").read_text()
    monkeypatch.setattr(measured.read_all, "__defaults__", (workdir / "measured",))
    (workdir / "measured").mkdir()
    (workdir / "measured/t9.json").write_text(json.dumps(CONTENT))
    assert report(["runs", "-o", "page.md", "-o", "page.html"]) == 0
    below = Path("page.md").read_text().partition("## Published figures")[2].partition("## Speeds measured on GPUs")[2]
    assert "| mild | resnet50 | 88 to 176 | 2,048 |" in below and "1x NVIDIA T9, driver 1.2" in below
    html = Path("page.html").read_text()
    assert "Speeds measured on GPUs" in html and ">6,064</td>" in html
    (workdir / "measured/t9.json").write_text("{")
    assert report(["runs", "-o", "page.md"]) == 1
