"""From a source to MDS shards: make the missing ones, check all of them, and only then write the indexes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from common.errors import DataError, named
from common.folders import Folder
from loaders.storage.mds_writer import ShardFormat, stored_file
from loaders.storage.unfinished import COMMAND, PLAN, WORK
from tools.convert.crew import Crew
from tools.convert.destination import check_room, removal
from tools.convert.meter import ImageMeter, Row
from tools.convert.plan import SplitPlan, recorded
from tools.convert.shard_work import Note, ShardJob, check_shard, make_shard, note_name
from tools.convert.shrinking import ImageOptions

CLASSES, SKIPPED, INDEX = "classes.json", "skipped.txt", "index.json"
READ_THREADS = 16  # a store answers one question per round trip


@dataclass
class SplitResult:
    """What has become of a split so far.

    Args:
        split: `train` or `val`.
        notes: of its finished shards, by number.
        made: images of the shards that this program makes.
        seconds: that took.
    """

    split: str
    notes: dict[int, Note]
    made: int = 0
    seconds: float = 0.0

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The shards' entries of the index, in order."""
        return [self.notes[number]["shard"] for number in sorted(self.notes) if self.notes[number]["shard"]]

    @property
    def skipped(self) -> list[str]:
        """The unreadable images."""
        return [line for number in sorted(self.notes) for line in self.notes[number]["skipped"]]

    def row(self) -> Row:
        """For the table."""
        samples = sum(entry["samples"] for entry in self.entries)
        stored = sum(stored_file(entry)["bytes"] for entry in self.entries)
        return Row(self.split, samples, len(self.entries), stored, self.made, self.seconds)


