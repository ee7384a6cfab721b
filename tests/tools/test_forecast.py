"""The forecast: its arithmetic, a small measured run, and mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from common import command
from config import ConfigError, DataError, load
from launch.machines import PEAKS, Price, machine_of, price
from tests.advice import alternatives, applied
from tests.runs import ROOT, small_yaml
from tools.forecast import __main__ as forecast
from tools.forecast import measure, tables
from tools.forecast.arithmetic import Forecast, Measured, Pace, Plan, plan_of
from tools.forecast.measure import Clock, Step, evaluation_of, pace_of

RESNET50 = str(ROOT / "yamls" / "resnet50.yaml")
RESIZING = {"initial_scale": 0.5, "delay_fraction": 0.25, "finetune_fraction": 0.25}

PLAN = Plan("made-up", "10ep", 100, {8: 600.0, 16: 400.0}, epochs=10, evaluations=5, eval_batches=20, saves=4)
MEASURED = Measured(
    steps={8: Pace(2.0, 0.5, 1.5), 16: Pace(3.0, 0.0, 1.5)},
    evaluation=Pace(0.6, 0.1, 0.2),
    evaluation_start=3.0,
    start_up=30.0,
    new_size=20.0,
    epoch_start=1.0,
    save=2.5,
    advice="buy a faster disk",
)
MADE_UP = Forecast(PLAN, MEASURED, flops=2.41e15, peak=1e13)

PRICES = """
read: {on_demand: 2020-02, spot: 2020-03}
machines:
  - {name: small, gpu: 'A100', count: 1, on_demand: 2.0, spot: null}
  - {name: large, gpu: 'A100-SXM4', count: 8, on_demand: 36.0, spot: null}
  - {name: ours, gpu: 'A40$', count: 4, on_demand: null, spot: null}
"""


@pytest.fixture
def settings() -> Iterator[None]:
    """Restore global settings that a run in this process changes."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A price list."""
    file = tmp_path / "launch" / "prices.yaml"
    file.parent.mkdir()
    file.write_text(PRICES)
    return file


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the program; return its exit status and its output as one line."""
    status = command.run(forecast.main, words)
    said = capsys.readouterr()
    return status, " ".join((said.out + said.err).split())


def test_arithmetic() -> None:
    assert MADE_UP.training == 600 * 2 + 400 * 3 + 10 * 1 == 2410
    assert MADE_UP.waiting == 600 * 0.5 + 10 * 1 == 310
    assert MADE_UP.wait_share == 310 / 2410
    assert MADE_UP.evaluating == 5 * (3 + 20 * 0.6) == 75
    assert MADE_UP.everything == 30 + 20 + 2410 + 75 + 4 * 2.5 == 2545
    assert MADE_UP.rate == 100 * 1000 / 2410
    assert MADE_UP.mfu == pytest.approx(2.41e15 / 2410 / 1e13) == pytest.approx(0.1)
    assert MADE_UP.dollars(7.2) == pytest.approx(2545 * 0.002) and MADE_UP.dollars(None) is None
    assert replace(MADE_UP, peak=None).mfu is None


def test_faster_hardware() -> None:
    """Computing and loading speed up by separate factors, and the slower one sets the pace."""
    assert Pace(2.0, 0.5, 1.5).elsewhere(10, 2) == Pace(0.75, pytest.approx(0.6), 0.75), "the loader"
    assert Pace(3.0, 0.0, 1.5).elsewhere(2, 2) == Pace(1.5, 0.0, 0.75), "the device"
    assert Pace(3.0).elsewhere(2, 2) == Pace(1.5), "nothing is loaded"
    moved = MEASURED.elsewhere(10, 2)
    assert moved.steps[16].seconds == 0.75 and moved.evaluation.seconds == pytest.approx(0.1)
    assert (moved.epoch_start, moved.start_up, moved.save) == (0.5, 30.0, 2.5)


def test_laps() -> None:
    """The median lap gives the pace; waiting for an epoch's first batch counts once per epoch."""
    steady, slow = Step(1.0, 0.25, False), Step(9.0, 5.0, False)
    late = Step(4.0, 3.0, True)
    assert pace_of([slow, slow, steady, steady, late, steady], 2, 0.5) == Pace(1.0, 0.25, 0.5)
    assert pace_of([late, steady], 2, None) == Pace(1.0, 0.125, None)
    pace, overhead = evaluation_of([10.0, 14.0, 15.0, 16.0, 16.5], 0.25, 3.0)
    assert (pace.seconds, overhead) == (1.0, 3.5), "three batches of a second in 6.5"
    assert evaluation_of([10.0, 12.0, 12.0], None, 5.0) == (Pace(2.0, 2.0), 0.0), "one batch alone"


