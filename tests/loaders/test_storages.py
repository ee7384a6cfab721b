"""All kinds of storage give the same pixels in the same order for the same seed; then what differs between kinds."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.images.decoding import decode, open_image
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline
from loaders.storage.beton_writer import write_beton
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.packed import PackedDataset
from recipes.augmentations import RandomOperations
from tests.image_files import make_shards
from tests.loaders.jpegs import odd_images
from tests.runs import ROOT

KINDS = ("imagefolder", "streaming", "packed", "packed shards", "ffcv")


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """JPEGs of photographs in several sizes, qualities and subsamplings, one of them grayscale."""
    encoded = []
    for number, photo in enumerate(load_sample_images().images):
        for width, quality, subsampling in ((500, 93, 0), (333, 90, 2), (97, 75, 1), (640, 96, 2)):
            image = Image.fromarray(photo).resize((width, width * 427 // 640))
            out = io.BytesIO()
            (image.convert("L") if width == 333 and number else image).save(
                out, "JPEG", quality=quality, subsampling=subsampling, progressive=width == 97
            )
            encoded.append(out.getvalue())
    return encoded


def test_crops_equal_torchvisions_within_one(photographs: list[bytes]) -> None:
    """Same boxes and flips from the same seed; pixels differ from PIL's resized crop by at most 1 of 255."""
    for resize, size, area in ((-1, 176, 0.08), (-1, 96, 0.25), (300, 224, 0.08)):
        steps = [transforms.RandomResizedCrop(size, scale=(area, 1.0)), transforms.RandomHorizontalFlip()]
        reference = transforms.Compose([transforms.Resize(resize), *steps] if resize > 0 else steps)
        pipeline = TrainingPipeline(resize, size, min_crop_area=area)
        apart = []
        for seed, image in enumerate(photographs * 3):
            torch.manual_seed(seed)
            expected = np.asarray(reference(open_image(image))).astype(int)
            torch.manual_seed(seed)
            found = pipeline(image)
            assert found.shape == (3, size, size) and found.dtype == torch.uint8
            apart.append(np.abs(found.permute(1, 2, 0).numpy() - expected))
        # Two consecutive resizes may be off by one each.
        assert max(map(np.max, apart)) <= (1 if resize < 0 else 2) and max(map(np.mean, apart)) < 0.1


def test_evaluation_equals_torchvisions(photographs: list[bytes]) -> None:
    for resize, size in ((232, 224), (256, 224), (-1, 224), (64, 64)):
        steps = [transforms.CenterCrop(size)]
        reference = transforms.Compose([transforms.Resize(resize), *steps] if resize > 0 else steps)
        for image in photographs:
            expected = np.asarray(reference(open_image(image))).astype(int)
            found = EvaluationPipeline(resize, size)(image).permute(1, 2, 0).numpy()
            assert np.abs(found - expected).max() <= 1


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same odd images, in two classes, in each kind of storage."""
    from tools.convert.__main__ import main as convert

    base = tmp_path_factory.mktemp("odd")
    for split in ("train", "val"):
        for number, (name, content) in enumerate(odd_images().items()):
            folder = base / "folder" / split / ("ape" if number % 2 else "zebra")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    for kind in ("mds", "ffcv"):
        assert convert([str(base / "folder"), str(base / kind), "--to", kind, "--workers", "1"]) == 0
    return {"imagefolder": base / "folder", "streaming": base / "mds", "ffcv": base / "ffcv"}


def build(roots: dict[str, Path], kind: str, **options):
    storage, _, shards = kind.partition(" ")
    source = "streaming" if shards or storage == "streaming" else "ffcv" if storage == "ffcv" else "imagefolder"
    options = {"batch_size": 4, "crop_size": 24, "seed": 5, "num_workers": 0, "shuffle": False, **options}
    streams = source == "streaming"
    root = roots[source]
    return build_imagenet_dataspec(root, streams, local=root if streams else None, storage=storage, **options)


def everything(loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_odd_images_equal_pils_rgb(kind: str, workers: int, roots: dict[str, Path]) -> None:
    spec = build(roots, kind, is_train=False, drop_last=False, num_workers=workers, resize_size=-1)
    images, labels = everything(spec.dataloader)
    dataset = spec.dataloader.dataset
    assert dataset.classes == ["ape", "zebra"]
    folder = ImageFolderDataset(roots["imagefolder"], "val", EvaluationPipeline(-1, 24), 0)
    expected = []
    for index in range(len(folder)):
        image = transforms.CenterCrop(24)(open_image(folder.read(index)[0]))
        expected.append((np.asarray(image).tobytes(), int(folder.labels[index])))
    rows = images.permute(0, 2, 3, 1).numpy()
    found = [(row.tobytes(), label) for row, label in zip(rows, labels.tolist(), strict=True)]
    assert sorted(found) == sorted(expected) and len(set(found)) > 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["streaming", "packed", "packed shards", "ffcv"])
def test_training_batches_are_the_same_on_every_storage(kind: str, folder: Path, tmp_path: Path) -> None:
    """Unshuffled samples with crops, flips and random operations, of repeated images too."""
    make_shards(folder, tmp_path / "mds", size_limit=20_000)
    images = ImageFolderDataset(folder, "train", EvaluationPipeline(-1, 24), 0)
    if kind == "ffcv":
        (tmp_path / "ffcv").mkdir()
        write_beton(tmp_path / "ffcv/train.beton", len(images), images.read)
    roots = {"imagefolder": folder, "streaming": tmp_path / "mds", "ffcv": tmp_path / "ffcv"}
    options = {"image_transforms": [RandomOperations(9, 1, "all")], "batch_size": 12}
    for workers, repeats in ((0, 1), (1, 3)):
        options["repeats"] = repeats
        reference = everything(build(roots, "imagefolder", **options).dataloader)
        found = everything(build(roots, kind, num_workers=workers, **options).dataloader)
        assert torch.equal(found[0], reference[0]) and torch.equal(found[1], reference[1])


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
def test_truncated_jpegs_are_rejected(cut: float, photographs: list[bytes]) -> None:
    for image in photographs:
        with pytest.raises(OSError, match="truncated"):
            decode(image[: int(len(image) * cut)])


def test_packed_reduces_images_once(folder: Path, photographs: list[bytes], tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, photo in enumerate(photographs):
            place = tmp_path / split / "one" / f"{number}.jpeg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(photo)
    source = ImageFolderDataset(tmp_path, "val", EvaluationPipeline(-1, 24), 0)
    packed = PackedDataset(source, pack_size=100)
    shapes = [packed.read(index)[0].shape for index in range(len(packed))]
    assert {min(shape[:2]) for shape in shapes} == {64, 100}, "a smaller image keeps its size"
    whole = PackedDataset(source)
    for index in range(len(source)):
        assert np.array_equal(whole.read(index)[0], np.asarray(open_image(source.read(index)[0])))


def test_packed_reports_images_that_do_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageFolderDataset(folder, "train", EvaluationPipeline(-1, 24), 0)
    monkeypatch.setattr("loaders.storage.packed.free_shared_memory", lambda: 100_000)
    with pytest.raises(DataError, match=r"60 decoded images take 0.0 GB.*pack_size=22"):
        PackedDataset(source)
    assert len(PackedDataset(source, pack_size=22)) == 60


def test_packed_names_the_unreadable(tmp_path: Path, photographs: list[bytes]) -> None:
    place = tmp_path / "train/one/bad.jpeg"
    place.parent.mkdir(parents=True)
    (place.parent / "good.jpeg").write_bytes(photographs[0])
    place.write_bytes(photographs[0][:5000])
    with pytest.raises(DataError, match=r"bad\.jpeg: cannot be read as an image"):
        PackedDataset(ImageFolderDataset(tmp_path, "train", EvaluationPipeline(-1, 24), 0))


RANKS = """
import sys, numpy as np
from composer.utils import dist, get_device
dist.initialize_dist(get_device("cpu"), timeout=300)
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.packed import PackedDataset
from loaders.images.transforms import EvaluationPipeline
source = ImageFolderDataset(sys.argv[1], "train", EvaluationPipeline(-1, 24), 0)
packed = PackedDataset(source)
for index in range(len(packed)):
    pixels, label = packed.read(index)
    expected = source.pipeline(source.read(index)[0])
    assert (packed.pipeline(pixels) == expected).all() and label == source.labels[index]
