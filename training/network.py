"""Say which network NCCL uses between nodes: a run over sockets is slow, and nothing else shows it."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from composer.utils import dist

SLOW = ("Socket", "tcp", "sockets")
_NETWORK = re.compile(r"NCCL INFO (?:Using network|Assigned NET plugin) (.+?)(?: to comm)?$", re.MULTILINE)
_PROVIDER = re.compile(r"NET/OFI Selected provider is ([\w-]+)", re.IGNORECASE)  # of libfabric: efa, tcp


@contextmanager
def told(device: str) -> Iterator[None]:
    """Print NCCL's network on rank 0 if there are several nodes, after the ranks have joined inside.

    Only NCCL's own log tells: which network interfaces a node has does not say whether NCCL found the library for them.
    It is read from a file, unless the user has set NCCL_DEBUG to see it himself.
    """
    nodes = dist.get_world_size() // dist.get_local_world_size()
    if device != "gpu" or nodes == 1 or torch.distributed.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "nccl.log"
        asked = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET", "NCCL_DEBUG_FILE": str(log)}
        if dist.get_global_rank() or "NCCL_DEBUG" in os.environ:
            asked = {}
        before = {name: os.environ.get(name) for name in asked}
        os.environ.update(asked)
        yield
        dist.all_gather_object(None)  # NCCL reads its environment and chooses the network with the first collective
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if asked:
            print(sentence(nodes, log.read_text(errors="replace") if log.exists() else ""), flush=True)


def sentence(nodes: int, log: str) -> str:
    """Return the line for NCCL's log."""
    networks, providers = _NETWORK.findall(log), _PROVIDER.findall(log)
    if not networks:
        return f"NCCL's network between the {nodes} nodes: unknown; NCCL_DEBUG=INFO before the command prints its log"
    name = networks[-1] + (f" ({providers[-1]})" if providers and "Libfabric" in networks[-1] else "")
    line = f"NCCL's network between the {nodes} nodes: {name}"
    if not {networks[-1], *providers} & set(SLOW):
        return line
    return (
        f"{line}, much slower than InfiniBand or EFA. If the nodes have one, its driver or NCCL's plugin is missing "
        "here: NCCL_DEBUG=INFO before the command prints what NCCL tried"
    )
