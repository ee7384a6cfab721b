"""FFCV's files: ffcv's are read exactly, ours are written exactly, and damage gives a sentence."""

import hashlib
import io
import json
import lzma
import os
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.utils.data import DataLoader

from common.errors import DataError
from loaders.images.decoding import decode
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.beton import ALLOCATION, FIELD, HEADER, SAMPLE, BetonDataset
from loaders.storage.beton_writer import AHEAD, PAGE_SIZE, write_beton
from loaders.storage.imagefolder import ImageFolderDataset

# Written by ffcv 1.0.2: RGBImageField(write_mode="smart", smart_threshold=1000), IntField(), pages of 2 MiB, by three
# processes, so that the images are out of order. Per sample, as read by ffcv: type, label, start of the SHA-256.
GOLDEN = Path(__file__).parents[1] / "golden" / "ffcv.beton.xz"
GOLDEN_SAMPLES = [
    (np.ndarray, 5, "98917776e8e00b4b"),
    (bytes, 4, "1ef295749efcc41b"),
    (np.ndarray, 3, "0d328477d744f3da"),
    (bytes, 2, "27054a88021cb105"),
    (np.ndarray, 1, "497c48d692d6a6c3"),
    (bytes, 0, "512350ee836c80cb"),
]
PIPELINE = EvaluationPipeline(resize_size=-1, crop_size=32)


def golden_image(number: int) -> np.ndarray:
    """Return the image that ffcv was given."""
    height, width = (8, 9) if number % 2 == 0 else (40 + number, 48)
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x + 10 * number, 5 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "val.beton"
    path.write_bytes(lzma.decompress(GOLDEN.read_bytes()))
    return path


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def written(path: Path, image_folder: list[bytes], workers: int = 1) -> BetonDataset:
    """Write a file of these images, labeled 0, 1, 2, ..."""
    write_beton(path, len(image_folder), lambda index: (image_folder[index], index), workers)
    return BetonDataset(path, "train", PIPELINE, seed=0)


def noise(side: int = 40, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def test_reads_what_ffcv_wrote(golden: Path) -> None:
    dataset = BetonDataset(golden.parent, "val", PIPELINE, seed=0)
    assert len(dataset) == len(GOLDEN_SAMPLES) and dataset.classes is None
    for index, (kind, label, digest) in enumerate(GOLDEN_SAMPLES):
        source, found = dataset.read(index)
        assert isinstance(source, kind) and found == label
        assert hashlib.sha256(source).hexdigest().startswith(digest)
        loss = np.abs(decode(source).permute(1, 2, 0).numpy().astype(int) - golden_image(index))
        assert loss.max() == 0 if kind is np.ndarray else loss.mean() < 4


@pytest.mark.filterwarnings("ignore")  # of ffcv's dependencies
def test_ffcv_reads_what_is_written_here(tmp_path: Path) -> None:
    loading = pytest.importorskip("ffcv.loader")
    decoders = pytest.importorskip("ffcv.fields.decoders")
    source_image = noise().resize((128, 96))
    files = [
        encoded(source_image, "PNG"),
        encoded(source_image.convert("L"), "JPEG"),
        encoded(source_image.convert("CMYK"), "JPEG"),
    ]
    files += [encoded(source_image, "JPEG", quality=95, progressive=progressive) for progressive in (False, True)]
    dataset = written(tmp_path / "train.beton", files)
    pipelines = {"image": [decoders.SimpleRGBImageDecoder()], "label": [decoders.IntDecoder()]}
    order = loading.OrderOption.SEQUENTIAL
    for cache in (True, False):
        loader = loading.Loader(str(dataset.path), 5, num_workers=1, os_cache=cache, order=order, pipelines=pipelines)
        [(images, labels)] = list(loader)
        assert np.ravel(labels).tolist() == [0, 1, 2, 3, 4]
        for index, image in enumerate(np.array(images)):
            source, _ = dataset.read(index)
            worst = np.abs(decode(source).permute(1, 2, 0).numpy().astype(int) - image).max()
            assert worst == 0 if isinstance(source, np.ndarray) else worst <= 16  # ffcv uses the fast, less exact DCT


@pytest.mark.slow
def test_a_folder_becomes_a_file(folder: Path, tmp_path: Path) -> None:
    source = ImageFolderDataset(folder, "train", PIPELINE, seed=0)
    (tmp_path / "classes.json").write_text(json.dumps(source.classes))
    told: list[int] = []
    write_beton(tmp_path / "train.beton", len(source), source.read, progress=told.append)
    dataset = BetonDataset(tmp_path, "train", PIPELINE, seed=0)
    assert dataset.classes == source.classes and len(dataset) == len(source) == 60 and told == list(range(1, 61))
    assert [dataset.read(index) for index in range(60)] == [source.read(index) for index in range(60)]
    assert dataset.name_of(7) == f"{tmp_path}/train.beton, sample 7"
    batches = [list(DataLoader(dataset, batch_size=20, num_workers=workers)) for workers in (0, 2)]
    for (here, here_labels), (there, there_labels) in zip(*batches, strict=True):
        assert torch.equal(here, there) and torch.equal(here_labels, there_labels)
    assert pickle.loads(pickle.dumps(dataset)).read(59) == source.read(59)


@pytest.mark.parametrize(
    "kept,image",
    [
        (True, encoded(noise(), "JPEG")),
        (True, encoded(noise(), "JPEG", progressive=True, subsampling=0)),
        (True, encoded(noise(mode="L"), "JPEG")),
        (
            True,
            encoded(noise(), "JPEG", exif=rotated()),
        ),
        (False, encoded(noise(mode="CMYK"), "JPEG")),
        (False, encoded(noise(), "PNG")),
        (False, encoded(noise(mode="RGBA"), "PNG")),
        (False, encoded(noise(mode="P"), "PNG", transparency=3)),
        (False, encoded(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70), "PNG")),
        (False, encoded(noise(mode="LA"), "WEBP", lossless=True)),
    ],
    ids=["jpeg", "progressive", "grey", "rotated", "cmyk", "png", "alpha", "palette", "16 bits", "webp"],
)
def test_every_kind_of_image_equals_pils_rgb(kept: bool, image: bytes, tmp_path: Path) -> None:
    source, _ = written(tmp_path / "train.beton", [image]).read(0)
    opened = Image.open(io.BytesIO(image))
    opened = opened.convert("RGBA") if opened.mode == "P" else opened
    assert np.array_equal(decode(source).permute(1, 2, 0), opened.convert("RGB"))
    assert source == image if kept else isinstance(source, np.ndarray)


