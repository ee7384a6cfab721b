"""Names of classes: ImageNet's list, a data set's classes.txt, files given with --names."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.class_names import IMAGENET, all_shown, imagenet, names_beside, names_of, shown
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.kinds import open_dataset
from tests.image_files import make_imagefolder, make_shards
from tests.runs import ROOT

TWO = ["n01440764", "n02123045"]


def test_imagenets_list_is_complete_and_in_label_order() -> None:
    from torchvision.models import ResNet50_Weights

    known = imagenet()
    assert list(known) == sorted(known) and len(known) == 1000
    assert list(known.values()) == ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(known.values())) == 1000
    assert len(IMAGENET.read_text().splitlines()) == 1000


def test_imagenets_list_is_timms() -> None:
    timm = importlib.util.find_spec("timm")
    if timm is None or not timm.submodule_search_locations:
        pytest.skip("timm is not installed")
    theirs = Path(timm.submodule_search_locations[0], "data/_info/imagenet_synsets.txt").read_text().split()
    assert list(imagenet()) == theirs


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (TWO, ["tench", "tabby"]),
        (["cat", "dog"], ["cat", "dog"]),
        (["n01440764", "n00000000"], ["n01440764", "n00000000"]),  # not only ImageNet's
        ([], []),
    ],
)
def test_names_of_subsets(classes: list[str], names: list[str]) -> None:
    assert names_of(classes) == names


def test_a_name_is_shown_with_its_class() -> None:
    assert shown("n01440764", "tench") == "tench (n01440764)" and shown("cat", "cat") == "cat"
    assert all_shown(["a", "b"], ["A", "b"]) == ["A (a)", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "n01440764 tench, Tinca tinca\nn02123045 tabby, tabby cat\nn02123159 tiger cat\n",  # LOC_synset_mapping.txt
        "\ufeffn02123045\ttabby, tabby cat\r\n\r\nn01440764\ttench, Tinca tinca\r\n",
        '["tench, Tinca tinca", "tabby, tabby cat"]',
        '{"n02123045": "tabby, tabby cat", "n01440764": "tench, Tinca tinca", "n02123159": "tiger cat"}',
        ' {"1": "tabby, tabby cat", "0": "tench, Tinca tinca"}',
    ],
)
def test_names_of_a_file(content: str, tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text(content, encoding="utf-8", newline="")
    assert names_of(TWO, file) == ["tench, Tinca tinca", "tabby, tabby cat"]


def test_a_list_of_the_classes_gives_no_other_names(tmp_path: Path) -> None:
    """In an order of its own, it must not name them by label."""
    (tmp_path / "classes.txt").write_text("great dane\ncat\n")
    assert names_beside(str(tmp_path), ["cat", "great dane"]) == ["cat", "great dane"]


def test_digits_are_named_by_class(tmp_path: Path) -> None:
    """Labels and classes look alike, but differ in their order."""
    classes = sorted(map(str, range(11)))
    (tmp_path / "names").write_text(json.dumps({one: f"<{one}>" for one in classes}))
    assert names_of(classes, tmp_path / "names") == [f"<{one}>" for one in classes]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('["tench"]', "lists 1 names for 2 classes; list one per class"),
        ('{"n01440764": "tench"}', "does not name n02123045"),
        ('{"0": "tench"}', "does not name n01440764, n02123045"),
        ("n01440764 tench\n", "does not name n02123045"),
        ("n01440764 tench\nn02123045 \x1b[31mtabby\n", "the name of n02123045 is not a line of printable text"),
        ('["tench", 7]', "the name of n02123045 is not a line of printable text"),
        ('["tench", " "]', "the name of n02123045 is not a line of printable text"),
        ("n01440764 tench\nn02123045\n", None),  # a class without another name
        ("[1,", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_bad_files(content: str | bytes | None, said: str | None, tmp_path: Path) -> None:
    file = tmp_path / "names"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    if said is None:
        assert names_of(TWO, file) == ["tench", "n02123045"]
        return
    with pytest.raises(DataError) as caught:
        names_of(TWO, file)
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_a_data_sets_own_names(tmp_path: Path) -> None:
    """classes.txt beside train/, for folders and for shards on this machine; ImageNet's without it."""
    root = make_imagefolder(tmp_path / "set", classes=TWO, per_class=1)
    make_shards(root, tmp_path / "shards")
    (tmp_path / "shards/classes.json").write_text(json.dumps(TWO))

    def opened(path: Path, is_streaming: bool = False) -> list[str] | None:
        pipeline = EvaluationPipeline(-1, 16)
        local = str(path) if is_streaming else None
        given = {"local": local, "split": "val", "pipeline": pipeline, "seed": 0, "is_streaming": is_streaming}
        return open_dataset(None, str(path), **given).class_names  # type: ignore[arg-type]

    assert opened(root) == opened(tmp_path / "shards", True) == ["tench", "tabby"]
    for place in (root, tmp_path / "shards"):
        (place / "classes.txt").write_text("n01440764 Schleie\nn02123045 Katze\n")
    assert opened(root) == opened(tmp_path / "shards", True) == ["Schleie", "Katze"]
    (root / "classes.txt").write_text("Schleie\n")
    with pytest.raises(DataError, match=r"set/classes.txt: does not name n01440764, n02123045; write lines"):
        opened(root)


@pytest.mark.slow
def test_names_need_no_torch() -> None:
    code = "import sys, loaders.class_names as c; c.names_of(['n01440764']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
