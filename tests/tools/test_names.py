"""ImageNet's classes appear with their names: in a run's record, an evaluation, its report, and contact sheets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data import build_imagenet_dataspec
from loaders.storage.inspection import names_to_show, section
from tests.image_files import make_imagefolder
from tests.tools.conftest import WNIDS
from tools.evaluate import figures, files
from tools.evaluate.__main__ import run
from tools.evaluate.figures import Answers, Pass
from tools.records.classes import run_names
from tools.report.evaluation import read_evaluation

CLASSES, NAMES = list(WNIDS), list(WNIDS.values())
SHOWN = ["tench (n01440764)", "tabby (n02123045)", "tiger cat (n02123159)"]
TITLES = "n01440764 Schleie\nn02123045 Katze\nn02123159 Tigerkatze\n"


@pytest.mark.slow
def test_a_run_records_its_classes(named_run: Path) -> None:
    """Also without its checkpoints, which hold them too."""
    assert json.loads((named_run / "classes.json").read_text()) == {"classes": CLASSES, "names": NAMES}


@pytest.mark.slow
def test_an_evaluation_shows_names(named_run: Path, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    assert run([str(named_run), "--no-flip", "-o", "out"]) == 0
    printed = capsys.readouterr().out
    assert any(one in printed for one in SHOWN)
    with Path("out/per_class.csv").open(newline="") as file:
        assert [(row["class"], row["name"]) for row in csv.DictReader(file)] == list(WNIDS.items())
    Path("names.txt").write_text(TITLES)
    assert run([str(named_run), "--no-flip", "-o", "out", "--names", "names.txt"]) == 0
    with Path("out/confusions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and {row["true_name"] for row in rows} <= {"Schleie", "Katze", "Tigerkatze"}
    assert {row["true"] for row in rows} <= set(CLASSES)
    Path("names.txt").write_text("n01440764 Schleie\n")
    assert run([str(named_run), "--names", "names.txt"]) == 1
    assert "names.txt: does not name n02123045, n02123159; write lines" in capsys.readouterr().err


def test_a_runs_own_names(tmp_path: Path) -> None:
    """They come from its training data; those of other classes, or damaged ones, are not used."""
    file = tmp_path / "classes.json"
    assert run_names(tmp_path, CLASSES) == NAMES
    file.write_text(json.dumps({"classes": CLASSES, "names": ["a", "b", "c"]}))
    assert run_names(tmp_path, CLASSES, NAMES) == ["a", "b", "c"]
    assert run_names(tmp_path, ["x", "y"]) == ["x", "y"] and run_names(tmp_path, ["x"], ["X"]) == ["X"]
    for broken in ("{", "[]", json.dumps({"classes": CLASSES, "names": ["a"]}), json.dumps({"classes": CLASSES})):
        file.write_text(broken)
        assert run_names(tmp_path, CLASSES) == NAMES


def result() -> Pass:
    answers = Answers(np.array([1, 1, 2]), np.full(3, 0.5), np.array([True, True, True]), np.full(3, 0.7))
    return Pass(32, np.array([0, 1, 2]), answers, None)


def test_a_report_shows_names(tmp_path: Path) -> None:
    """Those that were written, or ImageNet's for an evaluation that wrote none."""
    (tmp_path / "evaluation").mkdir()
    files.write_tables(
        tmp_path / "evaluation", figures.findings(result(), CLASSES, ["Schleie", *NAMES[1:]]), [result()]
    )
    found = read_evaluation(tmp_path)
    assert found and not found.remarks
    assert found.tables[1][2][0][:2] == ["Schleie (n01440764)", "tabby (n02123045)"]
    assert found.tables[0][2][0][0] == "Schleie (n01440764)"
    (tmp_path / "evaluation/per_class.csv").write_text("class,images,top1,top5\nn01440764,5,80,100\n")
    (tmp_path / "evaluation/confusions.csv").write_text("true,predicted,count,share\nn01440764,n02123045,1,0.2\n")
    found = read_evaluation(tmp_path)
    assert found and found.tables[0][2][0][0] == "tench (n01440764)"


def test_mistakes_show_names(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list = []
    monkeypatch.setattr(files, "draw_sheet", lambda sections, *_: drawn.extend(sections[0].tiles))

    class Images:
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(3, 8, 8, dtype=torch.uint8), 0

        def name_of(self, index: int) -> str:
            return "a.jpg"

    found = figures.findings(result(), CLASSES, NAMES)
    files.draw_mistakes(Images(), [0], "it", found, {"checkpoint": "", "data": "", "size": 8})  # type: ignore[arg-type]
    assert [line for line, _ in drawn[0].lines[:2]] == [f"is {SHOWN[0]}", f"taken for {SHOWN[1]}"]


def test_the_contact_sheet_shows_names(tmp_path: Path) -> None:
    spec = build_imagenet_dataspec(
        make_imagefolder(tmp_path, CLASSES, per_class=1), False, 3, is_train=False, num_workers=0
    )
    batch = torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.arange(3)
    tiles = section("val", 16, batch, names_to_show(spec.dataloader.dataset)).tiles  # type: ignore[union-attr]
    assert [tile.lines[0][0] for tile in tiles] == SHOWN
