"""The machine under a run: device, process group, threads, precision, and what a launcher leaves undone."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from composer.utils import dist, get_device, reproducibility
from torch.distributed import DistError

from common.orphans import die_with_parent
from config import ConfigError, Machine, Run, UserError
from config.schema import Config
from loaders.workers import cores

T = TypeVar("T")

PATIENCE = 5.0  # seconds, of joining the other ranks, that pass without a word
LAST_WORK = 0.1
"""Seconds before a rank ends. Gloo's thread lets go of the last collective's tensors when it comes to it, for which it
needs the interpreter; one that is ending aborts the process instead: of 48 ranks on two busy cores one without this
pause, none with it (torch 2.7). Leaving the process group would wait for that thread, and keep the interpreter."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def prepare(run: Run) -> None:
    """Choose device, precision and microbatch (`run.machine`), join the other ranks, set threads and seeds.

    A CPU trains in fp32, and says so, where the recipe rather than the user asks for another precision.

    Raises:
        ConfigError: for a device, a precision or a compiler that this machine lacks.
    """
    config = run.config
    compilers = [name for name in (os.environ.get("CC"), os.environ.get("CXX"), "cc", "gcc", "g++", "clang") if name]
    if config.compile and not any(map(shutil.which, compilers)):
        raise ConfigError("compile: torch.compile needs a C compiler and finds none; install gcc, or compile=false")
    device = config.device or ("gpu" if torch.cuda.is_available() else "cpu")
    precision = _precision(config.precision, device, run.is_of_recipe("precision"))
    if dist.get_world_size() > 1:  # or a rank would train on after its launcher's death
        die_with_parent(signal.SIGTERM)
    # torchrun sets no NODE_RANK, without which Composer refuses to load a checkpoint.
    os.environ.setdefault("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    if dist.get_world_size() > 1:
        _join(device, config.dist_timeout)
        atexit.register(_leave)
    _set_threads(device)
    _keep_freed_memory(device)
    run.prepared = Machine(device, precision, _microbatch(config, device))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    # Sizes change a few times per run only, so cuDNN's search pays; deterministic runs must not search.
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        reproducibility.configure_deterministic_mode()
    reproducibility.seed_all(config.seed)


def _leave() -> None:
    """End the process group of NCCL, which warns of one that was left, or give Gloo's thread its last moment."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl":
        torch.distributed.destroy_process_group()
    else:
        time.sleep(LAST_WORK)


def _join(device: str, timeout: float) -> None:
    """Meet the other ranks.

    Raises:
        UserError: if they cannot be reached, or not all of them come in time.
    """
    place = f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}"
    who = f"{place}: rank {dist.get_global_rank()} of {dist.get_world_size()}"
    told = threading.Timer(PATIENCE, print, [f"{who} waits for the others there"], {"flush": True})
    told.daemon = True
    told.start()
    # A handler in Python would wait for the other ranks, too.
    handlers = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        _reach_rank_zero(who, timeout)
        dist.initialize_dist(get_device(device), timeout=timeout)
    except DistError as error:
        why = " ".join(str(error).split())[:200]
        advice = "look at what they say, and whether all can reach that address"
        if "EADDRINUSE" in why:
            why, advice = "another program uses the port", "give a free one: composer --master_port PORT"
        raise UserError(f"{who} did not meet the others ({why}); {advice}") from error
    finally:
        told.cancel()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _reach_rank_zero(who: str, timeout: float) -> None:
    """Wait until something answers where rank 0 should; torch would print its own stack while it tries.

    Raises:
        UserError: if the address stands for nothing, which may pass while a cluster starts, or nothing answers in time.
    """
    host, started = os.environ["MASTER_ADDR"], time.monotonic()
    while True:
        try:
            socket.getaddrinfo(host, None)
            if dist.get_global_rank():
                socket.create_connection((host, int(os.environ["MASTER_PORT"])), timeout=PATIENCE).close()
            return
        except OSError as error:
            if time.monotonic() - started > (PATIENCE if isinstance(error, socket.gaierror) else timeout):
                raise UserError(
                    f"{who} does not reach rank 0 ({error.strerror or error}); look at what rank 0 says, or give its "
                    "address: composer --master_addr HOST --master_port PORT"
                ) from None
        time.sleep(0.5)


def _precision(precision: str | None, device: str, of_recipe: bool) -> str:
    if device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("device: 'gpu' was asked for, but torch sees none here; leave it out or say device=cpu")
    if device == "cpu":
        if of_recipe and precision != "fp32":
            say(f"the recipe's precision {precision} needs a GPU: this CPU trains in fp32")
        elif precision not in (None, "fp32"):
            raise ConfigError(f"precision: {precision} needs a GPU, and none is used here; say precision=fp32")
        return "fp32"
    return precision or ("amp_bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "amp_fp16")


def _set_threads(device: str) -> None:
    """Share the cores among this node's ranks: no launcher does, and each rank would start a thread per core."""
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())


