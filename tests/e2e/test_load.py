"""Many at once: nothing lost, nothing twice in one UID, and nobody waits for a large mail."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import mails
from tests.e2e.server import Server

pytestmark = [pytest.mark.real, pytest.mark.slow]


def in_parallel(connections: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(connections) as pool:
        for done in [pool.submit(work, n) for n in range(connections)]:
            done.result()


@pytest.mark.mission("DAP-116")
def test_fifty_parallel_mails_get_fifty_uids(server: Server):
    alice = server.account()
    start = threading.Barrier(50)

    def deliver(n: int) -> None:
        with server.smtp() as client:
            client.ehlo()
            start.wait(60)
            client.sendmail("x@elsewhere.example", [alice], mails.simple(f"parallel {n}"))

    in_parallel(50, deliver)
    assert sorted(server.mails(alice)) == list(range(1, 51))


@pytest.mark.mission("ELE-64", "ELE-23")
def test_a_thousand_mails_over_fifty_connections_are_all_there_once(server: Server):
    people = [server.account() for _ in range(5)]

    def deliver(n: int) -> None:
        with server.smtp() as client:
            for m in range(20):
                mail = mails.simple(f"load {n} {m}")
                client.sendmail("x@elsewhere.example", [people[n % 5]], mail)

    in_parallel(50, deliver)
    found = []
    for each in people:
        for mail in server.mails(each).values():
            found += [line for line in mail.split(b"\r\n") if line.startswith(b"Subject: ")]
    assert sorted(found) == sorted(
        f"Subject: load {n} {m}".encode() for n in range(50) for m in range(20)
    )


@pytest.mark.mission("GEN-02")
def test_nobody_waits_while_a_large_mail_comes_in(make_server):
    server = make_server(max_message_size=64 << 20).start()
    alice = server.account()
    large = mails.simple("large", octets=50_000_000)
    done = threading.Event()

    def deliver() -> None:
        try:
            server.send(alice, large)
        finally:
            done.set()

    waits = []
    client = server.imap(alice)
    with server.smtp() as other, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(deliver)
        while not done.is_set():
            begin = time.perf_counter()
            other.noop()
            client.noop()
            waits.append(time.perf_counter() - begin)
            time.sleep(0.005)
        sending.result()
    client.logout()
    waits.sort()
    # The goal is 50 ms at the 99th percentile; on a machine that runs the tests of
    # others beside this one, the bound only tells a stall from a wait.
    assert waits[int(len(waits) * 0.95)] < 0.5
    (stored,) = server.mails(alice).values()
    assert stored.endswith(large[-1000:])


@pytest.mark.mission("DAP-107", "ELE-58")
def test_connections_over_the_limits_are_told_so(make_server):
    server = make_server(
        listeners=[
            {"protocol": "smtp", "address": "127.0.0.1:0", "max_clients": 2},
            {"protocol": "imap", "address": "127.0.0.1:0"},
        ],
        limits={"connections_per_address": 3},
    ).start()
    kept = [server.raw("smtp") for _ in range(2)]
    assert [talk.reply()[:4] for talk in kept] == [b"220 "] * 2
    with server.raw("smtp") as third:
        assert third.reply().startswith(b"421 ")
    kept.append(server.raw("imap"))
    assert kept[-1].line().startswith(b"* OK ")
    with server.raw("imap") as fourth:
        assert fourth.line().startswith(b"* BYE ")
    kept.pop(0).close()
    # The place is free again as soon as the server has seen the end.
    for _ in range(100):
        try:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=10) as client:
                assert client.noop()[0] == 250
            break
        except (smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected):
            time.sleep(0.05)
    else:
        pytest.fail("the place was not given back")
    for talk in kept:
        talk.close()


@pytest.mark.mission("ELE-58")
def test_a_silent_client_is_told_goodbye(make_server):
    server = make_server(limits={"idle_timeout": "1s"}).start()
    with server.raw("smtp") as talk:
        talk.reply()
        assert talk.line().startswith(b"421 ")
        assert talk.line() == b""
