"""Print a run and the source of each value for `dry_run=true`, without touching data or GPU."""

from __future__ import annotations

import functools
import inspect
import os
import pkgutil
from collections.abc import Callable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.durations import UNITS, Duration, parse
from common.trees import leaves
from config.load import defaults
from config.plot import curve
from config.run import Run, durations_of, milestones_of
from config.schema import AUTO, FULL, MODELS, Config, Dataset, EvalDataset, TrainDataset
from config.stages import frozen_line, rate_line, trained_rates
from recipes import registry
from recipes.declared import arguments, declarations
from recipes.schedules import learning_rate
from recipes.source import ANYTHING, definition, parameters

COLORS = {"command line": "bold magenta"}
SHORT, VALUE = 20, 10  # columns for a layer and for a value in a narrow terminal
MOST_EPOCHS = 10_000  # longer runs show the image size per percent of the run


def show(run: Run, console: Console | None = None) -> None:
    """Print a run, by default on standard output."""
    # When writing to a file or a pipe, rich would wrap at 80 columns.
    out = console or (Console() if os.isatty(1) or "COLUMNS" in os.environ else Console(width=110))
    length, warmup = durations_of(run.config)
    is_full = run.config.dry_run == FULL
    shown = "all values" if is_full else "values that differ from the defaults"
    section(out, "Configuration", f"{shown}, with the layers that set them", configuration(run, out.width - 2))
    if run.recipe and run.card:
        show_card(out, f"Recipe {run.recipe.title}", run.card)
    plot = rate_plot(run.config, length, warmup, max(30, min(80, out.width - 16)), out.options.ascii_only)
    section(out, "Learning rate", schedule_line(run.config, length, warmup), Text("\n".join(plot)))
    if sizes := size_lines(run.config, length):
        section(out, "Image size", "while training", "\n".join(sizes))
    section(out, "What would be built", body=built(run, length))
    more = "" if is_full else " All values: dry_run=full"
    out.print(f"\nDry run: nothing was built, and no data was touched.{more}", style="dim")


def section(out: Console, title: str, note: str = "", body: RenderableType | None = None) -> None:
    """Print a section: its heading, and its body indented below."""
    out.print()
    out.print(Text.assemble((title, "bold"), (f"   {note}" if note else "", "dim")))
    if body is not None:
        out.print(Padding(body, (0, 0, 0, 2)))


def show_card(out: Console, title: str, card: dict[str, Any]) -> None:
    """Print a recipe's card: its summary, and a table of its published figures."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in ("top-1 %", "epochs", "minutes"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("hardware", no_wrap=True)
    table.add_column("published in", ratio=1)
    for row in card.get("published") or ():
        source = Text(str(row.get("source", "")))
        if row.get("note"):
            source.append(f" ({row['note']})", style="dim")
        figures = [str(row.get(key) if row.get(key) is not None else "-") for key in ("top1", "epochs", "minutes")]
        table.add_row(*figures, str(row.get("hardware") or "-"), source)
    section(out, title, str(card.get("summary", "")), table if table.row_count else None)


def configuration(run: Run, width: int) -> RenderableType:
    """Render keys with their values and layers: those that differ from the schema's defaults, by section.

    Args:
        run: with dry_run=full every key is shown, dim if it has its default, whichever layer set it.
        width: maximum line length. If columns do not fit, files are shown without their folders, and lines that are
            still too long are wrapped.
    """
    usual = dict(leaves(defaults()))
    values = dict(leaves(asdict(run.config)))
    if run.config.dry_run != FULL:
        changed = [key for key in values if (key not in usual or usual[key] != values[key]) and key != "dry_run"]
        values = {key: values[key] for key in sorted(changed, key=lambda key: "." in key)}
    if not values:
        return Text("none: this is the published baseline")
    rows = []
    for key, value in values.items():
        source = run.sources.get(key, "default")
        quiet = "dim" if key in usual and usual[key] == value else ""
        style = quiet or COLORS.get(source, "cyan" if source.startswith("recipes/") else "green")
        rows.append((Text(key, quiet), Text(yaml_like(value), quiet or "bold"), Text(source, style)))
    keys, values, sources = (max(cell.cell_len for cell in column) for column in zip(*rows, strict=True))
    table = Table.grid(padding=(0, 2))
    if keys + 2 + values + 2 + sources <= width:
        for row in rows:
            table.add_row(*row)
        return table
    table.add_column(overflow="fold")
    layers = dict.fromkeys(layer.plain for *_, layer in rows)
    long = {layer: Path(layer).name for layer in layers if len(layer) > SHORT}
    for name, shown, layer in rows:
        layer.plain = long.get(layer.plain, layer.plain)
        name.pad_right(max(0, min(keys, width - 2 - VALUE - 2 - SHORT) - name.cell_len))
        shown.pad_right(max(0, VALUE - shown.cell_len))
        table.add_row(Text("  ").join((name, shown, layer)))
    for path, short in long.items():
        table.add_row(Text(f"{short} is {path}", "green"))
    return table


def yaml_like(value: Any) -> str:
    """Format a value as in YAML."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def schedule_line(config: Config, length: Duration, warmup: Duration) -> str:
    """Describe the schedule in a line."""
    name = config.scheduler.name
    words = [name if registry.is_outside(name) else name.replace("_", " ")]
    words.append(f"{config.scheduler.pct_start:g}" if words[0] == "one cycle" else f"{warmup}")
    words[-1] += f" of {length}"
    words += ["once per epoch"] if config.scheduler.every == "epoch" else []
    if config.scale_schedule_ratio != 1:
        words.append(f"scaled by {config.scale_schedule_ratio:g} from {config.max_duration}")
    return ", ".join(words)


