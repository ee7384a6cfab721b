"""Bars and tables in a terminal: each fits its line at any width, and has no colors when none are wanted."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from common.terminal import ByteMeter, ImageMeter, console
from tests.runs import ROOT, small_yaml
from tests.terminal import in_terminal, screen

pytestmark = pytest.mark.slow

WIDTHS = (60, 80, 200)
SETTINGS = {
    "plain": {},
    "no color": {"NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
    "ascii": {"LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
# A run in its 36th epoch, then the bar of tools.verify, in a terminal whose width changes.
PROGRAM = """
import fcntl, struct, termios, time
from types import SimpleNamespace
from composer.core import Time, Timestamp
import training.progress
from common.terminal import Meter, console
from config.schema import Config

class Reading(Meter):
    def figures(self, done): return "7,654 img/s  left 1:23"

training.progress.LOG_SECONDS = -1.0
row = dict(train_loss=2.3456, samples_per_second=12345.6, val_loss=1.2345, top1=76.54, top5=93.21, lr=2.048,
           image_size=224, total_seconds="12345")
summary = dict(run_name="mild-17", ended="finished", top1=76.5, best_top1=77.0, top5=93.0, val_loss=1.2,
               train_seconds=12345.0, eval_seconds=123.0, total_seconds=23456.0, samples_per_second=1234.0,
               command="composer main.py yamls/resnet50.yaml recipe_name=mild train_dataset.path=/data/imagenet")
for width in (60, 80, 200):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    print("===", flush=True)
    run = SimpleNamespace(config=Config())
    recorder = SimpleNamespace(folder=SimpleNamespace(rows=[row], run=run), data_wait=SimpleNamespace(share=0.12))
    line = training.progress.ProgressLine(recorder, bar=True)
    state = SimpleNamespace(max_duration=Time.from_timestring("90ep"), total_loss_dict={"loss/train/total": 2.345},
                            train_dataloader=[0] * 625)
    line.fit_start(state, None)
    for step in range(3):
        time.sleep(0.12)
        state.timestamp = Timestamp(epoch=35, batch=22000 + step, sample=99_999 * step, batch_in_epoch=200 + step)
        line.batch_end(state, None)
    line.eval_end(state, None)
    line.close(state, None)
    training.progress.print_summary(line.console, summary, run.config.model, "runs/mild-17")
    with Reading(console(), "train", 1281167) as reading:
        reading(100_000)
        time.sleep(0.12)
"""


@pytest.fixture(scope="module", params=SETTINGS)
def shown(request: pytest.FixtureRequest) -> tuple[str, dict[int, str]]:
    """A setting, and the output at each width."""
    words = [sys.executable, "-c", PROGRAM]
    status, written = in_terminal(words, 60, ROOT, PYTHONPATH=str(ROOT), **SETTINGS[request.param])
    assert status == 0, written
    return request.param, dict(zip(WIDTHS, written.split("===\r\n")[1:], strict=True))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bar_of_a_run(width: int, shown: tuple[str, dict[int, str]]) -> None:
    """A single line remains, with the time left; a dumb terminal gets one line per interval instead."""
    setting, written = shown
    bars = [line for line in screen(written[width], width) if line.startswith("epoch 36/90")]
    figures = ["loss 2.345  top-1 76.54 %", "img/s", "waiting 12 %"]
    if setting == "dumb":
        assert [bar.startswith("epoch 36/90 39% loss 2.345  top-1 76.54 %  ") for bar in bars] == [True] * 3
        return
    (bar,) = bars
    assert [figure in bar for figure in figures] == {60: [1, 0, 0], 80: [1, 1, 0], 200: [1, 1, 1]}[width]
    assert " 39% " in bar and re.search(r" left +[-\d]+:[-\d]+:[-\d]+$", bar)
    drawn = {"ascii": "-" * 20}.get(setting, "━" * 20)
    assert (drawn in bar) == (width == 200)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_summary_and_the_bar_of_reading(width: int, shown: tuple[str, dict[int, str]]) -> None:
    """The summary table is complete, one line per row; the bar of reading images is erased at its end."""
    setting, written = shown
    lines = screen(written[width], width)
    (title,) = [row for row, line in enumerate(lines) if line == "mild-17: finished"]
    (repeat,) = [row for row, line in enumerate(lines) if line.startswith("repeat it with: ")]
    table = lines[title + 1 : repeat]
    assert {len(line) for line in table if line} == {len(table[0])}, "a line was wrapped"
    cells = [cell.strip() for line in table for cell in re.split("[│|]", line)]
    assert "77.00 %)" in " ".join(cells) and "runs/mild-17" in cells
    assert "".join(lines[repeat:]).endswith("recipe_name=mild train_dataset.path=/data/imagenet"), "the command was cut"
    assert not [line for line in lines if line.startswith("train ")]
    colors = re.search(r"\x1b\[(\d+;)*(3|4|9|10)\d[;m]", written[width])
    assert bool(colors) == (setting in ("plain", "ascii"))
    assert "\x1b" not in written[width] or setting != "dumb"
    assert written[width].isascii() or setting != "ascii"


def test_a_run(tmp_path: Path, image_folder: Path) -> None:
    """Each evaluation has a line above the bar, which ends at 100 %; the summary table follows."""
    words = [
        sys.executable,
        str(ROOT / "main.py"),
        str(small_yaml(tmp_path, image_folder, loggers={"progress_bar": {}})),
    ]
    status, written = in_terminal(words, 80, tmp_path)
    lines = [line for line in screen(written, 80) if line]
    assert status == 0, written
    evaluations = [row for row, line in enumerate(lines) if re.match(r"epoch   [12]/2  loss ", line)]
    (bar,) = [row for row, line in enumerate(lines) if re.match("epoch [12]/2 ", line)]
    (table,) = [row for row, line in enumerate(lines) if re.fullmatch(r"\S+: finished", line)]
    assert len(evaluations) == 2 and max(evaluations) < bar < table
    assert " 100% loss " in lines[bar]


@pytest.mark.parametrize(("size", "speed"), [(0, ""), (50_000_000, r"  [\d,.]+ [MG]B/s")])
def test_a_meter_of_images_shows_bytes_where_they_are_known(size: int, speed: str) -> None:
    meter, weighed = ImageMeter(console(), "train", 100, size=size), ImageMeter(console(), "train", 100)
    meter(10)
    weighed(10)
    if size:
        weighed.weigh(10, size // 10)
    assert re.fullmatch(rf"[\d,]+ img/s  left \d+:\d+{speed}", weighed.figures(10))
    assert re.fullmatch(rf"[\d,]+ img/s  left \d+:\d+{speed}", meter.figures(10))


def test_a_meter_of_bytes_shows_the_files() -> None:
    meter = ByteMeter(console(), "copying", 2_000_000)
    meter.began -= 2.0
    meter(1_000_000)
    assert re.fullmatch(r"1\.0 MB of 2\.0 MB, [\d,.]+ [kMG]B/s, \d+:\d+ left", meter.figures(1_000_000))
    meter.files = 100
    assert re.search(r"/s, (49|50) files/s, \d+:\d+ left", meter.figures(1_000_000))
