"""Mistakes that show only in the data or in training: a sentence, status 1 or 2, no traceback, no partial run."""

import re
from pathlib import Path

import pytest

from main import cli
from tests.runs import small_yaml, summary


def fails(capfd: pytest.CaptureFixture, status: int, *words: object) -> str:
    """Run the command line in this process; check its exit status and return its message."""
    assert cli([str(word) for word in words]) == status
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert err.strip(), "no message"
    return re.sub(r"\s+", " ", err)


def test_fewer_classes_than_outputs(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    said = fails(capfd, 2, small_yaml(workdir, image_folder), "model.num_classes=10")
    assert "model.num_classes: 10 was given, but the data set has 3 classes (cat, dog, person)" in said
    assert "set model.num_classes=3" in said
    assert not (workdir / "runs").exists()


def test_more_classes_than_outputs(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    said = fails(capfd, 2, small_yaml(workdir, image_folder), "model.num_classes=2")
    assert "The first class without an output is 'person'" in said


def test_batch_larger_than_the_data_set(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    said = fails(capfd, 1, small_yaml(workdir, image_folder), "train_dataset.batch_size=64")
    together = "train_dataset.batch_size=16 optimizer.lr=0.0125 scheduler.t_warmup=0.05dur"
    assert f"a batch of 64 images is larger than the data set of 48: type {together}" in said
    assert not (workdir / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [
        "squeeze_excite.min_channels=100000",
        "blurpool.min_channels=100000",
        "weight_standardization.n_last_layers_ignore=1000",
    ],
)
def test_algorithm_that_changes_nothing(
    algorithm: str, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    words = [small_yaml(workdir, image_folder), f"algorithms.{algorithm}", "run_name=idle"]
    if algorithm.startswith("blurpool"):
        words.append("algorithms.blurpool.replace_maxpools=false")
    assert "changed nothing" in fails(capfd, 1, *words)


@pytest.mark.slow
def test_arguments_rejected_in_training(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    """Invalid arguments that a Composer class rejects only in training are reported by name."""
    yaml = small_yaml(workdir, image_folder)
    said = fails(capfd, 1, yaml, "algorithms.gradient_clipping={clipping_type: fast, clipping_threshold: 1.0}")
    assert "algorithms.gradient_clipping: clipping_type must be 'adaptive', 'norm', or 'value' not fast; give" in said
    assert "algorithms.gradient_clipping=null" in said


@pytest.mark.parametrize("file", ["composer/callbacks/lr_monitor.py", "composer/loggers/wandb_logger.py", "mine.py"])
def test_only_composers_own_errors_become_a_sentence(file: str) -> None:
    """A fault in our own code called by Composer is a bug and keeps its traceback."""
    from training.fit import explain

    scope: dict = {}
    exec(compile("def call(below):\n    below()\n    raise ValueError('no')", f"/site-packages/{file}", "exec"), scope)

    def ours() -> None:
        raise ValueError("a bug")

    for below, expected in ((ours, None), (lambda: None, file != "mine.py" and file.split("/")[1])):
        with pytest.raises(ValueError) as raised:
            scope["call"](below)
        said = explain(raised.value)
        assert said is None if not expected else said and said.startswith(f"{expected}.") and ": no; give" in said


def test_algorithm_that_would_start_too_late(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    said = fails(
        capfd, 2, small_yaml(workdir, image_folder), "algorithms.sam.interval=9", "algorithms.ema.ema_start=2ep"
    )
    assert "algorithms.sam.interval: 9ba is never reached in a run of 2ep with 4 batches per epoch" in said
    assert "algorithms.ema.ema_start=1ep or less" in said
    assert not (workdir / "runs").exists()


def test_save_folder_that_cannot_be_written(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    (workdir / "file").write_text("in the way")
    said = fails(capfd, 1, small_yaml(workdir, image_folder), "save_folder=file/checkpoints")
    assert "save_folder: file/checkpoints cannot be written" in said and "save_folder=null" in said
    assert not (workdir / "runs").exists()


@pytest.mark.slow
def test_run_folder_of_another_configuration(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    words = [small_yaml(workdir, image_folder), "max_duration=2ba", "run_name=mine"]
    assert cli([str(word) for word in words]) == 0
    before = {file: file.stat().st_mtime_ns for file in (workdir / "runs/mine").rglob("*")}
    said = fails(capfd, 2, *words)
    assert "runs/mine already exists" in said and "autoresume=true" in said
    said = fails(capfd, 2, *words, "autoresume=true", "optimizer.lr=0.07", "seed=5")
    assert "optimizer.lr: 0.05 -> 0.07" in said and "seed: 17 -> 5" in said
    assert {file: file.stat().st_mtime_ns for file in (workdir / "runs/mine").rglob("*")} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "expected", "good"),
    [
        ("1ba", "a weight is not finite after batch 2; no checkpoint was saved", 1),
        ("1ep", r"the loss is (nan|inf) at step 2 \(epoch 0\), learning rate [\de+]+", 0),
    ],
)
def test_loss_that_is_not_a_number(
    interval: str, expected: str, good: int, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    """Stops with a sentence and keeps the finite checkpoint, of step 0, whose learning rate was 0."""
    words = ["optimizer.lr=1e20", f"save_interval={interval}", "save_num_checkpoints_to_keep=-1", "run_name=hot"]
    assert re.search(expected, fails(capfd, 1, small_yaml(workdir, image_folder), *words))
    saved = list((workdir / "runs/hot/checkpoints").glob("ep*.pt"))
    assert len(saved) == good
    import torch

    for checkpoint in saved:
        model = torch.load(checkpoint, weights_only=False)["state"]["model"]
        assert all(torch.isfinite(tensor).all() for tensor in model.values())
    assert summary(workdir / "runs/hot")["ended"].startswith("failed: ")


@pytest.mark.slow
def test_checkpoint_of_another_model(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, image_folder)
    assert cli([str(yaml), "max_duration=2ba", "run_name=eighteen", "save_interval=1ba"]) == 0
    checkpoint = "runs/eighteen/checkpoints/ep0-ba2-rank0.pt"
    said = fails(capfd, 1, yaml, f"load_path={checkpoint}", "model.name=resnet34", "run_name=other")
    assert "does not fit this model and recipe" in said
    assert not (workdir / "runs/other").exists(), "a rejected run leaves no folder"
    said = fails(capfd, 1, yaml, f"load_path={checkpoint}", "run_name=done", "max_duration=2ba")
    assert "nothing is left of" in said and "load_weights_only=true" in said
    said = fails(capfd, 1, yaml, "load_path=runs/eighteen/checkpoints/ep9.pt", "run_name=other")
    assert "there is no" in said and "ep0-ba2-rank0.pt" in said
    (workdir / "cut.pt").write_bytes((workdir / checkpoint).read_bytes()[:1000])
    assert "is damaged" in fails(capfd, 1, yaml, "load_path=cut.pt", "run_name=other")


@pytest.mark.slow
def test_unreadable_image_in_training(workdir: Path, capfd: pytest.CaptureFixture) -> None:
    from tests.image_files import make_imagefolder

    images = make_imagefolder(workdir / "data", per_class=16)
    (images / "train/dog/0003.jpeg").write_bytes(b"not an image")
    said = fails(capfd, 1, small_yaml(workdir, images))
    assert "train/dog/0003.jpeg" in said


def test_tracker_that_is_not_installed(
    workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    said = fails(capfd, 2, small_yaml(workdir, image_folder), "loggers.mlflow.experiment_name=x")
    assert "loggers.mlflow" in said and "pip install -c constraints.txt mlflow" in said


def test_warm_up_in_other_units_than_the_run(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    said = fails(capfd, 2, small_yaml(workdir, image_folder), "max_duration=6ba", "scheduler.t_warmup=2ep")
    assert "a warm-up of 2ep is 8 batches, but the run of 6ba has only 6" in said
    assert not (workdir / "runs").exists()


@pytest.mark.slow
def test_streamed_labels_without_an_output(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    """The first label without an output reveals the mistake in shards that record no classes."""
    from tests.image_files import make_shards

    make_shards(image_folder, workdir / "mds")
    streamed = [f"{name}.{word}" for name in ("train_dataset", "eval_dataset") for word in ("path=mds", "local=mds")]
    streamed += ["train_dataset.is_streaming=true", "eval_dataset.is_streaming=true"]
    said = fails(capfd, 2, small_yaml(workdir, image_folder), *streamed, "model.num_classes=2")
    assert "model.num_classes: 2 was given, but the data set has an image of class 2" in said


def test_runs_folder_that_cannot_be_made(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    (workdir / "file").write_text("in the way")
    said = fails(capfd, 1, small_yaml(workdir, image_folder), "runs_folder=file/runs")
    assert "runs_folder: file/runs" in said and "use another one" in said


@pytest.mark.slow
def test_evaluation_needs_no_training_data(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, image_folder, train_dataset__path=None)
    assert cli([str(yaml), "is_train=false"]) == 0
    assert "untrained weights" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("loggers.wandb.init_kwargs={mode: nosuch}", "loggers.wandb.init_kwargs.mode: WandBLogger stopped the run: "),
        ("callbacks.load_checkpoint.load_path=no/such.pt", "null load_path=CHECKPOINT"),
    ],
)
def test_callbacks_that_fail_in_the_run(
    word: str, expected: str, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    assert expected in fails(capfd, 2, small_yaml(workdir, image_folder), word)
    assert not list((workdir / "runs").rglob("*.pt"))
