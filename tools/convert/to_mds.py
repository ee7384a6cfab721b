"""Convert a source to MDS shards: make the missing ones, check all of them, and only then write the indexes."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from common.addresses import is_s3
from common.errors import DataError, named
from common.folders import Folder, LocalFolder, existing, open_folder
from common.terminal import ImageMeter
from loaders.storage.mds_writer import ShardFormat, stored_file
from loaders.storage.unfinished import COMMAND, PLAN, WORK
from loaders.transport.remote import is_remote
from tools.convert.crew import Crew
from tools.convert.plan import ImageOptions, SplitPlan, recorded
from tools.convert.shard_work import Note, ShardJob, check_shard, make_shard, note_name
from tools.split.options import Rule

CLASSES, SKIPPED, INDEX = "classes.json", "skipped.txt", "index.json"
READ_THREADS = 16  # a store answers one request per round trip


@dataclass(frozen=True)
class Row:
    """A converted split, for the table at the end."""

    split: str
    images: int
    files: int
    bytes: int
    made: int  # images that this process converted, rather than an earlier, interrupted one
    seconds: float  # of that, without checking


def result_table(title: str, rows: list[Row], cores: int) -> Table:
    """Return the table that a conversion on so many cores ends with."""
    table = Table(title=title, title_justify="left")
    for name in ("split", "images", "files", "bytes", "seconds", "img/s", "per core"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for row in rows:
        rate = row.made / row.seconds if row.made and row.seconds else None
        rates = ["-" if rate is None else f"{rate / over:,.0f}" for over in (1, cores)]
        cells = (f"{row.images:,}", f"{row.files:,}", f"{row.bytes / 1e6:,.1f} MB", f"{row.seconds:,.1f}")
        table.add_row(row.split, *cells, *rates)
    return table


@dataclass
class SplitResult:
    """The progress of a split."""

    split: str
    notes: dict[int, Note]  # of its finished shards, by number
    made: int = 0  # images of the shards that this process makes
    seconds: float = 0.0  # that took

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Index entries of the shards, in order."""
        return [note["shard"] for _, note in sorted(self.notes.items()) if note["shard"]]

    @property
    def skipped(self) -> list[str]:
        """Unreadable images, a sentence each."""
        return [line for _, note in sorted(self.notes.items()) for line in note["skipped"]]

    def row(self) -> Row:
        """Return the split's row of the table."""
        samples = sum(entry["samples"] for entry in self.entries)
        stored = sum(stored_file(entry)["bytes"] for entry in self.entries)
        return Row(self.split, samples, len(self.entries), stored, self.made, self.seconds)


