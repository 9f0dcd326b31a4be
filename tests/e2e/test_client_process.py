"""A server with much to send leaves it to a process of its own, and loses nothing with it."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailtwist.queue.client_process.connector import BUSY, processors
from mailtwist.queue.client_process.process import PROGRAM
from tests.e2e.relaying import FAR, QUICK, going_to, letter, listed, transact, until
from tests.e2e.server import PASSWORD, Server
from tests.support.sink import Sink

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(processors() < 2, reason="one processor is not shared out"),
]


def client_processes(server: Server) -> list[int]:
    """The numbers of the server's client processes."""
    pid = server.server_pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, command in commands.items() if PROGRAM.encode() in command]


class Senders:
    """So many at once that one process is not enough."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._alice, self._message = letter(server, "much")
        self._numbers = itertools.count()
        self.sent: list[str] = []  # to whom

    def send(self, messages: int) -> None:
        with self._server.smtp("submissions") as client:
            client.login(self._alice, PASSWORD)
            for _ in range(messages):
                bob = f"bob{next(self._numbers)}@{FAR}"
                transact(client, self._alice, bob, self._message)
                self.sent.append(bob)

    def send_much(self, messages: int = 20) -> None:
        threads = [threading.Thread(target=self.send, args=(messages,)) for _ in range(BUSY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextmanager
def under_load(make_server) -> Iterator[tuple[Server, Sink, Senders, int]]:
    """A server whose client process holds all sessions, and that process's number."""
    with Sink(delay=lambda verb: 0.05 if verb == "END" else 0.0) as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        senders = Senders(server)
        senders.send_much()
        (pid,) = until(lambda: client_processes(server))
        sink.wait(lambda: len(sink.taken) == len(senders.sent))
        yield server, sink, senders, pid


def test_what_it_sends_arrives_once_and_it_ends_with_the_server(make_server):
    with under_load(make_server) as (server, sink, senders, pid):
        senders.send_much()
        sink.wait(lambda: len(sink.taken) == len(senders.sent))
        until(lambda: listed(server) == [])
        assert client_processes(server) == [pid]
        server.stop()
        assert not Path(f"/proc/{pid}").exists()
        assert len(sink.taken) == len(senders.sent)


def test_killed_under_load_no_mail_is_lost(make_server):
    with under_load(make_server) as (server, sink, senders, pid):
        sending = threading.Thread(target=senders.send_much)
        sending.start()
        before = len(sink.taken)
        sink.wait(lambda: len(sink.taken) >= before + 5)
        os.kill(pid, signal.SIGKILL)
        sending.join()
        until(lambda: listed(server) == [])
        assert {bob for mail in sink.taken for bob in mail.recipients} == set(senders.sent)
        # Only what was under way may come twice.
        assert len(sink.taken) - len(senders.sent) <= sink.peak


def test_killed_with_its_server_the_next_one_sends_the_rest(make_server):
    with under_load(make_server) as (server, sink, senders, pid):
        sink.script({"END": "!hang"})
        sending = threading.Thread(target=senders.send_much, args=(2,))
        sending.start()
        sending.join()
        sink.wait(lambda: sink.is_hanging)
        server.kill()
        until(lambda: not Path(f"/proc/{pid}").exists())
        sink.script({"END": []})
        server.start()
        until(lambda: listed(server) == [])
        assert len(sink.taken) >= len(senders.sent)
