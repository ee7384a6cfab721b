"""Type what an error message in config/ says to type: the result must fix the mistake."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from config import ConfigError, load
from config.load import defaults
from loaders.images import native
from tests.advice import ROOT, VERB, alternatives, applied, sentences

S3 = "train_dataset.path=s3://bucket/data"
CASES = [
    # the command line's form
    "sed=3",
    "model.nam=resnet18",
    "batch_size=64",
    "sam.rho=0.1",
    "optimizer.momentun=0.5",
    "milld.max_duration=3ep",
    "mild.modle.name=resnet18",
    "--seed=3",
    "mild",
    "nonsense",
    "[=3",
    "algorithms.sam=true",
    "recipe_name=hott",
    "model.name=resnet51",
    "optimizer.name=sgdd",
    "algorithms.samm={}",
    "callbacks.speed_moniter={}",
    "model.loss_name=???",
    # numbers and lengths
    "device=cpu precision=amp_bf16",
    "max_duration=10ep scheduler.t_warmup=10ep",
    "optimizer.lr=null",
    "recipe_name=onecycle scheduler.pct_start=1",
    "recipe_name=onecycle optimizer={name: lbfgs, lr: 0.1}",
    "scheduler.name=multistep_with_warmup",
    "scheduler={name: piecewise_with_warmup, milestones: [[9ep, nan]]}",
    "scheduler={name: multistep_with_warmup, milestones: [[9ba, 0.1]]}",
    "scheduler={name: multistep_with_warmup, milestones: [[99ep, 0.1]]}",
    # data
    "train_dataset.path=nowhere",
    "train_dataset.path=null",
    "train_dataset.is_streaming=true",
    S3,
    f"{S3} train_dataset.storage=ffcv",
    f"{S3} train_dataset.storage=archives train_dataset.cache_limit=1gb",
    "train_dataset.path=s3:/bucket/data train_dataset.is_streaming=true train_dataset.local=/tmp/cache",
    "train_dataset.storage=streaming",
    "train_dataset.storage=ffcv train_dataset.is_streaming=true train_dataset.local=/tmp/cache",
    "train_dataset.pack_size=500",
    "train_dataset.storage=packed train_dataset.pack_size=20",
    "train_dataset.storage=synthetic train_dataset.preload=/tmp/copy",
    "train_dataset.cache_limit=200gb",
    "train_dataset.storage=dali train_dataset.decoder=pil",
    "train_dataset.storage=dali algorithms.randaugment={}",
    "train_dataset.storage=dali train_dataset.interpolation=bicubic",
    "eval_dataset.crop_ratio=0.875",
    "train_dataset.storage=dali algorithms.colout.batch=false",
    "train_dataset.resize_size=100",
    # algorithms
    "algorithms.mixup={} algorithms.cutmix={}",
    "algorithms.mix={} algorithms.mixup={}",
    "algorithms.mixup.interpolate_loss=true algorithms.label_smoothing={}",
    "callbacks.load_checkpoint.load_path=x.pt",
    "load_weights_only=true",
    "model.target_threshold=0.2",
    "model.loss_name=mean_binary_cross_entropy model.target_threshold=0.2 algorithms.label_smoothing={}",
    # pretrained weights
    "model.head=keep",
    "is_train=false model.head=new model.weights=torchvision",
    "model.weights=torchvision load_path=x.pt",
    "model.name=torchvision.models:resnet18 model.weights=torchvision",
    # what is trained
    "model.freeze=backbone",
    "model.name=squeezenet1_1",
    "model.name=squeezenet1_0 model.init=torchvision model.loss_name=binary_cross_entropy",
    "model.name=vit_b_16 model.init=torchvision train_dataset.crop_size=16",
    "model.name=vit_b_32 model.init=torchvision algorithms.progressive_resizing={}",
    "model.name=googlenet model.init=torchvision model.weights=torchvision",
    "model.name=swin_t model.init=torchvision model.weights=torchvision model.freeze=layer1",
    "model.name=swin_t model.init=torchvision optimizer.layer_decay=0.5",
    "model.name=swin_t model.init=torchvision algorithms.stochastic_depth={}",
    "model.freeze=layr2 model.weights=torchvision",
    "model.freeze=fc",
    "model.freeze_batchnorm=true",
    "model.freeze_batchnorm=false",
    "model.freeze=backbone model.weights=torchvision optimizer.layer_decay=0.5",
    "optimizer.head_lr_multiplyer=2",
    "compile=true algorithms.stochastic_depth.target_layer_name=ResNetBottleneck "
    "algorithms.stochastic_depth.drop_warmup=0.1dur",
    "recipe_name=decentralized algorithms.sam={}",
    "optimizer={name: schedulefree_sgd, lr: 1.0} scheduler={name: constant_with_warmup, t_warmup: 0ba}",
    "optimizer={name: sgd_schedule_free, lr: 1.0} scheduler={name: constant_with_warmup, t_warmup: 0ba}",
    "recipe_name=schedulefree_sgd scheduler.name=cosine_with_warmup scheduler.t_warmup=0ba",
    "recipe_name=schedulefree_sgd optimizer.warmup_steps=5 scheduler.t_warmup=5ba",
    "recipe_name=schedulefree_sgd algorithms.ema={}",
    "algorithms.schedule_free={}",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a valid run's YAML, so that each case has exactly one mistake."""
    folder = tmp_path_factory.mktemp("advice")
    data = {"path": str(folder)}
    (folder / "run.yaml").write_text(yaml.safe_dump({"train_dataset": data, "eval_dataset": data}))
    (folder / "FOLDER").mkdir()
    (folder / "FILE").touch()
    return folder


