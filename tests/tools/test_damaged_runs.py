"""Damaged and foreign run folders: each tool that reads them gives remarks or sentences, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.cells import as_cell, from_cell
from tests.tools.left_runs import leave_run
from tools.compare.__main__ import run as compare
from tools.evaluate.__main__ import run as evaluate
from tools.records.cost import Prices
from tools.records.reading import State, read_run
from tools.report.__main__ import run as report
from tools.report.evaluation import read_evaluation

NO_FIGURES = [
    "9" * 400,
    "-" + "9" * 400,
    "1e400",
    "-1e400",
    "1e299",
    "NaN",
    "Infinity",
    "true",
    "null",
    "[]",
    '"x"',
    "{}",
]
BROKEN = {
    "cut short": '{"top1": 76.0, "ended": "fin',
    "empty": "",
    "no keys": "[1, 2]",
    "deep": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "less deep": '{"a": ' + "[" * 200 + "]" * 200 + "}",
    "a number of 5000 digits in a list": "[" + "9" * 5000 + "]",
}


@pytest.fixture
def folder(workdir: Path) -> Path:
    return leave_run(workdir / "runs/one", "max_duration=3ep")


def put(file: Path, key: str, value: str) -> None:
    """Write raw text as the value of a key in a JSON file."""
    tree = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(tree | {key: "@"}).replace('"@"', value))


@pytest.mark.parametrize("value", NO_FIGURES)
def test_invalid_figures(value: str, folder: Path) -> None:
    """The last evaluation is used instead; invalid values enter no calculation, nor a cost."""
    for key in ("top1", "top5", "train_seconds", "total_seconds", "step", "samples_per_second"):
        put(folder / "summary.json", key, value)
    for key in ("world_size", "nodes"):
        put(folder / "environment.json", key, value)
    put(folder / "evaluation/summary.json", "top1", value)
    (folder / "evaluation/reliability.csv").write_text(f'bin_low,bin_high,accuracy\n0,1,"{value}"\n')
    record = read_run(folder)
    assert record.state is State.FINISHED and record.final("top1") == 76.0 and record.total_seconds == 360.0
    assert Prices().of(record).dollars is None and Prices(per_hour=3600.0).of(record).dollars == 360.0
    assert str(record.hardware)
    found = read_evaluation(folder)
    assert found is not None and not found.bars
    assert found.headline == "no summary" and len(found.remarks) == (1 if value == "null" else 2)


@pytest.mark.parametrize("value", ["9" * 400, "1e400", "nan", "inf", "1e299", "0.5", "true", ""])
def test_invalid_cells(value: str, folder: Path) -> None:
    """A row without a whole number as its step is skipped; an invalid figure leaves its cell empty."""
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    step, loss = header.split(",").index("step"), header.split(",").index("val_loss")
    cells = rows[-1].split(",")
    (folder / "metrics.csv").write_text(
        "\n".join([header, *rows[:-1], ",".join([*cells[:step], value, *cells[step + 1 :]])]) + "\n"
    )
    record = read_run(folder)
    assert len(record) == 2 and record.remarks[0].startswith("line 4 of metrics.csv is not a whole row")
    (folder / "metrics.csv").write_text(
        "\n".join([header, *rows[:-1], ",".join([*cells[:loss], value, *cells[loss + 1 :]])]) + "\n"
    )
    assert len(read_run(folder)) == (2 if value == "true" else 3)


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(kind: str, folder: Path) -> None:
    """A damaged summary does not mean that the run is still going or was killed."""
    (folder / "summary.json").write_text(BROKEN[kind])
    record = read_run(folder)
    assert record.state is State.UNFINISHED and record.ended.startswith("summary.json cannot be read (")
    assert "it is damaged, and nothing else says how the run ended, at step 1,875" in record.ended
    (folder / "environment.json").write_text(BROKEN[kind])
    assert "environment.json cannot be read" in " ".join(read_run(folder).remarks)


@pytest.mark.parametrize(
    "seed", ["[" * 100_000 + "]" * 100_000, "[" * 60 + "]" * 60, "9" * 400, "0x" + "f" * 9000, "9" * 5000]
)
def test_broken_configurations(seed: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("\nseed: 17\n", f"\nseed: {seed}\n"))
    record = read_run(folder)
    assert record.state is State.UNREADABLE and record.ended.startswith("config.yaml cannot be read (")
    if "[" in seed:
        assert evaluate([str(folder)]) == 2 and "it is nested too deeply" in capsys.readouterr().err


def test_a_yaml_alias_bomb(folder: Path) -> None:
    config = folder / "config.yaml"
    bomb = "".join(f"k{n}: &k{n} [{','.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 20))
    config.write_text(config.read_text() + "k0: &k0 [x]\n" + bomb)
    assert "it holds too much" in read_run(folder).ended


def test_reports_and_comparisons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (kind, text) in enumerate(BROKEN.items()):
        broken = leave_run(Path(f"runs/broken-{number}"), f"seed={number}", "max_duration=3ep")
        (broken / "summary.json").write_text(text)
        if kind == "deep":
            (broken / "config.yaml").write_text("seed: " + text)
    strange = leave_run(Path("runs/strange"), "seed=99", "max_duration=3ep")
    for key, value in zip(("seed", "commit", "recipe", "device", "world_size"), NO_FIGURES, strict=False):
        put(strange / "environment.json", key, value)
    config = strange / "config.yaml"
    config.write_text(config.read_text().replace("\nseed: 99\n", "\nseed: {a: 1}\n"))
    assert report(["runs", "-o", "page.md"]) == 0
    assert "5 unfinished, 1 unreadable" in capsys.readouterr().out
    assert compare(["one", "strange"]) == 0 and "no interval" in capsys.readouterr().out
    assert compare(["one", "broken-0"]) == 1
    assert "broken-0 is left out: summary.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "\rx", " =1", "'=1", "''", "\uff1d1", "\n=1"]
)
def test_names_that_a_spreadsheet_would_evaluate(name: str) -> None:
    assert as_cell(name) == f"'{name}" and from_cell(as_cell(name)) == name


@pytest.mark.parametrize("name", ["cat", "x=1", "1-2", "", "n01440764", "great white", "a@b"])
def test_ordinary_names_in_a_spreadsheet(name: str) -> None:
    assert as_cell(name) == name == from_cell(name)


def test_tables_of_an_evaluation(folder: Path) -> None:
    """Cells are written with an apostrophe and read without; names that are not UTF-8 survive too."""
    import numpy as np

    from tools.evaluate import figures, files
    from tools.evaluate.figures import Answers, Pass

    answers = Answers(np.array([1, 1]), np.array([0.5, 0.5]), np.array([True, True]), np.array([0.7, 0.7]))
    result, names = Pass(32, np.array([0, 1]), answers, None), ["=HYPERLINK(1)", "caf\udce9"]
    (folder / "evaluation").mkdir()
    files.write_tables(folder / "evaluation", figures.findings(result, names), [result])
    both = b"'=HYPERLINK(1),caf\xe9"
    assert (folder / "evaluation/confusions.csv").read_bytes().splitlines()[1] == both + b"," + both + b",1,1.000000"
    found = read_evaluation(folder)
    assert found is not None and not found.remarks
    assert found.tables[1][2] == [["=HYPERLINK(1)", "caf\udce9", "1", "100.0 %"]]
    assert {row[0] for row in found.tables[0][2]} == set(names)
