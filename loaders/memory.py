"""How much memory the loaders may take: batches on their way from the workers, and data sets kept whole."""

import os
import resource
import shutil
from pathlib import Path

from common.errors import DataError

SHARED = Path("/dev/shm")
PREFETCH_BYTES = 4 << 30
"""What the batches that a rank's workers hold ready should take together; each worker holds one at least."""
DEFAULT_PREFETCH = 2  # batches per worker, as PyTorch has it


def free_shared_memory() -> int:
    """Bytes that shared memory may still take: /dev/shm's own limit, the machine's and the container's."""
    limits = [shutil.disk_usage(SHARED).free]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))  # given back when it is wanted
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()) + cache)
    except (OSError, ValueError):
        pass  # no limit, or an older kernel's layout
    return max(0, min(limits))


def prefetch_factor(batch_bytes: int, workers: int) -> int:
    """Batches that each worker holds ready: the usual two, or one where two would pass PREFETCH_BYTES."""
    return max(1, min(DEFAULT_PREFETCH, PREFETCH_BYTES // (batch_bytes * workers)))


def check_shared_memory(batch_bytes: int, workers: int, prefetch: int) -> None:
    """Refuse batches that /dev/shm cannot hold: a worker that meets its end there dies of a bus error.

    Args:
        batch_bytes: of one rank's batch.
        workers: of this rank.
        prefetch: batches that each of them holds ready.

    Raises:
        DataError: with what is needed, what there is, and what to say.
    """
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    # One more batch than is held ready: the one in training is given back only afterwards. (Where `loaders.slots` is at
    # work they lie elsewhere, but those that find no place there are here.)
    needed, free = ranks * batch_bytes * (workers * prefetch + 1), free_shared_memory()
    if needed > free:
        raise DataError(
            f"{SHARED}: {free / 1e6:,.0f} MB are free, but {ranks} x {workers} workers with {prefetch} batches of "
            f"{batch_bytes / 1e6:,.0f} MB each fill {needed / 1e6:,.0f} MB. Give a container more (docker run --ipc "
            "host, or --shm-size), or say train_dataset.num_workers=1 train_dataset.prefetch_factor=1 (and the same "
            "for eval_dataset), or a smaller batch_size."
        )


def allow_many_files() -> None:
    """Let this process and its workers have as many files open as the system allows: each batch in flight is some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