@dataclass
class Conversion:
    """One data set being converted."""

    destination: Folder
    plans: list[SplitPlan]
    classes: list[str] | None  # names by label
    rule: Rule | None  # by which the data were split, if they were
    images: ImageOptions
    shards: ShardFormat
    skip: bool  # leave unreadable images out, instead of failing
    console: Console
    command: str  # that continues it

    def job(self, plan: SplitPlan, number: int) -> ShardJob:
        """Return one shard's work."""
        part = plan.part(number)
        known = len(self.classes) if self.classes else None
        return ShardJob(self.destination, plan.split, number, part, self.images, self.shards, self.skip, known)

    def run(self, workers: int) -> list[Row]:
        """Make the data set, and return the table's rows; DataError if the destination holds another one."""
        results = self._begin()
        with Crew(workers) as crew:
            for plan, result in zip(self.plans, results, strict=True):
                self._make(crew, plan, result)
            self._check(crew, results)
        self._finish(results)
        return [result.row() for result in results]

    def _begin(self) -> list[SplitResult]:
        """Inspect the destination, and return the shards that an earlier process has finished."""
        plan = recorded(self.plans, self.rule, self.images, self.shards)
        if "plan.json" in self.destination.names(WORK):
            other = json.loads(self.destination.read(PLAN))
            if differ := [key for key in plan if plan[key] != other.get(key)]:
                what = named(["another source" if key == "source" else f"{key} {other.get(key)}" for key in differ])
                raise DataError(
                    f"{self.destination}: holds an unfinished conversion with other options ({what}). "
                    f"Give the same ones, or type: {removal(self.destination, WORK, *other['source'])}"
                )
        else:
            self.destination.remove(WORK)  # of a conversion that had finished, or not started
            check_empty(self.destination, [split.split for split in self.plans], self.classes)
        results = [SplitResult(split.split, self._notes(split)) for split in self.plans]
        left = (
            int(size)
            for split, result in zip(self.plans, results, strict=True)
            for number, size in enumerate(split.sizes)
            if number not in result.notes
        )
        check_room(self.destination, sum(left))
        self.destination.write(PLAN, json.dumps(plan, sort_keys=True).encode())
        self.destination.write(COMMAND, os.fsencode(self.command))
        if found := sum(len(result.notes) for result in results):
            total = sum(len(split.sizes) for split in self.plans)
            self.console.print(f"Continuing: {found} of {total} shards are finished.", highlight=False)
        return results

    def _notes(self, plan: SplitPlan) -> dict[int, Note]:
        """Return the notes of finished shards."""
        names = [name for name in self.destination.names(f"{WORK}/{plan.split}") if name.endswith(".json")]
        numbers = [int(name.removesuffix(".json")) for name in names]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            notes = pool.map(lambda number: json.loads(self.destination.read(note_name(plan.split, number))), numbers)
            found = dict(zip(numbers, notes, strict=True))
        # A shard that lacks images because of an earlier --skip-unreadable is made again without it, to report them.
        return {number: note for number, note in found.items() if self.skip or not note["skipped"]}

    def _make(self, crew: Crew, plan: SplitPlan, result: SplitResult) -> None:
        """Make a split's missing shards."""
        missing = [number for number in range(len(plan.sizes)) if number not in result.notes]
        result.made = sum(plan.count(number) for number in missing)
        began = time.monotonic()
        size = sum(int(plan.sizes[number]) for number in missing)
        with ImageMeter(self.console, plan.split, result.made, size=size) as meter:
            jobs = ((self.job(plan, number),) for number in missing)
            for (job,), note in crew.run(make_shard, jobs, meter):
                result.notes[job.number] = note
        result.seconds = time.monotonic() - began
        if not result.entries:
            raise DataError(f"{plan.split}: none of its {len(plan.order)} images can be read.")

    def _check(self, crew: Crew, results: list[SplitResult]) -> None:
        """Read every shard again; DataError if some are faulty, which the same command then makes again."""

        def jobs() -> Iterator[tuple[ShardJob, Note]]:
            for plan, result in zip(self.plans, results, strict=True):
                yield from ((self.job(plan, number), note) for number, note in sorted(result.notes.items()))

        faults = []
        rows = [result.row() for result in results]
        count, size = sum(row.images for row in rows), sum(row.bytes for row in rows)
        with ImageMeter(self.console, "checking", count, size=size) as meter:
            for (job, note), fault in crew.run(check_shard, jobs(), meter):
                if fault:
                    self.destination.delete(note_name(job.split, job.number))
                    name = stored_file(note["shard"])["basename"] if note["shard"] else f"shard {job.number}"
                    faults.append(f"{self.destination}/{job.split}/{name}: {fault}.")
        for plan, result in zip(self.plans, results, strict=True):
            count = result.row().images + len(result.skipped)
            if count != len(plan.order):
                faults.append(f"{plan.split}: {count} images instead of {len(plan.order)}.")
        if faults:
            raise DataError("\n".join([*faults, "Repeat the command to make these again."]))

    def _finish(self, results: list[SplitResult]) -> None:
        """Write the files that complete the data set, the indexes last."""
        if skipped := [line for result in results for line in result.skipped]:
            self.destination.write(SKIPPED, os.fsencode("\n".join(skipped) + "\n"))
        if self.classes is not None:
            self.destination.write(CLASSES, json.dumps(self.classes).encode())
        for result in results:
            index = {"version": 2, "shards": result.entries}
            self.destination.write(f"{result.split}/{INDEX}", json.dumps(index, sort_keys=True).encode())
        self.destination.delete(PLAN)
        self.destination.remove(WORK)


def check_unused(destination: Folder, splits: list[str], classes: list[str] | None) -> None:
    """Check that a conversion is unfinished, or that nothing would be overwritten."""
    if "plan.json" not in destination.names(WORK):
        check_empty(destination, splits, classes)


def check_empty(destination: Folder, splits: list[str], classes: list[str] | None) -> None:
    """Check that nothing would be overwritten."""
    for split in splits:
        names = destination.names(split)
        if INDEX in names:
            shards = json.loads(destination.read(f"{split}/{INDEX}"))["shards"]
            count = sum(shard["samples"] for shard in shards)
            raise DataError(
                f"{destination}/{split}: exists already: {count:,} images in {len(shards)} shards. Name another "
                f"destination, or type: {removal(destination, split)}"
            )
        if names:
            raise DataError(f"{destination}/{split}: is not empty ({named(names)}). Name another destination.")
    if CLASSES in destination.names() and json.loads(destination.read(CLASSES)) != classes:
        raise DataError(f"{destination}/{CLASSES}: lists other classes. Name another destination.")


def open_destination(path: str) -> Folder:
    """Return the folder at a path or an s3:// address; DataError if it is neither."""
    if is_remote(path) and not is_s3(path):
        raise DataError(f"{path}: shards are written to a local folder or to s3://bucket/folder, and nowhere else.")
    return open_folder(path, WORK)


def removal(destination: Folder, *names: str) -> str:
    """Return the command that removes folders of the destination."""
    paths = [f"{destination}/{name}" for name in names]
    if isinstance(destination, LocalFolder):
        return shlex.join(["rm", "-r", *paths])
    return " && ".join(shlex.join(["aws", "s3", "rm", "--recursive", path]) for path in paths)


def check_room(destination: Folder, wanted: int) -> None:
    """Check that a disk has room for this many bytes; buckets have no limit."""
    if not isinstance(destination, LocalFolder):
        return
    free = shutil.disk_usage(existing(destination.path)).free
    if wanted > free:
        raise DataError(
            f"{destination}: about {wanted / 1e6:,.1f} MB are to be written, but {free / 1e6:,.1f} MB are free. "
            "Free some space, name another disk, or make the images smaller (--max-size 500)."
        )
