"""The client of Redis, against real ones and against peers that only look like one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from mailtwist.errors import ConfigError
from mailtwist.net import redis as module
from mailtwist.net.redis import Redis, RedisAway, Taken, Window
from tests.support.chains import Chain
from tests.support.ports import HOST, free_port
from tests.support.redis import RedisServer, is_installed
from tests.support.turning import TurningReactor

pytestmark = pytest.mark.real

MINUTE = 60_000


@pytest.fixture(scope="module")
def turning() -> Iterator[TurningReactor]:
    made = TurningReactor()
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not is_installed():
        if os.environ.get("MAILTWIST_REQUIRE_REAL"):
            pytest.fail("redis-server is required")
        pytest.skip("redis-server is not installed")
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with RedisServer(folder / "plain") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[RedisServer]:
    """One with passwords, and a user who may not do everything."""
    options = ["--requirepass", "all of it", "--databases", "4"]
    with RedisServer(folder / "guarded", *options) as running:
        rules = ["reset", "on", ">se:cr/et@ö", "~mailtwist:*", "+@all"]
        running.ask("ACL", "SETUSER", "mail", *rules, password="all of it")
        running.ask("ACL", "SETUSER", "reader", "on", ">x", "~*", "+@read", password="all of it")
        yield running


Make = Callable[..., Redis]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.01)


@pytest.fixture
def make(turning: TurningReactor) -> Iterator[Make]:
    """Makes clients, started; all are stopped at the end, and leave nothing behind."""
    made: list[Redis] = []

    def start(url: str, **more: Any) -> Redis:
        made.append(Redis(url, reactor=turning.reactor, **more))
        turning.until(made[-1].start())
        return made[-1]

    yield start
    for each in made:
        turning.until(each.stop())
    assert [call for call in turning.reactor.getDelayedCalls() if "redis" in str(call.func)] == []


@pytest.fixture
def redis(server: RedisServer, make: Make) -> Redis:
    server.ask("FLUSHALL")
    return make(server.url)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Warnings of the log, and what nobody handled."""
    found: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"].name in {"warn", "error", "critical"}:
            found.append(str(event.get("log_format") or event).format(**event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


# -- windows ------------------------------------------------------------------------------------


def test_a_window_takes_so_many_and_ends_when_it_was_to_end(redis, turning):
    def take(n: int) -> list[Taken]:
        return [turning.until(redis.take([Window("w", 3, 300)])) for _ in range(n)]

    begun = time.monotonic()
    taken = take(6)
    assert [each.is_taken for each in taken] == [True] * 3 + [False] * 3
    assert [each.counts for each in taken] == [[1], [2], [3], [3], [3], [3]]
    ends = [each.ends_in_ms[0] for each in taken]
    assert ends == sorted(ends, reverse=True)
    assert 0 < ends[-1] <= 300
    # Whoever hammers gets back in all the same.
    turning.until_true(lambda: take(1)[0].is_taken)
    assert 0.29 <= time.monotonic() - begun < 5


def test_all_windows_count_or_none_does(redis, turning):
    wide, narrow = Window("wide", 9, MINUTE), Window("narrow", 2, MINUTE)
    taken = [turning.until(redis.take([wide, narrow])) for _ in range(4)]
    assert [each.counts for each in taken] == [[1, 1], [2, 2], [2, 2], [2, 2]]
    assert [each.is_taken for each in taken] == [True, True, False, False]
    assert turning.until(redis.take([wide])).counts == [3]


def test_no_event_is_lost_among_many_at_once(redis, make, server, turning):
    other = make(server.url)
    window = Window("together", 700, MINUTE)

    async def all_at_once() -> list[Taken]:
        asked = [each.take([window]) for _ in range(500) for each in (redis, other)]
        return await gatherResults([Deferred.fromCoroutine(each) for each in asked])

    taken = turning.until(all_at_once())
    assert sum(each.is_taken for each in taken) == 700
    assert server.ask("GET", "mailtwist:together") == "700"


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "mailtwist:w", "2"),  # which never ends
        ("SET", "mailtwist:w", "2", "PX", "90000"),  # a window that lasted longer
        ("SET", "mailtwist:w", "many", "PX", "1000"),
        ("SET", "mailtwist:w", "-7", "PX", "1000"),
        ("LPUSH", "mailtwist:w", "2"),
    ],
    ids=" ".join,
)
def test_what_is_no_window_is_begun_anew(redis, server, turning, command):
    server.ask(*command)
    taken = turning.until(redis.take([Window("w", 2, MINUTE)]))
    assert (taken.is_taken, taken.counts) == (True, [1])
    assert 0 < int(server.ask("PTTL", "mailtwist:w")) <= MINUTE


