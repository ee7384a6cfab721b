"""Compare decoders on single images and one core: their time, and their pixels' distance from PIL's."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers import DECODERS, DEFAULT, LIMIT, OURS, SCALED, Decoder, Job, draw_jobs, left_out
from benchmarks.stages import BATCH, CHUNK
from loaders.images import native

SCALED_FROM = 800  # longer side in pixels from which native_scaled differs from native (reader.h)


@dataclass
class Row:
    """A decoder's time and the quality of its pixels."""

    name: str
    decode: Decoder
    seconds: list[float] = field(default_factory=list)  # processor time per image, one value per round
    psnr: list[float] = field(default_factory=list)  # dB relative to the reference, per image
    largest: int = 0  # difference of any byte from the reference


def compare_images(files: list[Path], crop_size: int, rounds: int, console: Console) -> None:
    """Measure all decoders that work here, and print the table.

    Args:
        files: images; only ordinary JPEGs are used.
        crop_size: side of the squares in pixels.
        rounds: number of rounds.
        console: for the table.
    """

    def log(line: str) -> None:
        console.print(line, highlight=False)

    jobs = draw_jobs(files, crop_size)
    if not jobs:
        return log("one image, one core: left out. None of the images is an ordinary JPEG.")
    rows = measure_decoders(jobs, crop_size, rounds, log)
    size = statistics.mean(len(data) for data, _ in jobs)
    console.print(pair_table(rows, f"One core, {len(jobs)} JPEGs of {size / 1e3:.0f} kB in memory, the same boxes"))
    if native.available():
        log(f"two threads: {two_threads(jobs, crop_size, rounds)}")
    else:
        log(f"two threads: left out. The native decoder is not built ({native.HOW_TO_BUILD}).")


def measure_decoders(jobs: list[Job], crop_size: int, rounds: int, log: Callable[[str], None]) -> list[Row]:
    """Measure every decoder that works here; `log` gets the reason for any other.

    A first pass compares the pixels, and warms up. After that, all decoders take turns chunk by chunk in random order,
    so that a slow moment of the machine slows all of them.
    """
    rows: list[Row] = []
    reference: list[np.ndarray] = []
    small = not native.available() or not any(max(native.jpeg_shape(data) or (0, 0)) >= SCALED_FROM for data, _ in jobs)
    for name, make in DECODERS.items():
        if name == SCALED and small:
            continue
        with left_out(name, log, name not in (DEFAULT, OURS)):
            row = Row(name, make(crop_size))
            for start, chunk in _chunks(jobs):
                squares = [np.asarray(square) for square in row.decode(chunk)]
                if name == DEFAULT:
                    reference += squares
                compare(row, squares, reference[start : start + CHUNK])
            rows.append(row)
    order = random.Random(0)
    for _ in range(rounds):
        seconds = {row.name: 0.0 for row in rows}
        for _, chunk in _chunks(jobs):
            for row in order.sample(rows, len(rows)):
                started = time.process_time()
                row.decode(chunk)
                seconds[row.name] += time.process_time() - started
        for row in rows:
            row.seconds.append(seconds[row.name] / len(jobs))
    return rows


def compare(row: Row, squares: list[np.ndarray], reference: list[np.ndarray]) -> None:
    """Add the squares' differences from the reference to the row."""
    for ours, theirs in zip(squares, reference, strict=False):  # the limit returns none
        row.psnr.append(psnr(ours, theirs))
        row.largest = max(row.largest, int(np.abs(ours.astype(np.int16) - theirs).max()))


def psnr(pixels: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of uint8 arrays; infinite if they are equal."""
    error = float(np.mean(np.square(pixels.astype(np.float64) - reference)))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _chunks(jobs: list[Job]) -> Iterator[tuple[int, list[Job]]]:
    return ((start, jobs[start : start + CHUNK]) for start in range(0, len(jobs), CHUNK))


def pair_table(rows: list[Row], title: str) -> Table:
    """Build the table of decoders: their speed relative to the default, and ours relative to each."""
    table = Table(title=title, title_justify="left")
    named = {row.name: row for row in rows}
    ratios = ("vs\ndefault,\nbytes", "ours,\nnative,\nvs it")
    for name in ("decoder", "img/s\nper core", *ratios, "PSNR,\nmean / min\n(dB)", "largest\nerror"):
        table.add_column(name, justify="left" if name == "decoder" else "right")
    for row in rows:
        rate = f"{1 / statistics.median(row.seconds):,.0f}"
        ours = spread(row.seconds, named[OURS].seconds) if OURS in named else ""
        pixels = ["", ""] if row.name == LIMIT else [described(row.psnr), str(row.largest)]
        table.add_row(row.name, rate, spread(named[DEFAULT].seconds, row.seconds), ours, *pixels)
    return table


def described(values: list[float]) -> str:
    """Format the mean and minimum PSNR of the images that are not exact."""
    finite = [value for value in values if math.isfinite(value)]
    return f"{statistics.mean(finite):.1f} / {min(finite):.1f}" if finite else "exact"


def spread(numerators: list[float], denominators: list[float]) -> str:
    """Format the rounds' ratios as 'median (min-max)'."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def two_threads(jobs: list[Job], crop_size: int, rounds: int) -> str:
    """Compare native batch decoding on two threads with one thread; needs two free cores."""
    wall: dict[int, list[float]] = {1: [], 2: []}
    processor: dict[int, list[float]] = {1: [], 2: []}
    out = np.empty((BATCH, crop_size, crop_size, 3), np.uint8)
    chunks = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    batches = [native.Batch([data for data, _ in chunk]) for chunk in chunks]
    views = [np.array([view for _, view in chunk], np.int32) for chunk in chunks]
    for number in range(rounds + 1):
        for threads in (1, 2) if number % 2 else (2, 1):
            started, used = time.perf_counter(), time.process_time()
            for batch, wanted in zip(batches, views, strict=True):
                batch.view(wanted, out[: len(wanted)], threads)
            if number:  # the first round warms up
                wall[threads].append(time.perf_counter() - started)
                processor[threads].append(time.process_time() - used)
    speedup, cost = spread(wall[1], wall[2]), spread(processor[2], processor[1])
    return f"{speedup} times as fast as one (wall clock), with {cost} times the processor time"
