"""Processes that end with their parent instead of running on as orphans."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here, because a process may not load a library between fork and exec


def die_with_parent(signum: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies, whatever the cause (Linux only)."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signum)
