"""Ways to decode one image, side by side on one core: what each costs, and how far from PIL's its pixels are."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers import DEFAULT, LIMIT, OURS, SCALED, WAYS, Job, Way, draw_jobs, left_out
from benchmarks.stages import BATCH, CHUNK, median_ratio
from loaders.images import native

SCALED_FROM = 800  # pixels of the longer side, from which on native_scaled is not native (decode.c)


@dataclass
class Row:
    """A way, what it cost, and what it made."""

    name: str
    way: Way
    seconds: list[float] = field(default_factory=list)  # of processor time for an image, a round each
    psnr: list[float] = field(default_factory=list)  # dB from the reference, of each image
    largest: int = 0  # difference of any byte


def compare_images(files: list[Path], crop_size: int, rounds: int, console: Console) -> None:
    """Measure all ways that work here, and print the table.

    Args:
        files: images, of which ordinary JPEGs are used.
        crop_size: side of the squares in pixels.
        rounds: how often.
        console: where to.
    """

    def told(line: str) -> None:
        console.print(line, highlight=False)

    jobs = draw_jobs(files, crop_size)
    if not jobs:
        return told("one image, one core: left out. There are no ordinary JPEGs among the images.")
    rows = measure_ways(jobs, crop_size, rounds, told)
    size = statistics.mean(len(data) for data, _ in jobs)
    console.print(pair_table(rows, f"One core, {len(jobs)} JPEGs of {size / 1e3:.0f} kB in memory, the same boxes"))
    if native.available():
        told(f"two threads: {two_threads(jobs, crop_size, rounds)}")
    else:
        told(f"two threads: left out. The native decoder is not built ({native.HOW_TO_BUILD}).")


def measure_ways(jobs: list[Job], crop_size: int, rounds: int, told: Callable[[str], None]) -> list[Row]:
    """Every way that works here; `told` is given the reason for any other.

    The pixels are compared in a first pass, which warms up as well. After that all ways take turns chunk by chunk, in
    another order each time, so that a slow moment of the machine slows all of them.
    """
    rows: list[Row] = []
    reference: list[np.ndarray] = []
    small = not native.available() or not any(max(native.jpeg_shape(data) or (0, 0)) >= SCALED_FROM for data, _ in jobs)
    for name, make in WAYS.items():
        if name == SCALED and small:
            continue
        with left_out(name, told, name not in (DEFAULT, OURS)):
            row = Row(name, make(crop_size))
            for start, chunk in _chunks(jobs):
                made = [np.asarray(square) for square in row.way(chunk)]
                if name == DEFAULT:
                    reference += made
                compare(row, made, reference[start : start + CHUNK])
            rows.append(row)
    order = random.Random(0)
    for _ in range(rounds):
        seconds = {row.name: 0.0 for row in rows}
        for _, chunk in _chunks(jobs):
            for row in order.sample(rows, len(rows)):
                began = time.process_time()
                row.way(chunk)
                seconds[row.name] += time.process_time() - began
        for row in rows:
            row.seconds.append(seconds[row.name] / len(jobs))
    return rows


def compare(row: Row, made: list[np.ndarray], reference: list[np.ndarray]) -> None:
    """Note how far some squares are from the reference's."""
    for ours, theirs in zip(made, reference, strict=False):  # the limit makes none
        row.psnr.append(psnr(ours, theirs))
        row.largest = max(row.largest, int(np.abs(ours.astype(np.int16) - theirs).max()))


def psnr(pixels: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal to noise in dB; infinite where nothing differs.

    Args:
        pixels: uint8, any shape.
        reference: the same.
    """
    error = float(np.mean(np.square(pixels.astype(np.float64) - reference)))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _chunks(jobs: list[Job]) -> Iterator[tuple[int, list[Job]]]:
    return ((start, jobs[start : start + CHUNK]) for start in range(0, len(jobs), CHUNK))


def pair_table(rows: list[Row], title: str) -> Table:
    """A row per way, with the ratio to the default, and that of ours to it."""
    table = Table(title=title, title_justify="left")
    named = {row.name: row for row in rows}
    beside = ("beside\ndefault,\nbytes", "ours,\nnative,\nbeside it")
    for name in ("way", "img/s\na core", *beside, "PSNR,\nmean / min\n(dB)", "largest\nerror"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for row in rows:
        rate = f"{1 / statistics.median(row.seconds):,.0f}"
        ours = spread(row.seconds, named[OURS].seconds) if OURS in named else ""
        pixels = ["", ""] if row.name == LIMIT else [described(row.psnr), str(row.largest)]
        table.add_row(row.name, rate, spread(named[DEFAULT].seconds, row.seconds), ours, *pixels)
    return table


def described(values: list[float]) -> str:
    """The mean and the smallest PSNR, of the images that are not exact."""
    finite = [value for value in values if math.isfinite(value)]
    return f"{statistics.mean(finite):.1f} / {min(finite):.1f}" if finite else "exact"


def spread(numerators: list[float], denominators: list[float]) -> str:
    """Median (smallest-largest) of the rounds' own ratios."""
    middle, low, high = median_ratio(numerators, denominators)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def two_threads(jobs: list[Job], crop_size: int, rounds: int) -> str:
    """How much faster two threads are than one that decodes batches in one call each; needs two free cores."""
    wall: dict[int, list[float]] = {1: [], 2: []}
    processor: dict[int, list[float]] = {1: [], 2: []}
    out = np.empty((BATCH, crop_size, crop_size, 3), np.uint8)
    batches: list[Any] = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    for number in range(rounds + 1):
        for threads in (1, 2) if number % 2 else (2, 1):
            began, used = time.perf_counter(), time.process_time()
            for batch in batches:
                native.view_batch(batch, out[: len(batch)], threads)
            if number:  # the first round warms up
                wall[threads].append(time.perf_counter() - began)
                processor[threads].append(time.process_time() - used)
    faster, dearer = spread(wall[1], wall[2]), spread(processor[2], processor[1])
    return f"{faster} times one (wall clock), with {dearer} times its processor time"
