"""Make seek tables of an image folder, for faster decoding.

    python -m tools.seek /data/imagenet
    python -m tools.seek /data/imagenet --every 8        # faster decoding; the tables are six times larger

With them `decoder: native` starts decoding at the crop. They are written to PATH/train.seek and PATH/val.seek, or to
the user's cache folder if PATH is read-only. The images stay as they are, and so do the pixels. Repeat the command when
images change: it reads only new and changed ones.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from common import command
from common.errors import ConfigError, DataError, counted
from common.terminal import ImageMeter, console, positive

if TYPE_CHECKING:
    from loaders.storage.imagefolder import ImageFolderDataset

CHUNK = 64  # images per thread between two looks at the progress


@dataclass
class Making:
    """The tables of one split, as they are made."""

    data: ImageFolderDataset
    every: int
    workers: int
    images: int = 0  # that are done
    made: int = 0  # of them, read now rather than for the earlier file
    tables: int = 0
    table_bytes: int = 0
    image_bytes: int = 0
    stopped: bool = False
    path: Path = Path()

    def run(self) -> float:
        """Write the file, or what is finished of it after Ctrl-C; return the seconds.

        Raises:
            DataError: it cannot be written.
        """
        from loaders.storage.seek_file import candidates, keys_of, write

        began = time.monotonic()
        beside, cached = candidates(self.data.folder)
        self.path = beside if os.access(beside.parent, os.W_OK) else cached
        try:
            with self._stopping():
                write(self.path, self.every, keys_of(map(self.data.key_of, range(len(self.data)))), self._entries())
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}). Free some space.") from error
        return time.monotonic() - began

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Let Ctrl-C end the work after the images at hand."""

        def stop(*_: object) -> None:
            self.stopped = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _entries(self) -> Iterator[tuple[os.stat_result | None, bytes]]:
        """Yield the images' entries of the file."""
        step, count = CHUNK * self.workers, len(self.data)
        meter = ImageMeter(console(), self.data.folder.name, count)
        with ThreadPoolExecutor(self.workers) as pool, meter:
            for start in range(0, count, step):
                for status, table, is_new in pool.map(self._entry, range(start, min(start + step, count))):
                    self.images += 1
                    self.made += is_new
                    self.tables += bool(table)
                    self.table_bytes += len(table)
                    self.image_bytes += status.st_size if status else 0
                    yield status, table
                meter(self.images)
                if self.stopped:
                    return

    def _entry(self, index: int) -> tuple[os.stat_result | None, bytes, bool]:
        """Return an image's status, its table, and whether the table is new; no status if it cannot be read."""
        from loaders.images import native

        earlier = self.data.tables
        if earlier and earlier.file and earlier.file.every == self.every:
            with contextlib.suppress(OSError):
                status = os.stat(self.data.path_of(index))
                if (table := earlier.of(index, status)) is not None:
                    return status, table, False
        try:
            image, status = self.data.contents(index)
        except DataError:
            return None, b"", True
        return status, native.seek_table(image, self.every) or b"", True


def make(argv: Sequence[str]) -> int:
    """Make the tables of both splits and print what they take; return 0."""
    parser = command.parser("tools.seek", __doc__)
    add, cores = parser.add_argument, len(os.sched_getaffinity(0))
    add("path", metavar="PATH", help="folder with train/CLASS/*.JPEG, val/CLASS/*.JPEG or both")
    add("--every", type=int, default=0, metavar="N", help="an entry every N blocks of 8 or 16 pixels, not per row only")
    add("--workers", type=positive, default=cores, help="threads (default: one per core, here %(default)s)")
    given, out = parser.parse_args(argv), console()
    from loaders.images.native import MOST_EVERY

    if not 0 <= given.every <= MOST_EVERY:
        raise ConfigError(f"--every {given.every}: must be from 0 (per row only) to {MOST_EVERY}, such as 8.")
    splits = open_splits(given.path)
    table = Table(title=f"Seek tables of {given.path}", title_justify="left")
    for name in ("split", "images", "tables", "new", "bytes", "of the images'", "seconds"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    remarks = []
    for data in splits:
        making = Making(data, given.every, given.workers)
        seconds = making.run()
        if making.stopped:
            raise KeyboardInterrupt
        share = 100 * making.table_bytes / max(1, making.image_bytes)
        cells = f"{making.table_bytes / 1e6:,.1f} MB", f"{share:.2f} %", f"{seconds:,.1f}"
        table.add_row(data.folder.name, f"{making.images:,}", f"{making.tables:,}", f"{making.made:,}", *cells)
        if none := making.images - making.tables:
            remarks.append(f"{data.folder.name}: {counted(none, 'image has', 'images have')} none.")
        if making.path.parent != data.folder.parent:
            remarks.append(f"{given.path} is read-only; the tables are in {making.path}")
    out.print(table)
    for remark in remarks:
        out.print(remark, highlight=False)
    if any(remark.endswith("none.") for remark in remarks):
        out.print("Only baseline JPEGs of gray or color can have tables; python -m tools.verify finds damaged ones.")
    return 0


def open_splits(path: str) -> list[ImageFolderDataset]:
    """Open the splits of an image folder; DataError if it is none, or if no tables can be made here."""
    from loaders.images import native
    from loaders.images.transforms import EvaluationPipeline
    from loaders.storage.imagefolder import SPLITS, ImageFolderDataset
    from loaders.storage.kinds import kind_at, kind_of

    if fault := native.no_seek_tables():
        raise DataError(f"{path}: {fault}")
    present = [split for split in SPLITS if Path(path, split).is_dir()]
    if any(kind_of(kind_at(Path(path), split)).is_streaming for split in present):
        again = shlex.join(["python", "-m", "tools.convert", path, "DST", "--seekable"])
        raise DataError(f"{path}: holds MDS shards, whose seek tables are a column. To add it: {again}")
    pipeline = EvaluationPipeline(-1, 1, "native")
    return [ImageFolderDataset(path, split, pipeline, seed=0) for split in present or SPLITS]


main = partial(command.run, make, stopped="stopped; what is finished is kept: repeat the command to continue")

if __name__ == "__main__":
    sys.exit(main())
