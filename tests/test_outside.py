"""Dotted paths to the user's own code, as docs/extending.md shows them, and the errors for wrong paths."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from config import ConfigError, Run, load
from data import build_imagenet_dataspec
from main import cli
from recipes import registry, source
from tests.pages import ROOT, blocks
from tests.runs import metrics, small_yaml
from tools.networks.runs import load_run
from tools.records.configs import completed, settings

PAGE = ROOT / "docs" / "extending.md"


@pytest.fixture
def own(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Function that writes a file in the working folder; modules imported from there are unloaded afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}

    def write(name: str, text: str) -> None:
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in {*sys.modules} - before:
        if str(workdir) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def page(own: Callable, workdir: Path) -> Path:
    """Working folder with the files of docs/extending.md."""
    for text in [*blocks(PAGE, "python"), *blocks(PAGE, "yaml")]:
        own(text.split()[1], text)
    return workdir


def problems(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load([str(ROOT / "yamls/digits.yaml"), "dry_run=true", *words])
    return [problem.removesuffix(" [command line]") for problem in error.value.problems]


def test_a_name_of_a_packages_module(own: Callable, workdir: Path) -> None:
    """The package has others or none; the module that has it is named, and is right."""
    own("ours/__init__.py", "from .tools import helper, _hidden\n")
    own("ours/tools.py", "def helper(): pass\ndef _hidden(): pass\n")
    own("ours/nets/small.py", "def net(num_classes):\n    pass\n")
    file = f"model.name: {workdir}/ours/__init__.py has no"
    assert problems("model.name=ours:net") == [f"{file} net; did you mean ours.nets.small:net?"]
    load([str(ROOT / "yamls/digits.yaml"), "dry_run=true", "model.name=ours.nets.small:net"])
    assert problems("model.name=ours:none") == [f"{file} none (it has helper)"]


def commands() -> list[list[str]]:
    return [shlex.split(line)[2:] for text in blocks(PAGE, "sh") for line in text.splitlines()]


def test_the_page_is_read_without_importing(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry, _ = commands()
    assert cli(dry) == 0
    said = "".join(capsys.readouterr().out.split())  # undo line wrapping
    assert "mine.parts" not in sys.modules
    assert "mine.parts:RandomErasing(p=0.25)" in said and "nocurve:adryrundoesnotimport" in said
    assert f"mine.parts:Lion,from{page}/mine/parts.py" in said and "StopAt" not in said


@pytest.mark.slow
def test_the_page_trains(page: Path, image_folder: Path) -> None:
    small = ["model.num_classes=3", "max_duration=2ep", "run_name=mine", "save_interval=2ep"]
    keys = (f"path={image_folder}", "batch_size=12")
    small += [f"{name}_dataset.{key}" for name in ("train", "eval") for key in keys]
    words = [word for word in commands()[1] if "StopAt" not in word]
    assert cli([*words, *small, "callbacks.mine.parts:StopAt.top1=0"]) == 0
    (row,) = metrics(page / "runs/mine")
    assert row["epoch"] == "1", "StopAt did not stop the run"
    assert 0 < float(row["lr"]) < 0.001 and "mine.parts" in sys.modules
    logged = [json.loads(line) for line in (page / "metrics.jsonl").read_text().splitlines()]
    assert any("metrics/eval/MulticlassAccuracy" in line for line in logged)


def test_a_record_imports_nothing(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    run = load(["mine.yaml", "dry_run=true"])
    OmegaConf.save(OmegaConf.structured(run.config), page / "config.yaml")
    tree = completed(OmegaConf.to_container(OmegaConf.load(page / "config.yaml")))
    assert settings(tree)["algorithms.mine.parts:RandomErasing.p"] == 0.5
    with pytest.raises(ConfigError, match=r"config\.yaml: names code from outside .*SmallNet.* add --outside-code$"):
        load_run(page)
    assert load_run(page, outside_code=True).config.model.name == "mine.parts:SmallNet"
    assert "mine.parts" not in sys.modules


ERASING = "mine.parts:RandomErasing"
HAS = "(it has RandomErasing, StopAt, JsonLines, Lion, polynomial or SmallNet)"
MISTAKES = {
    f"algorithms.{ERASING}.q=1": f"algorithms.{ERASING}.q: {ERASING} has no such argument (it takes p)",
    f"algorithms.{ERASING}.p=x": f"algorithms.{ERASING}.p: 'x' given, but it must be a number",
    f"algorithms.{ERASING}=3": f"algorithms.{ERASING}: 3 given (command line), but it must be a mapping of arguments; "
    f"type algorithms.{ERASING}={{}} to enable it with its defaults, algorithms.{ERASING}=null to remove it",
    f"{ERASING}={{}}": f"{ERASING}: no such key; did you mean algorithms.{ERASING}?",
    "algorithms.mine.parts:Erasing={}": "algorithms.mine.parts:Erasing: FOLDER/mine/parts.py has no Erasing; did you "
    f"mean RandomErasing? {HAS}",
    "algorithms.mine.part:X={}": "algorithms.mine.part:X: no module mine.part; did you mean parts?",
    "algorithms.no.part:X={}": "algorithms.no.part:X: no module no, neither in FOLDER nor installed",
    "algorithms.mine.parts:StopAt={}": "algorithms.mine.parts:StopAt: StopAt is for callbacks, not for algorithms",
    "callbacks.mine.parts:StopAt={}": "callbacks.mine.parts:StopAt.top1: missing; mine.parts:StopAt requires it",
    "loggers.mine.parts:Lion={}": "loggers.mine.parts:Lion: Lion is for optimizers, not for loggers",
    "optimizer.name=mine.parts:Tiger": f"optimizer.name: FOLDER/mine/parts.py has no Tiger {HAS}",
    "'optimizer={name: mine.parts:Lion, lr: 1.0, beta: 2}'": "optimizer.beta: mine.parts:Lion has no such argument; "
    "did you mean betas? (it takes lr, betas or weight_decay)",
    "scheduler.name=mine.parts:SmallNet": "scheduler.name: mine.parts:SmallNet does not take step; a schedule is "
    "called with step, total, warmup, alpha_i or alpha_f",
    "train_dataset.storage=mine.arrays:Array": "train_dataset.storage: FOLDER/mine/arrays.py has no Array; did you "
    "mean Arrays? (it has Arrays)",
    "train_dataset.storage=mine.array:Arrays": "train_dataset.storage: no module mine.array; did you mean arrays?",
    f"train_dataset.storage={ERASING}": "train_dataset.storage: RandomErasing is for algorithms, not for storages",
    "eval_dataset.storage=mine.parts:polynomial": "eval_dataset.storage: mine.parts:polynomial does not take pipeline; "
    "a storage is called with pipeline, path, split, seed or local",
    "eval_dataset.storage=loaders.storage.packed:PackedDataset": "eval_dataset.storage: "
    "loaders.storage.packed:PackedDataset does not take pipeline; a storage is called with pipeline, path, split, seed "
    "or local",
    "'train_dataset={storage: mine.arrays:Arrays, is_streaming: true, local: cache}'": "train_dataset.storage: "
    "mine.arrays:Arrays reads no MDS shards; type train_dataset.is_streaming=false",
    "model.name=mine.parts:polynomial": "model.name: mine.parts:polynomial does not take num_classes; a model is "
    "called with num_classes",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_found_without_importing(page: Path, words: str) -> None:
    assert MISTAKES[words].replace("FOLDER", str(page)) in problems(*shlex.split(words))
    assert "mine.parts" not in sys.modules


def test_paths_in_keys(page: Path) -> None:
    """In a section, in dotted keys, in blocks of a YAML and of the command line; a package may be named algorithms."""
    (page / "algorithms").mkdir()
    (page / "algorithms/mod.py").write_text((page / "mine/parts.py").read_text())

    def given(text: str, *words: str) -> dict:
        (page / "run.yaml").write_text(f"scheduler: {{t_warmup: 1ba}}\n{text}")
        run: Run = load(["run.yaml", "dry_run=true", *words])
        assert all(key in run.sources for key in [f"algorithms.{name}.p" for name in run.config.algorithms])
        return {name: args["p"] for name, args in run.config.algorithms.items()}

    mine, other = "mine.parts:RandomErasing", "algorithms.mod:RandomErasing"
    assert given(f"algorithms: {{{mine}: {{p: 0.1}}, {other}.p: 0.2}}") == {mine: 0.1, other: 0.2}
    assert given(f"algorithms.{mine}.p: 0.1\nalgorithms.{other}: {{p: 0.2}}") == {mine: 0.1, other: 0.2}
    block = f"recipe_name: baseline\nbaseline: {{algorithms.{mine}.p: 0.1}}"
    assert given(block) == {mine: 0.1}
    assert given(block, f"baseline.algorithms.{mine}.p=0.3", f"algorithms.{other}.p=0.2") == {mine: 0.3, other: 0.2}
    assert given(block, f"algorithms.{mine}=null", f"algorithms={{{other}: {{p: 0.4}}}}") == {other: 0.4}


LATE = """
import functools, torch
from dataclasses import dataclass
from composer.core import Algorithm, Callback
def algorithm(cls): return cls
@dataclass
class Data(Callback):
    most: int
