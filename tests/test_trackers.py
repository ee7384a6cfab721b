"""Every tracker gets the metrics under Composer's names, and no secret."""

import json
import signal
from pathlib import Path

import pytest

from main import cli
from tests.runs import metrics, small_yaml, summary
from training.interrupt import Interrupted
from training.recorder import Recorder

pytestmark = pytest.mark.slow

KNOWN = (
    "metrics/eval/MulticlassAccuracy",
    "metrics/eval/CrossEntropy",
    "metrics/train/MulticlassAccuracy",
    "loss/train/total",
)


def train(workdir: Path, image_folder: Path, **loggers: dict) -> Path:
    yaml = small_yaml(workdir, image_folder, max_duration="1ep", loggers=loggers)
    assert cli([str(yaml), "run_name=tracked", "save_folder=null"]) == 0
    return workdir / "runs/tracked"


def everything_under(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_wandb_offline(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run is the same W&B run; another run name or the user's own ID is a different one."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(workdir, image_folder, wandb={"project": "recipes", "entity": None, "group": "tests"})
    (log,) = (workdir / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    for name in (*KNOWN, "num_classes"):
        assert name.encode() in content
    own = json.loads((run / "environment.json").read_text())["tracker_id"]
    assert log.name == f"run-{own}.wandb" and own.encode() in content

    said = (run / "config.yaml").read_text()
    assert "tracker_id" not in said and own not in said
    (run / "config.yaml").unlink()
    starts: list[dict] = []
    monkeypatch.setattr("composer.loggers.WandBLogger.__init__", lambda _, **args: starts.append(args) or 1 / 0)
    yaml = small_yaml(workdir, image_folder, loggers={"wandb": {"init_kwargs": {"notes": "x"}}})
    for words in (["run_name=tracked", "autoresume=true"], ["run_name=other"], ["run_name=other", "autoresume=true"]):
        with pytest.raises(ZeroDivisionError):
            cli([str(yaml), *words])
    kwargs = [start["init_kwargs"] for start in starts]
    assert kwargs[0] == {"notes": "x", "id": own, "resume": "allow"}
    assert kwargs[1]["id"] != own and kwargs[1]["resume"] == "allow"
    wandb.teardown()  # its service would be reported as an open resource, in whichever test collects it


@pytest.mark.parametrize(
    ("name", "given", "variable", "expected"),
    [
        ("wandb", {}, None, {"init_kwargs": {"id": "abc", "resume": "allow"}}),
        (
            "WandB",
            {"init_kwargs": {"notes": "x"}},
            None,
            {"init_kwargs": {"notes": "x", "id": "abc", "resume": "allow"}},
        ),
        ("wandb", {"init_kwargs": {"id": "mine"}}, None, {"init_kwargs": {"id": "mine"}}),
        ("wandb", {"init_kwargs": {"resume": "never"}}, None, {"init_kwargs": {"resume": "never"}}),
        ("wandb", {"project": "p"}, "WANDB_RUN_ID", {"project": "p"}),
        ("wandb", {"project": "p"}, "WANDB_RESUME", {"project": "p"}),
        ("mlflow", {}, None, {"resume": True}),
        ("mlflow", {"resume": False}, None, {"resume": False}),
        ("mlflow", {}, "MLFLOW_RUN_ID", {}),
        ("comet", {}, None, {}),
        ("file", {"filename": "x"}, None, {"filename": "x"}),
    ],
)
def test_the_trackers_run_is_resumed(
    name: str, given: dict, variable: str | None, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.trackers import Tracked, arguments

    if variable:
        monkeypatch.setenv(variable, "mine")
    before = json.dumps(given)
    assert arguments(name, given, Tracked("abc", True)) == expected and json.dumps(given) == before
    assert arguments(name, given, None) == given
    assert name != "mlflow" or arguments(name, given, Tracked("abc", False)) == given, "a first start creates a new run"


def test_tensorboard(workdir: Path, image_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(workdir, image_folder, tensorboard={"log_dir": str(workdir / "tb")})
    tags: set[str] = set()
    for events in (workdir / "tb").rglob("events.*"):
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        tags |= set(accumulator.Tags()["scalars"])
    assert tags >= set(KNOWN)


def test_mlflow(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run is the same MLflow run."""
    tracker = {"mlflow": {"tracking_uri": str(workdir / "mlruns"), "experiment_name": "recipes"}}
    words = [str(small_yaml(workdir, image_folder, loggers=tracker)), "run_name=tracked", "autoresume=true"]
    with monkeypatch.context() as once:
        once.setattr(Recorder, "epoch_end", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            cli(words)
    import mlflow

    mlflow.end_run()  # happens at the end of a process
    assert cli(words) == 0
    assert len([*(workdir / "mlruns").glob("*/*/metrics")]) == 1
    written = {str(file.relative_to(workdir)).split("/metrics/", 1)[-1] for file in (workdir / "mlruns").rglob("*")}
    assert written >= set(KNOWN)


def test_comet_offline(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(workdir / "comet"))
    monkeypatch.setenv("COMET_MODE", "create")
    monkeypatch.setenv("COMET_ONLINE", "false")
    monkeypatch.setenv("COMET_API_KEY", "comet-secret")
    run = train(workdir, image_folder, comet={"project_name": "recipes"})
    assert b"comet-secret" not in everything_under(run)


def test_file_and_in_memory(workdir: Path, image_folder: Path) -> None:
    train(workdir, image_folder, file={"filename": str(workdir / "log.txt"), "flush_interval": 1}, in_memory={})
    text = (workdir / "log.txt").read_text()
    for name in KNOWN:
        assert name in text


def test_the_files_that_a_run_writes(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml can be run again, environment.json and summary.json are complete, and no file holds a secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-value")
    yaml = small_yaml(workdir, image_folder, max_duration="2ep")
    words = ["run_name=one", "recipe_name=baseline", "callbacks.speed_monitor.gpu_flops_available=1"]
    assert cli([str(yaml), *words]) == 0
    run = workdir / "runs/one"
    rows = metrics(run)
    assert [row["epoch"] for row in rows] == ["1", "2"] and [row["step"] for row in rows] == ["4", "8"]
    for row in rows:
        assert 0 <= float(row["top1"]) <= 100 and float(row["top5"]) == 100
        assert float(row["train_loss"]) > 0 and float(row["val_loss"]) > 0
        assert row["image_size"] == "16" and float(row["samples_per_second"]) > 0
        assert float(row["total_seconds"]) >= float(row["train_seconds"]) >= float(row["wait_seconds"]) > 0
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"] and environment["world_size"] == 1
    assert environment["command"] == f"python main.py {yaml} {' '.join(words[1:])}", "run_name must be omitted"
    ended = summary(run)
    assert ended["ended"] == "finished" and ended["step"] == 8
    assert ended["top1"] == float(rows[-1]["top1"])

    assert cli([str(run / "config.yaml"), "run_name=again"]) == 0
    again = metrics(workdir / "runs/again")
    assert [row["val_loss"] for row in again] == [row["val_loss"] for row in rows], "config.yaml must reproduce the run"

    assert b"aws-secret-value" not in everything_under(run)


def test_no_file_of_a_run_holds_a_secret(
    workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the YAML or the command line; nor do the printed summary and the tracker's parameters."""
    sent: list[dict] = []
    monkeypatch.setattr("training.build.loggers", lambda *_: [])
    monkeypatch.setattr("composer.loggers.Logger.log_hyperparameters", lambda _, said: sent.append(said))
    given = {
        "jwt": "hunter2",
        "headers": [["Authorization", "Own hunter2"]],
        "note": "run --token hunter2",
        "tokens": 5,
    }
    yaml = small_yaml(workdir, image_folder, max_duration="2ba", loggers={"wandb": {"init_kwargs": {"config": given}}})
    words = ["run_name=one", "save_folder=null", "loggers.wandb.init_kwargs.notes='s3://hunter2@a, pw: b, hunter2'"]
    assert cli([str(yaml), *words]) == 0
    files = [file for file in (workdir / "runs/one").rglob("*") if file.is_file()]
    assert {"config.yaml", "environment.json", "summary.json", "metrics.csv"} <= {file.name for file in files}
    written = "".join(file.read_text() for file in files)
    assert "hunter2" not in written and "tokens: 5" in written and "(secret)" in written
    assert "headers" in str(sent[0]) and "hunter2" not in str(sent)
    assert "hunter2" not in "".join(capfd.readouterr())


def test_evaluation_leaves_the_run_unchanged(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, image_folder, max_duration="1ep")
    assert cli([str(yaml), "run_name=run"]) == 0
    files = {file: file.stat().st_mtime_ns for file in (workdir / "runs").rglob("*")}
    capfd.readouterr()
    load = "load_path=runs/run/checkpoints/best-rank0.pt"
    assert cli([str(yaml), "run_name=run", "is_train=false", load]) == 0
    said = capfd.readouterr().out
    assert f"{float(metrics(workdir / 'runs/run')[-1]['top1']):.2f} %" in said
    assert {file: file.stat().st_mtime_ns for file in (workdir / "runs").rglob("*")} == files
