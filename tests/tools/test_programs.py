"""`python -m tools` and `python -m benchmarks` list the programs, and each program's usage names its command."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from common.programs import programs, run
from tests.runs import ROOT

TOOLS = ROOT / "tools"


@pytest.mark.parametrize("package", ["tools", "benchmarks"])
def test_every_program_has_one_line_of_80_columns(package: str, capsys: pytest.CaptureFixture) -> None:
    assert run(ROOT / package, []) == 0
    first, empty, *lines = capsys.readouterr().out.splitlines()
    assert first == f"python -m {package}.NAME --help explains each of these:" and empty == ""
    assert [line.split(maxsplit=1) for line in lines] == [list(each) for each in programs(ROOT / package).items()]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr-find"], "lr-find: no such program; did you mean lr_find? Type: python -m tools\n"),
        (["xyz"], "xyz: no such program. Type: python -m tools\n"),
        (["report", "runs/"], "report: join a program's name with a dot. Type: python -m tools.report runs/\n"),
    ],
)
def test_a_name_as_a_word(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert run(TOOLS, words) == 2
    assert capsys.readouterr().err == said


def test_the_sentence(tmp_path: Path) -> None:
    """The first sentence of the docstring, even over two lines; modules that are only imported are not listed."""
    (tmp_path / "one.py").write_text('"""Do this\nand that. Not this."""\nif __name__ == "__main__":\n    1\n')
    (tmp_path / "two").mkdir()
    (tmp_path / "two/__main__.py").write_text('"""Or this.\n\nNot this."""\nif __name__ == "__main__":\n    1\n')
    (tmp_path / "two/part.py").write_text('"""Not this."""\n')
    (tmp_path / "__main__.py").write_text('"""Not this."""\nif __name__ == "__main__":\n    1\n')
    assert programs(tmp_path) == {"one": "Do this and that", "two": "Or this"}


@pytest.mark.parametrize("name", programs(TOOLS))
def test_usage_shows_the_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The command, instead of the file name that argparse uses by default."""
    monkeypatch.setattr(sys, "argv", [str(TOOLS / name / "__main__.py"), "--help"])
    monkeypatch.delitem(sys.modules, f"tools.{name}.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"tools.{name}", run_name="__main__")
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: python -m tools.{name} [-h]")
