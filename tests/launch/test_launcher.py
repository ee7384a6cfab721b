"""The `composer` command: same options as Composer's launcher, and it waits for slow saves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from composer.cli import launcher as stock

from launch import ranks
from tests.runs import COMPOSER, ROOT, bare_shell, wait_for

pytestmark = pytest.mark.slow

NODES = {"WORLD_SIZE": "16", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "7501"}
SIX = ["--world_size", "6", "--master_addr", "h", "--master_port", "9"]
GIVEN = [
    ([], {}),
    (["-n", "2"], {}),
    ([], {"LOCAL_WORLD_SIZE": "0"}),
    ([], {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}),
    (["-n", "2"], {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}),
    (["-n", "8"], {**NODES, "NODE_RANK": "1"}),
    (["-n", "8"], {**NODES, "BASE_RANK": "8"}),
    (["-n", "2", "--node_rank", "2", *SIX], {}),
    (["-n", "2", "--base_rank", "4", "--node_rank", "1", *SIX], {}),
    (["-n", "4", "--base_rank", "2", "--node_rank", "1", *SIX], {}),
    (["-m", "-n", "2", "--stdout", "o{rank}", "--stderr", "e{local_rank}", "-v"], {}),
    (["-c", "--master_port", "7"], {}),
]


@pytest.fixture(autouse=True)
def no_launcher_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that an earlier run in this process left."""
    for name in ("LOCAL_WORLD_SIZE", *(name.upper() for name in ranks.ENVIRONMENT)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("options", "environment"), GIVEN)
