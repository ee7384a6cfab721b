"""The socket that a server listens on. No torch."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from common.errors import ConfigError


def bound(host: str, port: int) -> socket.socket:
    """Return a socket of this address, which does not listen yet; port 0: a free one.

    Raises:
        ConfigError: it is not an address of this machine, or not free.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host}: is not an address; use 127.0.0.1, or 0.0.0.0 for all of this machine"
        ) from error
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that was stopped leaves its port waiting
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            why = "is not an address of this machine; use 127.0.0.1, or 0.0.0.0 for all of them"
            raise ConfigError(f"--host {host}: {why}") from error
        why = f"cannot be used on {host} ({error.strerror})"
        raise ConfigError(f"--port {port}: {why}; name another one, or 0 for a free one: --port 0") from error
    return made


def is_local(bound_socket: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ip_address(bound_socket.getsockname()[0]).is_loopback