@pytest.mark.parametrize(
    "recipe, workers, lap", [("baseline", 1, 5), ("baseline", 8, 8), ("medium", 1, 20), ("medium", 24, 40)]
)
def test_a_lap_holds_every_interval(recipe: str, workers: int, lap: int) -> None:
    """Each lap holds SAM's tenth steps and EMA's twentieth steps in the run's proportion."""
    config = load([RESNET50, f"recipe_name={recipe}", "dry_run=true"]).config
    assert measure.lap_of(config, workers) == lap


def test_plan_of_mild() -> None:
    """ImageNet by hand: 625 batches per epoch, 36 epochs of eight sizes, 25 batches per evaluation."""
    config = load([RESNET50, "recipe_name=mild", "eval_interval=5ep", "dry_run=true"]).config
    plan = plan_of(config, "mild", 1_281_167, 50_000, real=True)
    assert sum(plan.batches.values()) == pytest.approx(36 * 625) and plan.images == pytest.approx(36 * 625 * 2048)
    assert next(iter(plan.batches)) == 88 and list(plan.batches)[-1] == 176 and len(plan.batches) == 8
    assert plan.batches[176] == pytest.approx(8 * 625) and plan.length == "36ep"
    assert (plan.epochs, plan.evaluations, plan.eval_batches, plan.saves) == (36, 8, 25, 36), (
        "7 evaluations every 5 epochs and one at the end"
    )


def test_plan_in_batches() -> None:
    """A run in batches that ends in mid-epoch; without a save folder there are no checkpoints."""
    words = ["max_duration=1500ba", "scheduler.t_warmup=10ba", "eval_interval=0.25dur", "save_folder=null"]
    config = load([RESNET50, *words, "dry_run=true"]).config
    plan = plan_of(config, "baseline", 1_281_167, 50_000, real=True)
    assert plan.batches == {224: 1500.0}
    assert (plan.epochs, plan.evaluations, plan.saves) == (3, 4, 0)


def test_random_images_stand_for_imagenet() -> None:
    """Without data, the forecast uses ImageNet's numbers; for a real run, the run's own."""
    words = ["train_dataset.storage=synthetic", "eval_dataset.storage=synthetic", "dry_run=true"]
    config = load([RESNET50, *words]).config
    assert sum(plan_of(config, "", 12_811, 500, real=False).batches.values()) == 90 * 625
    assert sum(plan_of(config, "", 12_811, 500, real=True).batches.values()) == 90 * 6


def test_prices(prices: Path) -> None:
    """As given, by a machine's name, or of the first machine with these devices; otherwise with a reason."""
    assert price(3.2, None, "A100", 8).dollars == 3.2
    assert price(None, "small", "CPU", 1, prices) == Price(2.0, "small, $2 an hour on demand (read 2020-02)")
    assert price(None, None, "NVIDIA A100-SXM4-40GB", 8, prices).dollars == 36.0
    assert price(None, None, "A100", 8, prices).dollars == 36.0, "a part of a name, as --scale has it"
    assert price(None, None, "NVIDIA A40", 4, prices) == Price(None, "ours has no price in prices.yaml; give --price")
    none = price(None, None, "CPU", 1, prices)
    assert none.dollars is None and none.why == "no price is known for 1x CPU; give --price"
    with pytest.raises(ConfigError, match=r"--machine: larg given.*small, large or ours; did you mean large\?"):
        price(None, "larg", "CPU", 1, prices)
    with pytest.raises(ConfigError, match=r"--machine: large given, but there is no launch/none.yaml; or give --price"):
        price(None, "large", "CPU", 1, prices.parent / "none.yaml")
    prices.write_text("machines: [{name: small}]")
    with pytest.raises(DataError, match="is not a list of prices"):
        price(None, None, "A100", 1, prices)


