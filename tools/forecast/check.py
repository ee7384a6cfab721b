"""The proof: trains for real what was forecast, and sets both side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from config import Run, TrainingError
from config.read import ROOT
from tools.forecast.arithmetic import Forecast
from tools.forecast.tables import heads, spelled


def train(run: Run) -> dict[str, Any]:
    """The summary of a run that is really made, by its command line, in a folder that is removed after it.

    Raises:
        TrainingError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="forecast-") as folder:
        own = [f"runs_folder={folder}", "run_name=real", "load_path=null"]
        own += [f"save_folder={folder}/real/checkpoints"] if run.config.save_folder else []
        words = [sys.executable, str(ROOT / "main.py"), *run.argv, *own]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            said = done.stdout.decode(errors="replace").strip().splitlines()
            raise TrainingError(f"the run itself failed with {done.returncode}: {said[-1] if said else 'no word'}")
        return json.loads((Path(folder) / "real" / "summary.json").read_text())


def comparison(forecasts: list[Forecast], summaries: list[dict[str, Any]]) -> Table:
    """Forecast, reality and their ratio, for each clock of each run.

    Args:
        forecasts: of the runs.
        summaries: what their summary.json say.
    """
    table = heads("\nrecipe", "\nclock", "\nforecast", "\nreal", "forecast\n/ real", title="Forecast and reality")
    for forecast, summary in zip(forecasts, summaries, strict=True):
        clocks = {"train": forecast.training, "eval": forecast.evaluating, "total": forecast.everything}
        for clock, seconds in clocks.items():
            real = summary[f"{clock}_seconds"]
            table.add_row(forecast.plan.recipe, clock, spelled(seconds), spelled(real), f"{seconds / real:.2f}")
    return table