def test_writing_is_deterministic_and_bounded_in_memory(tmp_path: Path) -> None:
    images = [encoded(noise(20 + seed % 7, seed=seed), "PNG" if seed % 3 else "JPEG") for seed in range(80)]
    files = set()
    for run, workers in enumerate((1, 3, 3)):
        started: list[int] = []
        ahead: list[int] = []

        def take(index: int, started: list[int] = started) -> tuple[bytes, int]:
            started.append(index)
            return images[index], index % 5

        def tell(done: int, ahead: list[int] = ahead, started: list[int] = started) -> None:
            ahead.append(len(started) - done)

        write_beton(tmp_path / f"{run}.beton", 80, take, workers, tell)
        assert sorted(started) == list(range(80)) and max(ahead) <= AHEAD * workers
        files.add((tmp_path / f"{run}.beton").read_bytes())
    assert len(files) == 1 and len(list(tmp_path.iterdir())) == 3


def test_an_image_larger_than_a_page(tmp_path: Path) -> None:
    large = Image.new("RGB", (1900, 1800), (1, 2, 3))
    small = [encoded(noise(900, seed=seed), "PNG") for seed in range(2)]
    dataset = written(tmp_path / "train.beton", [small[0], encoded(large, "PNG"), *small])
    page = int(np.fromfile(dataset.path, HEADER, 1)[0]["page_size"])
    first, last = dataset.samples["address"], dataset.samples["address"] + dataset.sizes - 1
    assert page == 2 * PAGE_SIZE and (first // page == last // page).all()
    assert np.array_equal(dataset.read(1)[0], large) and np.array_equal(dataset.read(3)[0], noise(900, seed=1))


@pytest.mark.parametrize("bytes_left", [0, 10, 100, 2150, 3 << 20, -24 * 6, -24, -1])
def test_a_truncated_file_is_rejected(bytes_left: int, golden: Path) -> None:
    os.truncate(golden, bytes_left % golden.stat().st_size)
    with pytest.raises(
        DataError, match=r"val\.beton: ends after \d+ bytes, .*python -m tools\.convert SRC DST --to ffcv"
    ):
        BetonDataset(golden, "val", PIPELINE, seed=0)


def changed(golden: Path, offset: int, value: bytes) -> None:
    with open(golden, "r+b") as file:
        file.seek(offset)
        file.write(value)


ROWS = HEADER.itemsize + 2 * FIELD.itemsize  # start of the table of samples


@pytest.mark.parametrize(
    "offset,value,sentence",
    [
        (0, b"\x03\x00", r"not a \.beton file of version 2 \(its version is 3\)"),
        (0, b"\xff\xd8", r"not a \.beton file of version 2 \(its version is 55551\)"),
        (2, b"\x01\x00", r"has the fields image \(RGBImageField\); the fields must be an RGB"),
        (
            HEADER.itemsize + FIELD.itemsize,
            b"\x00",
            r"has the fields image \(RGBImageField\), label \(FloatField\); the",
        ),
        (HEADER.itemsize, b"\xff", r"has the fields image \(a custom field\), label \(IntField\); the"),
        (8, bytes(8), r"holds no images"),
        (16, bytes(8), r"is unfinished; the program that wrote it was stopped"),
        (ROWS, b"\x02", r"sample 0: has no valid image in the file's tables \(1 of 6"),
        (ROWS + SAMPLE.itemsize * 2 + 1, b"\x0a", r"sample 2: has no valid image"),
        (ROWS + SAMPLE.itemsize * 3 + 5, b"\xff" * 8, r"sample 3: has no valid image"),
        (ROWS + SAMPLE.itemsize * 3 + 5, b"\xd9", r"sample 3: has no valid image"),
        (-ALLOCATION.itemsize * 6 + 16, b"\xff" * 8, r"sample 1: has no valid image"),
        (-ALLOCATION.itemsize * 5 + 16, b"\x01", r"sample 0: has no valid image"),
        (ROWS + 16, b"\xff" * 8, r"has labels from -1 to 4, but a label is at least 0"),
    ],
)
def test_a_damaged_or_unsupported_file_is_rejected(offset: int, value: bytes, sentence: str, golden: Path) -> None:
    changed(golden, offset % golden.stat().st_size, value)
    with pytest.raises(DataError, match=sentence):
        BetonDataset(golden, "val", PIPELINE, seed=0)


def test_paths_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.beton: no such file.*tools\.convert SRC \S+ --to ffcv"):
        BetonDataset(tmp_path, "train", PIPELINE, seed=0)
    with pytest.raises(DataError, match=r"python -m tools\.preload s3://bucket/set"):
        BetonDataset("s3://bucket/set", "train", PIPELINE, seed=0)


def test_class_names_that_do_not_fit_the_file(golden: Path) -> None:
    names = golden.with_name("classes.json")
    names.write_text('["cat", "dog"]')
    with pytest.raises(DataError, match=r"has labels from 0 to 5, but \S+/classes\.json names 2 classes"):
        BetonDataset(golden, "val", PIPELINE, seed=0)
    names.write_text('["cat", ')
    with pytest.raises(DataError, match=r"classes\.json: is not a list of class names"):
        BetonDataset(golden, "val", PIPELINE, seed=0)


def test_damage_inside_an_image_names_the_sample(golden: Path) -> None:
    dataset = BetonDataset(golden, "val", PIPELINE, seed=0)
    changed(golden, int(dataset.samples["address"][1]), bytes(500))
    with pytest.raises(DataError, match=r"val\.beton, sample 1: cannot be read as an image"):
        dataset[1]
    os.truncate(golden, int(dataset.samples["address"][3]) + 5)
    with pytest.raises(DataError, match=r"val\.beton, sample 3: the file was truncated"):
        dataset[3]


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "train.beton"
    good = [encoded(noise(), "JPEG")] * 20
    with pytest.raises(DataError, match=r"image 12 cannot be stored \(UnidentifiedImageError"):
        written(path, [*good[:12], b"not an image", *good], workers=2)
    with pytest.raises(KeyError):
        write_beton(path, 30, lambda index: dict(enumerate(zip(good, range(20), strict=True)))[index])
    with pytest.raises(DataError, match=r"1 x 70000 pixels.*at most 65535 pixels a side"):
        written(path, [encoded(Image.new("RGB", (1, 70_000)), "PNG")])
    with pytest.raises(DataError, match="there are no images to write"):
        written(path, [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (PAGE_SIZE + 10_000, 2 * PAGE_SIZE + 10):  # like a full disk: within the images, and within the table
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(
                DataError, match=r"train\.beton: cannot be written \(File too large\)\. Free some space"
            ):
                written(path, good)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_writer_leaves_no_data_set(tmp_path: Path) -> None:
    path, image = tmp_path / "train.beton", encoded(noise(), "JPEG")
    child = os.fork()
    if child == 0:
        try:
            write_beton(path, 50, lambda index: (image, index) if index < 30 else os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    part = tmp_path / "train.beton.part"
    assert part.stat().st_size > PAGE_SIZE and not path.exists()
    with pytest.raises(DataError, match=r"not a \.beton file of version 2 \(its version is 0\)"):
        BetonDataset(part, "train", PIPELINE, seed=0)
    assert len(written(path, [image] * 50)) == 50 and list(tmp_path.iterdir()) == [path]
