"""Each mistake in a configuration gives one sentence: what was given, what is allowed, what was meant."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from config import ConfigError, load
from config.dry_run import show

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    """YAML of a valid run, so that each test has exactly one mistake."""
    path = tmp_path / "run.yaml"
    data = {"path": str(tmp_path)}
    path.write_text(yaml.safe_dump({"train_dataset": data, "eval_dataset": data}))
    return str(path)


def problems(*words: str) -> list[str]:
    """Return the problems that load() reports for these words."""
    with pytest.raises(ConfigError) as error:
        load(list(words))
    assert error.value.exit_status == 2
    return error.value.problems


MISTAKES = {
    # values that are not valid
    "model.loss_name=???": "model.loss_name: ??? marks a missing value; give model.loss_name=VALUE",
    "algorithms.mixup.alpha=???": "algorithms.mixup.alpha: ??? marks a missing value",
    "optimizer.lr=abc": "optimizer.lr: 'abc' given, but it must be a number",
    "optimizer.lr={a: 1}": "optimizer.lr: {'a': 1} given, but it must be a number",
    # keys
    "sed=3": "sed: no such key; did you mean seed?",
    "model.nam=resnet18": "model.nam: no such key; did you mean model.name?",
    "model.depth.width=3": "model.depth: no such key (the keys are name, loss_name, target_threshold, init,",
    "sam.rho=0.1": "sam: no such key; did you mean algorithms.sam?",
    "batch_size=64": "batch_size: no such key; did you mean train_dataset.batch_size?",
    "milld.max_duration=3ep": "milld: no such key; did you mean mild?",
    "mild.modle.name=resnet18": "mild.modle: no such key; did you mean model?",
    "optimizer.momentun=1": "did you mean momentum? (it takes lr, momentum,",
    # types
    "seed=abc": "seed: 'abc' given, but it must be a whole number",
    "seed=1.5": "seed: 1.5 given, but it must be a whole number",
    "compile=3": "compile: unknown value '3' (choose true, false or auto)",
    "is_train=null": "is_train: None given, but it must be true or false",
    "model=resnet18": "model: 'resnet18' given (command line), but it must be a section with keys",
    "algorithms.sam=true": "type algorithms.sam={} to enable it",
    "algorithms=sam": "algorithms: 'sam' given (command line), but it must map names to arguments",
    # what a YAML parser cannot read
    "seed=!!float x": "seed=!!float x: cannot be read: a value does not match its !!tag",
    "seed=!!bool x": "seed=!!bool x: cannot be read: a value does not match its !!tag",
    "[=1": "[=1: [ is not a key; keys are names joined by dots, as in model.name=resnet18",
    "seed=" + "[" * 400 + "]" * 400: "cannot be read: it is nested too deeply",
    ".".join("a" * 1500) + "=1": "cannot be read: it is nested too deeply",
    "recipe_name=x/" + "y" * 300: ": no such file",
    "run_name=caf\udce9": "cannot be read: it is not encoded as UTF-8",
    # words out of a list
    "recipe_name=hott": "unknown recipe 'hott'; did you mean hot? (choose adam, baseline, ",
    "recipe_name=my/own.yaml": "my/own.yaml: no such file",
    "model.name=resnet51": "model.name: unknown value 'resnet51'; did you mean",
    "model.loss_name=bce": "model.loss_name: unknown value 'bce' (choose cross_entropy, binary_cross_entropy or ",
    "precision=fp8": "precision: unknown value 'fp8'",
    "scheduler.name=cosine": "scheduler.name: unknown value 'cosine'",
    "device=cuda": "device: unknown value 'cuda' (choose cpu or gpu)",
    "python_log_level=loud": "python_log_level: unknown value 'loud'",
    "optimizer.name=sgdd": "optimizer.name: unknown value 'sgdd'; did you mean sgd?",
    "algorithms.samm={}": "algorithms.samm: unknown algorithm 'samm'; did you mean sam? (choose alibi",
    "algorithms.nosuch=null": "algorithms.nosuch: unknown algorithm 'nosuch'",
    "callbacks.speed_moniter={}": "unknown callback 'speed_moniter'; did you mean speed_monitor?",
    "loggers.wandbb={}": "unknown logger 'wandbb'; did you mean wandb?",
    # arguments
    "algorithms.sam.roh=1": "algorithms.sam.roh: sam has no such argument; did you mean rho? (it takes rho, epsilon",
    "algorithms.sam.rho=much": "algorithms.sam.rho: 'much' given, but it must be a number",
    "loggers.progress_bar.color=red": "color: progress_bar has no such argument (it takes nothing)",
    "algorithms.gradient_clipping.clipping_type=norm": "gradient_clipping.clipping_threshold: missing",
    "optimizer.name=adam": "optimizer.lr: missing; adam needs a learning rate",
    "optimizer.lr=-1": "optimizer.lr: -1 given, but it cannot be negative",
    "algorithms.progressive_resizing.initial_scale=2": "initial_scale: 2 given, but it must be a fraction",
    "algorithms.progressive_resizing={delay_fraction: 0.6, finetune_fraction: 0.6}": "add up to more than 1; their sum",
    "algorithms.progressive_resizing.initial_scale=0.001": "is less than one pixel",
    "algorithms.colout.p_row=1.5": "algorithms.colout.p_row: 1.5 given",
    "algorithms.ema.half_life=100": "algorithms.ema.half_life: ",
    "algorithms={sam: {}, SAM: {}}": "algorithms: sam and SAM name the same class",
    "algorithms={label_smoothing: {}, mixup: {}}": "algorithms.mixup: must be listed before label_smoothing",
    "algorithms={label_smoothing: {}, cutmix: {}}": "algorithms.cutmix: must be listed before label_smoothing",
    "algorithms={mixup: {}, cutmix: {}}": "algorithms.cutmix: cannot be combined with mixup",
    "algorithms={mix: {}, cutmix: {}}": "algorithms.cutmix: cannot be combined with mix",
    "algorithms={cutmix: {}, mixup: {}, label_smoothing: {}}": "algorithms.cutmix: cannot be combined with mixup",
    "algorithms.selective_backprop={}": "algorithms.selective_backprop: passes batches through the model",
    "algorithms.GyroDropout={}": "a ResNet has none; type algorithms.gyro_dropout=null to remove it",
    "callbacks.load_checkpoint.load_path=x.pt": "null load_path=CHECKPOINT",
    # durations
    "max_duration=90": "max_duration: '90' is not a duration; write a number and a unit",
    "max_duration=0ep": "max_duration: 0ep given, but it must be longer than 0",
    "max_duration=1dur": "max_duration: 1dur is a fraction of max_duration itself",
    "max_duration=1.5ep": "max_duration: 1.5ep is not a whole number",
    "max_duration=8ep": "a warm-up of 8ep takes up the whole run of 8ep (max_duration)",
    "scheduler.t_warmup=1dur": "a warm-up of 1dur takes up the whole run",
    "scale_schedule_ratio=0.001": "leaves less than one ep; a ratio of at least 0.0111 leaves one",
    "scale_schedule_ratio=-1": "scale_schedule_ratio: -1 given, but it must be more than 0",
    "save_interval=often": "save_interval: 'often' is not a duration",
    "eval_interval=0ep": "eval_interval: 0ep given, but it must be longer than 0",
    # numbers
    "seed=-1": "seed: -1 given, but it must be from 0 to 4294967295",
    "train_dataset.batch_size=0": "train_dataset.batch_size: 0 given, but it must be at least 1",
    "train_dataset.crop_size=0": "train_dataset.crop_size: 0 given",
    "train_dataset.resize_size=100": "a crop of 224 px does not fit into images resized to 100 px",
    "eval_dataset.resize_size=200": "a crop of 224 px does not fit into images resized to 200 px",
    "eval_dataset.resize_size=0": "eval_dataset.resize_size: 0 given, but it must be at least 1 pixel, or -1",
    "device_train_microbatch_size=many": "'many' given, but it must be auto, null or a whole number",
    "device_train_microbatch_size=4096": "4096 exceeds the whole batch",
    "grad_accum=0": "grad_accum: 0 given",
    "model.num_classes=1": "model.num_classes: 1 given",
    # data
    "train_dataset.path=null": "train_dataset.path: missing; type train_dataset.path=FOLDER",
    "eval_dataset.path=/no/such": "eval_dataset.path: no such folder: /no/such; type eval_dataset.path=FOLDER",
    "train_dataset.path=/daat/digits": "train_dataset.path: no such folder: /daat/digits",
    "train_dataset.path=daat/digits": "train_dataset.path: no such folder: daat/digits (looked in ",
    "train_dataset.path=s3://b/x": "type train_dataset.is_streaming=true train_dataset.local=/tmp/cache, or "
    "train_dataset.local=/tmp/cache alone for WebDataset tars",
    "train_dataset.path=s3:/b/x": "train_dataset.path: s3:/b/x is neither an address nor a folder; did you mean s3://b/x?",
    "save_folder=s3:b/x": "save_folder: s3:b/x is neither an address nor a folder; did you mean s3://b/x?",
    "train_dataset.is_streaming=true": "train_dataset.local: missing; streaming needs a cache folder",
    # names and folders
    "run_name=a/b": "run_name: 'a/b' given, but it must be usable as a folder name",
    "run_name=''": "run_name: '' given",
    "run_name=..": "run_name: '..' given, but it must be usable",
    "run_name=.": "run_name: '.' given, but it must be usable",
    'run_name="a\\nb"': r"run_name: 'a\nb' given, but it must be usable",
    "run_name=" + 201 * "x": f"run_name: '{40 * 'x'}...' given, but it must be usable as a folder name: 1 to 200 ",
    "run_name=' a'": "run_name: ' a' given, but it must be usable",
    "save_folder=runs/{name}": "save_folder: unknown placeholder {name}; use {runs_folder} and {run_name}",
    "save_num_checkpoints_to_keep=0": "save_num_checkpoints_to_keep: 0 given, but it must be -1 (all) or at least 1",
    "autoresume=true": "autoresume: checkpoints are found by run_name, which is not set; set run_name",
    # words
    "mild": "mild: not of the form key=value; did you mean recipe_name=mild?",
    "--seed=3": "--seed=3: keys have no leading dashes here; did you mean seed=3?",
    "sed": "sed: not of the form key=value; did you mean seed=...?",
    "other.yaml": "other.yaml: a second YAML",
    "seed=[1": "seed=[1: cannot be read",
    "seed=${nosuch}": "nosuch",
}


@pytest.mark.parametrize("lr", ["abc", "{a: 1}", "[1]", "true"])
@pytest.mark.parametrize("recipe", ["sgd", "schedulefree_sgd", "schedulefree_adamw", "onecycle"])
def test_a_learning_rate_that_is_not_a_number(recipe: str, lr: str, run_yaml: str) -> None:
    """Regardless of how the optimizer's class annotates `lr`."""
    assert any(
        found.startswith("optimizer.lr: ")
        for found in problems(run_yaml, f"recipe_name={recipe}", f"optimizer.lr={lr}")
    )


