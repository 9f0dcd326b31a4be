"""Killed in any state, a message is delivered after the next start, and at most once again."""

from __future__ import annotations

import random
import smtplib
import threading
import time
from collections import Counter

import pytest

from tests.e2e.relaying import (
    FAR,
    QUICK,
    going_to,
    letter,
    listed,
    submit,
    transact,
    tried,
    until,
    view,
)
from tests.e2e.server import PASSWORD, Server
from tests.support.sink import Sink

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.mission("ELE-50", "DIN-24")
def test_accepted_and_not_yet_tried(make_server):
    with Sink() as sink:
        port = sink.port
    # Nothing listens: the first try fails at once, so the kill may come before or behind it.
    server = make_server(outbound=going_to(f"127.0.0.1:{port}"), queue=QUICK).start()
    alice, message = letter(server, "accepted")
    submit(server, alice, f"bob@{FAR}", message)
    server.kill()
    with Sink(port=port) as sink:
        server.start()
        sink.wait_for_mails(1)
        until(lambda: listed(server) == [])
        assert len(sink.taken) == 1


@pytest.mark.mission("ELE-50")
@pytest.mark.parametrize("step", ["GREETING", "MAIL", "DATA", "END"])
def test_in_flight(make_server, step):
    with Sink(replies={step: ["!hang"]}) as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "in flight")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        last = {"GREETING": None, "MAIL": "MAIL", "DATA": "DATA", "END": "DATA"}[step]
        sink.wait(lambda: sink.visits and (not last or words(sink, last)))
        if step == "END":
            sink.wait(lambda: sink.mails)
        (row,) = listed(server)
        assert (row["id"], row["state"]) == (queue_id, "active")
        server.kill()
        server.start()
        sink.wait_for_mails(1)
        until(lambda: listed(server) == [])
        assert len(sink.taken) == 1


def words(sink: Sink, start: str) -> bool:
    return any(command.startswith(start) for command in sink.commands)


@pytest.mark.mission("ELE-50")
def test_taken_by_the_next_hop_and_not_yet_noted(make_server):
    """The one moment in which a crash repeats a message: behind its final reply."""
    with Sink() as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "noted?")
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(1)
        server.kill()
        server.start()
        until(lambda: listed(server) == [])
        assert 1 <= len(sink.taken) <= 2
        assert all(mail.data.endswith(message) for mail in sink.taken)


@pytest.mark.mission("ELE-63")
def test_a_stop_lets_a_message_under_way_end(make_server):
    with Sink(delay=lambda verb: 1.0 if verb == "END" else 0.0) as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "ending")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        sink.wait(lambda: words(sink, "DATA"))
        server.stop()
        assert view(server, queue_id)["state"] == "delivered"
        assert len(sink.taken) == 1


@pytest.mark.mission("ELE-50")
def test_a_stop_gives_back_what_hangs(make_server):
    with Sink(replies={"END": ["!hang"]}) as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "hanging")
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait(lambda: words(sink, "DATA"))
        server.stop()
        server.start()
        sink.wait_for_mails(1)
        until(lambda: listed(server) == [])
        assert len(sink.taken) == 1


@pytest.mark.mission("ELE-50")
def test_deferred(make_server):
    with Sink(replies={"RCPT": ["451 4.7.1 later"]}) as sink:
        server = make_server(outbound=going_to(sink), queue={"retry_schedule": ["3s"]}).start()
        alice, message = letter(server, "deferred")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        tried(server, queue_id)
        server.kill()
        server.start()
        sink.wait_for_mails(1)
        found = tried(server, queue_id, 2)
        assert [attempt["outcome"] for attempt in found["attempts"]] == ["deferred", "delivered"]


@pytest.mark.mission("ELE-50")
def test_under_load_nothing_acknowledged_is_lost(make_server):
    chance = random.Random(20261121)
    with Sink() as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "loaded")
        acknowledged: list[str] = []
        for round_ in range(4):
            load = threading.Thread(
                target=send_until_cut, args=(server, alice, message, round_, acknowledged)
            )
            load.start()
            time.sleep(chance.uniform(0.3, 1.0))
            server.kill()
            load.join(30)
            server.check()
            server.start()
        wanted = set(acknowledged)
        assert len(wanted) > 20
        sink.wait(lambda: wanted <= {mail.recipients[0] for mail in sink.taken}, 60)
        until(lambda: listed(server) == [], 60)
        counts = Counter(mail.recipients[0] for mail in sink.taken)
        # At most what was in flight at a kill came twice.
        assert max(counts.values()) <= 2
        assert sum(count > 1 for count in counts.values()) <= 4 * 20


def send_until_cut(server: Server, alice: str, message: bytes, round_: int, noted: list[str]):
    try:
        with server.smtp("submissions") as client:
            client.login(alice, PASSWORD)
            for n in range(10_000):
                to = f"bob-{round_}-{n}@{FAR}"
                transact(client, alice, to, message)
                noted.append(to)
    except (OSError, EOFError, smtplib.SMTPException):
        pass  # the server was killed
