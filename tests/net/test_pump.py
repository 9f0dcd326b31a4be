"""The pump, with a machine of words: one coroutine at a time, bounds both ways."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from mailtwist.net.pump import HIGH_WATER, WRITE_SIZE, Pump, shielded
from tests.support.transcript import Wire


class Words:
    """Units are words that end with a blank."""

    def __init__(self) -> None:
        self.text = b""

    @property
    def buffered(self) -> int:
        return len(self.text)

    def feed(self, data: bytes) -> None:
        self.text += data

    def next(self) -> bytes | None:
        word, blank, rest = self.text.partition(b" ")
        if not blank:
            return None
        self.text = rest
        return word

    def clear(self) -> None:
        self.text = b""


class Bench:
    """A pump whose commands are given as a coroutine function of (bench, word)."""

    def __init__(self, run: Callable[[Bench, bytes], Coroutine[Any, Any, None]]) -> None:
        self.wire = Wire()
        self.errors: list[Any] = []
        self.pump = Pump(
            Words(),
            lambda word: run(self, word),
            on_error=lambda failure: self.errors.append(failure.type),
        )
        self.pump.connect(self.wire)


async def echo(bench: Bench, word: bytes) -> None:
    bench.pump.write(word.upper())


def test_a_chunk_of_input_is_answered_by_one_write() -> None:
    bench = Bench(echo)
    bench.pump.data_received(b"a b c d")
    assert bench.wire.writes == [b"ABC"]
    bench.pump.data_received(b" ")
    assert bench.wire.writes == [b"ABC", b"D"]
    assert bench.wire.no_delay


def test_a_unit_waits_for_the_one_before_it() -> None:
    gates: list[Deferred[None]] = []

    async def slow(bench: Bench, word: bytes) -> None:
        gate: Deferred[None] = Deferred()
        gates.append(gate)
        await gate
        bench.pump.write(word)

    bench = Bench(slow)
    bench.pump.data_received(b"a b ")
    assert bench.pump.busy
    assert len(gates) == 1
    gates[0].callback(None)
    assert len(gates) == 2
    assert bench.wire.writes == []
    gates[1].callback(None)
    assert bench.wire.writes == [b"ab"]
    assert not bench.pump.busy


def test_a_failed_wait_is_raised_in_the_coroutine() -> None:
    gate: Deferred[None] = Deferred()

    async def careful(bench: Bench, word: bytes) -> None:
        try:
            await gate
        except ValueError as error:
            bench.pump.write(str(error).encode())

    bench = Bench(careful)
    bench.pump.data_received(b"a ")
    gate.errback(ValueError("no"))
    assert bench.wire.writes == [b"no"]
    assert bench.errors == []


def test_an_error_is_answered_and_the_next_unit_runs() -> None:
    async def fragile(bench: Bench, word: bytes) -> None:
        if word == b"bad":
            raise KeyError("bug")
        bench.pump.write(word)

    bench = Bench(fragile)
    bench.pump.data_received(b"bad good ")
    assert bench.errors == [KeyError]
    assert bench.wire.writes == [b"good"]


def test_reading_stops_above_the_bound_and_goes_on_below() -> None:
    gate: Deferred[None] = Deferred()

    async def slow(bench: Bench, word: bytes) -> None:
        await gate

    bench = Bench(slow)
    bench.pump.data_received(b"a ")
    assert bench.wire.producerState == "producing"
    bench.pump.data_received(b"b" * HIGH_WATER + b" c")
    assert bench.wire.producerState == "paused"
    gate.callback(None)
    assert bench.wire.producerState == "producing"


def test_much_output_leaves_before_the_group_is_complete() -> None:
    async def long(bench: Bench, word: bytes) -> None:
        for _ in range(10):
            bench.pump.write(b"x" * (WRITE_SIZE // 4))

    bench = Bench(long)
    bench.pump.data_received(b"a ")
    assert [len(each) for each in bench.wire.writes] == [WRITE_SIZE, WRITE_SIZE, WRITE_SIZE // 2]


def test_drained_waits_until_the_transport_takes_more() -> None:
    async def polite(bench: Bench, word: bytes) -> None:
        for part in (b"1", b"2"):
            bench.pump.write(part)
            await bench.pump.drained()

    bench = Bench(polite)
    bench.pump.pauseProducing()
    bench.pump.data_received(b"a ")
    assert bench.wire.writes == []  # not even begun
    bench.pump.resumeProducing()
    assert bench.wire.writes == [b"1", b"2"]
    bench.pump.data_received(b"b")
    bench.wire.write = lambda data: bench.pump.pauseProducing()  # type: ignore[method-assign]
    bench.pump.data_received(b" ")
    assert bench.pump.busy
    bench.pump.resumeProducing()
    bench.pump.resumeProducing()
    assert not bench.pump.busy


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_the_end_of_the_connection_ends_a_wait_for_it(reason: Exception) -> None:
    seen: list[type[BaseException]] = []

    async def polite(bench: Bench, word: bytes) -> None:
        try:
            bench.pump.pauseProducing()
            await bench.pump.drained()
        except ConnectionDone as error:
            seen.append(type(error))
        except ConnectionLost as error:
            seen.append(type(error))

    bench = Bench(polite)
    bench.pump.data_received(b"a ")
    bench.pump.connection_lost(Failure(reason))
    assert seen == [type(reason)]
    assert not bench.pump.busy


def test_a_lost_connection_cancels_what_runs_and_lets_it_clean_up() -> None:
    cleaned: list[str] = []
    gate: Deferred[None] = Deferred()

    async def careful(bench: Bench, word: bytes) -> None:
        try:
            await Deferred()
        finally:
            await gate
            cleaned.append("done")

    bench = Bench(careful)
    bench.pump.data_received(b"a b ")
    bench.pump.connection_lost(Failure(ConnectionDone()))
    assert cleaned == []
    gate.callback(None)
    assert cleaned == ["done"]
    assert bench.errors == []
    bench.pump.data_received(b"c ")
    bench.pump.write(b"too late")
    bench.pump.flush()
    assert bench.wire.writes == []


@pytest.mark.parametrize("outcome", ["committed", ValueError()])
def test_work_may_go_on_to_its_end_when_the_connection_is_lost(outcome: Any) -> None:
    seen: list[Any] = []
    gates: list[Deferred[Any]] = [Deferred(), Deferred()]

    async def work() -> Any:
        await gates[0]
        seen.append("work done")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def careful(bench: Bench, word: bytes) -> None:
        try:
            seen.append(await bench.pump.to_its_end(work()))
        except CancelledError:
            await gates[1]
            seen.append("cleaned up")
            raise

    bench = Bench(careful)
    bench.pump.data_received(b"a b ")
    bench.pump.connection_lost(Failure(ConnectionDone()))
    assert bench.pump.busy
    gates[0].callback(None)
    assert seen == ["work done"]
    gates[1].callback(None)
    assert seen == ["work done", "cleaned up"]
    assert not bench.pump.busy
    assert bench.errors == []


def test_what_comes_behind_work_to_its_end_is_stopped_as_ever() -> None:
    stopped: list[type[Exception]] = []
    gate: Deferred[None] = Deferred()

    async def work() -> None:
        await gate

    async def careless(bench: Bench, word: bytes) -> None:
        await bench.pump.to_its_end(work())
        try:
            await Deferred()
        except CancelledError as error:
            stopped.append(type(error))
            raise

    bench = Bench(careless)
    bench.pump.data_received(b"a ")
    gate.callback(None)
    bench.pump.connection_lost(Failure(ConnectionDone()))
    assert stopped == [CancelledError]
    assert not bench.pump.busy


def test_close_lets_the_replies_out_and_runs_nothing_more() -> None:
    async def leave(bench: Bench, word: bytes) -> None:
        bench.pump.write(word)
        if word == b"quit":
            bench.pump.close()

    bench = Bench(leave)
    bench.pump.data_received(b"a quit b ")
    assert bench.wire.writes == [b"aquit"]
    assert bench.wire.disconnecting
    assert bench.wire.producer is None


def test_many_units_do_not_nest() -> None:
    async def wait(bench: Bench, word: bytes) -> None:
        done: Deferred[None] = Deferred()
        done.callback(None)
        await done

    bench = Bench(wait)
    bench.pump.data_received(b"a " * 20_000)
    assert not bench.pump.busy


def test_shielded_work_goes_on_when_its_caller_is_cancelled() -> None:
    gate: Deferred[None] = Deferred()
    ended: list[str] = []

    async def work() -> str:
        await gate
        ended.append("work")
        return "value"

    caller = Deferred.fromCoroutine(shielded(work()))
    caller.cancel()
    caller.addErrback(lambda failure: failure.trap(CancelledError))
    gate.callback(None)
    assert ended == ["work"]


@pytest.mark.parametrize("at_once", [True, False])
def test_shielded_work_gives_its_outcome(at_once: bool) -> None:
    gate: Deferred[None] = Deferred()
    if at_once:
        gate.callback(None)

    async def good() -> str:
        await gate
        return "value"

    async def bad() -> str:
        await gate
        raise ValueError("no")

    values: list[Any] = []
    Deferred.fromCoroutine(shielded(good())).addCallback(values.append)
    Deferred.fromCoroutine(shielded(bad())).addErrback(lambda f: values.append(f.type))
    if not at_once:
        gate.callback(None)
    assert values == ["value", ValueError]