def test_options_are_parsed_as_by_composer(
    options: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = [*options, "main.py", "small.yaml", "-n", "3", "run_name=$RANK"]
    monkeypatch.setattr("sys.argv", ["composer", *words])
    theirs, ours = vars(stock._parse_args()), vars(ranks.parse(words))
    if "master_port" not in " ".join(options) and "MASTER_PORT" not in environment:
        assert theirs.pop("master_port") > 0 and ours.pop("master_port") > 0  # a random free port
    assert ours == theirs


WRONG = [
    (["-n", "0"], "--nproc 0: give at least 1"),
    (["-n", "4", "--world_size", "2"], "--world_size 2 is less than the 4 ranks of this node"),
    (["-n", "1", "--node_rank", "1"], "--node_rank 1: one node only"),
    (["-n", "1", "--world_size", "2"], "set --node_rank, from 0, on each"),
    (["-n", "2", "--world_size", "3", "--node_rank", "1"], "set both --base_rank and --node_rank"),
    (["-n", "2", "--world_size", "4", "--node_rank", "2"], "--node_rank 2 would run rank 5; the last is 3"),
    (["-n", "2", "--world_size", "4", "--node_rank", "1"], "--master_addr: missing"),
    (["-m", "-c"], "not allowed with"),
    (["-n", "two"], "invalid int value"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG)
def test_wrong_options(options: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        ranks.parse([*options, "main.py"])
    assert expected in capsys.readouterr().err


# A rank that waits for SIGTERM; the file `ready` reports that its handler is installed.
RANK = """
import os, pathlib, signal, sys, time
rank, times = os.environ["RANK"], []
signal.signal(signal.SIGTERM, lambda *_: times.append(time.time()))
pathlib.Path("ready" + rank).touch()
while not times: time.sleep(0.01)
"""
LAUNCHER = "import sys; from launch import ranks; sys.exit(ranks.main())"
SAVES = "time.sleep(1); pathlib.Path('saved' + rank).write_text(str(len(times))); sys.exit(143)"


def launch(folder: Path, program: str, count: int = 2, launcher: str = LAUNCHER) -> subprocess.Popen[str]:
    """Start `composer -n COUNT` on a program, and wait until each rank has its handler."""
    script = folder / "rank.py"
    script.write_text(program)
    command = [sys.executable, "-c", launcher, "-n", str(count), str(script)]
    pipe, shell = subprocess.PIPE, bare_shell(PYTHONPATH=str(ROOT))
    process = subprocess.Popen(command, cwd=folder, env=shell, stdout=pipe, stderr=pipe, text=True)
    wait_for(lambda: len(list(folder.glob("ready*"))) == count, process=process)
    return process


def test_ranks_have_as_long_as_they_need_to_save(tmp_path: Path) -> None:
    """One signal, one request to each rank; saving has no time limit."""
    process = launch(tmp_path, RANK + SAVES)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 143 and (out, err) == ("", "")
    assert [(tmp_path / f"saved{rank}").read_text() for rank in (0, 1)] == ["1", "1"]


def test_a_second_signal_sets_a_limit(tmp_path: Path) -> None:
    """A rank that does not exit survives the first signal and is killed after the second."""
    deaf = "time.sleep(1); pathlib.Path('survived').touch()\nwhile True: time.sleep(1)"
    impatient = "import sys; from launch import ranks; ranks.ECHO = ranks.INSISTED = 0.0; sys.exit(ranks.main())"
    process = launch(tmp_path, RANK + deaf, 1, impatient)
    process.send_signal(signal.SIGTERM)
    wait_for((tmp_path / "survived").exists, process=process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGKILL


def test_a_rank_that_crashes_stops_the_others_and_is_shown(tmp_path: Path) -> None:
    crash = "while rank == '1' and not pathlib.Path('ready0').exists(): time.sleep(0.01)\n"
    crash += "if rank == '1': print('out'); sys.exit('rank 1 broke')\n"
    program = RANK.replace("while not times", f"{crash}while not times") + SAVES
    process = launch(tmp_path, program)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and not out
    assert err == "\nrank 1 exited with status 1; its output:\nout\nrank 1 broke\n"
    assert (tmp_path / "saved0").exists() and not (tmp_path / "saved1").exists()


def test_an_error_of_all_ranks_is_printed_once(tmp_path: Path) -> None:
    """Even if one rank is stopped after it printed the message."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        + """
import pathlib, time
from main import cli_of_a_process
while os.environ["RANK"] == "1" and not pathlib.Path("said").exists(): time.sleep(0.01)
status = cli_of_a_process(["digits.yaml", "sed=3"])
pathlib.Path("said").touch()
if os.environ["RANK"] == "0": time.sleep(1)
sys.exit(status)
"""
    )
    (tmp_path / "rank.py").write_text(program)
    (tmp_path / "digits.yaml").write_text((ROOT / "yamls/digits.yaml").read_text())
    command = [sys.executable, str(ROOT / "launch/ranks.py"), "-n", "2", "rank.py"]
    done = subprocess.run(command, cwd=tmp_path, env=bare_shell(), capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.strip().splitlines() == ["sed: no such key; did you mean seed? [command line]"]


def test_version_is_composers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="0"):
        ranks.parse(["--version"])
    ours = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["composer", "--version"])
    with pytest.raises(SystemExit, match="0"):
        stock._parse_args()
    assert capsys.readouterr().out == ours


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_an_environment_variable_that_is_not_a_number(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "two")
    with pytest.raises(SystemExit, match="2"):
        ranks.parse(["main.py"])
    assert f"{name}=two in the environment: it must be a whole number" in capsys.readouterr().err


def test_environment_of_a_rank(tmp_path: Path) -> None:
    """As Composer sets it; `$RANK` and `~` in arguments are expanded per rank."""
    line = "print(*sys.argv[1:], *(os.environ[n] for n in 'RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE NODE_RANK '"
    line += "'MASTER_ADDR MASTER_PORT'.split()))"
    (tmp_path / "rank.py").write_text(f"import os, sys; {line}")
    nodes = ["--world_size", "4", "--node_rank", "1", "--master_addr", "h", "--master_port", "9"]
    command = [sys.executable, "-m", "launch.ranks", "-n", "2", *nodes, "--stdout", str(tmp_path / "{rank}.txt")]
    command += [str(tmp_path / "rank.py"), "name=$RANK", "~"]
    done = subprocess.run(command, cwd=ROOT, env=bare_shell(), capture_output=True, text=True, check=True)
    home = os.environ["HOME"]
    assert done.stdout == f"name=2 {home} 2 4 0 2 1 h 9\n"
    assert (tmp_path / "3.txt").read_text() == f"name=3 {home} 3 4 1 2 1 h 9\n"


def test_signals_that_are_ignored_stay_ignored(tmp_path: Path) -> None:
    """A batch script leaves signals to the ranks by `trap "" TERM`."""
    (tmp_path / "rank.py").write_text("import os, signal; os.kill(os.getppid(), signal.SIGTERM)")
    shell = f"trap '' TERM; exec {sys.executable} {ROOT}/launch/ranks.py {tmp_path}/rank.py"
    assert subprocess.run(["sh", "-c", shell], env=bare_shell()).returncode == 0


def test_make_installs_the_command() -> None:
    assert Path(COMPOSER).read_text() == (ROOT / "launch/composer").read_text()
    shown = subprocess.run([COMPOSER, "--help"], env=bare_shell(), capture_output=True, text=True, check=True).stdout
    assert shown.startswith("usage: composer [-h] [-n RANKS]")


def test_imports_nothing_slow() -> None:
    program = "import sys, launch.ranks; sys.exit(sorted({'torch', 'composer', 'omegaconf'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=bare_shell(), check=True)
