"""The comparison with other loaders: missing ones are left out, the rest get the same bytes and boxes."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from benchmarks import data as bench_data
from benchmarks import limit, pairs, peers
from benchmarks.epochs import DEFAULT, DEFAULT_BYTES, Kind, _seconds_of
from benchmarks.image_files import make_images
from benchmarks.peers import NOT_INSTALLED
from common.errors import DataError
from common.terminal import console
from loaders.images import native
from loaders.images.decoding import open_image
from loaders.images.native import View
from loaders.images.transforms import TrainingPipeline
from tests.image_files import make_imagefolder
from tests.runs import ROOT, small_yaml

SIZE = 96
OPTIONAL = {"FFCV's decoder": "ffcv", "SPDL (FFmpeg)": "spdl", "nvImageCodec": "nvidia.nvimgcodec"}
built = pytest.mark.skipif(not native.available(), reason=f"{native.LIBRARY.name} is not built: {native.HOW_TO_BUILD}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six JPEGs like ImageNet's."""
    root = tmp_path_factory.mktemp("photographs")
    make_images(root, 6)
    return sorted((root / "train").rglob("*.jpeg"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Restore the number of threads, which the benchmark changes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a C compiler."""
    limit._library.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler -O0")
    yield
    limit._library.cache_clear()


def compiled() -> None:
    """Skip the test if the limit cannot be compiled."""
    try:
        limit.Limit()
    except DataError as error:
        pytest.skip(str(error))


def test_boxes_are_the_same_for_all(files: list[Path]) -> None:
    """Drawn once, as in training, with a seed per image; files that are not RGB JPEGs have none."""
    jobs = peers.draw_jobs(files, SIZE)
    assert jobs == peers.draw_jobs(files, SIZE) and len({view[:4] for _, view in jobs}) == len(files)
    pipeline = TrainingPipeline(-1, SIZE)
    for number, (path, (data, view)) in enumerate(zip(files, jobs, strict=True)):
        with Image.open(path) as image:
            box = pipeline.draw(image.height, image.width, torch.Generator().manual_seed(number))
        assert data == path.read_bytes() and view[:4] == box[:4] and not view.flip
        assert (view.kept_rows, view.kept_columns) == (SIZE, SIZE)
    other = files[0].with_name("other.jpeg")
    Image.new("CMYK", (64, 64)).save(other, "JPEG")
    assert peers.draw_jobs([other], SIZE) == []
    other.unlink()


@pytest.mark.slow
def test_all_decoders_give_nearly_the_same_image(files: list[Path]) -> None:
    """For the decoders that are installed: ours match PIL's pixels, and all see the same box."""
    told: list[str] = []
    rows = {row.name: row for row in pairs.measure_decoders(peers.draw_jobs(files, SIZE), SIZE, 2, told.append)}
    for name, package in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            assert name not in rows and f"{name}: left out. {NOT_INSTALLED}" in told
    assert {*rows, *(line.partition(":")[0] for line in told)} >= {*peers.DECODERS} - {peers.LIMIT, peers.SCALED}
    for name in rows.keys() - {peers.LIMIT}:
        assert len(rows[name].psnr) == len(files) and len(rows[name].seconds) == 2
        assert min(rows[name].psnr) > 25, name
    assert min(rows["ours, torchvision"].psnr) > 55 and rows["ours, torchvision"].largest <= 2
    if peers.OURS in rows:
        assert rows[peers.OURS].psnr == [math.inf] * len(files) and rows[peers.OURS].largest == 0
    assert "DALI (CPU)" not in rows or min(rows["DALI (CPU)"].psnr) > 50


def test_psnr() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert pairs.psnr(pixels, pixels) == math.inf and pairs.described([math.inf]) == "exact"
    assert pairs.psnr(pixels + 1, pixels) == pytest.approx(20 * math.log10(255))
    shifted = np.roll(pixels, 1, axis=1)
    assert 0 < pairs.psnr(shifted, pixels) < 40
    row = pairs.Row("shifted", list)
    pairs.compare(row, [shifted, pixels], [pixels, pixels])
    assert row.largest == 9 and row.psnr == [pairs.psnr(shifted, pixels), math.inf]


def decoded(data: bytes, view: View, width: int) -> tuple[np.ndarray, int]:
    """The pixels that the limit decodes of an image of this width, and their first column."""
    out, box = np.empty((view.height, width, 3), np.uint8), (ctypes.c_int32 * 4)(*view[:4])
    assert limit._library().decode_box(data, len(data), box, out.strides[0], out.ctypes.data)
    return out[:, : box[3]], box[1]


@pytest.mark.slow
def test_the_limit_decodes(files: list[Path]) -> None:
    """The pixels of the box, with at most the extra columns of libjpeg-turbo's blocks."""
    compiled()
    for data, view in peers.draw_jobs(files, SIZE):
        whole = np.asarray(open_image(data))
        pixels, left = decoded(data, view, whole.shape[1])
        assert view.left - 16 <= left <= view.left and pixels.shape[1] <= view.width + 16
        rows, columns = slice(view.top, view.top + view.height), slice(left + 2, left + pixels.shape[1] - 2)
        # at the edges, chroma is interpolated with columns outside the box
        assert np.array_equal(pixels[:, 2:-2], whole[rows, columns])
    narrow = View(0, 5, 8, 20, 8, 8, 0, 0, 8, 8)
    pixels, left = decoded(data, narrow, whole.shape[1])
    assert left == 0 and np.array_equal(pixels, whole[:8])
    with pytest.raises(ValueError, match="cannot decode"):
        limit.Limit()(b"no image", narrow)


@pytest.mark.slow
def test_the_limit_is_compiled_as_the_decoder(no_limit: None, files: list[Path]) -> None:
    """With the same flags; without a compiler its row is left out."""
    assert " ".join(limit.FLAGS) in (ROOT / "Makefile").read_text()
    told: list[str] = []
    rows = pairs.measure_decoders(peers.draw_jobs(files[:1], SIZE), SIZE, 1, told.append)
    assert peers.LIMIT not in {row.name for row in rows}
    assert any(line.startswith(f"{peers.LIMIT}: left out. It needs a C compiler") for line in told)


def test_a_failing_peer_is_left_out() -> None:
    """A failure of our own decoder is raised."""
    told: list[str] = []
    with peers.left_out("some library", told.append, True):
        raise RuntimeError("of another machine")
    assert told == ["some library: left out. It fails here (RuntimeError: of another machine)."]
    with pytest.raises(RuntimeError), peers.left_out("ours", told.append, False):
        raise RuntimeError


@pytest.mark.slow
def test_processor_time_of_workers() -> None:
    """From a clock finer than /proc's hundredths of a second, and consistent with /proc."""
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        process = psutil.Process(worker.pid)
        while sum(process.cpu_times()[:2]) < 0.2:
            time.sleep(0.01)
        before, used = sum(process.cpu_times()[:2]), _seconds_of(process)
        assert before <= used + 0.01 and used <= sum(process.cpu_times()[:2]) + 0.03
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.slow
@built
def test_large_images_have_a_separate_row(tmp_path: Path) -> None:
    make_images(tmp_path, 2, 900)
    jobs = peers.draw_jobs(sorted(tmp_path.glob("train/*/*")), 32)
    row = next(row for row in pairs.measure_decoders(jobs, 32, 1, print) if row.name == peers.SCALED)
    assert len(row.seconds) == 1 and all(30 < value < 60 for value in row.psnr)


@built
def test_two_threads(files: list[Path]) -> None:
    said = pairs.two_threads(peers.draw_jobs(files, SIZE), SIZE, 1)
    assert "times as fast as one (wall clock)" in said and all(
        float(word) > 0 for word in said.split() if word[0].isdigit()
    )


def test_tables_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [pairs.Row(name, list, [1e-3, 2e-3], [61.12, 62.1, math.inf], 11) for name in peers.DECODERS]
    console().print(pairs.pair_table(rows, "One core"))
    names = (DEFAULT, DEFAULT_BYTES, "imagefolder", "FFCV, quality 90 (66 kB)", "StreamingImageNet")
    ran = [Kind(name, print, [1e-3, 1e-3], [1e-3, 2e-3], peer=name not in names[:3]) for name in names]
    console().print(bench_data.kind_table(ran, 132e3, "Loaders"))
    said = capsys.readouterr().out
    assert "…" not in said and max(map(len, said.splitlines())) <= 80
    for whole in ("nvImageCodec", "61.6 / 61.1", "(1.00-1.00)", "StreamingImageNet", "imagefolder,"):
        assert whole in said


@pytest.mark.slow
def test_peers_of_whole_loaders(
    workdir: Path, capsys: pytest.CaptureFixture, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself on small images: a row per installed loader, a sentence for each other one."""
    monkeypatch.setenv("COLUMNS", "200")  # so wide that no name wraps, whatever the figures
    root = make_imagefolder(workdir / "small", per_class=67)
    words = [str(small_yaml(workdir, root)), "--images=200", "--rounds=1", "--workers=1", "--kinds=imagefolder"]
    assert bench_data.main([*words, "--peers", "--plot=a.png"]) == 0
    said = capsys.readouterr().out
    printed = " ".join(said.split())
    for name, package in (("FFCV, same bytes (1 kB)", "ffcv"), ("SPDL (FFmpeg)", "spdl")):
        if importlib.util.find_spec(package) is None:
            assert f"{name}: left out. {NOT_INSTALLED}" in printed
    whole = printed.partition("Loaders: 1 workers")[2]
    assert "StreamingImageNet │" in whole and (workdir / "a.png").stat().st_size > 5000
    assert ("│ DALI's own pipeline" in whole) == (importlib.util.find_spec("nvidia.dali") is not None)
    assert "two threads: " in printed and "One core, 200 JPEGs of 1 kB" in printed