def test_a_script_that_was_forgotten_is_given_again(redis, server, turning, warnings):
    turning.until(redis.take([Window("w", 9, MINUTE)]))
    server.ask("SCRIPT", "FLUSH")
    assert turning.until(redis.take([Window("w", 9, MINUTE)])).counts == [2]
    assert redis.is_up
    assert warnings == []


# -- values -------------------------------------------------------------------------------------


def test_values_are_given_back_until_they_end(redis, server, turning):
    values = [b"", b"\r\n$-1\r\n", bytes(range(256)) * 400, b"12", b"1.5", b"QUEUED"]
    keys = [f"key {n} ö \ud800" for n in range(len(values))]
    items = [(key, value, MINUTE) for key, value in zip(keys, values, strict=True)]
    turning.until(redis.set_many([*items, ("short", b"x", 30), ("ended", b"x", 0)]))
    assert turning.until(redis.get_many([*keys, "never", "ended"])) == [*values, None, None]
    assert 0 < int(server.ask("PTTL", "mailtwist:key 3 ö ?")) <= MINUTE
    turning.until_true(lambda: turning.until(redis.get_many(["short"])) == [None])
    assert turning.until(redis.get_many([])) == []


def test_a_value_that_is_too_large_is_left_out(redis, turning, monkeypatch):
    monkeypatch.setattr(module, "MAX_VALUE", 1000)
    turning.until(redis.set_many([("large", b"x" * 1001, MINUTE), ("most", b"x" * 1000, MINUTE)]))
    assert turning.until(redis.get_many(["large", "most"])) == [None, b"x" * 1000]
    assert redis.is_up


def test_a_list_in_the_place_of_a_value_is_none(redis, server, turning):
    server.ask("LPUSH", "mailtwist:k", "x")
    assert turning.until(redis.get_many(["k"])) == [None]


# -- where it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "is_up"),
    [
        ("redis://mail:se%3Acr%2Fet%40%C3%B6@{0}/3", True),
        ("redis://:all%20of%20it@{0}", True),
        ("unix://mail:se%3Acr%2Fet%40%C3%B6@{1}?db=2", True),
        ("redis://{0}/0", False),
        ("redis://mail:wrong@{0}/0", False),
        ("redis://reader:x@{0}/0", False),  # it could not count
        ("redis://:all%20of%20it@{0}/9", False),  # it has four
    ],
)
def test_logins_and_databases(guarded, make, turning, warnings, place, is_up):
    redis = make(place.format(f"{HOST}:{guarded.port}", guarded.socket))
    assert redis.is_up is is_up
    if is_up:
        assert turning.until(redis.take([Window(place, 1, 1000)])).is_taken
        assert warnings == []
    else:
        (warning,) = warnings
        assert "Redis" in warning
        assert "wrong" not in warning


def test_tls_is_verified(folder, make, turning, monkeypatch, warnings):
    # Small writes wait for the next turn of the reactor, which else is that of the process.
    monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: turning.reactor)
    chain = Chain("localhost")
    options = ["--tls-auth-clients", "no"]
    for name, text in (
        ("key-file", chain.key),
        ("cert-file", "".join(chain.pems[:2])),
        ("ca-cert-file", chain.root.pem),
    ):
        (folder / name).write_text(text)
        options += [f"--tls-{name}", str(folder / name)]
    port = free_port()
    with RedisServer(folder / "tls", *options, "--tls-port", str(port), port=0):
        url = f"rediss://localhost:{port}"
        assert not make(url).is_up
        assert len(warnings) == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca-cert-file"))
        redis = make(url)
        assert redis.is_up
        assert turning.until(redis.take([Window("w", 1, 1000)])).is_taken


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "redis://localhost:port",
        "redis://localhost:0",
        "redis://localhost/one",
        "redis://localhost/-1",
        "redis://localhost/0?timeout=1",
        "unix://run/redis.sock",
        "unix:///run/redis.sock?db=x",
        "redis://[::1",
    ],
)
def test_an_address_that_is_none_is_a_fault_of_the_settings(url):
    with pytest.raises(ConfigError, match="redis_url"):
        Redis(url, reactor=None)