@pytest.mark.parametrize("published", ["76.6", "{top1: 76.6}", "[76.6]", "text"])
def test_a_card_whose_figures_are_not_a_list(published: str, run_yaml: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"card: {{published: {published}}}\n")
    assert problems(run_yaml, f"recipe_name={recipe}") == [
        f"{recipe}: card.published must be a list of figures, each with top1, epochs and source"
    ]


def test_a_run_of_any_length_is_shown(run_yaml: str) -> None:
    run = load([run_yaml, "recipe_name=mild", "max_duration=100000000ep", "dry_run=true"])
    console = Console(record=True, width=100, file=io.StringIO())
    show(run, console)
    assert "percents 0-" in console.export_text()


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_a_sentence(word: str, run_yaml: str) -> None:
    found = problems(run_yaml, word)
    assert len(found) == 1, found
    assert MISTAKES[word] in found[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["device=cpu", "precision=amp"], "precision: amp_fp16 needs a GPU; with device=cpu use precision=fp32"),
        (["autoresume=true", "run_name=a", "save_folder=null"], "autoresume: without checkpoints there is nothing"),
        (["grad_accum=2", "device_train_microbatch_size=4"], "sets the same thing; keep only"),
        (["compile=null", "algorithms.stochastic_depth.drop_warmup=0.1dur"], "would recompile the model"),
        (["compile=true", "algorithms.stochastic_depth.drop_warmup=0.1"], "set it to 0, or compile=false"),
        (["compile=true", "algorithms.stochastic_depth.drop_warmup=[1]"], "drop_warmup: [1] given"),
        (["train_dataset.num_workers=0", "train_dataset.prefetch_factor=2"], "without workers nothing"),
        (["train_dataset.cache_limit=1gb"], "train_dataset.cache_limit: 1gb given, but it only applies to shards"),
        (
            [f"train_dataset.{word}" for word in ("is_streaming=true", "path=/tmp", "local=/tmp/", "cache_limit=1gb")],
            "train_dataset.cache_limit: 1gb given, but it only applies to shards",
        ),
        (
            [f"train_dataset.{word}" for word in ("is_streaming=true", "local=/tmp/cache", "cache_limit=much")],
            "train_dataset.cache_limit: much is not a number of bytes; write a number and a unit, as in 200gb",
        ),
    ],
)
def test_values_that_contradict_each_other(words: list[str], expected: str, run_yaml: str) -> None:
    (problem,) = problems(run_yaml, *words)
    assert expected in problem


