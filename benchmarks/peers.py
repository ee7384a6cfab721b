"""Decoders from a JPEG and a box in it to a square of pixels: ours, and other libraries' if they are installed.

All get the same bytes and the same boxes, so both their time and their pixels can be compared.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F

from benchmarks.limit import Limit
from benchmarks.stages import CHUNK
from common.errors import DataError
from loaders.images import native
from loaders.images.decoding import open_file, open_image
from loaders.images.native import View
from loaders.images.opened import OpenedByNative, OpenedByTorchvision, resized
from loaders.images.transforms import TrainingPipeline

NOT_INSTALLED = "Not installed (pip install -c constraints.txt '.[bench]')."

Job = tuple[bytes, View]
"""A JPEG, and the box in it to resize to a square."""

Decoder = Callable[[list[Job]], list[Any]]
"""Decodes at most CHUNK jobs to squares that numpy can read, uint8 [side, side, 3], valid until the next call."""

DEFAULT = "default, bytes"
OURS = "ours, native"
TABLES = "ours, tables"
SCALED = "ours, scaled"
LIMIT = "limit, full size"
MOST_PIXELS = 1 << 27  # per image: more than PIL opens without a warning


def require(name: str) -> Any:
    """Import a package that only this benchmark needs; raises DataError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(NOT_INSTALLED) from error


def draw_jobs(files: list[Path], crop_size: int) -> list[Job]:
    """Return each ordinary JPEG with a box drawn as for training, the same each time, and not flipped.

    Not every library can flip in the same step. Other files are left out.
    """
    pipeline = TrainingPipeline(-1, crop_size, hflip=False, decoder="torchvision")
    jobs = []
    for number, path in enumerate(files):
        data = path.read_bytes()
        with open_file(data) as image:
            ordinary, (width, height) = image.format == "JPEG" and image.mode in ("RGB", "L"), image.size
        if ordinary:
            generator = torch.Generator().manual_seed(number)
            jobs.append((data, pipeline.plan(height, width, crop_size, generator)))
    return jobs


def default(size: int) -> Decoder:
    """The reference: PIL's pixels, cropped and resized by torchvision's transforms."""

    def one(data: bytes, view: View) -> torch.Tensor:
        square = F.resized_crop(open_image(data), *view[:4], [size, size])
        return F.pil_to_tensor(square).permute(1, 2, 0)

    return _each(one)


def ours_native(size: int, every: int | None = None, **choices: bool) -> Decoder:
    """Our native decoder, one chunk per call, on one thread.

    Args:
        size: of the squares, in pixels.
        every: as for `native.seek_table`; None: without seek tables.
        choices: fields of View.
    """
    if not native.available():
        raise DataError(f"Not built ({native.HOW_TO_BUILD}).")

    @functools.cache  # a converted data set has the tables in a column
    def encoded(data: bytes) -> native.Encoded:
        return native.Encoded(data, b"" if every is None else native.seek_table(data, every) or b"")

    def decode(jobs: list[Job]) -> list[Any]:
        out = np.empty((len(jobs), size, size, 3), np.uint8)
        views = np.array([view._replace(**choices) for _, view in jobs], np.int32)
        batch = native.Batch([encoded(data) for data, _ in jobs])
        for index in np.flatnonzero(~batch.view(views, out, 1)).tolist():  # images it does not support
            data, view = jobs[index]
            out[index] = OpenedByNative(data).view(view).permute(1, 2, 0)
        return list(out)

    return decode


def ours_torchvision(_size: int) -> Decoder:
    """Our decoder where the native one is not built."""
    return _each(lambda data, view: OpenedByTorchvision(data).view(view).permute(1, 2, 0))


def nvimgcodec(size: int) -> Decoder:
    """nvImageCodec's CPU decoders, resized as bytes by torch with antialiasing."""
    codec = require("nvidia.nvimgcodec")
    decoder = codec.Decoder(
        device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=1,
        backends=[codec.Backend(codec.BackendKind.CPU_ONLY)],
    )
    # Neither PIL nor training applies the EXIF orientation.
    params = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)

    def box(data: bytes, view: View) -> Any:
        corners = view.top, view.left, view.top + view.height, view.left + view.width
        return codec.CodeStream(data).get_sub_code_stream(region=codec.Region(*corners))

    def decode(jobs: list[Job]) -> list[Any]:
        boxes = decoder.decode([box(*job) for job in jobs], params=params)
        pixels = [torch.from_numpy(np.asarray(one)).permute(2, 0, 1) for one in boxes]
        return [resized(one, size, size).permute(1, 2, 0) for one in pixels]

    return decode


