"""Training from tars in S3: each is downloaded once, on first use, into a cache that all processes of a node share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.archives.place import plain_ranges
from loaders.errors import LocalMissing
from loaders.storage import archives
from tests.archives.layouts import make_webdataset, write_tar
from tests.archives.test_imagenet import make
from tests.following import assert_advice_trains, for_both
from tests.loaders.proxy import FaultProxy
from tests.runs import bare_shell, small_yaml
from tests.s3 import s3_client, upload, use_endpoint
from tests.tools.conversions import convert

ROOT = Path(__file__).resolve().parents[2]
TAR = "imagenet1k-train-0000.tar"


@pytest.fixture(scope="module")
def tars(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WebDataset tars of the small ImageNet, three for train and two for val; not to be changed."""
    return make_webdataset(plain, tmp_path_factory.mktemp("wds") / "wds")


@pytest.fixture
def address(tars: Path, s3_server: str) -> str:
    """The tars in S3."""
    return upload(tars, "photos", "wds")


@pytest.fixture
def proxy(s3_server: str, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the server that holds the tars."""
    with FaultProxy(s3_server) as proxy:
        use_endpoint(monkeypatch, proxy.address)
        yield proxy


def built(path: str | Path, local: str | Path | None, workers: int = 0, **options):
    """Open a split as training does."""
    options = {"batch_size": 5, "crop_size": 16, "seed": 3, "num_workers": workers, **options}
    return build_imagenet_dataspec(path, False, local=local, **options)


def batches(spec) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images.clone(), labels.clone()) for images, labels in spec.dataloader]


def assert_equal(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_images_labels_and_classes_are_those_of_a_copy_on_a_disk(address: str, tars: Path, tmp_path: Path) -> None:
    for is_train in (True, False):
        stored = built(address, tmp_path / "cache", is_train=is_train).dataloader.dataset
        local = built(tars, None, is_train=is_train).dataloader.dataset
        assert stored.classes == local.classes and stored.class_names == local.class_names
        places = {local.name_of(n).rpartition(", ")[2]: n for n in range(len(local))}
        assert len(places) == len(stored)
        for n in range(len(stored)):
            assert stored.name_of(n).startswith(f"{address}/imagenet1k-")
            assert stored.read(n) == local.read(places[stored.name_of(n).rpartition(", ")[2]])
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*.tar"))
    assert len(kept) == len(list(tars.iterdir())) and kept[0] == "00000-imagenet1k-train-0000.tar"


def test_tars_without_names_of_imagenets_give_the_batches_of_a_disk(
    s3_server: str, tmp_path: Path, plain: Path
) -> None:
    """Unlike ImageNet's, whose images a disk gives in the order of their names: random crops are the same."""
    images = sorted(plain.rglob("*.JPEG"))
    for split in ("train", "val"):
        for tar in range(3):
            members = []
            for n in range(6):
                members += [(f"{n}.jpg", images[7 * n + tar].read_bytes()), (f"{n}.cls", b"%d" % (n % 2))]
            (tmp_path / "wds").mkdir(exist_ok=True)
            write_tar(tmp_path / f"wds/{split}-{tar}.tar", members)
    address = upload(tmp_path / "wds", "photos", "wds")
    stored = built(address, tmp_path / "cache", shuffle=False)
    assert_equal(batches(stored), batches(built(tmp_path / "wds", None, shuffle=False)))


def test_each_tar_is_downloaded_once_and_in_the_order_of_use(address: str, proxy: FaultProxy, tmp_path: Path) -> None:
    spec = built(address, tmp_path / "cache")
    before = len(proxy.asked)
    assert len(batches(spec)) == 8
    fetched = [path for path in proxy.asked[before:] if path.endswith(".tar")]
    assert len(fetched) == len(set(fetched)) == 3
    again = built(address, tmp_path / "cache")
    before = len(proxy.asked)
    assert_equal(batches(again), batches(spec))
    assert not [path for path in proxy.asked[before:] if path.endswith(".tar")]


@pytest.mark.slow
def test_workers_a_resumed_epoch_and_a_limit_read_the_same_batches(address: str, tars: Path, tmp_path: Path) -> None:
    whole = batches(built(address, tmp_path / "cache"))
    largest = max(path.stat().st_size for path in tars.iterdir())
    for limit in (largest, 2 * largest):
        limited = tmp_path / f"limited{limit}"
        assert_equal(batches(built(address, limited, 2, cache_limit=limit)), whole)
        # Another process may exceed it by the tar that it has open.
        assert sum(path.stat().st_size for path in limited.rglob("*.tar")) <= limit + largest
    spec = built(address, tmp_path / "other", 1)
    dataset = spec.dataloader.dataset
    dataset.load_state_dict(dataset.state_dict(15, from_beginning=True))
    assert_equal(batches(spec), whole[3:])
    with pytest.raises(DataError, match=r"wds: cache_limit=9 bytes, but the largest shard has .* Set cache_limit="):
        built(address, tmp_path / "other", cache_limit=9)
    with pytest.raises(DataError, match="images shuffled in a window over shards, but this kind of storage"):
        built(tars, None).dataloader.dataset.load_state_dict(dataset.state_dict(15, from_beginning=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wds", "mds"])
def test_advice_is_followed(form: str, address: str, plain: Path, workdir: Path, capfd: pytest.CaptureFixture) -> None:
    """Where is_streaming does not fit what the address holds, until the run trains and evaluates."""
    if form == "mds":
        convert(plain, workdir / "mds")
        address = upload(workdir / "mds", "shards", "mds")

    def start(folder: Path) -> list[str]:
        yaml = small_yaml(folder, plain, max_duration="1ba", scheduler__t_warmup="0ba", save_folder=None)
        words = ("num_workers=0", f"path={address}", f"local={folder / 'cache'}", f"is_streaming={form == 'wds'}")
        return [str(yaml), "model.num_classes=1000", *for_both(*words)]

    assert_advice_trains(start, lambda word: word.replace("/a/cache/folder", "cache"), workdir, capfd)


PROGRAM = """
import json, sys
from composer.utils import dist
from data import build_imagenet_dataspec

dist.initialize_dist("cpu", timeout=300)
remote, cache, out = sys.argv[1:]
spec = build_imagenet_dataspec(remote, False, 4, local=cache, crop_size=16, num_workers=1, seed=1)
indices = [index for _, index in spec.dataloader.sampler]
labels = [int(label) for _, labels in spec.dataloader for label in labels]
assert labels == [int(spec.dataloader.dataset.catalog.labels[index]) for index in indices]
del spec
with open(f"{out}/{dist.get_global_rank()}.json", "w") as file:
    json.dump(indices, file)
"""


@pytest.mark.slow
def test_two_ranks_index_and_download_once(address: str, proxy: FaultProxy, tars: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "composer.cli.launcher", "-n", "2", program, address, tmp_path / "cache", tmp_path],
        env=bare_shell(PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(tmp_path / "indexes")),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(ranks[0] + ranks[1]) == list(range(40))
    sizes = [path.stat().st_size for path in tars.glob("*train*")]
    assert len(list((tmp_path / "indexes").rglob("*.npz"))) == 1
    # One request for the head of a tar that the form is recognized by, and a few for its index, by one of the ranks.
    assert len([path for path in proxy.asked if path.endswith(TAR)]) < 8, sizes


def test_a_tar_that_is_replaced_during_the_run_ends_it(address: str, tars: Path, tmp_path: Path) -> None:
    spec = built(address, tmp_path / "cache")
    whole = (tars / TAR).read_bytes()
    for changed in (whole[: len(whole) // 2], whole[:-1] + b"x"):
        s3_client().put_object(Bucket="photos", Key=f"wds/{TAR}", Body=changed)
        with pytest.raises(DataError, match=f"{address}/{TAR}: has been replaced since this run started"):
            batches(spec)
    plain_ranges.cache_clear()  # as another process would start
    s3_client().put_object(Bucket="photos", Key=f"wds/{TAR}", Body=whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{address}/{TAR}: is truncated"):
        built(address, tmp_path / "other")
    plain_ranges.cache_clear()
    s3_client().put_object(Bucket="photos", Key=f"wds/{TAR}", Body=whole + bytes(10_240))
    with pytest.raises(DataError, match=r"caches another data set, or an older state of .*wds.* rm -r .*cache/train"):
        built(address, tmp_path / "cache")
    assert len(batches(built(address, tmp_path / "other"))) == 8


def test_a_damaged_copy_in_the_cache_is_downloaded_again(address: str, tmp_path: Path) -> None:
    whole = batches(built(address, tmp_path / "cache"))
    for path in (tmp_path / "cache").rglob("*.tar"):
        path.write_bytes(path.read_bytes()[:-1])
    assert_equal(batches(built(address, tmp_path / "cache")), whole)


def test_what_has_to_be_copied_or_converted_is_said(
    address: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LocalMissing, match=r"photos/wds: archives in S3 .* set local=/some/folder"):
        built(address, None)
    with pytest.raises(DataError, match="s3://cache: shards are cached in a folder of this machine"):
        built(address, "s3://cache")
    with pytest.raises(DataError, match=rf"{address}: holds archives instead of MDS shards\. Set is_streaming=false"):
        build_imagenet_dataspec(address, True, 5, local=tmp_path / "cache")
    monkeypatch.setattr(archives, "LARGEST", 1000)
    copying = rf"Copy them: python -m tools\.preload {address} /local/folder; or convert them: python -m tools\.convert"
    with pytest.raises(DataError, match=r"a file of [\d.]+ MB would have to be downloaded before .*" + copying):
        built(address, tmp_path / "cache")
    monkeypatch.undo()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("form", "said"), [("class tars", "their files hold class after class"), ("kaggle", "single images on disks alone")]
)
def test_forms_that_would_be_slow(
    form: str, said: str, plain: Path, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    address = upload(make(form, plain, tmp_path / "source"), "photos", "all")
    if form == "class tars":
        labels = torch.cat([batch[1] for batch in batches(built(address, tmp_path / "cache"))])
        assert len(set(labels[:10].tolist())) > 2, "so few images are mixed, whatever holds them"
        monkeypatch.setattr(archives, "SHUFFLE_BLOCK", 100)
    with pytest.raises(DataError, match=rf"{said}.* Copy them: python -m tools\.preload s3://photos/all"):
        built(address, tmp_path / "cache")