def test_allowed_together(run_yaml: str) -> None:
    load([run_yaml, "recipe_name=hot", "device_train_microbatch_size=auto", "device=gpu", "precision=amp"])
    load([run_yaml, "recipe_name=hot", "compile=true"])


@pytest.mark.parametrize("mixer", ["mixup", "cutmix"])
@pytest.mark.parametrize("order", ["{mixer}, label_smoothing: {{}}", "label_smoothing: {{}}, {mixer}"])
def test_two_losses_and_label_smoothing_have_remedies(mixer: str, order: str, run_yaml: str) -> None:
    """One complaint in either order, and both remedies work; a dry run reports it too."""
    both = order.format(mixer=f"{mixer}: {{interpolate_loss: true}}")
    (problem,) = problems(run_yaml, f"algorithms={{{both}}}", "dry_run=true")
    start = f"algorithms.{mixer}.interpolate_loss: true cannot be combined with label_smoothing"
    assert problem.startswith(start)
    words = [run_yaml, "recipe_name=mild", f"algorithms.{mixer}.interpolate_loss=true"]
    assert problems(*words)[0].startswith(start)
    assert f"algorithms.{mixer}.interpolate_loss=false, or algorithms.label_smoothing=null" in problem
    load([*words, f"algorithms.{mixer}.interpolate_loss=false"])
    load([*words, "algorithms.label_smoothing=null"])


