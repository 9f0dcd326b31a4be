"""Ports of loopback that are free: nobody had them a moment ago, and no test got them before."""

from __future__ import annotations

import socket
from contextlib import ExitStack

HOST = "127.0.0.1"
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Different ones, free for TCP and UDP alike."""
    ports: list[int] = []
    # They are held until all are found, so that none comes twice.
    with ExitStack() as held:
        while len(ports) < count:
            stream = held.enter_context(socket.socket())
            stream.bind((HOST, 0))
            port = int(stream.getsockname()[1])
            datagram = held.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            try:
                datagram.bind((HOST, port))
            except OSError:
                continue
            if port not in _given:
                ports.append(port)
    _given.update(ports)
    return ports


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def free_address() -> str:
    return f"{HOST}:{free_port()}"
