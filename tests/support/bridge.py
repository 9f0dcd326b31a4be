"""A real, blocking client against a protocol in memory: its socket's other end is ours."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from tests.support.transcript import Peer

T = TypeVar("T")

PATIENCE_S = 30.0


def talk(peer: Peer, client: Callable[[socket.socket], T]) -> T:
    """Run the client in a thread and carry octets until it has returned."""
    ours, theirs = socket.socketpair()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(client(theirs))
        except BaseException as error:
            failures.append(error)
        finally:
            theirs.close()

    thread = threading.Thread(target=run, daemon=True)
    with ours:
        thread.start()
        while True:
            ours.sendall(peer.received())
            if peer.closed:
                ours.shutdown(socket.SHUT_WR)
            readable, _, _ = select.select([ours], [], [], PATIENCE_S)
            assert readable, "the client waits for something"
            data = ours.recv(65536)
            if not data:
                break
            peer.send(data)
    thread.join(PATIENCE_S)
    if failures:
        raise failures[0]
    return results[0]