def steps(length: Duration, time: Duration) -> float | None:
    """Return a time in the unit of the run; None if that depends on the number of images."""
    if time.unit == "dur" or not time.value:
        return time.value * length.value
    return time.value if time.unit == length.unit else None


def rate_plot(config: Config, length: Duration, warmup: Duration, width: int, ascii_only: bool) -> list[str]:
    """Return the lines of a plot of the learning rate, or of a sentence why there is none."""
    scheduler = config.scheduler
    if registry.is_outside(scheduler.name):
        return [f"no curve: a dry run does not import {scheduler.name}"]
    epoch = Duration(1, "ep")
    times = {f"the warm-up of {warmup}": warmup}
    times |= {f"the milestone {time}": time for time, _ in milestones_of(config)}
    times |= {"an epoch": epoch} if scheduler.every == "epoch" else {}
    for what, time in times.items():
        if steps(length, time) is None:
            return [f"no curve: what fraction of {length} {what} is depends on the number of images"]
    peak = float(config.optimizer["lr"])
    fine = 1000  # steps per unit; fine steps, because the last value of a curve depends on the step size
    marks = [(fine * (steps(length, time) or 0), factor) for time, factor in milestones_of(config)]
    rise, period = (fine * (steps(length, time) or 0) for time in (warmup, epoch))
    multiplier = learning_rate(scheduler, peak, fine * length.value, rise, period, marks)

    def rate(step: float) -> float:
        return peak * multiplier(fine * step)

    top = peak * max([1.0, *(factor for _, factor in marks)])
    return curve(rate, length.value, top, UNITS[length.unit], width, "optimizer.lr x schedule", ascii_only)


def resizing(config: Config) -> Callable[[float], int] | None:
    """Return a function from the elapsed fraction of the run to the image side in pixels; None if it is constant."""
    for name, given in config.algorithms.items():
        if path := declarations("algorithm", name).IMAGE_SIZE:
            size = pkgutil.resolve_name(path)
            known = inspect.signature(size).parameters
            whole = parse(config.max_duration)
            taken = {"epochs": whole.value if whole.unit == "ep" else None} | arguments("algorithm", name, given)
            args = {key: value for key, value in taken.items() if key in known}
            return functools.partial(size, crop_size=config.train_dataset.crop_size, **args)
    return None


def size_per_epoch(config: Config, length: Duration) -> list[int]:
    """Return the image side in pixels at the start of each epoch, or of each percent of the run."""
    size = resizing(config)
    count = int(length.value) if length.unit == "ep" and length.value <= MOST_EPOCHS else 100
    return [size(i / count) if size else config.train_dataset.crop_size for i in range(count)]


