"""Set up the machine for a run: device, process group, threads, precision."""

import atexit
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from composer.utils import dist, get_device, reproducibility
from torch.distributed import DistError
from torch.utils._triton import has_triton

from common.orphans import die_with_parent
from config import ConfigError, Machine, Run, UserError
from config.schema import AUTO, Config
from loaders.workers import cores
from training import network

T = TypeVar("T")

PATIENCE = 5.0  # seconds of waiting for the other ranks before a message
# Seconds to sleep before a rank exits. Gloo's thread needs the GIL to free the last collective's tensors; if the
# interpreter is shutting down, the process aborts: 1 of 48 ranks on two busy cores without the pause, none with it
# (torch 2.7). Destroying the process group would wait for that thread while holding the GIL.
LAST_WORK = 0.1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def prepare(run: Run) -> None:
    """Choose device, precision and microbatch (`run.machine`), join the other ranks, set threads and seeds.

    On a CPU, a recipe's lower precision becomes fp32 with a notice. A precision, device or compiler that the user chose
    and this machine lacks is an error.
    """
    config = run.config
    compilers = [name for name in (os.environ.get("CC"), os.environ.get("CXX"), "cc", "gcc", "g++", "clang") if name]
    compiler = next(filter(shutil.which, compilers), None)
    if config.compile is True and not compiler:
        raise ConfigError("compile: torch.compile needs a C compiler; there is none. Install gcc, or set compile=false")
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
    if device == "cpu" and sys.platform == "linux":
        _keep_freed_memory()
    run.prepared = Machine(device, precision, _microbatch(config, device), _compiles(config.compile, device, compiler))
    # The old switches, which Composer sets too. From torch 2.9 on they also set the new fp32_precision; that one alone
    # would make torch.compile raise an error where it reads the old one.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    # Image sizes change only a few times per run, so cuDNN's search pays off; it is not deterministic.
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        reproducibility.configure_deterministic_mode()
    reproducibility.seed_all(config.seed)


def _leave() -> None:
    """Destroy NCCL's process group, which it would warn about, or wait for Gloo's thread (see LAST_WORK)."""
    if _has_nccl():
        torch.distributed.destroy_process_group()
    else:
        time.sleep(LAST_WORK)


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """After an error inside, let the process exit with NCCL's process group, which torch then aborts with a warning.

    Destroying it would wait for collectives that the other ranks may never join; the launcher ends them only when this
    process has exited.
    """
    try:
        yield
    except Exception:
        if _has_nccl():
            atexit.unregister(_leave)
        raise


def _has_nccl() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl"


def _join(device: str, timeout: float) -> None:
    """Join the other ranks; raise a UserError if rank 0 cannot be reached, or a rank does not join in time."""
    address = f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}"
    rank = f"{address}: rank {dist.get_global_rank()} of {dist.get_world_size()}"
    notice = threading.Timer(PATIENCE, print, [f"{rank} is waiting for the others"], {"flush": True})
    notice.daemon = True
    notice.start()
    # Python runs its signal handlers only after the call below returns.
    handlers = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        _reach_rank_zero(rank, timeout)
        with network.told(device):
            dist.initialize_dist(get_device(device), timeout=timeout)
    except DistError as error:
        why = " ".join(str(error).split())[:200]
        advice = "read their output, and check that all of them can reach this address"
        if "EADDRINUSE" in why:
            why, advice = "another program uses the port", "give a free one: composer --master_port PORT"
        raise UserError(f"{rank} could not join the others ({why}); {advice}") from error
    finally:
        notice.cancel()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _reach_rank_zero(rank: str, timeout: float) -> None:
    """Wait until rank 0's address accepts connections; torch would print stack traces while it waits.

    The address must resolve within PATIENCE, and answer within `timeout` seconds.
    """
    host, started = os.environ["MASTER_ADDR"], time.monotonic()
    while True:
        try:
            socket.getaddrinfo(host, None)
            if dist.get_global_rank():
                socket.create_connection((host, int(os.environ["MASTER_PORT"])), timeout=PATIENCE).close()
            return
        except OSError as error:
            # A name may not resolve yet while a cluster starts.
            if time.monotonic() - started > (PATIENCE if isinstance(error, socket.gaierror) else timeout):
                raise UserError(
                    f"{rank} cannot reach rank 0 ({error.strerror or error}); read rank 0's output, or give its "
                    "address: composer --master_addr HOST --master_port PORT"
                ) from None
        time.sleep(0.5)


