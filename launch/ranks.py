"""Start one process per GPU: the `composer` command, with the options of Composer's own launcher.

    composer [-n RANKS] main.py yamls/resnet50.yaml recipe_name=mild
    python -m launch.ranks [-n RANKS] main.py yamls/resnet50.yaml recipe_name=mild

`make` and the Docker image install it as `composer`. It differs from Composer's launcher in two ways. After SIGTERM or
Ctrl-C, the ranks have as long as they need to save; Composer kills them after 30 seconds, even while they write. And it
imports neither torch nor Composer, so the ranks start seconds earlier.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import FrameType

POLL = 0.1  # seconds between checks of the ranks
AFTER_CRASH = 120.0  # seconds for the other ranks to finish writing after one has crashed
INSISTED = 10.0  # seconds for the ranks to exit after a second signal, which interrupts them at the next line of Python
ECHO = 2.0  # seconds within which a repeated signal counts as the same: a terminal signals the whole process group
ENVIRONMENT = ("world_size", "base_rank", "node_rank", "master_addr", "master_port")


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the options of `composer`; as in Composer's launcher, missing ones come from the environment.

    Raises:
        SystemExit: with status 2 and an error message, if options contradict each other.
    """
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="composer", description=lines[0])
    parser.add_argument("-n", "--nproc", type=int, metavar="RANKS", help="ranks on this node (default: one per GPU)")
    composer = f"MosaicML Composer {version('mosaicml')}"
    parser.add_argument("--version", action="version", version=composer, help="print Composer's version")
    shown = "may contain {rank}, {local_rank}, {world_size}, {local_world_size}, {node_rank}"
    for stream in ("stdout", "stderr"):
        parser.add_argument(f"--{stream}", metavar="FORMAT", help=f"{stream} file of every rank but the first; {shown}")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the commands started")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("-m", "--module_mode", action="store_true", help="the script is the name of a module")
    mode.add_argument("-c", "--command_mode", action="store_true", help="the script is a command, not a Python file")
    nodes = parser.add_argument_group("several nodes", "each option defaults to the environment variable of its name")
    nodes.add_argument("--world_size", type=int, metavar="RANKS", help="ranks on all nodes (default: --nproc)")
    nodes.add_argument("--base_rank", type=int, metavar="RANK", help="the first rank of this node")
    nodes.add_argument("--node_rank", type=int, metavar="NODE", help="the index of this node, from 0")
    nodes.add_argument("--master_addr", metavar="HOST", help="host of rank 0 (default on one node: 127.0.0.1)")
    nodes.add_argument("--master_port", type=int, metavar="PORT", help="free port on it (default on one node: any)")
    parser.add_argument("training_script", metavar="main.py", help="the program that each rank runs")
    parser.add_argument("training_script_args", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    given = parser.parse_args(argv)
    try:
        _from_environment(given)
        _resolve(given)
    except ValueError as error:
        parser.error(str(error))
    return given


def _from_environment(given: argparse.Namespace) -> None:
    """Fill in missing options from the environment."""
    if given.nproc is None:
        local = os.environ.get("LOCAL_WORLD_SIZE") or "0"
        if not local.isdigit():
            raise ValueError(f"LOCAL_WORLD_SIZE={local} in the environment: it must be a whole number")
        given.nproc = int(local) or _gpus() or 1
    found = {name: os.environ[name.upper()] for name in ENVIRONMENT if os.environ.get(name.upper())}
    if found.get("world_size") == os.environ.get("LOCAL_WORLD_SIZE"):
        found.pop("world_size", None)  # a single node, whose world size follows -n
    for name, value in found.items():
        if name != "master_addr" and not value.isdigit():
            raise ValueError(f"{name.upper()}={value} in the environment: it must be a whole number")
        if getattr(given, name) is None:
            setattr(given, name, value if name == "master_addr" else int(value))


def _resolve(given: argparse.Namespace) -> None:
    """Fill in the defaults; a ValueError if the options are inconsistent."""
    given.world_size = given.nproc if given.world_size is None else given.world_size
    if given.nproc < 1:
        raise ValueError(f"--nproc {given.nproc}: give at least 1")
    if given.world_size < given.nproc:
        raise ValueError(f"--world_size {given.world_size} is less than the {given.nproc} ranks of this node (--nproc)")
    if given.world_size == given.nproc:
        for name in ("base_rank", "node_rank"):
            if getattr(given, name):
                raise ValueError(f"--{name} {getattr(given, name)}: one node only; set --world_size for several")
        given.base_rank = given.node_rank = 0
        given.master_addr = given.master_addr or "127.0.0.1"
        given.master_port = given.master_port or _free_port()
        return
    if given.base_rank is None and given.node_rank is None:
        raise ValueError(f"--world_size {given.world_size} needs several nodes; set --node_rank, from 0, on each")
    even = given.world_size % given.nproc == 0 and (given.base_rank or 0) % given.nproc == 0
    if not even and None in (given.base_rank, given.node_rank):
        raise ValueError("the nodes differ in size; set both --base_rank and --node_rank on each")
    given.base_rank = given.node_rank * given.nproc if given.base_rank is None else given.base_rank
    given.node_rank = given.base_rank // given.nproc if given.node_rank is None else given.node_rank
    if given.base_rank + given.nproc > given.world_size:
        last = given.base_rank + given.nproc - 1
        raise ValueError(f"--node_rank {given.node_rank} would run rank {last}; the last is {given.world_size - 1}")
    for name in ("master_addr", "master_port"):
        if getattr(given, name) is None:
            raise ValueError(f"--{name}: missing; set that of rank 0's host on every node")


def _gpus() -> int:
    """Return the number of GPUs that torch sees; importing torch takes seconds, so it is avoided without a device."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not any(map(os.path.exists, ("/dev/dxg", "/dev/kfd"))):
        return 0
    import torch

    return torch.cuda.device_count()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ranks:
    """The processes of this node, from their start to their exit status.

    Args:
        given: the options returned by `parse`.
        logs: folder for the output of every rank but the first, unless --stdout and --stderr are given.
    """

    def __init__(self, given: argparse.Namespace, logs: Path) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.failed: list[int] = []  # local ranks, in the order in which their failure was noticed
        self._given = given
        self._logs = logs
        self._signals: list[int] = []  # received, but not yet forwarded
        self._forwarded_at = 0.0  # time of the first forwarded signal; 0 before
        self._deadline = float("inf")

    def start(self, files: ExitStack) -> None:
        """Start all ranks; `files` closes their log files."""
        given = self._given
        program = [] if given.command_mode else [sys.executable, *(["-m"] if given.module_mode else [])]
        for local in range(given.nproc):
            names = {
                **self._numbers(local),
                "master_addr": given.master_addr,
                "master_port": given.master_port,
                "pythonunbuffered": 1,
                "torch_nccl_async_error_handling": 1,
            }
            os.environ.update({name.upper(): str(value) for name, value in names.items()})
            words = [os.path.expandvars(os.path.expanduser(word)) for word in given.training_script_args]
            command = [*program, given.training_script, *words]
            if given.verbose:
                print(f"rank {names['rank']}: {' '.join(command)}", file=sys.stderr)
            streams = ("stdout", "stderr") if local else ()
            logs = {stream: files.enter_context(self.log(local, stream).open("ab")) for stream in streams}
            self.processes.append(subprocess.Popen(command, stdout=logs.get("stdout"), stderr=logs.get("stderr")))

    def _numbers(self, local: int) -> dict[str, int]:
        """Return the numbers of a local rank, by the names of their variables in lower case."""
        given = self._given
        return {
            "rank": given.base_rank + local,
            "world_size": given.world_size,
            "local_rank": local,
            "local_world_size": given.nproc,
            "node_rank": given.node_rank,
        }

    def log(self, local: int, stream: str) -> Path:
        """Return the log file of a rank's `stream`, "stdout" or "stderr"."""
        name = getattr(self._given, stream) or str(self._logs / f"rank{{rank}}.{stream}.txt")
        return Path(name.format(**self._numbers(local)))

    def note(self, signum: int, _frame: FrameType | None) -> None:
        """Queue a signal for `wait` to forward; a handler for `signal.signal`."""
        self._signals.append(signum)

    def wait(self) -> None:
        """Wait until all ranks have exited; if one fails, terminate the others."""
        while self.running():
            self._forward()
            self._note_failures()
            if time.monotonic() > self._deadline:
                self.kill()
            time.sleep(POLL)
        self._note_failures()

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Return the ranks that have not exited."""
        return [process for process in self.processes if process.poll() is None]

    def kill(self) -> None:
        """Kill the ranks that are still running."""
        for process in self.running():
            process.kill()

    def _forward(self) -> None:
        """Forward received signals to the ranks; a second one limits the time they have to exit."""
        while self._signals:
            signum = self._signals.pop(0)
            for process in self.running():
                process.send_signal(signum)
            now = time.monotonic()
            if not self._forwarded_at:
                self._forwarded_at = now
            elif now - self._forwarded_at > ECHO:
                self._deadline = min(self._deadline, now + INSISTED)

    def _note_failures(self) -> None:
        """Terminate the other ranks when one has failed, because they would wait for it in the next collective."""
        for local, process in enumerate(self.processes):
            if process.returncode and local not in self.failed:
                self.failed.append(local)
                stopping = self._forwarded_at and process.returncode in (143, 130, -signal.SIGTERM, -signal.SIGINT)
                if not stopping and self._deadline == float("inf"):
                    self._deadline = time.monotonic() + AFTER_CRASH
                    for other in [] if self._forwarded_at else self.running():
                        other.send_signal(signal.SIGTERM)

    def status(self) -> int:
        """Return the exit status of the first rank that failed, 128 + the number for a signal; 0 if none failed."""
        if not self.failed:
            return 0
        code = self.processes[self.failed[0]].returncode
        return code if code > 0 else 128 - code

    def explain(self) -> None:
        """Print the output of the failed ranks, unless it is on this terminal already."""
        first = self.processes[0].returncode
        for local in self.failed:
            code = self.processes[local].returncode
            if local == 0 or code in (first, -signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT):
                continue
            print(f"\nrank {self._given.base_rank + local} exited with status {code}; its output:", file=sys.stderr)
            for stream in ("stdout", "stderr"):
                sys.stderr.write(self.log(local, stream).read_text(errors="replace"))


def main(argv: list[str] | None = None) -> int:
    """Run the ranks of this node; return the exit status, which is 143 after SIGTERM once the ranks have saved."""
    given = parse(sys.argv[1:] if argv is None else argv)
    with ExitStack() as files:
        ranks = Ranks(given, Path(files.enter_context(tempfile.TemporaryDirectory(prefix="ranks-"))))
        for signum in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(signum) != signal.SIG_IGN:  # a batch script may leave signals to the ranks
                signal.signal(signum, ranks.note)
        try:
            ranks.start(files)
            ranks.wait()
        except OSError as error:
            print(f"composer: {error}", file=sys.stderr)
            return 1
        finally:
            ranks.kill()
        ranks.explain()
        return ranks.status()


if __name__ == "__main__":
    sys.exit(main())
