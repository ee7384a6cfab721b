"""The proof on a GPU: its stages, time, partial results and lines; what runs without a GPU is run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import gpu_proof
from benchmarks import step as bench_step
from benchmarks.gpu_proof import STAGES, Results, Stage, chosen, output, run_stage, verdict
from benchmarks.proof_session import Check, Ended, OutOfTime, Session
from common.errors import ConfigError, UserError
from config import load
from config.load import read_recipe, recipe_files
from tests.runs import ROOT, wait_for
from tests.tools.test_measured import RUN
from tools.records.measured import problems

MACHINE = {"gpu": "NVIDIA T9", "count": 1, "driver": "1.2", "torch": "2.7.0", "cuda": "12.6", "commit": "c0ffee0"}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A minute on a machine that claims a GPU."""
    session = Session(tmp_path, time.monotonic() + 60)
    session.machine = dict(MACHINE)
    yield session
    session.kill()


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "t9.json", MACHINE, ["--minutes", "1"])


def read(results: Results) -> tuple[dict[str, list[str]], int]:
    """Return the stages in the file, name -> status and phrase, and the number of runs."""
    content = json.loads(results.file.read_text())
    return {row["name"]: [row["status"], row["said"]] for row in content["stages"]}, len(content["runs"])


def stage(name: str, *steps: Check | BaseException, needs_gpu: bool = False, seconds: float = 0) -> Stage:
    """Return a stage that makes the given checks, or raises."""

    def run(_session: Session) -> Iterator[Check]:
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            yield step

    return Stage(name, needs_gpu, seconds, run)


def test_a_stage_that_raises_hides_no_other(session: Session, results: Results, capsys: Any) -> None:
    first = stage("first", Check(True, "one", RUN), ValueError("a bug"))
    statuses = [run_stage(each, session, results) for each in (first, stage("second", Check(True, "two")))]
    assert statuses == ["FAIL", "PASS"]
    stages, runs = read(results)
    assert stages == {"first": ["FAIL", "1 of 2 failed; ValueError: a bug"], "second": ["PASS", "two"]}
    assert runs == 1 and problems(results.content()) == []
    assert capsys.readouterr().out.splitlines() == [
        "FAIL first, 0 s: 1 of 2 failed; ValueError: a bug",
        "PASS second, 0 s: two",
    ]


def test_an_interrupted_stage_leaves_what_was_finished(session: Session, results: Results) -> None:
    run_stage(stage("whole", Check(True, "one", RUN)), session, results)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage("half", Check(True, "two", RUN), KeyboardInterrupt()), session, results)
    stages, runs = read(results)
    assert stages == {"whole": ["PASS", "one"], "half": ["SKIP", "two; interrupted after 1 check"]} and runs == 2


def test_the_end_of_the_time(session: Session, results: Results) -> None:
    """A stage that needs more than is left does not start; one whose time ends keeps its checks and does not fail."""
    assert run_stage(stage("half", Check(True, "one"), OutOfTime()), session, results) == "SKIP"
    assert run_stage(stage("long", AssertionError("was run"), seconds=61), session, results) == "SKIP"
    session.until = time.monotonic() - 1
    assert run_stage(stage("late", AssertionError("was run")), session, results) == "SKIP"
    stages, _ = read(results)
    assert stages["half"][1] == "one; the time was over (--minutes) after 1 check"
    assert stages["long"][1].startswith("needs about 61 s, and ") and stages["long"][1].endswith(
        "s are left (--minutes)"
    )
    assert stages["late"][1] == "needs about 0 s, and 0 s are left (--minutes)"


def test_a_stage_for_a_gpu_alone(session: Session, results: Results) -> None:
    session.machine["gpu"] = None
    assert run_stage(stage("memory", AssertionError("was run"), needs_gpu=True), session, results) == "SKIP"
    assert read(results)[0]["memory"] == ["SKIP", "needs a GPU"]


def test_verdicts() -> None:
    """Failed checks alone are named, and a stage that checks nothing has not passed."""
    good, bad = Check(True, "a"), Check(False, "b\n  c")
    assert verdict([good, good], "") == ("PASS", "a; a")
    assert verdict([good, bad], "") == ("FAIL", "1 of 2 failed; b c")
    assert verdict([good, bad], "over") == ("FAIL", "1 of 2 failed; b c; over after 2 checks")
    assert verdict([], "") == ("FAIL", "it checked nothing")


def test_the_stages() -> None:
    """Unique names; together, and with the start of this program, they fit ten minutes."""
    assert len({each.name for each in STAGES}) == len(STAGES)
    assert sum(each.seconds for each in STAGES) <= 585
    assert [each.name for each in STAGES if each.needs_gpu] == ["memory", "compile"]
    assert [each.name for each in chosen("speed,ops")] == ["ops", "speed"] and chosen(None) == list(STAGES)


def test_mistakes(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError) as raised:
        chosen("ops,resme,x")
    first, second = raised.value.problems
    assert first.startswith("--stages: 'resme' given, but it must be environment, ops") and "mean resume?" in first
    assert second.startswith("--stages: 'x' given")
    assert gpu_proof.run(["--minutes", "0"]) == 2
    assert "--minutes 0: must be above 0" in capsys.readouterr().err