def _keep_freed_memory(device: str) -> None:
    """Let the C library keep what a step frees on a CPU: the next one needs it again, and pages would fault anew.

    Without this a step's time depends on where the heap's end happens to lie: the same ResNet-18 step took 0.100 to
    0.120 s from one loop to the next, with it 0.104 to 0.107 (2 cores, benchmarks.step, 2026-11-20).
    """
    if device == "cpu" and sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; other C libraries have other ways
            libc.mallopt(M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _microbatch(config: Config, device: str) -> int | str:
    """Resolve null, 'auto' and the old grad_accum into what Composer's Trainer takes, per device."""
    dataset = config.train_dataset if config.is_train else config.eval_dataset
    per_rank = dataset.batch_size // dist.get_world_size()
    size = config.device_train_microbatch_size
    if isinstance(config.grad_accum, int) and config.is_train:
        size = -(-per_rank // config.grad_accum)
    if size == "auto" and device == "cpu":
        say(f"device_train_microbatch_size: auto searches on a GPU only; on the CPU it is the whole batch, {per_rank}")
        size = None
    return per_rank if size is None else size


def on_rank_zero(do: Callable[..., T], *arguments: object) -> T:
    """Do something on rank 0 alone and give every rank its result, or its fault: no rank waits for another in vain."""
    outcome: list[Any] = [None, None]
    if dist.get_global_rank() == 0:
        outcome = _attempt(do, *arguments)
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def on_local_leaders(do: Callable[..., T], *arguments: object) -> T:
    """Do something on one rank of every node; its result, on all ranks of the node, or on all what any of them met."""
    outcome = _attempt(do, *arguments) if dist.get_local_rank() == 0 else [None, None]
    return _shared(outcome)[dist.get_global_rank() - dist.get_local_rank()]


def on_all_ranks(do: Callable[..., T], *arguments: object) -> T:
    """Do something on every rank; each rank's own result, or on all ranks what any of them met."""
    outcome = _attempt(do, *arguments)
    _shared([None, outcome[1]])
    return outcome[0]


def _shared(outcome: list[Any]) -> list[Any]:
    """The results of all ranks; raises the first fault among them."""
    outcomes = dist.all_gather_object(outcome)
    for _, fault in outcomes:
        if fault is not None:
            raise fault
    return [result for result, _ in outcomes]


def _attempt(do: Callable[..., object], *arguments: object) -> list[Any]:
    """[result, None], or [None, fault]: a UserError as it is, anything else as what can travel between ranks."""
    try:
        return [do(*arguments), None]
    except UserError as error:
        return [None, error]
    except Exception as error:
        traceback.print_exc()
        return [None, RuntimeError(f"{type(error).__name__}: {error}")]


def say(text: str) -> None:
    """Print a line, once for all ranks."""
    if dist.get_global_rank() == 0:
        print(text, flush=True)