def test_all_mistakes_at_once_with_their_layer(run_yaml: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("optimizer: {lr: fast}\nmodle: {name: resnet18}\n")
    words = [f"recipe_name={recipe}", "sed=3", "max_duration=90", "train_dataset.path=/no/such", "mild"]
    found = "\n".join(problems(run_yaml, *words))
    assert f"optimizer.lr: 'fast' given, but it must be a number [{recipe}]" in found
    assert f"modle: no such key; did you mean model? [{recipe}]" in found
    assert "max_duration: '90' is not a duration" in found
    assert found.count("[command line]") == 3
    assert "/no/such" in found
    assert "recipe_name=mild?" in found


def test_null_that_removes_nothing_in_a_file_is_reported(tmp_path: Path, run_yaml: str) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("algorithms:\n  channels_last:\n")
    (problem,) = problems(run_yaml, f"recipe_name={recipe}")
    assert "write {} to enable it with its defaults" in problem
    load([run_yaml, "algorithms.channels_last=null"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {name: resnet50\nseed: 3\n", "line 2"),
        ("a: 1\na: 2\n", "line 2"),
        ("- 1\n- 2\n", "contains no keys"),
    ],
)
def test_files_that_are_not_a_configuration(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    (problem,) = problems(str(path))
    assert expected in problem


def test_missing_yaml_lists_those_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    (problem,) = problems("yamls/resnet5.yaml")
    assert "did you mean yamls/resnet50.yaml? (choose yamls/digits.yaml" in problem
    (problem,) = problems()
    assert "type: python main.py yamls/digits.yaml" in problem
    (problem,) = problems("seed=3")
    assert "type: python main.py yamls/digits.yaml seed=3" in problem
    monkeypatch.chdir(tmp_path)
    (problem,) = problems("yamls/resnet50.yaml")
    assert f"did you mean {ROOT}/yamls/resnet50.yaml?" in problem


def test_help_is_short_and_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load(["--help"])
    assert end.value.code == 0
    assert "composer main.py YAML [key=value ...]" in capsys.readouterr().out


@pytest.mark.slow
def test_command_line_prints_sentences_and_exits_2(run_yaml: str) -> None:
    code = (
        "import sys, main; status = main.cli(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'composer' not in sys.modules; sys.exit(status)"
    )
    words = [sys.executable, "-c", code, run_yaml, "sed=3", "seed=x"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "sed: no such key; did you mean seed?" in done.stderr
    assert "seed: 'x' given" in done.stderr