def dali(size: int) -> Decoder:
    """DALI's CPU operators on a chunk: decode a slice, and resize it with antialiasing."""
    package = require("nvidia.dali")
    fn, types = package.fn, package.types
    pipeline = package.Pipeline(
        batch_size=CHUNK,
        num_threads=1,
        device_id=None,
        prefetch_queue_depth=1,
        exec_async=False,  # prefetching would run in another decoder's turn
        exec_pipelined=False,
    )
    with pipeline:
        data, anchor, shape = (fn.external_source(name=name) for name in ("data", "anchor", "shape"))
        # the options that give PIL's pixels
        options = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}
        pixels = fn.decoders.image_slice(data, anchor, shape, axes=[0, 1], device="cpu", **options)
        resize = {"interp_type": types.INTERP_TRIANGULAR, "antialias": True}
        pipeline.set_outputs(fn.resize(pixels, resize_x=size, resize_y=size, **resize))
    pipeline.build()

    def decode(jobs: list[Job]) -> list[Any]:
        views = [view for _, view in jobs]
        pipeline.feed_input("data", [np.frombuffer(data, np.uint8) for data, _ in jobs])
        pipeline.feed_input("anchor", np.array([(view.top, view.left) for view in views], np.int32))
        pipeline.feed_input("shape", np.array([(view.height, view.width) for view in views], np.int32))
        (squares,) = pipeline.run()
        return list(torch.from_dlpack(squares.as_tensor()))

    return decode


def ffcv(size: int) -> Decoder:
    """FFCV's decoder: the whole image with libjpeg-turbo's fast transform, then OpenCV's INTER_AREA."""
    require("ffcv")
    library = require("ffcv.libffcv")
    room = np.empty(3 * MOST_PIXELS, np.uint8)

    @functools.cache  # a .beton file has the shapes in a table
    def shape(data: bytes) -> tuple[int, int]:
        with open_file(data) as image:
            return image.height, image.width

    def one(data: bytes, view: View) -> np.ndarray:
        height, width = shape(data)
        pixels = room[: 3 * height * width].reshape(height, width, 3)
        square = np.empty((size, size, 3), np.uint8)
        library.imdecode(np.frombuffer(data, np.uint8), pixels, height, width, height, width)
        bottom, right = view.top + view.height, view.left + view.width
        library.resize_crop(pixels, view.top, bottom, view.left, right, square)
        return square

    return _each(one)


def spdl(size: int) -> Decoder:
    """SPDL, in which FFmpeg decodes, crops and scales."""
    spdl_io = open_spdl()

    def one(data: bytes, view: View) -> np.ndarray:
        return spdl_io.to_numpy(spdl_io.load_image(data, filter_desc=ffmpeg_filter(view, size)))

    return _each(one)


def open_spdl() -> Any:
    """Import spdl.io; raises DataError if SPDL or FFmpeg is not installed."""
    spdl_io = require("spdl.io")
    try:
        spdl_io.demux_config()
    except Exception as error:  # any, because loading a library can fail in many ways
        raise DataError("FFmpeg's libraries were not found (apt-get install ffmpeg).") from error
    return spdl_io


def ffmpeg_filter(view: View, size: int, more: str = "") -> str:
    """Return the FFmpeg filter that crops a view's box exactly and scales it with antialiasing (`bilinear`)."""
    crop = f"crop=w={view.width}:h={view.height}:x={view.left}:y={view.top}:exact=1"
    return f"{crop},scale=w={size}:h={size}:flags=bilinear,{more}format=pix_fmts=rgb24"


def limit(_size: int) -> Decoder:
    """Only decode the box, and return no squares."""
    decode_box = Limit()

    def decode(jobs: list[Job]) -> list[Any]:
        for data, view in jobs:
            decode_box(data, view)
        return []

    return decode


DECODERS: dict[str, Callable[[int], Decoder]] = {
    DEFAULT: default,
    OURS: ours_native,
    TABLES: functools.partial(ours_native, every=0),
    f"{TABLES}, 8": functools.partial(ours_native, every=8),
    "ours, libjpeg": functools.partial(ours_native, libjpeg=True),
    SCALED: functools.partial(ours_native, scaled=True),
    "ours, torchvision": ours_torchvision,
    "nvImageCodec": nvimgcodec,
    "DALI (CPU)": dali,
    "FFCV's decoder": ffcv,
    "SPDL (FFmpeg)": spdl,
    LIMIT: limit,
}


@contextlib.contextmanager
def left_out(name: str, log: Callable[[str], None], peer: bool) -> Iterator[None]:
    """Log a DataError inside, and for a peer any other error, instead of raising it."""
    try:
        yield
    except DataError as error:
        log(f"{name}: left out. {error}")
    except Exception as error:
        if not peer:
            raise
        log(f"{name}: left out. It fails here ({type(error).__name__}: {str(error)[:200]}).")


def _each(one: Callable[[bytes, View], Any]) -> Decoder:
    return lambda jobs: [one(data, view) for data, view in jobs]