dist.barrier()
packed.memory[0] = 17 * (dist.get_global_rank() + 1) if dist.get_global_rank() == 1 else packed.memory[0]
dist.barrier()
print(f"seen {int(packed.memory[0])}", end=chr(10), flush=True)
"""


@pytest.mark.slow
def test_packed_memory_is_shared_by_ranks_and_removed(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seen 34") == 2, "the ranks must share the memory"
    assert not list(Path("/dev/shm").glob("packed-*"))


def test_synthetic_batches_need_no_data() -> None:
    spec = build_imagenet_dataspec("", False, 64, storage="synthetic", crop_size=32)
    spec.dataloader.sampler.size_at = lambda _epoch, batch: 16 if batch < 3 else 32
    batches = list(spec.dataloader)
    assert len(batches) == len(spec.dataloader) == 12_811 // 64
    assert [batch[0].shape[-1] for batch in batches[:5]] == [16, 16, 16, 32, 32]
    images, labels = batches[-1]
    assert images.dtype == torch.uint8 and images.is_contiguous(memory_format=torch.channels_last)
    assert images.shape == (64, 3, 32, 32) and set(labels.tolist()) == {0, 1}
    assert batches[-1][0].data_ptr() == batches[-2][0].data_ptr(), "the batch must be shared"
    repeated = build_imagenet_dataspec("", False, 64, storage="synthetic", crop_size=32, repeats=3)
    assert [len(list(repeated.dataloader)), next(iter(repeated.dataloader))[0].shape[-1]] == [12_800 // 64, 32]


def test_memory_of_prefetched_batches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from loaders import memory
    from loaders.loader import worker_options

    assert memory.prefetch_factor(10 << 20, 8) == 2
    assert memory.prefetch_factor(1 << 30, 8) == 1
    assert worker_options(64, 32, {"num_workers": 2, "prefetch_factor": 3})["prefetch_factor"] == 3
    monkeypatch.setattr("loaders.memory.free_shared_memory", lambda: 1_000_000)
    with pytest.raises(DataError, match=r"1 MB are free, but 1 x 2 workers.*--ipc host.*num_workers=1"):
        worker_options(2048, 224, {"num_workers": 2})
    assert worker_options(2048, 224, {"num_workers": 0}) == {"num_workers": 0}


def test_the_bytes_of_all_images_are_known(folder: Path, shards: Path) -> None:
    """For progress bars; of an image folder they are estimated."""
    size = sum(path.stat().st_size for path in (folder / "val").rglob("*") if path.is_file())
    stored = sum(path.stat().st_size for path in (shards / "val").glob("*.mds"))
    for path, is_streaming, expected in ((folder, False, size), (shards, True, stored)):
        spec = build_imagenet_dataspec(path, is_streaming, 2, local=path, is_train=False, num_workers=0)
        assert spec.dataloader.dataset.stored_bytes == expected
