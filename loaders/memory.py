"""Memory limits of the loaders: batches in transit from the workers, and data sets held in memory."""

import os
import resource
import shutil
from pathlib import Path

from common.errors import DataError

SHARED = Path("/dev/shm")
PREFETCH_BYTES = 4 << 30
"""Target for the prefetched batches of all workers of a rank; each worker prefetches at least one."""
DEFAULT_PREFETCH = 2  # batches per worker, as in PyTorch


def free_shared_memory() -> int:
    """Bytes of shared memory that can still be used: the least of /dev/shm, the machine and the container."""
    limits = [shutil.disk_usage(SHARED).free]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))  # the kernel frees it on demand
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()) + cache)
    except (OSError, ValueError):
        pass  # no limit, or an older kernel's layout
    return max(0, min(limits))


def prefetch_factor(batch_bytes: int, workers: int) -> int:
    """Batches that each worker prefetches: two, or one if two would exceed PREFETCH_BYTES."""
    return max(1, min(DEFAULT_PREFETCH, PREFETCH_BYTES // (batch_bytes * workers)))


def check_shared_memory(batch_bytes: int, workers: int, prefetch: int) -> None:
    """Raise a DataError if /dev/shm cannot hold `prefetch` batches per worker: a worker would die of a bus error."""
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    # One more than is prefetched, because the batch in training is freed only afterwards. Batches in a slot
    # (`loaders.slots`) are not in /dev/shm, but those that get no slot are.
    needed, free = ranks * batch_bytes * (workers * prefetch + 1), free_shared_memory()
    if needed > free:
        raise DataError(
            f"{SHARED}: {free / 1e6:,.0f} MB are free, but {ranks} x {workers} workers with {prefetch} batches of "
            f"{batch_bytes / 1e6:,.0f} MB each need {needed / 1e6:,.0f} MB. Give a container more (docker run --ipc "
            "host, or --shm-size), or set train_dataset.num_workers=1 train_dataset.prefetch_factor=1 (and the same "
            "for eval_dataset), or a smaller batch_size."
        )


def allow_many_files() -> None:
    """Raise the limit of open files for this process and its workers: each batch in transit needs a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
