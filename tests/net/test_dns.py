"""The resolver against a real DNS server on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailtwist.net import dns
from mailtwist.net.dns import (
    Answer,
    DnsError,
    LookupFailed,
    Mx,
    NoData,
    NoSuchName,
    Resolver,
    Stub,
)
from mailtwist.net.stub import Missing
from tests.support.dns import DnsServer
from tests.support.pumped import PumpedReactor

ZONE = {
    "far.test": {"MX": ["20 b.far.test.", "10 A.far.test."], "TXT": ['"v=spf1 " "-all"', '"x"']},
    "null.test": {"MX": ["0 ."]},
    "a.far.test": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"]},
    "alias.test": {"CNAME": ["far.test."]},
    "half.test": {"CNAME": ["alias.test."]},
    "nowhere.test": {"CNAME": ["gone.test."]},
    "loop.test": {"CNAME": ["pool.test."]},
    "pool.test": {"CNAME": ["loop.test."]},
    "half-loop.test": {"CNAME": ["half-pool.test."]},
    "half-pool.test": {"CNAME": ["half-loop.test."]},
    "many.test": {"MX": [f"{n} mx{n}.many.test." for n in range(300)]},
    "long.test": {"TXT": [" ".join(f'"{"x" * 250}"' for _ in range(20))]},
    "broken.test": {},
    "mute.test": {},
    "noise.test": {},
}


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        running.servfail.add("broken.test")
        running.silent.add("mute.test")
        running.garbage.add("noise.test")
        running.partial.update({"half.test", "half-loop.test", "half-pool.test"})
        yield running


@pytest.fixture
def stub(server: DnsServer) -> Stub:
    return Stub(server.address, try_s=0.2, tries=2)


@pytest.fixture
def reactor() -> PumpedReactor:
    return PumpedReactor()


@pytest.fixture
def resolver(server: DnsServer, stub: Stub, reactor: PumpedReactor) -> Iterator[Resolver]:
    server.questions.clear()
    made = Resolver(server.address, reactor=reactor, stub=stub)
    yield made
    reactor.until(made.close())


@pytest.mark.parametrize(
    "name, kind, values",
    [
        ("far.test", "MX", (Mx(10, "a.far.test"), Mx(20, "b.far.test"))),
        ("FAR.test.", "MX", (Mx(10, "a.far.test"), Mx(20, "b.far.test"))),
        ("alias.test", "MX", (Mx(10, "a.far.test"), Mx(20, "b.far.test"))),
        ("null.test", "MX", (Mx(0, ""),)),
        ("a.far.test", "A", ("192.0.2.1", "192.0.2.2")),
        ("a.far.test", "AAAA", ("2001:db8::1",)),
        ("far.test", "TXT", (b"v=spf1 -all", b"x")),
        # One CNAME a reply: the rest is asked for.
        ("half.test", "MX", (Mx(10, "a.far.test"), Mx(20, "b.far.test"))),
        # Too large for a datagram: by TCP.
        ("long.test", "TXT", (b"x" * 5000,)),
        ("many.test", "MX", tuple(Mx(n, f"mx{n}.many.test") for n in range(256))),
    ],
)
def test_an_answer_is_read(stub: Stub, name: str, kind: str, values: tuple[Any, ...]) -> None:
    found = stub.query(name, kind)
    assert sorted(found.values, key=repr) == sorted(values, key=repr)
    assert 0 < found.ttl <= 300


@pytest.mark.parametrize(
    "name, kind, error, text",
    [
        ("gone.test", "MX", NoSuchName, "gone.test does not exist"),
        ("nowhere.test", "A", NoSuchName, "nowhere.test does not exist"),
        ("a.far.test", "MX", NoData, "a.far.test has no MX"),
        ("alias.test", "A", NoData, "alias.test has no A"),
        ("broken.test", "MX", LookupFailed, "the server could not say"),
        ("mute.test", "MX", LookupFailed, "timed out"),
        ("noise.test", "MX", LookupFailed, "could not say|timed out"),
        ("loop.test", "MX", LookupFailed, "the server could not say"),
        ("half-loop.test", "MX", LookupFailed, "too many CNAMEs"),
        ("a..b", "MX", NoSuchName, "no domain name"),
        ("x" * 64 + ".test", "MX", NoSuchName, "no domain name"),
    ],
)
def test_a_missing_answer_says_whether_to_ask_again(
    stub: Stub, server: DnsServer, name: str, kind: str, error: type[DnsError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        stub.query(name, kind)
    # What is told to senders names none of our servers.
    assert str(server.port) not in str(caught.value)


def test_a_server_that_is_not_there_is_a_failure_that_may_pass() -> None:
    with DnsServer() as gone:
        address = gone.address
    with pytest.raises(LookupFailed):
        Stub(address, try_s=0.2, tries=1).query("far.test", "MX")
    with pytest.raises(LookupFailed):
        Stub("no-such-server.invalid:53", try_s=0.2, tries=1).query("far.test", "MX")


def test_a_silent_server_is_asked_twice(stub: Stub, server: DnsServer) -> None:
    server.questions.clear()
    with pytest.raises(LookupFailed):
        stub.query("mute.test", "TXT")
    assert server.count("mute.test", "TXT") >= 2


def test_what_the_server_says_of_dnssec_is_kept(stub: Stub, server: DnsServer) -> None:
    assert not stub.query("far.test", "MX").is_secure
    server.is_secure = True
    try:
        assert stub.query("far.test", "MX").is_secure
    finally:
        server.is_secure = False


def test_the_resolver_answers_with_its_own_types(
    resolver: Resolver, reactor: PumpedReactor
) -> None:
    best = reactor.until(resolver.mx("far.test"))
    assert sorted(best, key=lambda mx: mx.preference)[0] == Mx(10, "a.far.test")
    assert sorted(reactor.until(resolver.txt("far.test"))) == [b"v=spf1 -all", b"x"]
    with pytest.raises(NoSuchName):
        reactor.until(resolver.txt("gone.test"))


@pytest.mark.parametrize(
    "name, kind, still_cached_s, gone_s",
    [
        ("far.test", "MX", 299, 301),  # its TTL
        ("gone.test", "MX", 59, 61),  # the SOA's
        ("a.far.test", "MX", 59, 61),
    ],
)
def test_answers_are_kept_for_their_time(
    resolver: Resolver,
    server: DnsServer,
    reactor: PumpedReactor,
    name: str,
    kind: str,
    still_cached_s: int,
    gone_s: int,
) -> None:
    def ask() -> None:
        with contextlib.suppress(NoSuchName, NoData):
            reactor.until(resolver.query(name, kind))

    ask()
    reactor.advance(still_cached_s)
    ask()
    assert server.count(name, kind) == 1
    reactor.advance(gone_s - still_cached_s)
    ask()
    assert server.count(name, kind) == 2


class Told(Stub):
    """A stub that is told its answers, and may be held."""

    def __init__(self, answer: Answer | Missing | Exception) -> None:
        super().__init__("127.0.0.1:1")
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def ask(self, name: str, kind: str) -> Any:
        self.asked.append((name, kind))
        self.go_on.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def told() -> Told:
    return Told(Answer(("192.0.2.1",), 300))


@pytest.fixture
def telling(told: Told, reactor: PumpedReactor) -> Iterator[Resolver]:
    made = Resolver(reactor=reactor, stub=told)
    yield made
    told.go_on.set()
    reactor.until(made.close())


@pytest.mark.parametrize("ttl, kept_s", [(0, 30), (5, 30), (300, 300), (10**9, 3600)])
def test_no_answer_is_kept_for_less_than_30_s_nor_for_more_than_an_hour(
    telling: Resolver, told: Told, reactor: PumpedReactor, ttl: int, kept_s: int
) -> None:
    told.answer = Answer(("192.0.2.1",), ttl)
    for after, asked in [(0, 1), (kept_s - 1, 1), (2, 2)]:
        reactor.advance(after)
        reactor.until(telling.query("far.test", "A"))
        assert len(told.asked) == asked


def test_the_same_question_is_asked_once_at_a_time(
    telling: Resolver, told: Told, reactor: PumpedReactor
) -> None:
    told.go_on.clear()
    first, cancelled, last = (
        Deferred.fromCoroutine(telling.query(name, "A"))
        for name in ("far.test", "Far.Test", "far.test.")
    )
    cancelled.addErrback(lambda failure: failure.trap(CancelledError))
    cancelled.cancel()
    told.go_on.set()
    assert reactor.until(first) == reactor.until(last)
    assert told.asked == [("far.test", "A")]


def test_a_failure_is_not_kept(telling: Resolver, told: Told, reactor: PumpedReactor) -> None:
    told.answer = Missing(LookupFailed, "far.test A: timed out", 0)
    for _ in range(2):
        with pytest.raises(LookupFailed, match="timed out"):
            reactor.until(telling.query("far.test", "A"))
    assert len(told.asked) == 2


def test_a_fault_of_ours_is_a_failed_look_up(
    telling: Resolver, told: Told, reactor: PumpedReactor
) -> None:
    told.answer = RuntimeError("boom")
    with pytest.raises(LookupFailed, match="internal error"):
        reactor.until(telling.query("far.test", "A"))


def test_the_cache_is_bounded(
    telling: Resolver, told: Told, reactor: PumpedReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "CACHED_ANSWERS", 3)
    for n in range(5):
        reactor.until(telling.query(f"{n}.test", "A"))
    assert len(telling._cache) == 3
    reactor.until(telling.query("4.test", "A"))
    assert len(told.asked) == 5
    reactor.until(telling.query("0.test", "A"))
    assert len(told.asked) == 6
    told.answer = Answer((b"x" * 5000,), 300)
    for _ in range(2):
        reactor.until(telling.query("long.test", "TXT"))
    assert told.asked.count(("long.test", "TXT")) == 2


def test_a_closed_resolver_asks_nothing(
    telling: Resolver, told: Told, reactor: PumpedReactor
) -> None:
    reactor.until(telling.close())
    with pytest.raises(LookupFailed, match="shutting down"):
        reactor.until(telling.query("far.test", "A"))
    assert told.asked == []


# -- hosts of the configuration -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name, addresses",
    [
        ("192.0.2.7", {"192.0.2.7"}),
        ("::1", {"::1"}),
        ("localhost", {"127.0.0.1", "::1"}),
    ],
)
@pytest.mark.parametrize("has_server", [True, False])
def test_a_named_host_may_be_an_address_or_this_machine(
    resolver: Resolver,
    server: DnsServer,
    reactor: PumpedReactor,
    name: str,
    addresses: set[str],
    has_server: bool,
) -> None:
    asked = resolver if has_server else Resolver(reactor=reactor)
    assert set(reactor.until(asked.addresses(name))) == addresses
    assert server.questions == []
    reactor.until(asked.close())


def test_a_named_host_is_asked_of_the_server_that_is_configured(
    resolver: Resolver, reactor: PumpedReactor
) -> None:
    expected = {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert set(reactor.until(resolver.addresses("a.far.test"))) == expected
    for name, error in [
        ("gone.test", NoSuchName),
        ("far.test", NoData),
        ("broken.test", LookupFailed),
    ]:
        with pytest.raises(error):
            reactor.until(resolver.addresses(name))


def test_the_system_knows_no_invalid_name(reactor: PumpedReactor) -> None:
    asked = Resolver(reactor=reactor)
    # NXDOMAIN where there is DNS, a failure where there is none.
    with pytest.raises((NoSuchName, LookupFailed)):
        reactor.until(asked.addresses("no-such-host.invalid"))
    reactor.until(asked.close())
