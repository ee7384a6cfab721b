"""Draw the README's picture of a run, from its record.

python -m benchmarks.picture runs/NAME
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from omegaconf import OmegaConf
from rich.console import Console
from rich.terminal_theme import MONOKAI

from common import command
from config.schema import Model
from training.progress import ProgressLine, print_summary

TARGET = Path(__file__).parent.parent / "docs/images/digits.svg"
MAKE_TRAIN = "composer main.py yamls/digits.yaml"


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv as the recorder holds them."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"]), "image_size": int(row["image_size"])} for row in rows]


def draw(run: Path) -> Console:
    """Return a console on which the run has been printed by the training code."""
    rows = rows_of(run)
    summary = json.loads((run / "summary.json").read_text())
    model = Model(**OmegaConf.load(run / "config.yaml").model)
    recorder = SimpleNamespace(
        folder=SimpleNamespace(rows=[], run=SimpleNamespace(config=SimpleNamespace(model=model)))
    )
    line = ProgressLine(cast(Any, recorder), bar=False)
    line.console = Console(record=True, width=116, file=io.StringIO(), force_terminal=True)
    length = SimpleNamespace(unit=SimpleNamespace(value="ep"), value=summary["epoch"])
    batch, none = SimpleNamespace(value=1), SimpleNamespace(value=0)
    state = SimpleNamespace(timestamp=SimpleNamespace(batch=batch, batch_in_epoch=none), max_duration=length)
    typed = "make train" if summary["command"] == MAKE_TRAIN else summary["command"]
    line.console.print(f"$ {typed}", style="bold", highlight=False)
    for row in rows:
        recorder.folder.rows = [row]
        state.timestamp.epoch = SimpleNamespace(value=row["epoch"])
        line.eval_end(cast(Any, state), cast(Any, None))
    print_summary(line.console, summary, model, f"{run.parent.name}/{run.name}")
    return line.console


def main(argv: Sequence[str]) -> int:
    """Draw a run; return 0."""
    parser = command.parser("benchmarks.picture", __doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, metavar="FILE", help="docs/images/digits.svg")
    given = parser.parse_args(argv)
    drawing = draw(given.run).export_svg(title="ResNet Recipes", theme=MONOKAI, unique_id="digits")
    # rich's SVGs load a font from a CDN; a page should not depend on other sites.
    given.output.write_text(re.sub(r"@font-face {.*?}\s*", "", drawing, flags=re.DOTALL))
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