@dataclass
class Conversion:
    """One data set on its way.

    Args:
        destination: where it goes.
        plans: its splits.
        classes: the names of its classes by label, or None.
        images: how images are stored.
        shards: how shards are.
        skip: leave unreadable images out, instead of giving up.
        console: where progress is shown.
        command: what to type to go on with it.
    """

    destination: Folder
    plans: list[SplitPlan]
    classes: list[str] | None
    images: ImageOptions
    shards: ShardFormat
    skip: bool
    console: Console
    command: str

    def job(self, plan: SplitPlan, number: int) -> ShardJob:
        """One shard's work."""
        part = plan.part(number)
        known = len(self.classes) if self.classes else None
        return ShardJob(self.destination, plan.split, number, part, self.images, self.shards, self.skip, known)

    def run(self, workers: int) -> list[Row]:
        """Make the data set; the table's rows.

        Args:
            workers: processes.

        Raises:
            DataError: something of another's is in the way, or the source or the destination fails.
        """
        results = self.begin()
        with Crew(workers) as crew:
            for plan, result in zip(self.plans, results, strict=True):
                self._make(crew, plan, result)
            self._check(crew, results)
        self._finish(results)
        return [result.row() for result in results]

    def begin(self) -> list[SplitResult]:
        """Look at what is at the destination, and find the shards that an earlier start has finished.

        Raises:
            DataError: it is something else than this conversion's, or too little space is left.
        """
        plan = recorded(self.plans, self.images, self.shards)
        if "plan.json" in self.destination.names(WORK):
            check_plan(self.destination, plan)
        else:
            self.destination.remove(WORK)  # of a conversion that had finished, or had not begun
            check_empty(self.destination, [split.split for split in self.plans], self.classes)
        results = [SplitResult(split.split, self._notes(split)) for split in self.plans]
        check_room(
            self.destination,
            sum(
                int(size)
                for split, result in zip(self.plans, results, strict=True)
                for number, size in enumerate(split.sizes)
                if number not in result.notes
            ),
        )
        self.destination.write(PLAN, json.dumps(plan, sort_keys=True).encode())
        self.destination.write(COMMAND, os.fsencode(self.command))
        found = sum(len(result.notes) for result in results)
        if found:
            total = sum(split.shards for split in self.plans)
            self.console.print(f"Going on: {found} of {total} shards are finished.", highlight=False)
        return results

    def _notes(self, plan: SplitPlan) -> dict[int, Note]:
        """The notes of finished shards."""
        names = [name for name in self.destination.names(f"{WORK}/{plan.split}") if name.endswith(".json")]
        numbers = [int(name.removesuffix(".json")) for name in names]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            notes = pool.map(lambda number: json.loads(self.destination.read(note_name(plan.split, number))), numbers)
            found = dict(zip(numbers, notes, strict=True))
        # Without --skip-unreadable, a shard that was made with it is made again, to name what it lacks.
        return {number: note for number, note in found.items() if self.skip or not note["skipped"]}

    def _make(self, crew: Crew, plan: SplitPlan, result: SplitResult) -> None:
        """Make a split's missing shards."""
        missing = [number for number in range(plan.shards) if number not in result.notes]
        result.made = sum(plan.count(number) for number in missing)
        began = time.monotonic()
        with ImageMeter(self.console, plan.split, result.made) as meter:
            jobs = ((self.job(plan, number),) for number in missing)
            for (job,), note in crew.run(make_shard, jobs, meter):
                result.notes[job.number] = note
        result.seconds = time.monotonic() - began
        if not result.entries:
            raise DataError(f"{plan.split}: none of its {len(plan.order)} images can be read.")

    def _check(self, crew: Crew, results: list[SplitResult]) -> None:
        """Read every shard again.

        Raises:
            DataError: some are not what they should be; the same command makes them again.
        """

        def jobs() -> Iterator[tuple[ShardJob, Note]]:
            for plan, result in zip(self.plans, results, strict=True):
                yield from ((self.job(plan, number), note) for number, note in sorted(result.notes.items()))

        faults = []
        with ImageMeter(self.console, "checking", sum(result.row().images for result in results)) as meter:
            for (job, note), fault in crew.run(check_shard, jobs(), meter):
                if fault:
                    self.destination.delete(note_name(job.split, job.number))
                    name = stored_file(note["shard"])["basename"] if note["shard"] else f"shard {job.number}"
                    faults.append(f"{self.destination}/{job.split}/{name}: {fault}.")
        for plan, result in zip(self.plans, results, strict=True):
            there = result.row().images + len(result.skipped)
            if there != len(plan.order):
                faults.append(f"{plan.split}: {there} images instead of {len(plan.order)}.")
        if faults:
            raise DataError("\n".join([*faults, "Type the same command to make these again."]))

    def _finish(self, results: list[SplitResult]) -> None:
        """Write what makes the data set complete, the indexes last."""
        skipped = [line for result in results for line in result.skipped]
        if skipped:
            self.destination.write(SKIPPED, os.fsencode("\n".join(skipped) + "\n"))
        if self.classes is not None:
            self.destination.write(CLASSES, json.dumps(self.classes).encode())
        for result in results:
            index = {"version": 2, "shards": result.entries}
            self.destination.write(f"{result.split}/{INDEX}", json.dumps(index, sort_keys=True).encode())
        self.destination.delete(PLAN)
        self.destination.remove(WORK)


def check_plan(destination: Folder, plan: dict[str, Any]) -> None:
    """Compare what an unfinished conversion was to make with what this one is.

    Raises:
        DataError: they differ.
    """
    there = json.loads(destination.read(PLAN))
    differ = [key for key in plan if plan[key] != there.get(key)]
    if differ:
        what = named(["another source" if key == "source" else f"{key} {there.get(key)}" for key in differ])
        raise DataError(
            f"{destination}: holds an unfinished conversion with other options ({what}). "
            f"Give the same ones, or type: {removal(destination, WORK, *there['source'])}"
        )


def check_empty(destination: Folder, splits: list[str], classes: list[str] | None) -> None:
    """Make sure that nothing is overwritten.

    Raises:
        DataError: there is something already.
    """
    for split in splits:
        names = destination.names(split)
        if INDEX in names:
            shards = json.loads(destination.read(f"{split}/{INDEX}"))["shards"]
            count = sum(shard["samples"] for shard in shards)
            what = f"is there already: {count:,} images in {len(shards)} shards"
        elif names:
            raise DataError(f"{destination}/{split}: is not empty ({named(names)}). Name another destination.")
        else:
            continue
        raise DataError(
            f"{destination}/{split}: {what}. Name another destination, or type: {removal(destination, split)}"
        )
    if CLASSES in destination.names() and json.loads(destination.read(CLASSES)) != classes:
        raise DataError(f"{destination}/{CLASSES}: lists other classes. Name another destination.")