def test_machines() -> None:
    """A count and a GPU with known speed, in upper or lower case."""
    assert machine_of("8xA100", PEAKS) == machine_of("8xa100", PEAKS) == (8, "A100")
    assert machine_of("4xH100 PCIe", PEAKS) == (4, "H100 PCIe")


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """All figures are shown, the longest name fits, empty columns have a reason, waiting has advice."""
    console = Console(width=100, soft_wrap=True)
    widest = replace(MADE_UP, plan=replace(PLAN, recipe="schedulefree_adamw"))
    tables.show([widest], Price(7.2, "$7.2 an hour, as given"), "CPU", "Forecast", console)
    text = capsys.readouterr().out
    for cell in ("schedulefree_adamw", "41.5", "10.0%", "13%", "40.2 min", "1.2 min", "42.4 min", "5.09"):
        assert cell in text
    assert "…" not in text and "starting up 30.0 s, new image sizes 20.0 s, 4 checkpoints 10.0 s" in text
    tables.show([replace(MADE_UP, peak=None)], Price(None, "no price is known"), "CPU", "Forecast", console)
    text = capsys.readouterr().out
    assert "dollars: no price is known" in text and "MFU: the peak of CPU is not known" in text
    (line,) = tables.bottlenecks([MADE_UP])
    assert line == "made-up: waiting for data 13% of the training, which would take 35.0 min without: buy a faster disk"
    assert not list(tables.bottlenecks([replace(MADE_UP, measured=MEASURED.elsewhere(0.1, 1))]))
    console.print(tables.comparison([MADE_UP], [{"train_seconds": 2410, "eval_seconds": 60, "total_seconds": 5090}]))
    text = capsys.readouterr().out
    assert [line.split()[-1] for line in text.splitlines() if "made-up" in line] == ["1.00", "1.25", "0.50"]
    assert [tables.spelled(seconds) for seconds in (59.9, 60, 7200)] == ["59.9 s", "1.0 min", "2.00 h"]


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_a_run_is_measured_at_each_size(
    image_folder: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network sees each size of the schedule for the timed steps, even beyond the run's length; no file is left."""
    seen: list[int] = []
    stock = Clock.batch_end
    monkeypatch.setattr(
        Clock, "batch_end", lambda self, state, log: (seen.append(state.batch[0].shape[-1]), stock(self, state, log))
    )
    for name in ("CPU", f"CPU ({torch.get_num_threads()} threads)"):
        monkeypatch.setitem(PEAKS, name, 1e11)
    words = [str(small_yaml(workdir, image_folder, algorithms__progressive_resizing=RESIZING, max_duration="4ep"))]
    status, text = printed([*words, "--steps=6", "--price=36", "--scale=8xCPU"], capsys)
    assert status == 0, text
    assert sorted(set(seen)) == [8, 12, 16] and seen == sorted(seen)
    assert [seen.count(size) for size in (8, 12, 16)] == [14, 13, 13], "warm-up 3, laps 2 x 5, first step 1"
    assert "10 steps at 12 px" in text and "Measured on CPU" in text and "% " in text
    assert "EXTRAPOLATED to 8x CPU, not measured" in text and "dollars: $36 an hour, as given" in text
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_check_compares_with_training(image_folder: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check trains each forecast recipe and leaves no file."""
    words = [str(small_yaml(workdir, image_folder)), "max_duration=1ep", "scheduler.t_warmup=1ba", "save_folder=null"]
    status, text = printed([*words, "--recipes=baseline", "--steps=1", "--check"], capsys)
    assert status == 0, text
    assert all(f"baseline {clock} " in text for clock in ("train", "eval", "total"))
    assert "checkpoints" not in text.partition("total includes starting up")[2] and "MFU: the peak of CPU" in text
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--steps=0"], "--steps: 0 given, but it must be at least 1; --steps 30 is usual"),
        (["--recipes=mild,,hot"], "--recipes: 'mild,,hot' given, but it must be comma-separated names"),
        (["--recipes=mildd"], "unknown recipe 'mildd'; did you mean mild?"),
        (["--price=0"], "--price: 0 given, but it must be more than 0 dollars, as in --price 3.2"),
        (["--scale=8A100"], "--scale: 8A100 given, but it must be a number and a kind of GPU, as in --scale 8xA100"),
        (["--scale=8xA101"], "--scale: A101 given, but it must be GB200, B200"),
        (["--scale=8xA100"], "not known; leave --scale out, or measure on a GPU"),
        (["is_train=false"], "is_train: false only evaluates, and a forecast is of training; set is_train=true"),
        (["train_dataset.path=/nowhere"], "type train_dataset.storage=synthetic eval_dataset.storage=synthetic"),
        (["train_dataset.batch_size=500"], "a batch of 500 images is larger than the data set"),
    ],
)
@pytest.mark.usefixtures("settings")
def test_mistakes(words: list[str], sentence: str, image_folder: Path, workdir: Path, capsys) -> None:
    status, text = printed([str(small_yaml(workdir, image_folder, device="cpu")), *words], capsys)
    assert status in (1, 2) and sentence in text and "Traceback" not in text
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    "words", [["is_train=false"], ["train_dataset.path=/nowhere", "eval_dataset.path=/nowhere"]], ids=["train", "data"]
)
def test_advice_is_followed(words: list[str], image_folder: Path, workdir: Path) -> None:
    words = [str(small_yaml(workdir, image_folder)), *words]
    with pytest.raises(ConfigError) as error:
        forecast.load_run(words)
    [advice] = alternatives(f": {error.value.problems[-1]}")
    assert forecast.load_run(applied(words, advice))


def test_check_runs_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a launcher each process would train."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--check: trains in one process"):
        forecast.parse(["yamls/digits.yaml", "--check"])