def _precision(precision: str | None, device: str, of_recipe: bool) -> str:
    if device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("device: gpu was given, but torch sees no GPU here; leave it out or set device=cpu")
    if device == "cpu":
        if of_recipe and precision != "fp32":
            say(f"the recipe's precision {precision} needs a GPU; training on the CPU in fp32")
        elif precision not in (None, "fp32"):
            raise ConfigError(f"precision: {precision} needs a GPU, but this run uses the CPU; set precision=fp32")
        return "fp32"
    return precision or ("amp_bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "amp_fp16")


def _compiles(setting: bool | str | None, device: str, compiler: str | None) -> bool:
    """Return whether to compile the network; with auto, say so and why."""
    if setting != AUTO:
        return bool(setting)
    obstacle = "the run uses the CPU" if device == "cpu" else "there is no C compiler" if not compiler else None
    if obstacle is None and not has_triton():
        obstacle = "Triton does not support this GPU, or is not installed"
    why = f"not compiled, because {obstacle}" if obstacle else f"compiled, for the GPU, with {compiler}"
    say(f"compile: auto: the network is {why}")
    return not obstacle


def _set_threads(device: str) -> None:
    """Divide the cores among this node's ranks; otherwise each rank would start a thread per core."""
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())


def _keep_freed_memory() -> None:
    """Make malloc keep the memory that a step on the CPU frees, so that the next step causes no page faults.

    Otherwise a step's time depends on the position of the heap's end: the same ResNet-18 step took 0.100 to 0.120 s
    from loop to loop, compared with 0.104 to 0.107 s with this (2 cores, benchmarks.step, 2026-11-20).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _microbatch(config: Config, device: str) -> int | str:
    """Return the Trainer's microbatch per device for null, 'auto' and the old grad_accum."""
    dataset = config.train_dataset if config.is_train else config.eval_dataset
    per_rank = dataset.batch_size // dist.get_world_size()
    size = config.device_train_microbatch_size
    if isinstance(config.grad_accum, int) and config.is_train:
        size = -(-per_rank // config.grad_accum)
    if size == "auto" and device == "cpu":
        say(f"device_train_microbatch_size: auto needs a GPU; the CPU uses the whole batch, {per_rank}")
        size = None
    return per_rank if size is None else size


def on_rank_zero(do: Callable[..., T], *arguments: object) -> T:
    """Call `do` on rank 0 only; return its result, or raise its error, on every rank."""
    return _shared(_attempt(do, *arguments) if dist.get_global_rank() == 0 else [None, None])[0]


def on_local_leaders(do: Callable[..., T], *arguments: object) -> T:
    """Call `do` on one rank of each node; return its result on that node's ranks, or raise any error on all ranks."""
    outcome = _attempt(do, *arguments) if dist.get_local_rank() == 0 else [None, None]
    return _shared(outcome)[dist.get_global_rank() - dist.get_local_rank()]


def on_all_ranks(do: Callable[..., T], *arguments: object) -> T:
    """Call `do` on every rank; return each rank's own result, or raise any rank's error on all ranks."""
    outcome = _attempt(do, *arguments)
    _shared([None, outcome[1]])
    return outcome[0]


def _shared(outcome: list[Any]) -> list[Any]:
    """Return the results of all ranks, or raise the first error among them."""
    outcomes = dist.all_gather_object(outcome)
    for _, error in outcomes:
        if error is not None:
            raise error
    return [result for result, _ in outcomes]


def _attempt(do: Callable[..., object], *arguments: object) -> list[Any]:
    """Return [result, None] or [None, error]; errors other than UserError may not pickle and become RuntimeErrors."""
    try:
        return [do(*arguments), None]
    except UserError as error:
        return [None, error]
    except Exception as error:
        traceback.print_exc()
        return [None, RuntimeError(f"{type(error).__name__}: {error}")]


def say(text: str) -> None:
    """Print a line on rank 0."""
    if dist.get_global_rank() == 0:
        print(text, flush=True)
