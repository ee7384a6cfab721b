"""Every command in the README and docs/ works: it is run, or its arguments are checked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import picture
from tests.command_checks import KINDS, leave_record
from tests.image_files import make_imagefolder, make_shards
from tests.pages import DOCS, PAGES, README, ROOT, blocks, cells, commands

ASSIGNMENT = re.compile(r"^[A-Z][A-Z0-9_]*=")
COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@pytest.fixture(scope="module")
def images_and_shards(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small data set as an ImageFolder and as MDS shards."""
    root = tmp_path_factory.mktemp("imagenet")
    folder = make_imagefolder(root / "folder", per_class=12)
    make_shards(folder, root / "shards")
    return SimpleNamespace(folder=folder, shards=root / "shards")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_and_shards: SimpleNamespace) -> SimpleNamespace:
    """Working folder with yamls/, the YAML files of the docs, and the record of one run."""
    (tmp_path / "yamls").symlink_to(ROOT / "yamls")
    for text in [text for page in PAGES for text in blocks(page, "yaml")]:
        (tmp_path / text.split()[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    leave_record(Path("runs/first"), ["yamls/digits.yaml", "run_name=first", "autoresume=true"])
    return SimpleNamespace(at=tmp_path, monkeypatch=monkeypatch, **vars(images_and_shards))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.replace("'", "")[:60])
def test_command(command: str, desk: SimpleNamespace) -> None:
    """Fails on a command of a new kind: write a check for it."""
    words = shlex.split(command)
    while ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        desk.monkeypatch.setenv(name, value)
    assert words[0] in KINDS, f"no check for {words[0]!r}; add one to KINDS"
    KINDS[words[0]](words, desk)


def test_the_readme_starts_with_make() -> None:
    assert commands(README)[:2] == ["make train", "make test"]
    assert len(COMMANDS) > 20


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({row[2].strip("`") for row in cells("Measured", DOCS / "speed.md")}))
def test_figures_command(command: str, desk: SimpleNamespace) -> None:
    test_command(command, desk)


def test_the_readmes_image(desk: SimpleNamespace) -> None:
    """benchmarks.picture renders the README's image from a run's record."""
    import csv
    import json

    from training.record import COLUMNS

    run = desk.at / "runs/drawn"
    run.mkdir()
    row = dict.fromkeys(COLUMNS, 1.0) | {"epoch": 1, "step": 3, "image_size": 32, "top1": 97.53}
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(row)
    clocks = ("train_seconds", "eval_seconds", "total_seconds", "samples_per_second", "val_loss", "top5", "best_top1")
    summary = dict.fromkeys(clocks, 1.0) | {"run_name": "drawn", "ended": "finished", "epoch": 1, "top1": 97.53}
    (run / "config.yaml").write_text("model: {loss_name: cross_entropy, num_classes: 10}")
    (run / "summary.json").write_text(json.dumps(summary | {"command": "composer main.py yamls/digits.yaml"}))
    assert picture.main([str(run), "-o", str(desk.at / "drawn.svg")]) == 0
    drawn = (desk.at / "drawn.svg").read_text().replace("&#160;", " ")
    assert "$ make train" in drawn and "97.53 %" in drawn and "@font-face" not in drawn