def size_lines(config: Config, length: Duration) -> list[str]:
    """Return a line such as 'epochs 0-14  88 px' per range of constant size; empty if the size never changes."""
    if resizing(config) is None:
        return []
    try:
        sizes, lines = size_per_epoch(config, length), []
    except ValueError as error:
        return [f"no image sizes: {error}"]
    unit = "epoch" if length.unit == "ep" and length.value == len(sizes) else "percent"
    for size, group in groupby(enumerate(sizes), key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        first, last = numbers[0], numbers[-1]
        span = f"{unit} {first}" if first == last else f"{unit}s {first}-{last}"
        lines.append(f"{span:<16} {size} px")
    return lines


def built(run: Run, length: Duration) -> Table:
    """List the components of the run in the order in which they would be built."""
    config = run.config
    number = config.model.num_classes
    classes = "the data's number of classes" if number == AUTO else f"{number} classes"
    model = f"{config.model.name}, {classes}, {config.model.loss_name}, "
    model += config.model.init if config.model.name in MODELS else "its own"
    model += " initialization"
    model += ", compiled on a GPU" if config.compile == AUTO else ", compiled" if config.compile else ""
    rows = [("model", model)]
    if config.model.weights and not config.load_path:
        rows.append(("weights", f"{config.model.weights} (not checked), head: {config.model.head}"))
    if line := frozen_line(config):
        rows.append(("frozen", line + ("" if config.model.weights or config.load_path else " (needs model.weights)")))
    rows.append(("optimizer", call(config.optimizer)))
    if rates := trained_rates(config):
        rows.append(("learning rates", rate_line(rates)))
    device = config.device or "gpu if there is one, else cpu"
    rows.append(("device", f"{device}, precision {config.precision or 'by device'}"))
    for key, name in (("train_dataset", "training data"), ("eval_dataset", "evaluation data")):
        rows.append((name, data_line(config.section(key))))
    training = f"{length}, evaluation every {config.eval_interval}"
    rows.append(("length", training if config.is_train else "evaluation only"))
    for number, (name, args) in enumerate(config.algorithms.items()):
        rows.append(("algorithms" if number == 0 else "", call({"name": name, **args})))
    if not config.algorithms:
        rows.append(("algorithms", "none"))
    for section, names in (("callbacks", config.callbacks), ("loggers", config.loggers)):
        rows.append((section, ", ".join(names) or "none"))
    rows.append(("checkpoints", checkpoint_line(config)))
    for number, name in enumerate(sorted({*run.outside.values()})):
        source = definition(*name.split(":"))
        is_read = source is not None and parameters(source) is not ANYTHING
        origin = f"from {source.file}" if source and is_read else "whose arguments are checked when a run imports it"
        rows.append(("" if number else "outside code", f"{name}, {origin}"))
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name, "dim"), Text(text))
    return table


def call(args: dict[str, Any]) -> str:
    """Format a call: name(key=value, ...)."""
    given = ", ".join(f"{key}={yaml_like(value)}" for key, value in args.items() if key != "name")
    return f"{args['name']}({given})"


def data_line(section: Dataset) -> str:
    """Describe a data section in a line."""
    kind = section.storage or ("streamed shards" if section.is_streaming else "images in folders or archives")
    resize = "" if section.resize_size == -1 else f"resize {section.resize_size}, "
    if isinstance(section, EvalDataset) and section.crop_ratio:
        resize = f"central {section.crop_ratio:g} of the short side resized to "
    how = "" if section.interpolation == "bilinear" else f" ({section.interpolation})"
    path = section.path or "no path yet"
    if isinstance(section, TrainDataset) and section.repeats > 1:
        how += f", {section.repeats} of each image"
    return f"{path} (not checked), {kind}, {resize}crop {section.crop_size} px{how}, batch {section.batch_size}"


def checkpoint_line(config: Config) -> str:
    """Where checkpoints go."""
    folder = config.checkpoint_folder(config.run_name or "<run_name>")
    if folder is None:
        return "none"
    kept = "all kept" if config.save_num_checkpoints_to_keep == -1 else f"{config.save_num_checkpoints_to_keep} kept"
    return f"{folder}, every {config.save_interval}, {kept}"
