"""Measure loading: each step, each storage, other loaders.

    python -m benchmarks.data                                       # JPEGs like ImageNet's, made for it
    python -m benchmarks.data yamls/resnet50.yaml train_dataset.path=/data/imagenet eval_dataset.path=/data/imagenet
    python -m benchmarks.data --kinds imagefolder,streaming,ffcv,packed --sizes 96,128,176,224 --plot loading.png
    pip install -c constraints.txt '.[bench]' && python -m benchmarks.data --peers   # beside other libraries

All kinds load the same images, each from its own format, and take turns epoch by epoch; a ratio is taken within a
turn, and its median, smallest and largest are shown. Per core: images per second of processor time, of all processes
together. The default is what torchvision's examples have: ImageFolder, PIL, RandomResizedCrop, ToTensor, Normalize.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.epochs import BATCH, DEFAULT, DEFAULT_BYTES, Kind, kinds, measure
from benchmarks.image_files import LONGER, copy_images, make_images
from benchmarks.pairs import compare_images, spread
from benchmarks.peer_loaders import peer_kinds
from benchmarks.stages import mean_bytes, measure_stages
from common import terminal
from common.command import run as run_command
from common.suggest import listing
from common.terminal import check_writable, positive
from config import UserError, load
from data import build_imagenet_dataspec
from loaders.storage.kinds import KINDS, kind_of
from loaders.workers import default_num_workers
from training.build import image_dataset

PLOTS = (".png", ".svg", ".pdf", ".jpg")
STAGED = 400  # images that the stages are measured on


def sizes(word: str) -> list[int]:
    """Whole numbers with commas between them, of the command line."""
    return [positive(size) for size in word.split(",") if size]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line, as options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="*", metavar="YAML [key=value ...]", help="a run, whose images and crop to use")
    parser.add_argument("--images", type=positive, default=1000, help="how many images (default: 1000)")
    parser.add_argument("--px", type=positive, default=LONGER, help="their longer side (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="epochs of each kind (default: 5)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="storage kinds to compare (default: %(default)s)")
    parser.add_argument("--sizes", type=sizes, default=[], metavar="PX,PX", help="more crop sizes, such as 96,128")
    parser.add_argument("--workers", type=positive, default=default_num_workers(), help="(default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help="beside other libraries, where they are installed")
    parser.add_argument("--plot", metavar="FILE", help="draw the comparison")
    given = parser.parse_args(argv)
    given.kinds = [name for name in given.kinds.split(",") if name]
    unknown = sorted(set(given.kinds) - set(KINDS))
    if unknown:
        parser.error(f"--kinds: {', '.join(unknown)} is none of {', '.join(KINDS)}")
    if given.plot and Path(given.plot).suffix not in PLOTS:
        parser.error(f"--plot: {given.plot} must end in {listing(PLOTS)}")
    if given.images < 2 * BATCH:
        parser.error(f"--images: {given.images} given, but two batches of {BATCH} are needed")
    return given


def bench(given: argparse.Namespace, console: Console, folder: Path) -> None:
    """Prepare the images in every format, measure, and print the tables."""
    if given.plot:
        check_writable(Path(given.plot))
    crop_size = prepare(given, folder / "imagefolder")
    formats = [*given.kinds, *(("streaming", "ffcv") if given.peers else ())]
    folders = {"imagefolder": folder / "imagefolder"} | convert(formats, folder, console)
    files = sorted((folder / "imagefolder/train").rglob("*.jpeg"))
    size = mean_bytes(files)
    console.print(f"{len(files)} images of {size / 1e3:.0f} kB on average; crop {crop_size} px", highlight=False)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stages = measure_stages(files[:STAGED], crop_size, given.rounds, device)
    console.print(stage_table(stages, size))
    candidates = kinds(folders, crop_size, given.workers, given.kinds)
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
    """Write the images as an image folder; the crop size."""
    if not given.run:
        make_images(root, given.images, given.px)
        return 176
    run = load(given.run)
    section = run.config.train_dataset
    if not kind_of(section.storage).reads_path:
        raise UserError(f"train_dataset.storage: {section.storage} images are not loaded; name images to measure with")
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
        raise UserError(f"{section.path}: {len(dataset)} images, but two batches of {BATCH} are needed")
    copy_images(dataset, root, given.images)
    return int(section.crop_size)


def convert(names: list[str], folder: Path, console: Console) -> dict[str, Path]:
    """The same bytes in the formats that some kinds read."""
    from tools.convert.__main__ import main as convert_main

    made = {}
    for kind, row in KINDS.items():
        if row.written_as and kind in names:
            made[kind] = folder / kind
            words = [str(folder / "imagefolder"), str(made[kind]), "--to", row.written_as]
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                failed = convert_main(words)
            if failed:
                console.print(said.getvalue(), highlight=False)
                raise UserError(f"the images could not be converted for {kind}; what went wrong stands above")
    return made


def stage_table(stages: dict[str, list[float]], size: float) -> Table:
    """A row per step, and per whole way, with the ratio of ways."""
    table = Table(title="One core, file in memory cache to batch", title_justify="left")
    for name in (
        "step",
        "us a\nimage",
        "img/s\na core",
        "MB/s",
        "beside\ndefault,\nfloats",
        "beside\ndefault,\nbytes",
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
    """A row per loader; where other packages' are among them, with the ratio of ours to each."""
    named = {kind.name: kind for kind in ran}
    ours = named.get("imagefolder") if any(kind.peer for kind in ran) else None
    table = Table(title=title, title_justify="left")
    columns = ["MB/s", "img/s\na core", "per core,\nbeside floats", "per core,\nbeside bytes"]
    if ours:
        columns = ["img/s\na core", "per core,\nbeside bytes", "imagefolder,\nbeside it"]
    for name in ("loader", "img/s", *columns):
        table.add_column(name, justify="left" if name == "loader" else "right")
    for kind in ran:
        wall, processor = statistics.median(kind.wall), statistics.median(kind.processor)
        if is_unread(kind):  # nothing is loaded: what its batches cost is not worth a figure per core
            table.add_row(kind.name, f"{1 / wall:,.0f}")
            continue
        floats, pixels = (spread(named[base].processor, kind.processor) for base in (DEFAULT, DEFAULT_BYTES))
        rest = [f"{size / wall / 1e6:,.0f}", f"{1 / processor:,.0f}", floats, pixels]
        if ours:
            rest = [f"{1 / processor:,.0f}", pixels, spread(kind.processor, ours.processor)]
        table.add_row(kind.name, f"{1 / wall:,.0f}", *rest)
    return table


def is_unread(kind: Kind) -> bool:
    """Whether nothing is loaded: a kind of ours without a path."""
    return kind.name in KINDS and not KINDS[kind.name].reads_path


def at_sizes(given: argparse.Namespace, console: Console, folders: dict[str, Path], crop_size: int) -> None:
    """What smaller images save in the loader."""
    table = Table(title="Smaller images (imagefolder)", title_justify="left")
    for name in ("px", "img/s", "img/s a core", f"processor time beside {crop_size} px"):
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
    """Bars of images per second and core."""
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
    """Measure; the exit status. A mistake of the user's is a sentence on stderr, never a traceback."""

    def work(words: Sequence[str]) -> int:
        given = parse(list(words))
        console = terminal.console(log_width=110)
        with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
            bench(given, console, Path(folder))
        return 0

    return run_command(work, argv)


if __name__ == "__main__":
    sys.exit(main())
