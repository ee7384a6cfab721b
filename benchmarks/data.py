"""Measure loading: each step, each storage, other loaders.

    python -m benchmarks.data                                       # on generated JPEGs like ImageNet's
    python -m benchmarks.data yamls/resnet50.yaml train_dataset.path=/data/imagenet eval_dataset.path=/data/imagenet
    python -m benchmarks.data --kinds imagefolder,streaming,ffcv,packed --sizes 96,128,176,224 --plot loading.png
    pip install -c constraints.txt '.[bench]' && python -m benchmarks.data --peers   # with other libraries

All loaders read the same images, each in its own format, and take turns epoch by epoch. Ratios are computed within a
turn; the table shows their median, minimum and maximum. Images per second per core count the processor time of all
processes. The default is that of torchvision's examples: ImageFolder, PIL, RandomResizedCrop, ToTensor, Normalize.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.epochs import BATCH, DEFAULT, DEFAULT_BYTES, LIBJPEG, TABLES, Kind, kinds, measure, storage_of
from benchmarks.image_files import LONGER, copy_images, make_images, write_tars
from benchmarks.pairs import compare_images, spread
from benchmarks.peer_loaders import peer_kinds
from benchmarks.stages import measure_stages
from common import terminal
from common.command import run as run_command
from common.suggest import listing
from common.terminal import check_writable, positive
from config import UserError, load
from data import build_imagenet_dataspec
from loaders.images import native
from loaders.storage.kinds import ARCHIVES, KINDS, kind_of
from loaders.workers import default_num_workers
from training.build import image_dataset

PLOTS = (".png", ".svg", ".pdf", ".jpg")
STAGED = 400  # images on which the stages are measured


def sizes(word: str) -> list[int]:
    """Parse comma-separated sizes from the command line."""
    return [positive(size) for size in word.split(",") if size]


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="*", metavar="YAML [key=value ...]", help="run whose images and crop size to use")
    parser.add_argument("--images", type=positive, default=1000, help="how many images (default: 1000)")
    parser.add_argument("--px", type=positive, default=LONGER, help="their longer side (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="epochs of each kind (default: 5)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="storage kinds to compare (default: %(default)s)")
    parser.add_argument("--sizes", type=sizes, default=[], metavar="PX,PX", help="other crop sizes, such as 96,128")
    parser.add_argument("--workers", type=positive, default=default_num_workers(), help="(default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help="also measure other libraries, if installed")
    parser.add_argument("--plot", metavar="FILE", help="plot the comparison")
    given = parser.parse_args(argv)
    given.kinds = [name for name in given.kinds.split(",") if name]
    unknown = sorted(set(given.kinds) - set(KINDS))
    if unknown:
        parser.error(f"--kinds: {', '.join(unknown)} is not one of {', '.join(KINDS)}")
    if given.plot and Path(given.plot).suffix not in PLOTS:
        parser.error(f"--plot: {given.plot} must end in {listing(PLOTS)}")
    if given.images < 2 * BATCH:
        parser.error(f"--images: {given.images} given; at least two batches of {BATCH} are needed")
    return given


def bench(given: argparse.Namespace, console: Console, folder: Path) -> None:
    """Prepare the images in every format, measure, and print the tables."""
    if given.plot:
        check_writable(Path(given.plot))
    crop_size = prepare(given, folder / "imagefolder")
    formats = [*given.kinds, *(("streaming", "ffcv") if given.peers else ())]
    folders = {"imagefolder": folder / "imagefolder"} | convert(formats, folder, console)
    more = [LIBJPEG, *TABLES] if given.peers and native.available() else []
    folders |= add_tables(folder, console) if more else {}
    files = sorted((folder / "imagefolder/train").rglob("*.jpeg"))
    size = statistics.mean(path.stat().st_size for path in files)
    console.print(f"{len(files)} images of {size / 1e3:.0f} kB on average; crop {crop_size} px", highlight=False)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stages = measure_stages(files[:STAGED], crop_size, given.rounds, device)
    console.print(stage_table(stages, size))
    candidates = kinds(folders, crop_size, given.workers, [*given.kinds, *more])
    if given.peers:
        compare_images(files[:STAGED], crop_size, given.rounds, console)
        candidates += peer_kinds(folders, crop_size, given.workers, size)
    ran = measure(candidates, given.rounds, console.print)
    title = f"Loaders: {given.workers} workers, batches of 100, {given.rounds} epochs each"
    console.print(kind_table(ran, size, title))
    if given.sizes:
        at_sizes(given, console, folders, crop_size)
    if given.plot:
        plot(ran, Path(given.plot))
        console.print(f"Plot: {Path(given.plot).resolve()}", highlight=False)


def prepare(given: argparse.Namespace, root: Path) -> int:
    """Write the images as an image folder, and return the crop size."""
    if not given.run:
        make_images(root, given.images, given.px)
        return 176
    run = load(given.run)
    section = run.config.train_dataset
    if not kind_of(section.storage).reads_path:
        raise UserError(f"train_dataset.storage: {section.storage} images are not loaded; give a data set of files")
    spec = build_imagenet_dataspec(
        section.path or "",
        section.is_streaming,
        1,
        section.local,
        crop_size=section.crop_size,
        storage=section.storage,
        num_workers=0,
    )
    dataset = image_dataset(spec)
    if len(dataset) < 2 * BATCH:
        raise UserError(f"{section.path}: {len(dataset)} images; at least two batches of {BATCH} are needed")
    copy_images(dataset, root, given.images)
    return int(section.crop_size)


def convert(names: list[str], folder: Path, console: Console) -> dict[str, Path]:
    """Write the same bytes in the formats of the given kinds, and return their folders."""
    from tools.convert.__main__ import main as convert_main

    folders = {}
    for kind, row in KINDS.items():
        if row.written_as and kind in names:
            folders[kind] = folder / kind
            run_quietly(convert_main, console, folder / "imagefolder", folders[kind], "--to", row.written_as)
    if ARCHIVES in names:
        folders[ARCHIVES] = write_tars(folder / "imagefolder", folder / ARCHIVES)
    return folders


def add_tables(folder: Path, console: Console) -> dict[str, Path]:
    """Write the same images with seek tables, and return the folders by their names in TABLES."""
    from tools.convert.__main__ import main as convert_main
    from tools.seek.__main__ import main as seek_main

    folders = {name: folder / name for name in TABLES}
    for name, every in TABLES.items():
        if KINDS[storage_of(name)].is_streaming:
            run_quietly(convert_main, console, folder / "imagefolder", folders[name], "--seekable", every)
        else:
            shutil.copytree(folder / "imagefolder", folders[name], copy_function=os.link)
            run_quietly(seek_main, console, folders[name], "--every", every)
    return folders


def run_quietly(program: Callable[[list[str]], int], console: Console, *words: object) -> None:
    """Run a program; if it fails, print its output and raise a UserError."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        failed = program(list(map(str, words)))
    if failed:
        console.print(output.getvalue(), highlight=False)
        raise UserError("the images could not be converted; the error is above")


