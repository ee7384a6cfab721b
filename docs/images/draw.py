"""Draw docs/images/digits.svg, the terminal output of a finished run, from the run's record.

python docs/images/draw.py runs/NAME [docs/images/digits.svg]
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from omegaconf import OmegaConf
from rich.console import Console
from rich.terminal_theme import MONOKAI

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
MAKE_TRAIN = "composer main.py yamls/digits.yaml"


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv as the recorder holds them."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"]), "image_size": int(row["image_size"])} for row in rows]


def draw(run: Path) -> Console:
    """Return a console on which the run has been printed by the training code."""
    from training.progress import ProgressLine, print_summary

    rows = rows_of(run)
    summary = json.loads((run / "summary.json").read_text())
    config = OmegaConf.load(run / "config.yaml")
    recorder = SimpleNamespace(folder=SimpleNamespace(rows=[], run=SimpleNamespace(config=config)))
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
    print_summary(line.console, summary, config.model, f"{run.parent.name}/{run.name}")
    return line.console


def main(words: list[str]) -> int:
    """Draw a run; return the exit status."""
    if len(words) not in (1, 2) or not (Path(words[0]) / "summary.json").is_file():
        print(__doc__, file=sys.stderr)
        return 2
    target = Path(words[1]) if len(words) == 2 else Path(__file__).with_name("digits.svg")
    drawing = draw(Path(words[0])).export_svg(title="ResNet Recipes", theme=MONOKAI, unique_id="digits")
    # rich's SVGs load a font from a CDN; a page should not depend on other sites.
    target.write_text(re.sub(r"@font-face {.*?}\s*", "", drawing, flags=re.DOTALL))
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
