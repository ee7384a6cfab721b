"""Output does not depend on the terminal's width, and works in any encoding."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from common.command import run
from common.errors import DataError, named
from common.terminal import console
from common.trees import leaves
from config import load
from config.dry_run import show, yaml_like
from main import cli
from recipes.__main__ import main as list_recipes

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "yamls" / "digits.yaml"


@pytest.mark.parametrize("width", [60, 80, 100, 110])
@pytest.mark.parametrize("recipe", ["baseline", "hot"])
def test_every_value_is_shown_at_any_width(width: int, recipe: str, tmp_path: Path) -> None:
    """Even when the YAML's path is longer than a line."""
    folder = tmp_path / ("a-long-name-of-a-folder-" * 4)
    folder.mkdir()
    (folder / "resnet18-of-digits.yaml").write_text(DIGITS.read_text())
    run = load([str(folder / "resnet18-of-digits.yaml"), f"recipe_name={recipe}", "dry_run=full"])
    out = io.StringIO()
    show(run, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(out.getvalue().split())
    for key, value in leaves(asdict(run.config)):
        if len(value := yaml_like(value)) < 20:
            assert f" {key} {value} " in shown
    assert "".join(str(folder).split()) in "".join(out.getvalue().split()), "the path must be complete"


def in_ascii(program: Callable[[], object]) -> str:
    """Return what a program prints to a stdout that encodes as ASCII."""
    got = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(got, encoding="ascii", write_through=True)):
        program()
        return got.getvalue().decode("ascii")


def test_a_dry_run_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    shown = in_ascii(lambda: cli([str(DIGITS), "recipe_name=mild", "run_name=café", "dry_run=true"]))
    assert "0.064 +         *****************" in shown
    assert "caf\\xe9" in shown
    assert "\\u28" not in shown and "\\u25" not in shown


def test_tables_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "mosaic-resnet-" in in_ascii(lambda: list_recipes(["mild"]))
    from common.command import run

    assert "caf\\xe9 \\xb1" in in_ascii(lambda: run(lambda _: print("café ±") or 0))


@pytest.mark.slow
def test_a_dry_run_in_an_ascii_process() -> None:
    words = [sys.executable, "main.py", str(DIGITS), "recipe_name=hot", "dry_run=true"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, env={"PATH": "", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.isascii() and b"Dry run: nothing was built" in done.stdout


def test_control_characters_of_a_name_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name, shown = "a\x1b]0;b\x07\r\u202e\x9b\x7f", r"a\x1b]0;b\x07\r\u202e\x9b\x7f"
    table = Table(name, title=name)
    table.add_row(name)
    console().print(name, table)
    assert capsys.readouterr().out.count(shown) == 4

    def fail(_words: object) -> int:
        raise DataError(f"{name}\tcafé 犬\n" + named([name, "c\nd"]))

    assert run(fail, []) == 1
    assert capsys.readouterr().err == f"\n{shown}\tcafé 犬\n{shown}, c\\nd\n"