class Base(Algorithm):
    def match(self, event, state): return False
    def apply(self, event, state, logger): return None
LIST = [1]
Made = type("Made", (Base,), {"__init__": lambda self, most: None})
class Mixin:
    pass
class Mixed(Mixin, torch.optim.SGD):
    pass
def make(most: int) -> Algorithm:
    return Base() if most else Mixin()
class Plain:
    pass
half = functools.partial(make, 1)
"""


def test_what_needs_an_import_is_checked_on_building(own: Callable) -> None:
    own("late.py", LATE)
    assert registry.check("algorithm", "late:Made", {"least": 1}, "w") == []
    assert registry.check("callback", "late:Data", {"least": 1}, "w") == []
    assert registry.check("optimizer", "late:Mixed", {"lr": 1.0, "moment": 1}, "w")[0].startswith(
        "w.moment: late:Mixed"
    )
    assert registry.check("algorithm", "late:make", {"most": "x"}, "w") == [
        "w.most: 'x' given, but it must be a whole number"
    ]
    assert "late" not in sys.modules
    with pytest.raises(ConfigError, match=r"^algorithms\.late:Made\.least: late:Made has no such argument"):
        registry.build("algorithm", "late:Made", {"least": 1})
    with pytest.raises(ConfigError, match=r"^callbacks\.late:Data\.least: .*\n.*Data\.most: missing"):
        registry.build("callback", "late:Data", {"least": 1})
    assert type(registry.build("callback", "late:Data", {"most": 1})).__name__ == "Data"
    assert type(registry.build("algorithm", "late:half", {})).__name__ == "Base"
    with pytest.raises(ConfigError, match=r"^algorithms\.late:LIST: late:LIST is a list, not a class or a function"):
        registry.build("algorithm", "late:LIST", {})
    for name, args in (("late:Plain", {}), ("late:make", {"most": 0}), ("subprocess:Popen", {"args": ["false"]})):
        with pytest.raises(
            ConfigError, match=rf"^algorithms\.{name}: {name} is not for algorithms; it must be or return a comp"
        ):
            registry.build("algorithm", name, args)
    assert type(registry.build("algorithm", "late:make", {"most": 1})).__name__ == "Base"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("import kornya\ndef Broken(most): pass", ModuleNotFoundError, "No module named 'kornya'"),
        ("SIZES = = 3", SyntaxError, "invalid syntax"),
        ("def Broken(most): return len(most)", TypeError, "has no len"),
        ("from composer.callbacks import SpeedMonitor\nclass Broken(SpeedMonitor):\n"
         "    def __init__(self, most):\n        super().__init__()\n"
         "    def batch_end(self, state, logger):\n        raise RuntimeError('mine')", RuntimeError, "mine"),
    ],
)  # fmt: skip
def test_broken_code_keeps_its_traceback(own: Callable, text: str, kind: type[Exception], words: str) -> None:
    from composer.core import Event

    own("broken.py", text)
    with pytest.raises(kind, match=words):
        registry.build("callback", "broken:Broken", {"most": 3}).run_event(Event.BATCH_END, None, None)


def test_a_rejected_argument_is_a_sentence(page: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^algorithms.{ERASING}: {ERASING} rejects its arguments: p is 2: it must"):
        registry.build("algorithm", "mine.parts:RandomErasing", {"p": 2})


def test_logits_of_another_shape(
    own: Callable, image_folder: Path, workdir: Path, capfd: pytest.CaptureFixture
) -> None:
    own("nets.py", "import torch\ndef net(num_classes): return torch.nn.Sequential(torch.nn.Flatten(2))")
    assert cli([str(small_yaml(workdir, image_folder)), "model.name=nets:net"]) == 2
    assert capfd.readouterr().err.strip() == (
        "model.name: nets:net returns [2, 3, 256] for 2 images; it must return logits, [2, 3]"
    )


def test_a_storage(page: Path) -> None:
    """The page's class is read by the loader, from a path that no other kind reads; of the arguments it takes four."""
    storage = "mine.arrays:Arrays"
    run = ["yamls/digits.yaml", f"train_dataset.storage={storage}", "train_dataset.path=hub://images"]
    loaded = load([str(ROOT / run[0]), *run[1:]])
    assert loaded.outside == {"train_dataset.storage": storage} and "mine.arrays" not in sys.modules
    np.savez(page / "val.npz", images=np.full((2, 8, 8, 3), [[[[100]]], [[[101]]]], np.uint8), labels=[0, 1])
    options = {"is_train": False, "shuffle": False, "crop_size": 8, "seed": 3, "num_workers": 0}
    spec = build_imagenet_dataspec(page, False, 2, storage=storage, **options)
    ((images, labels),) = spec.dataloader
    assert labels.tolist() == [0, 1] and images[:, 0, 0, 0].tolist() == [100, 101]
    assert spec.dataloader.dataset.seed == 3
    with pytest.raises(ConfigError, match=r"^storage: types:SimpleNamespace is not for storages; it must"):
        build_imagenet_dataspec(page, False, 2, storage="types:SimpleNamespace", num_workers=0)


def test_a_file_of_recipes_loggers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "loggers/json_lines.py"
    file.parent.mkdir()
    text = "from composer.loggers import LoggerDestination\nclass JsonLines(LoggerDestination):\n    pass\n"
    file.write_text(text)
    monkeypatch.setattr(registry, "HERE", tmp_path)
    assert registry.own("logger")["jsonlines"].module == "recipes.loggers.json_lines"
    assert (ROOT / "recipes/loggers/__init__.py").is_file() and source.locate("recipes.loggers")


def test_debugging_shows_the_traceback(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(ROOT / "yamls/digits.yaml"), "sed=3", "dry_run=true"]
    assert cli(words) == 2 and "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("RECIPES_DEBUG", "1")
    assert cli(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.strip().endswith("sed: no such key; did you mean seed? [command line]")