def stage_table(stages: dict[str, list[float]], size: float) -> Table:
    """Build the table of steps and complete pipelines, with the pipelines' speed relative to the default."""
    table = Table(title="One core, from a cached file to a batch", title_justify="left")
    for name in (
        "step",
        "us per\nimage",
        "img/s\nper core",
        "MB/s",
        "vs\ndefault,\nfloats",
        "vs\ndefault,\nbytes",
    ):
        table.add_column(name, justify="left" if name == "step" else "right")
    for name, seconds in stages.items():
        middle = statistics.median(seconds)
        whole = name.startswith(("ours", "default"))
        ratios = [spread(stages[f"default, {kind}"], seconds) if whole else "" for kind in ("floats", "bytes")]
        table.add_row(
            name,
            f"{1e6 * middle:,.0f}",
            f"{1 / middle:,.0f}",
            f"{size / middle / 1e6:,.0f}",
            *ratios,
            end_section=name == "augment (RandAugment)",
        )
    return table


def kind_table(ran: list[Kind], size: float, title: str) -> Table:
    """Build the table of loaders; with other packages' loaders, it also shows ours relative to each."""
    named = {kind.name: kind for kind in ran}
    ours = named.get("imagefolder") if any(kind.peer for kind in ran) else None
    table = Table(title=title, title_justify="left")
    columns = ["MB/s", "img/s\nper core", "per core,\nvs floats", "per core,\nvs bytes"]
    if ours:
        columns = ["img/s\nper core", "per core,\nvs bytes", "imagefolder,\nvs it"]
    for name in ("loader", "img/s", *columns):
        table.add_column(name, justify="left" if name == "loader" else "right")
    for kind in ran:
        wall, processor = statistics.median(kind.wall), statistics.median(kind.processor)
        if is_unread(kind):  # nothing is loaded, so a figure per core would mislead
            table.add_row(kind.name, f"{1 / wall:,.0f}")
            continue
        floats, pixels = (spread(named[base].processor, kind.processor) for base in (DEFAULT, DEFAULT_BYTES))
        rest = [f"{size / wall / 1e6:,.0f}", f"{1 / processor:,.0f}", floats, pixels]
        if ours:
            rest = [f"{1 / processor:,.0f}", pixels, spread(kind.processor, ours.processor)]
        table.add_row(kind.name, f"{1 / wall:,.0f}", *rest)
    return table


def is_unread(kind: Kind) -> bool:
    """Whether a storage kind loads nothing, because it has no path."""
    return kind.name in KINDS and not KINDS[kind.name].reads_path


def at_sizes(given: argparse.Namespace, console: Console, folders: dict[str, Path], crop_size: int) -> None:
    """Measure how much time smaller images save in the loader, and print the table."""
    table = Table(title="Smaller images (imagefolder)", title_justify="left")
    for name in ("px", "img/s", "img/s per core", f"processor time vs {crop_size} px"):
        table.add_column(name, justify="right")
    ran = []
    for size in sorted({*given.sizes, crop_size}):
        (kind,) = kinds(folders, size, given.workers, ["imagefolder"])[2:]
        kind.name = str(size)
        ran.append(kind)
    ran = measure(ran, given.rounds, console.print)
    whole = next(kind for kind in ran if kind.name == str(crop_size))
    for kind in ran:
        rates = [f"{1 / statistics.median(values):,.0f}" for values in (kind.wall, kind.processor)]
        table.add_row(kind.name, *rates, spread(kind.processor, whole.processor))
    console.print(table)


def plot(ran: list[Kind], path: Path) -> None:
    """Plot images per second per core as bars."""
    from matplotlib.figure import Figure

    shown = [kind for kind in ran if not is_unread(kind)][::-1]
    figure = Figure(figsize=(7, 0.5 + 0.4 * len(shown)), layout="constrained")
    axes = figure.subplots()
    rates = [1 / statistics.median(kind.processor) for kind in shown]
    colors = ["#8c959f" if "default" in kind.name else "#bf8700" if kind.peer else "#0969da" for kind in shown]
    bars = axes.barh([kind.name for kind in shown], rates, color=colors)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
    axes.set_xlabel("images per second of processor time (one core)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, and return the exit status."""

    def work(words: Sequence[str]) -> int:
        given = parse(list(words))
        console = terminal.console(log_width=110)
        with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
            bench(given, console, Path(folder))
        return 0

    return run_command(work, argv)


if __name__ == "__main__":
    sys.exit(main())
