"""`tools.convert --val` and `--classes`: splits that are made on the way, and some of the classes."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from tests.archives.layouts import CLASSES, contents, converted, make_webdataset
from tests.tools.conversions import convert, files_of
from tools.convert.subsets import read_classes
from tools.convert.to_mds import Conversion
from tools.split.__main__ import run as split

SHARE = ("--val", "0.25", "--seed", "3")


@pytest.fixture(scope="module")
def classes(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes, with a copy of one image."""
    folder = tmp_path_factory.mktemp("unsplit") / "classes"
    shutil.copytree(plain / "train", folder)
    one = folder / CLASSES[1] / f"{CLASSES[1]}_0.JPEG"
    shutil.copy(one, one.with_name("again.jpg"))
    return folder


@pytest.fixture(scope="module")
def split_shards(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of what tools.split makes of it."""
    folder = tmp_path_factory.mktemp("split")
    assert split([str(classes), str(folder / "out"), *SHARE, "--workers=1"]) == 0
    return converted(folder / "out", folder / "mds")


def pairs(shards: Path) -> dict[str, Counter[tuple[bytes, int]]]:
    return {name: Counter(contents(shards, name)) for name in ("train", "val")}


@pytest.mark.slow
def test_a_folder_of_classes_is_split_as_tools_split_does(
    classes: Path, split_shards: dict[str, bytes], workdir: Path, capfd: pytest.CaptureFixture
) -> None:
    assert convert(classes, "mds") == 1
    said = capfd.readouterr().err.strip()
    command = said.partition("To split it: ")[2]
    assert said.startswith(f"{classes}: has no train/ and val/.") and shlex.split(command)[:3] == [
        "python", "-m", "tools.convert"
    ]  # fmt: skip
    assert not (workdir / "mds").exists() and convert(*shlex.split(command)[3:]) == 0
    assert converted(classes, workdir / "mds", *SHARE) == split_shards
    printed = " ".join(capfd.readouterr().out.split())
    assert "Split by --val 0.25 --seed 3: 31 for training, 10 for evaluation." in printed
    assert f"Found 1 exact copy in 1 group, each kept on one side: {CLASSES[1]}/again.jpg = " in printed


@pytest.mark.slow
def test_other_sources_without_a_val_are_split_alike(
    classes: Path, split_shards: dict[str, bytes], workdir: Path
) -> None:
    """A table without splits; a copy that has train alone, as a folder and as shards."""
    rows = [f"{path.relative_to(classes.parent)},{path.parent.name}" for path in classes.glob("*/*")]
    (classes.parent / "table.csv").write_text("\n".join(["path,label", *rows]))
    assert converted(classes.parent / "table.csv", workdir / "mds", *SHARE) == split_shards
    shutil.copytree(classes, workdir / "alone/train")
    assert converted(workdir / "alone", workdir / "mds", *SHARE) == split_shards
    assert convert("alone", "shards") == 0
    before = pairs(workdir / "mds")
    converted(workdir / "shards", workdir / "mds", *SHARE)
    assert pairs(workdir / "mds") == before


@pytest.mark.slow
def test_an_interrupted_one_continues_with_the_same_split(
    classes: Path,
    split_shards: dict[str, bytes],
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    words = (classes, "mds", "--shard-mb", 0.02, *SHARE)
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise DataError("stopped")

        patch.setattr(Conversion, "_check", stop)
        assert convert(*words) == 1
    notes = sorted((workdir / "mds/.convert/train").glob("*.json"))
    assert len(notes) > 1
    notes[0].unlink()
    assert convert(*words[:-1], 4) == 1
    assert "with other options (seed 3, another source)" in capfd.readouterr().err
    assert convert(*words) == 0
    assert files_of(workdir / "mds") == split_shards
    assert convert(*words) == 1
    captured = capfd.readouterr()
    assert "mds/train: exists already" in captured.err and "Reading" not in captured.out


@pytest.mark.slow
def test_unreadable_images_are_named_or_left_out(classes: Path, workdir: Path, capfd: pytest.CaptureFixture) -> None:
    shutil.copytree(classes, "broken")
    bad = sorted(Path("broken").glob("*/*"))[3]
    bad.write_bytes(bad.read_bytes()[:200])
    assert convert("broken", "mds", *SHARE) == 1 and not Path("mds").exists()
    said = capfd.readouterr().err.strip()
    assert said.startswith(f"{bad.relative_to('broken')}: cannot be read as an image") and "--skip-unreadable" in said
    assert convert("broken", "mds", *SHARE, "--skip-unreadable") == 0
    assert str(bad) in Path("mds/skipped.txt").read_text()


@pytest.mark.slow
def test_what_cannot_be_split(plain: Path, workdir: Path, capfd: pytest.CaptureFixture) -> None:
    assert convert(plain, "mds", *SHARE) == 1
    assert f"--val 0.25: {plain} has a val/ already. Leave --val out." in capfd.readouterr().err
    assert convert(plain, "mds", "--exact") == 2
    assert "--seed and --exact say how --val splits; add --val 0.2, or leave them out." in capfd.readouterr().err
    for name in ("a/1", "a/2", "b/1"):
        Path("few", name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(ord(name[0]) + int(name[2])).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(f"few/{name}.png")
    assert convert("few", "mds", *SHARE) == 1 and not Path("mds").exists()
    said = "few: 1 class has too few images for both sides: b (1 image). Add images to them, or leave them out"
    assert said in capfd.readouterr().err


@pytest.mark.slow
def test_some_of_the_classes(plain: Path, workdir: Path) -> None:
    """As if the others were not there; the order in the file does not matter."""
    chosen = [CLASSES[4], CLASSES[0], CLASSES[2]]
    for path in plain.glob("*/*"):
        if path.name in chosen:
            shutil.copytree(path, workdir / "few" / path.parent.name / path.name)
    expected = converted(workdir / "few", workdir / "few-mds")
    assert json.loads(expected["classes.json"]) == sorted(chosen)
    Path("lines.txt").write_text(f"{chosen[0]} some name\n\n{chosen[1]}\n{chosen[2]}\tanother, name\n")
    Path("labels.json").write_text(json.dumps(dict.fromkeys(chosen, "name")))
    assert converted(plain, workdir / "mds", "--classes", "lines.txt") == expected
    assert convert(plain, "whole") == 0
    for source in (workdir / "whole", make_webdataset(plain, workdir / "wds")):
        converted(source, workdir / "mds", "--classes", "labels.json")
        assert pairs(workdir / "mds") == pairs(workdir / "few-mds")
        assert json.loads((workdir / "mds/classes.json").read_text()) == sorted(chosen)


FAULTS = {
    "cat\ndgo\n": "line 2: dgo is not a class of photos; did you mean dog?",
    "cat\n\ncat": "line 3: cat is in line 1, too. Remove one of them.",
    "cat\n": ": lists 1 class; at least 2 are needed.",
    "": ": lists 0 classes; at least 2 are needed.",
    '["cat"': ": is not JSON (Expecting ',' delimiter: line 1 column 7 (char 6)). Write a class per line.",
    "caf\udce9": ": is not text in UTF-8. Write a class per line.",
}


@pytest.mark.parametrize("text", FAULTS)
def test_each_fault_of_a_list_of_classes_is_one_sentence(text: str, workdir: Path) -> None:
    Path("list").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        read_classes("list", ["cat", "dog", "golden retriever"], "photos")
    said = FAULTS[text]
    assert str(caught.value) == f"--classes list{'' if said.startswith(':') else ', '}{said}"


def test_a_list_of_classes(workdir: Path) -> None:
    Path("list").write_text("\ufeffgolden retriever\ndog  a friend\n")
    assert read_classes("list", ["cat", "dog", "golden retriever"], "photos") == ["dog", "golden retriever"]
    with pytest.raises(DataError, match=r"^--classes none: cannot be read \(No such file"):
        read_classes("none", ["cat"], "photos")
