"""One run downloads to a cache folder: a living run's is refused, what a dead one left in shared memory is removed.

mosaicml-streaming keeps what the processes of a run share in /dev/shm, under a number, and refuses a cache folder that
any number names. A run ended by SIGKILL leaves its number there for ever; a run that has downloaded anything leaves a
lock file, and numbers that have one are neither looked at nor used again. Therefore each process of a run holds a lock
on the first block of its number, which the kernel takes back however the process ends, and marks the block as one that
is locked while its run lives. Of other programs' numbers only this can be seen: whether some process has them open.
"""

import atexit
import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streaming.base.constant import BARRIER_FILELOCK, CACHE_FILELOCK, LOCALS, SHM_TO_CLEAN
from streaming.base.shared import SharedMemory

from common.errors import DataError

SHARED = Path("/dev/shm")
GRACE = 20.0  # seconds that the workers of a run that was killed may need to notice; they look every two
OTHERS_START = 60.0  # seconds that another run may need to open what it has just made
TRACKER = 0.5  # seconds that Python's tracker of a killed run may need to remove its names, whosever they are by then
MARK = b"\0locked while its run lives"  # behind what mosaicml-streaming reads of a block
_LOCKS = (BARRIER_FILELOCK, CACHE_FILELOCK)


@contextlib.contextmanager
def claimed(folder: str, shared: bool) -> Iterator[None]:
    """Take a cache folder for this run: only within this does mosaicml-streaming choose a number, one run at a time.

    Args:
        folder: a split's folder in the cache.
        shared: nothing is downloaded to it, so that several runs may read it.

    Raises:
        DataError: another run uses it.
    """
    if not SHARED.is_dir():
        yield  # not Linux: mosaicml-streaming alone watches
        return
    turn = os.open(SHARED, os.O_RDONLY)
    try:
        _lock(turn)
        deadline = time.monotonic() + GRACE
        while _clean(folder) and not shared:
            if time.monotonic() > deadline:
                raise in_use(folder)
            time.sleep(0.1)
        yield
    finally:
        os.close(turn)


def in_use(folder: str) -> DataError:
    """The sentence for a cache folder that is another run's."""
    return DataError(
        f"{folder}: another run on this machine uses this cache folder. Wait for it to end, or give another folder, "
        "local=/some/folder."
    )


def _lock(turn: int) -> None:
    """Wait for this run's turn, but not for ever: two runs on the same two nodes could wait for each other."""
    deadline = time.monotonic() + OTHERS_START
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)


def hold(number: int) -> int:
    """A descriptor that shows, as long as a process has it, that the run of a number lives; -1 where nobody looks."""
    if not SHARED.is_dir():
        return -1
    descriptor = os.open(SHARED / f"{number:06}_{LOCALS}", os.O_WRONLY | os.O_APPEND)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.write(descriptor, MARK)
    return descriptor


def _is_held(file: Path) -> bool:
    """Whether a process holds a number, of which `file` is the first block."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _clean(folder: str) -> bool:
    """Remove what dead runs left; whether a living one, other than this, uses the folder."""
    wanted = os.path.abspath(folder)
    mapped, ours = _mapped("[0-9]*"), _mapped(str(os.getpid()))
    used, dead = False, []
    for file in SHARED.glob(f"*_{LOCALS}"):
        number = file.name.removesuffix(f"_{LOCALS}")
        try:
            data, age, held = file.read_bytes(), time.time() - file.stat().st_mtime, _is_held(file)
        except OSError:
            continue  # somebody else's, or it has just gone
        # Memory that is open shows no life of a marked run: mosaicml-streaming opens all numbers' to find a free one.
        marked, is_wanted = data.endswith(MARK), wanted in _folders(data)
        if held or (number in mapped and not marked):
            used = used or (is_wanted and number not in ours)
        elif marked or is_wanted or age > OTHERS_START:
            dead.append(number)
    if dead:
        time.sleep(TRACKER)
        _remove(SHARED / f"{number}_{name}" for number in dead for name in SHM_TO_CLEAN)
    for name in _LOCKS:
        locks = Path(tempfile.gettempdir()).glob(f"[0-9]*_{name}")
        _remove(lock for lock in locks if not (SHARED / f"{lock.name.removesuffix(name)}{LOCALS}").exists())
    return used


def _folders(data: bytes) -> list[str]:
    """The cache folders that a first block names; none once its data set is gone, which zeroes the length in front."""
    return data[4 : int.from_bytes(data[:4], "little")].decode(errors="replace").split("\0")[:-1]


def _mapped(process: str) -> set[str]:
    """The numbers whose shared memory a process has open, or any process that matches.

    Not what has been removed since (`(deleted)` stands behind it): its number may be another run's by now.
    """
    numbers: set[str] = set()
    for maps in Path("/proc").glob(f"{process}/maps"):
        with contextlib.suppress(OSError):  # it has just ended, or belongs to somebody else
            numbers.update(re.findall(rf"{SHARED}/(\d+)_\S+$", maps.read_text(), re.MULTILINE))
    return numbers


def _remove(paths: Iterator[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # somebody else's
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def opened_blocks() -> Iterator[list[SharedMemory]]:
    """All shared memory that is opened meanwhile.

    To choose a number mosaicml-streaming opens what all other runs share, and keeps it. It registers each block's end
    with atexit; there is no other list of them.
    """
    opened: list[SharedMemory] = []
    register = atexit.register

    def noted(end: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
        block = getattr(end, "__self__", None)
        if isinstance(block, SharedMemory):
            opened.append(block)
        return register(end, *arguments, **named)

    atexit.register = noted  # type: ignore[assignment]
    try:
        yield opened
    except BaseException:
        let_go(opened, os.getpid())
        raise
    finally:
        atexit.register = register


def let_go(blocks: list[SharedMemory], owner: int, held: int = -1) -> None:
    """Close blocks, which mosaicml-streaming keeps until the process ends: two descriptors each.

    Args:
        blocks: which.
        owner: the process that opened them.
        held: what `hold` gave for their number.
    """
    if os.getpid() != owner:
        return  # a worker's copy: its parent goes on
    for block in blocks:
        with contextlib.suppress(BufferError):  # somebody still looks at it
            block.cleanup()
            atexit.unregister(block.cleanup)
    if held >= 0:
        os.close(held)