@functools.cache
def problems_of(*words: str) -> tuple[str, ...]:
    """Return the problems that load() reports for these words."""
    try:
        load(list(words))
    except ConfigError as error:
        return tuple(error.problems)
    return ()


@pytest.mark.parametrize("mistake", CASES)
def test_advice_mends_what_it_is_about(mistake: str, folder: Path) -> None:
    """Each alternative in each message, followed alone, leads to valid words without a circle."""
    words = [str(folder / "run.yaml"), *split(mistake)]
    found = problems_of(*words)
    assert found
    assert sum(follow(words, problem, folder, []) for problem in found), found


def follow(words: list[str], problem: str, folder: Path, before: list[str]) -> int:
    """Follow each alternative and the advice that it leads to; return the number of alternatives."""
    ways = alternatives(problem)
    assert ways or not before, f"{before[-1]!r} leads to {problem!r}, which says nothing to type"
    for advice in ways:
        named = [re.sub("FOLDER|FILE", lambda match: str(folder / match[0]), word) for word in advice]
        named = [word.replace("=VALUE", "=cross_entropy") for word in named]
        mended = applied(words, named)
        for left in problems_of(*mended):
            assert left not in [*before, problem], f"{problem!r}: {advice} does not mend it"
            follow(mended, left, folder, [*before, problem])
    return len(ways)


def test_only_the_command_line_allows_code_in_checkpoints(folder: Path) -> None:
    yaml = folder / "stranger.yaml"
    yaml.write_text((folder / "run.yaml").read_text() + "\nload_unsafe_pickle: true\n")
    [problem] = problems_of.__wrapped__(str(yaml))
    assert problem.startswith("load_unsafe_pickle: a file cannot set this") and "stranger.yaml" in problem
    [advice] = alternatives(problem)
    assert problems_of.__wrapped__(str(yaml), *advice) == ()


def test_advice_where_the_decoder_is_not_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    words = [str(folder / "run.yaml"), "train_dataset.decoder=native"]
    [problem] = problems_of.__wrapped__(*words)
    assert native.HOW_TO_BUILD in problem
    [advice] = alternatives(problem)
    assert problems_of.__wrapped__(*applied(words, advice)) == ()


def test_every_advising_sentence_has_a_case(folder: Path) -> None:
    """A new sentence in config/ that says what to type needs a case in this file."""
    met = [text for mistake in CASES for text in problems_of(str(folder / "run.yaml"), *split(mistake))]
    unmet = [where for where, text in sentences("config").items() if not any(map(text.search, met))]
    unmet = [
        where for where in unmet if not re.search("is not built here|a file cannot set", where)
    ]  # has its own test
    assert not unmet, "\n".join(unmet)


def test_advice_names_only_what_exists() -> None:
    # Keys that loaders.errors.in_section prefixes with their section.
    own = {"is_streaming", "local", "cache_limit", "storage", "pack_size", "decoder", "interpolation", "key"}
    known = {
        name
        for key, value in defaults().items()
        for name in ([f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key])
    }
    makefile = (ROOT / "Makefile").read_text()
    for where, text in sentences("common", "config", "training", "loaders", "recipes", "tools", "main.py").items():
        start = VERB.search(text.pattern)
        said = text.pattern[start.end() :].replace("\\", "") if start else ""
        for key in re.findall(r"(?<![\w.*=-])([a-z_]+(?:\.[a-z_]+)*)=", said):
            assert key in known | own or key.startswith(("algorithms.", "loggers.", "callbacks.", "optimizer.")), where
        for program in re.findall(r"python -m ((?:recipes|tools|launch|loaders)[\w.]*)", said):
            assert importlib.util.find_spec(program.rstrip(".")), where
        for target in re.findall(r"(?:&& |`)make ([a-z]+)", said):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), where


def split(mistake: str) -> list[str]:
    """Split into words; braces may hold spaces."""
    return shlex.split(mistake.replace("{", "'{").replace("}", "}'"))