# -- away ---------------------------------------------------------------------------------------


class Peer(Protocol):
    """Answers what it is asked to count with one text after the other, the last for ever."""

    def __init__(self, answers: list[bytes | None], kept: bytes) -> None:
        self.answers = answers
        self.kept = kept

    def dataReceived(self, data: bytes) -> None:
        answer: bytes | None = self.kept
        if b"EVAL" in data:
            answer = self.answers[0]
            del self.answers[: len(self.answers) > 1]
        if answer is None:
            self.transport.loseConnection()
        else:
            self.transport.write(answer)


@contextlib.contextmanager
def listening(
    turning: TurningReactor, *answers: bytes | None, kept: bytes = b"+OK\r\n"
) -> Iterator[str]:
    """``kept``: the answer to what it is asked to keep."""
    factory = Factory.forProtocol(lambda: Peer(list(answers), kept))
    factory.noisy = False
    port = turning.reactor.listenTCP(0, factory, interface=HOST)
    try:
        yield f"redis://{HOST}:{port.getHost().port}"
    finally:
        turning.until(port.stopListening())


TAKEN = b"*3\r\n:1\r\n:1\r\n:1000\r\n"


def test_a_peer_that_repeats_the_password_brings_it_into_no_log(turning, make, warnings):
    with listening(turning, b"-ERR unknown command 'AUTH', with args: 'hunter2'\r\n") as url:
        make(url.replace("://", "://:hunter2@"))
    (warning,) = warnings
    assert "with args: '********'" in warning


@pytest.mark.parametrize(
    "answers",
    [
        (b"",),
        (None,),
        (b"-LOADING Redis is loading the dataset in memory\r\n",),
        (b"-NOSCRIPT no\r\n",),
        (b"-READONLY You can't write against a read only replica.\r\n",),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",),
        (b"+OK\r\n",),
        (b":1\r\n",),
        (b"*-1\r\n",),
        (b"*0\r\n",),
        (b"*3\r\n:1\r\n:1\r\n$1\r\n2\r\n",),
        (b"*3\r\n:1\r\n:-1\r\n:5\r\n",),
        (b"*2\r\n:1\r\n:1\r\n",),
        (TAKEN * 2,),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
        (b"\xff\xfe\r\n",),
        (b"$99999999999\r\n",),
        (b"*99999999999\r\n",),
        (b"*1\r\n" * 50,),
        (b"$5\r\nmore than five\r\n",),
        (b":" + b"1" * 100 + b"\r\n",),
        (b"+" + b"x" * 100_000,),
    ],
    ids=lambda answers: repr(answers[0])[:24],
)
def test_a_peer_that_is_no_redis_is_done_without(turning, make, warnings, monkeypatch, answers):
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    with listening(turning, *answers) as url:
        redis = make(url)
        assert not redis.is_up
        for work in (redis.take([Window("w", 1, 1)]), redis.get_many(["k"])):
            with pytest.raises(RedisAway):
                turning.until(work)
        # Tried again and again, and told once.
        turning.until_true(lambda: redis._retry_s > 2 * module.FIRST_RETRY_S)
        assert len(warnings) == 1
        assert "Redis" in warnings[0]


