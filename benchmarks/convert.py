"""Time the conversion of each form of data set on one core.

    python -m benchmarks.convert [--images 300] [--rounds 5]

The same images, like ImageNet's, in each form: read, checked and packed as tools.convert does it. Forms take turns in
random order, so that a slow moment of the machine slows all of them; the ratio is the median of those of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.image_files import make_images, write_tars
from common.errors import DataError
from common.terminal import console, positive
from loaders.storage.mds_writer import ShardFormat
from tools.convert.__main__ import main as convert
from tools.convert.plan import ImageOptions
from tools.convert.sources import Source, open_sources

FOLDER = "image folder"
SHARDS = ShardFormat(None, "sha1", 1 << 26, None)


def write_forms(root: Path, count: int) -> dict[str, Path]:
    """Write `count` images in each form below `root`; return where each is."""
    folder = root / "folder"
    make_images(folder, count)
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*.jpeg"))]
    table = ["path,label,split", *(f"{path},{path.parts[1]},{path.parts[0]}" for path in files)]
    (folder / "table.csv").write_text("\n".join(table))
    for name, mode in (("classes.tar", "w"), ("classes.tgz", "w:gz")):
        with tarfile.open(root / name, mode, dereference=True) as archive:  # type: ignore[call-overload]
            for path in files:
                archive.add(folder / path, path.as_posix())
    _write_parquet(folder, files, root / "parquet/data")
    with contextlib.redirect_stdout(io.StringIO()):
        convert([str(folder), str(root / "shards")])
    return {
        FOLDER: folder,
        "table of paths": folder / "table.csv",
        "WebDataset tars": write_tars(folder, root / "webdataset"),
        "tar of class folders": root / "classes.tar",
        "the same, .tgz": root / "classes.tgz",
        "parquet": root / "parquet",
        "MDS shards": root / "shards",
    }


def _write_parquet(folder: Path, files: list[Path], out: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    out.mkdir(parents=True)
    for split in ("train", "val"):
        chosen = [path for path in files if path.parts[0] == split]
        images = [{"bytes": (folder / path).read_bytes(), "path": path.name} for path in chosen]
        labels = [sorted({path.parts[1] for path in files}).index(path.parts[1]) for path in chosen]
        table = pyarrow.table({"image": images, "label": labels})
        parquet.write_table(table, out / f"{split}-00000-of-00001.parquet", row_group_size=100)


def seconds(sources: list[Source], images: ImageOptions) -> float:
    """Return the processor time per image of converting sources, without writing."""
    started, count = time.process_time(), 0
    for source in sources:
        part = source.part(np.arange(len(source.sizes)))
        samples = []
        for place in range(len(source.sizes)):
            data, label = part.read(place)
            samples.append((place, images.remake(data), label))
        SHARDS.pack(samples, 0)
        count += len(samples)
    return (time.process_time() - started) / count


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=positive, default=300, help="number of images (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="timed passes over each form (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        sources: dict[str, list[Source]] = {}
        for name, path in write_forms(Path(root), given.images).items():
            try:
                sources[name] = list(open_sources(str(path), None)[0].values())
            except DataError as error:
                print(f"{name}: left out. {error}", file=sys.stderr)
        took: dict[tuple[str, bool], list[float]] = {(name, decode): [] for name in sources for decode in (True, False)}
        order = random.Random(0)
        for number in range(given.rounds + 1):
            for name, decode in order.sample(list(took), len(took)):
                passed = seconds(sources[name], ImageOptions(None, 90, decode))
                if number:  # the first pass warms up
                    took[name, decode].append(passed)
    table = Table(title=f"One core, {given.images} JPEGs, median of {given.rounds}", title_justify="left")
    for heading in ("source", "img/s", "of folder's", "img/s, --no-decode", "of folder's"):
        table.add_column(heading, justify="left" if heading == "source" else "right", no_wrap=True)
    for name in sources:
        cells = []
        for decode in (True, False):
            pairs = zip(took[FOLDER, decode], took[name, decode], strict=True)
            cells += [f"{1 / statistics.median(took[name, decode]):,.0f}"]
            cells += [f"{statistics.median(folder / own for folder, own in pairs):.2f}"]
        table.add_row(name, *cells)
    console().print(table)


if __name__ == "__main__":
    main()