def test_where_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file per GPU, never overwritten; a trial without a GPU stays out of results/measured."""
    monkeypatch.setattr(gpu_proof, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(gpu_proof, "TRIAL", tmp_path / "build/trial.json")
    file = output(None, "NVIDIA H100 80GB HBM3")
    assert file == tmp_path / "measured/nvidia-h100-80gb-hbm3.json" and not file.exists()
    assert output(None, None) == tmp_path / "build/trial.json"
    file.write_text("{}")
    with pytest.raises(UserError, match=r"exists. Delete it to measure again, or name another file: --out FILE"):
        output(None, "NVIDIA H100 80GB HBM3")
    assert output(file, "NVIDIA H100 80GB HBM3") == file
    with pytest.raises(ConfigError, match="cannot be written"):
        output(tmp_path / "measured", None)


def test_what_a_process_said() -> None:
    """Its last words if it failed, and its distinct warnings."""
    assert Ended(0, "well", 1).fault == "" and Ended(3, "a\n b", 1).fault == "exit status 3: a b"
    assert Ended(None, "a", 7.2).fault == "killed after 7 s: a"
    assert Ended(0, "UserWarning: x\nUserWarning: x\nfine\n", 1).warned == " (warned: UserWarning: x)"
    assert Ended(0, "fine\nwarning: algorithms.ema: 25%", 1).warned == ""
    assert Ended(0, '{"a": 1}\nSomeWarning', 1).json() == {"a": 1}


class Refusing(Session):
    """Checks the command lines of runs, and starts none: each process seems to have failed, but that of `images`."""

    commands = 0

    def start(self, *words: str, **env: str) -> Any:
        status = int("proof_stages.images()" not in " ".join(words))
        if "-c" in words:
            words = words[words.index("-c") + 2 :]
            words = tuple(bench_step.parse([*words]).words) if "--sizes" in words else ()
        data = [f"{part}_dataset.path=." for part in ("train", "eval")] if "yamls/resnet50.yaml" in words else []
        if words:
            here = [word for word in words if word not in ("main.py", "device=gpu")]
            assert load([*data, *here, "dry_run=true"]).config.max_duration
            self.commands += 1
        process = SimpleNamespace(poll=lambda: 1, terminate=lambda: None)
        ended = Ended(status, "as if", 1)
        return SimpleNamespace(wait=lambda _limit: ended, until=lambda *_: False, kill=lambda: "", process=process)


@pytest.mark.parametrize(("gpu", "others"), [("NVIDIA T9", 18), (None, 7)])
def test_command_lines(gpu: str | None, others: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a GPU too, which no test can run: they are valid, and a stage whose processes fail fails with them."""
    monkeypatch.chdir(ROOT)
    session = Refusing(tmp_path, time.monotonic() + 600)
    session.machine = {"gpu": gpu, "gib": 80, "cores": 16, "fault": "torch is broken"}
    for each in STAGES:
        if gpu or not each.needs_gpu:
            results = Results(tmp_path / "t9.json", MACHINE, [])
            assert run_stage(each, session, results) == "FAIL", each.name
            assert re.search("as if|torch is broken", read(results)[0][each.name][1])
    families = [name for name in recipe_files() if read_recipe(name).parent is None]
    assert session.commands == len(families) + others


START = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True)"


def is_over(pid: int) -> bool:
    """Whether a process is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_processes_end_in_time(session: Session) -> None:
    """With all that they started; their output is logged."""
    ended = session.python("-c", f"{START}; child.wait()", limit=8)
    assert ended.status is None and wait_for(lambda: is_over(int(ended.text)))
    ended = session.python("-c", START)
    assert ended.status == 0 and wait_for(lambda: is_over(int(ended.text)))
    assert f"$ python -c {START}\n{ended.text}" in session.log.read_text()
    assert not session.start("-c", "").until(lambda: False, 100)
    session.until = time.monotonic() + 2
    child = session.start("-c", "import time; time.sleep(600)")
    with pytest.raises(OutOfTime):
        child.wait(100)
    assert is_over(child.process.pid)
    with pytest.raises(OutOfTime):
        session.python("-c", "import time; time.sleep(600)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "statuses", "said"),
    [
        (
            "speed,sigterm,memory",
            ["PASS sigterm", "SKIP memory", "PASS speed"],
            "| baseline | resnet18 | 16 | 8 | fp32 |",
        ),
        ("environment,resume", ["PASS environment", "PASS resume"], "the same weights to the bit"),
        ("parity,loading", ["PASS parity", "PASS loading"], "128 JPEGs of 500 px, packed |"),
    ],
    ids=["speed", "resume", "loading"],
)
def test_a_trial_without_a_gpu(
    stages: str, statuses: list[str], said: str, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The stages run their programs; the lines, the table and the file are written."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_proof.run(["--stages", stages, "--minutes", "9", "--out", "trial.json"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    lines = [line.split(",")[0] for line in printed.splitlines() if line.startswith(("PASS", "FAIL", "SKIP"))]
    assert lines == statuses and said in printed and "nothing for results/measured" in printed
    content = json.loads(Path("trial.json").read_text())
    assert content["hardware"]["gpu"] is None and content["hardware"]["torch"] and content["commit"] == "c0ffee"
    assert all(run.keys() == RUN.keys() for run in content["runs"])
    assert "main.py yamls/" in Path("trial.log").read_text()