@pytest.mark.parametrize("kept", [b"-OOM no\r\n", b"+NO\r\n", b":1\r\n", b""])
def test_a_redis_that_keeps_nothing_is_done_without(turning, make, warnings, monkeypatch, kept):
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    with listening(turning, TAKEN, kept=kept) as url:
        assert not make(url).is_up
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "answer", [b"", None, b"?\r\n", b"-ERR no\r\n", TAKEN + b"+OK\r\n", TAKEN[:9]]
)
def test_a_peer_that_ceases_to_be_one_is_done_without(turning, make, warnings, answer):
    with listening(turning, TAKEN, answer) as url:
        redis = make(url, deadline_s=0.1)
        assert redis.is_up
        begun = time.monotonic()
        with contextlib.suppress(RedisAway):
            turning.until(redis.take([Window("w", 9, 1000)]))
        assert time.monotonic() - begun < 2
        turning.until_true(lambda: not redis.is_up)
    assert len(warnings) == 1


def test_an_end_that_is_too_far_off_is_not_believed(turning, make):
    with listening(turning, b"*3\r\n:0\r\n:9\r\n:9999999999\r\n") as url:
        redis = make(url)
        taken = turning.until(redis.take([Window("w", 9, 1000)]))
        assert taken == Taken(False, [9], [1000])


def test_nobody_listens(turning, make, warnings):
    redis = make(f"redis://{HOST}:{free_port()}")
    assert not redis.is_up
    assert len(warnings) == 1


def test_a_server_that_stops_answering_and_goes_on(folder, make, turning, warnings):
    with RedisServer(folder / "pausing") as server:
        redis = make(server.url)
        windows = [Window("w", 9, MINUTE)]
        turning.until(redis.take(windows))
        server.pause()
        begun = time.monotonic()
        asked = [redis.take(windows), redis.get_many(["k"]), redis.set_many([("k", b"v", 1000)])]
        for each in [Deferred.fromCoroutine(each) for each in asked]:
            with pytest.raises(RedisAway):
                turning.until(each)
        assert 0.25 <= time.monotonic() - begun < 2
        # From here on nobody waits.
        begun = time.monotonic()
        for _ in range(100):
            with pytest.raises(RedisAway):
                turning.until(redis.take(windows))
        assert time.monotonic() - begun < 0.2
        server.resume()
        turning.until_true(lambda: redis.is_up)
        assert turning.until(redis.take(windows)).is_taken
    assert len(warnings) == 1


def test_a_server_that_starts_anew_is_used_again(folder, make, turning, warnings):
    with RedisServer(folder / "anew") as server:
        redis = make(server.url)
        for n in range(3):
            assert turning.until(redis.take([Window("w", 9, MINUTE)])).counts == [1]
            server.kill()
            turning.until_true(lambda: not redis.is_up)
            server.start()
            turning.until_true(lambda: redis.is_up)
            # It comes and goes: that is told once a minute.
            assert len(warnings) == 1, n


def test_who_asked_and_went_away_costs_nobody_an_answer(redis, turning, warnings):
    window = Window("w", 9, MINUTE)
    asked = [Deferred.fromCoroutine(redis.take([window])) for _ in range(3)]
    asked[1].addErrback(lambda failure: failure.trap(CancelledError))
    asked[1].cancel()
    assert turning.until(asked[0]).counts == [1]
    assert turning.until(asked[2]).counts == [3]
    assert redis.is_up
    assert warnings == []


def test_a_reactor_that_stood_still_is_not_the_fault_of_redis(server, make, turning, warnings):
    redis = make(server.url, deadline_s=0.1)
    asking = Deferred.fromCoroutine(redis.take([Window("still", 9, MINUTE)]))
    time.sleep(0.3)  # what a long job does to the reactor
    assert turning.until(asking).is_taken
    assert warnings == []


def test_it_is_stopped_while_it_connects(turning, warnings):
    with listening(turning, b"") as url:
        redis = Redis(url, reactor=turning.reactor)
        starting = Deferred.fromCoroutine(redis.start())
        turning.reactor.iterate(0)
        turning.until(redis.stop())
        turning.until(starting)
        assert not redis.is_up
    assert turning.reactor.getDelayedCalls() == []
    assert warnings == []


def test_without_the_library_there_is_no_redis(server, make, warnings, monkeypatch):
    monkeypatch.setitem(sys.modules, "mailtwist.net.redis_connection", None)
    assert not make(server.url).is_up
    (warning,) = warnings
    assert "mailtwist[redis]" in warning
