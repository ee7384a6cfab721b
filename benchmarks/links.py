"""A small network on one machine: one namespace per node, joined by links of a given speed and delay.

Each namespace has one TUN device. `tc` (tbf) limits its outgoing speed, and one process per link forwards packets to
the other namespaces after the delay. Netem could do both, but many kernels lack it.
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
VNET_HEADER = 10  # bytes before each packet: segmentation of large ones, ignored by the receiver
LARGEST = 1 << 16
CLONE_NEWNET = 0x40000000
DEVICE = "link0"  # every node's, in its own namespace


class Links:
    """Context manager that creates the network.

    Args:
        nodes: number of nodes.
        delay: one-way delay between any two nodes, in seconds.

    Raises:
        UserError: if this machine does not allow it, naming what is missing.
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
        """Limit the speed of every link, in Gbit/s each way."""
        for name in self.names:
            # Bursts of four maximum-size packets; like a switch, it drops packets that wait longer than 100 ms.
            rate = ["rate", f"{round(gigabits * 1000)}mbit", "burst", "256kb", "latency", "100ms"]
            command("tc", "-n", name, "qdisc", "replace", "dev", DEVICE, "root", "tbf", *rate)

    @staticmethod
    def address(node: int) -> str:
        """Return a node's IP address."""
        return f"10.254.99.{node + 1}"

    def enter(self, node: int) -> None:
        """Move this single-threaded process into a node's namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/var/run/netns/{self.names[node]}") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def _make(self, node: int, stack: contextlib.ExitStack) -> int:
        """Create a node's namespace and device, and return the descriptor of the device's other end."""
        name, temporary = self.names[node], f"bench{os.getpid()}n{node}"[:15]
        # Registered first, because a signal may arrive while the namespace is created.
        stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True)
        command("ip", "netns", "add", name)
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
    """Raise UserError naming what this machine lacks."""
    for program in ("ip", "tc"):
        if not shutil.which(program):
            raise UserError(f"there is no program {program} here; type: apt-get install iproute2")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise UserError("/dev/net/tun: missing or not writable, so network devices cannot be created; run as root")


def command(*words: str) -> None:
    """Run ip or tc.

    Raises:
        UserError: with its error message.
    """
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        message = " ".join(done.stderr.split())
        raise UserError(
            f"this machine does not allow creating a network: `{' '.join(words)}` failed: {message}. Run as root (in a "
            "container: --privileged) on a kernel with network namespaces and tbf"
        )


def start(do: Callable[..., None], *arguments: object) -> int:
    """Run a function in a child process that dies with this one, and return its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and kills this process
        die_with_parent(signal.SIGKILL)
        do(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def end(child: int) -> None:
    """Kill a child process that start() created."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def carry(device: int, devices: list[int], delay: float) -> None:
    """Forward one device's packets to the device of their destination, `delay` seconds later, forever."""
    waiting: deque[tuple[float, bytes]] = deque()
    ready = select.poll()  # select() accepts only descriptors below 1024
    ready.register(device, select.POLLIN)
    while True:
        ready.poll(max(0.0, 1e3 * (waiting[0][0] - time.monotonic())) if waiting else None)
        waiting.extend((time.monotonic() + delay, packet) for packet in arrived(device))
        while waiting and waiting[0][0] <= time.monotonic():
            packet = waiting.popleft()[1]
            node = packet[VNET_HEADER + 19] - 1  # the last byte of the destination's address
            if packet[VNET_HEADER] >> 4 == 4 and node < len(devices):
                with contextlib.suppress(BlockingIOError):  # full: the packet is dropped
                    os.write(devices[node], packet)


def arrived(device: int, most: int = 16) -> Iterator[bytes]:
    """Yield the packets that are ready."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(most):
            yield os.read(device, LARGEST + VNET_HEADER)
