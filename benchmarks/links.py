"""A small network on one machine: namespaces, one for each node, joined by links of a given speed and delay.

Each namespace has one TUN device. `tc` (tbf) holds what leaves it to the link's speed, and a process per link carries
the packets to the other namespaces, each after the delay: netem, which could do both, is missing in many kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator

from common.orphans import die_with_parent
from config import UserError

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 1, 2
VNET_HEADER = 10  # bytes before each packet: how a large one would be cut, which the receiving side passes over
LARGEST = 1 << 16
CLONE_NEWNET = 0x40000000
DEVICE = "link0"  # every node's, in its own namespace


class Links:
    """The network, as long as the context lasts.

    Args:
        nodes: how many.
        delay: seconds from any node to any other, one way.

    Raises:
        UserError: where this machine does not allow it, saying what is missing.
    """

    def __init__(self, nodes: int, delay: float) -> None:
        self.names = [f"bench-{os.getpid()}-{node}" for node in range(nodes)]
        self.delay = delay
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Links:
        check_allowed()
        with contextlib.ExitStack() as stack:
            devices = [self._make(node, stack) for node in range(len(self.names))]
            for device in devices:
                stack.callback(end, start(carry, device, devices, self.delay))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def limit(self, gigabits: float) -> None:
        """Hold every link to so many Gbit/s, each way."""
        for name in self.names:
            # A burst of four of the largest packets; what waits longer than 100 ms is dropped, as a switch would.
            rate = ["rate", f"{round(gigabits * 1000)}mbit", "burst", "256kb", "latency", "100ms"]
            command("tc", "-n", name, "qdisc", "replace", "dev", DEVICE, "root", "tbf", *rate)

    @staticmethod
    def address(node: int) -> str:
        """A node's address."""
        return f"10.254.99.{node + 1}"

    def enter(self, node: int) -> None:
        """Put this process, which must have one thread, into a node's namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/var/run/netns/{self.names[node]}") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def _make(self, node: int, stack: contextlib.ExitStack) -> int:
        """A node's namespace and device; the descriptor at the device's other end."""
        name, temporary = self.names[node], f"bench{os.getpid()}n{node}"[:15]
        stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True)  # before there is one:
        command("ip", "netns", "add", name)  # a stop may come in the middle of this
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, device)
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22s", temporary.encode(), flags, b""))
        fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        command("ip", "link", "set", temporary, "netns", name, "name", DEVICE)
        command("ip", "-n", name, "addr", "add", f"{self.address(node)}/24", "dev", DEVICE)
        for each in ("lo", DEVICE):
            command("ip", "-n", name, "link", "set", each, "up")
        return device


def check_allowed() -> None:
    """Raises UserError, saying what this machine lacks."""
    for program in ("ip", "tc"):
        if not shutil.which(program):
            raise UserError(f"there is no program {program} here; type: apt-get install iproute2")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise UserError("network devices cannot be made here: /dev/net/tun is missing or not for this user; be root")


def command(*words: str) -> None:
    """Run ip or tc.

    Raises:
        UserError: with what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise UserError(
            f"this machine does not allow a network of its own: `{' '.join(words)}` says: {said}. It takes root (in a "
            "container: --privileged) and a kernel with network namespaces and tbf"
        )


def start(do: Callable[..., None], *arguments: object) -> int:
    """Run a function in a child process, which dies with this one; its process id. A fault is printed there."""
    if child := os.fork():
        return child
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this one
        die_with_parent(signal.SIGKILL)
        do(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def end(child: int) -> None:
    """End a child process that start() made."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def carry(device: int, devices: list[int], delay: float) -> None:
    """Carry what leaves one device to the device that it is for, each packet `delay` seconds later; without end."""
    waiting: deque[tuple[float, bytes]] = deque()
    ready = select.poll()  # any descriptor, where select() takes those below 1024
    ready.register(device, select.POLLIN)
    while True:
        ready.poll(max(0.0, 1e3 * (waiting[0][0] - time.monotonic())) if waiting else None)
        waiting.extend((time.monotonic() + delay, packet) for packet in arrived(device))
        while waiting and waiting[0][0] <= time.monotonic():
            packet = waiting.popleft()[1]
            node = packet[VNET_HEADER + 19] - 1  # the last byte of the destination's address
            if packet[VNET_HEADER] >> 4 == 4 and node < len(devices):
                with contextlib.suppress(BlockingIOError):  # full: dropped, as on any network
                    os.write(devices[node], packet)


def arrived(device: int, most: int = 16) -> Iterator[bytes]:
    """The packets that lie ready."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(most):
            yield os.read(device, LARGEST + VNET_HEADER)
