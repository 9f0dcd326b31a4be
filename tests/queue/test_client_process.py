"""The client process: the same sessions as here, over its channel, and what ends them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, globalLogPublisher

from mailtwist.errors import TemporaryFailure
from mailtwist.queue.client_content import SMALL
from mailtwist.queue.client_process import values
from mailtwist.queue.client_process.channel import FrameError, FrameParser, frame
from mailtwist.queue.client_process.connector import AGAIN_S, BUSY, ChoosingConnector
from mailtwist.queue.client_process.process import ENVIRONMENT, ClientProcess
from mailtwist.queue.client_process.proxy import IDLE_LOOKS, WATCH_S
from mailtwist.queue.client_process.session import ProcessEnded
from mailtwist.queue.client_session import ClientSession
from mailtwist.queue.smtp_client import Connector, Timeouts
from mailtwist.queue.values import (
    Host,
    Login,
    Outgoing,
    OutgoingRecipient,
    RemoteReply,
    Tls,
    TlsPolicy,
)
from mailtwist.store.queue.values import Notify
from tests.queue import test_client_faults, test_client_opening, test_client_session
from tests.support.authority import Authority, server_context
from tests.support.channel import Pair
from tests.support.client import LETTER, ClientCase, mail
from tests.support.sink import Sink


class OverTheChannel(ClientCase):
    """The client's own tests, with the channel between."""

    def setUp(self) -> Any:
        super().setUp()
        self.pair = Pair(reactor, Connector(reactor, clock=self.clock))
        self.connector = self.pair.proxy
        self.addCleanup(self.pair.close)
        return self.until(lambda: self.pair.events)

    def held(self, session: Any) -> ClientSession:
        return self.pair.held(session)


class Delivery(OverTheChannel, test_client_session.Delivery):
    pass


class Extensions(OverTheChannel, test_client_session.Extensions):
    pass


class Lmtp(OverTheChannel, test_client_session.Lmtp):
    pass


class Policies(OverTheChannel, test_client_opening.TlsPolicies):
    pass


class Logins(OverTheChannel, test_client_opening.Logins):
    pass


class Requiretls(OverTheChannel, test_client_opening.Requiretls):
    pass


class Faults(OverTheChannel, test_client_faults.Faults):
    pass


class Ends(OverTheChannel):
    """Whoever ends first, the other side hears of it and keeps nothing."""

    def assert_nothing_is_kept(self) -> None:
        assert not self.pair.proxy._sessions
        assert not self.pair.sessions._sessions

    async def test_a_session_that_was_quit(self) -> None:
        session = await self.connect(self.sink())
        await session.deliver(mail())
        await session.quit()
        assert not session.is_open
        self.assert_nothing_is_kept()

    async def test_a_host_that_refuses(self) -> None:
        await self.refused(self.sink(replies={"GREETING": "554 5.7.1 no"}))
        self.assert_nothing_is_kept()

    async def test_a_session_that_the_host_ends_between_two_messages(self) -> None:
        sink = self.sink()
        session = await self.connect(sink)
        sink.hang_up()
        await self.until(lambda: not session.is_open)
        self.assert_nothing_is_kept()
        (reply,) = await session.deliver(mail())
        assert (reply.code, reply.stage) == (451, "mail")
        assert reply.text == "connection lost: the other side closed it after MAIL"

    async def test_a_session_that_the_host_ends_within_a_message(self) -> None:
        session = await self.connect(self.sink(replies={"DATA": "!close"}))
        await session.deliver(mail())
        assert not session.is_open
        self.assert_nothing_is_kept()

    async def test_a_goodbye_that_crosses_a_message(self) -> None:
        """The process told of the end, and the message was on its way there already."""
        sink = self.sink()
        session = await self.connect(sink)
        self.held(session)._link.dataReceived(b"421 4.4.2 idle\r\n")
        assert session.is_open
        (reply,) = await session.deliver(mail())
        assert str(reply) == "421 4.4.2 idle"
        assert not session.is_open
        self.assert_nothing_is_kept()

    async def test_a_connection_that_is_given_up(self) -> None:
        sink = self.sink(replies={"GREETING": "!hang"})
        connecting = Deferred.fromCoroutine(self.connect(sink))
        await self.hanging(sink)
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting
        await self.gone(sink)
        self.assert_nothing_is_kept()

    async def test_a_message_that_is_given_up(self) -> None:
        sink = self.sink(replies={"END": "!hang"})
        session = await self.connect(sink)
        delivering = Deferred.fromCoroutine(session.deliver(mail()))
        await self.hanging(sink)
        delivering.cancel()
        with pytest.raises(CancelledError):
            await delivering
        assert not session.is_open
        await self.gone(sink)
        self.assert_nothing_is_kept()

    async def test_a_message_that_is_cut_off_ends_with_a_reply(self) -> None:
        sink = self.sink(replies={"END": "!hang"})
        session = await self.connect(sink)
        delivering = Deferred.fromCoroutine(session.deliver(mail()))
        await self.hanging(sink)
        session.abort()
        ((reply,),) = [await delivering]
        assert (reply.code, reply.stage) == (451, "end")
        assert reply.text.startswith("given up")
        self.assert_nothing_is_kept()

    async def test_a_content_that_cannot_be_read(self) -> None:
        for octets in (1000, SMALL + 1):
            sink = self.sink()
            session = await self.connect(sink)

            async def blocks() -> AsyncIterator[bytes]:
                yield b"Subject: half\r\n"
                raise TemporaryFailure(detail="the store is away")

            broken = replace(mail(), octets=octets, blocks=blocks)
            with pytest.raises(TemporaryFailure):
                await session.deliver(broken)
            session.abort()
            await self.gone(sink)
            assert not sink.taken
        self.assert_nothing_is_kept()

    async def test_the_process_ends(self) -> None:
        """Idle, connecting, and with a message: nothing waits for ever."""
        hanging = self.sink(replies={"END": "!hang", "GREETING": ["220 hello", "!hang"]})
        idle, busy = await self.connect(self.sink()), await self.connect(hanging)
        delivering = Deferred.fromCoroutine(busy.deliver(mail()))
        await self.hanging(hanging)
        connecting = Deferred.fromCoroutine(self.connect(hanging))
        await self.until(lambda: sum(visit.is_hanging for visit in hanging.visits) == 2)
        self.pair.far.close()
        for waiting in (delivering, connecting):
            with pytest.raises(ProcessEnded):
                await waiting
        await self.until(lambda: "ended" in self.pair.events)
        assert not idle.is_open
        assert not busy.is_open
        self.assert_nothing_is_kept()
        with pytest.raises(ProcessEnded):
            await self.connect(self.sink())

    async def test_the_process_ends_while_goodbye_is_said(self) -> None:
        sink = self.sink(replies={"QUIT": "!hang"})
        session = await self.connect(sink)
        quitting = Deferred.fromCoroutine(session.quit())
        await self.hanging(sink)
        self.pair.far.close()
        await quitting
        self.assert_nothing_is_kept()

    async def test_the_server_ends(self) -> None:
        """What a host had not taken by then it never gets: the next server sends it."""
        sink = self.sink(replies={"DATA": "!hang"})
        session = await self.connect(sink)
        delivering = Deferred.fromCoroutine(session.deliver(mail()))
        await self.hanging(sink)
        self.pair.proxy.channel.close()
        with pytest.raises(ProcessEnded):
            await delivering
        await self.gone(sink)
        assert not sink.taken
        self.assert_nothing_is_kept()

    async def test_a_bug_there_is_a_failure_here(self) -> None:
        session = await self.connect(self.sink())

        async def stumble(_: object) -> None:
            raise ZeroDivisionError("a bug")

        self.patch(self.held(session), "deliver", stumble)
        with pytest.raises(TemporaryFailure) as caught:
            await session.deliver(mail())
        assert caught.value.detail == "a bug"
        assert not session.is_open
        self.assert_nothing_is_kept()
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    async def test_a_process_that_is_silent_is_given_up(self) -> None:
        await self.connect(self.sink())
        clock = Clock()
        proxy = self.pair.proxy
        proxy._watch.clock = clock
        proxy.watch()
        for _ in range(3):
            clock.advance(WATCH_S)
            await self.until(lambda: self.pair.frames[-1] == "pong")
        self.pair.sessions.send = lambda words, data=b"": None
        clock.advance(WATCH_S)
        assert "ended" not in self.pair.events
        await self.turns()
        clock.advance(WATCH_S)
        await self.until(lambda: "ended" in self.pair.events)

    async def test_a_process_that_is_not_used_is_ended(self) -> None:
        clock = Clock()
        proxy = self.pair.proxy
        proxy._watch.clock = clock
        proxy.watch()
        for _ in range(IDLE_LOOKS - 1):
            clock.advance(WATCH_S)
            await self.until(lambda: self.pair.frames[-1] == "pong")
        assert "ended" not in self.pair.events
        clock.advance(WATCH_S)
        await self.until(lambda: "ended" in self.pair.events)


class RealProcess(ClientCase):
    """The process itself."""

    def setUp(self) -> Any:
        self.events: list[str] = []
        self.process = ClientProcess(
            reactor,
            connect_timeout=30.0,
            ready=lambda: self.events.append("ready"),
            ended=lambda: self.events.append("ended"),
        )
        self.connector = self.process.proxy
        super().setUp()
        self.connector = self.process.proxy
        self.process.start()
        self.addCleanup(lambda: self.process.gone)
        self.addCleanup(self.process.close)
        return self.until(lambda: self.events)

    @property
    def pid(self) -> int:
        return self.process.transport.pid

    async def test_it_sends_small_and_large(self) -> None:
        sink = self.sink(tls=server_context(Authority().issue("mx.example.net")))
        session = await self.connect(sink)
        assert "TLSv1" in session.tls
        large = b"Subject: large\r\n\r\n" + b".one line of a large content\r\n" * 100_000
        pieces = [large[at : at + 1_000_000] for at in range(0, len(large), 1_000_000)]
        for data, blocks in ((LETTER, None), (large, pieces)):
            (reply,) = await session.deliver(mail(data=data, blocks=blocks))
            assert reply.code == 250
            assert sink.taken[-1].data == data
        await session.quit()

    async def test_signals_for_the_server_do_not_end_it(self) -> None:
        sink = self.sink(replies={"END": ["!hang"]})
        session = await self.connect(sink)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(self.pid, number)
        (reply,) = await (await self.connect(self.sink())).deliver(mail())
        assert reply.code == 250
        assert session.is_open

    async def test_killed_in_the_midst_of_a_message(self) -> None:
        sink = self.sink(replies={"END": "!hang"})
        session = await self.connect(sink)
        delivering = Deferred.fromCoroutine(session.deliver(mail()))
        await self.hanging(sink)
        os.kill(self.pid, signal.SIGKILL)
        with pytest.raises(ProcessEnded):
            await delivering
        assert self.events == ["ready", "ended"]

    async def test_it_ends_with_its_channel(self) -> None:
        sink = self.sink(replies={"DATA": "!hang"})
        session = await self.connect(sink)
        Deferred.fromCoroutine(session.deliver(mail())).addErrback(lambda _: None)
        await self.hanging(sink)
        self.patch(self.process.transport, "signalProcess", lambda _: None)
        self.process.close()
        await self.process.gone
        await self.gone(sink)

    async def test_what_it_complains_of_is_in_our_log(self) -> None:
        events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.process.errReceived(b"Traceback: a bug\n")
        (event,) = [event for event in events if event["log_level"] is LogLevel.warn]
        assert event["text"] == "Traceback: a bug"

    async def test_it_knows_none_of_our_secrets(self) -> None:
        environment = Path(f"/proc/{self.pid}/environ").read_bytes()
        names = {line.partition(b"=")[0].decode() for line in environment.split(b"\0") if line}
        assert names <= {*ENVIRONMENT, "PYTHONPATH"}


class Fake:
    """A process that is ready when the test says so; it sends by a connector of its own."""

    def __init__(self, reactor: Any, *, connect_timeout: float, ready: Any, ended: Any) -> None:
        self.ready, self.ended = ready, ended
        self.proxy = self
        self.is_ready = False
        self.is_started = False
        self.gone: Deferred[None] = Deferred()
        self.hosts: list[Host] = []
        self.connector = Connector(reactor)

    def start(self) -> None:
        self.is_started = True

    async def connect(self, host: Host, **wishes: Any) -> Any:
        self.hosts.append(host)
        if not self.is_ready:
            raise ProcessEnded
        return await self.connector.connect(host, **wishes)

    def close(self) -> None:
        self.ended()
        self.gone.callback(None)


class Choosing(ClientCase):
    def setUp(self) -> Any:
        super().setUp()
        self.made: list[Fake] = []
        self.clock = Clock()
        self.choose()

    def choose(self, *, busy: int = BUSY) -> None:
        def make(*args: Any, **given: Any) -> Any:
            self.made.append(Fake(*args, **given))
            return self.made[-1]

        self.connector = ChoosingConnector(
            reactor, timeouts=Timeouts(), busy=busy, make_process=make, clock=self.clock
        )

    async def load(self, sink: Sink) -> list[Any]:
        """As many sessions as make a process worth while, each with a message behind it."""
        sessions = [await self.connect(sink) for _ in range(BUSY)]
        for session in sessions:
            await session.deliver(mail())
        return sessions

    async def test_little_mail_needs_no_process(self) -> None:
        sink = self.sink()
        for _ in range(3 * BUSY):
            session = await self.connect(sink)
            await session.deliver(mail())
            await session.quit()
        assert self.made == []

    async def test_much_mail_does(self) -> None:
        sink = self.sink()
        sessions = await self.load(sink)
        (process,) = self.made
        assert process.is_started
        assert all(session.is_open for session in sessions)
        process.is_ready = True
        process.ready()
        assert not any(session.is_open for session in sessions)
        await self.gone(sink)
        await self.connect(sink)
        assert len(process.hosts) == 1
        assert len(self.made) == 1

    async def test_what_is_under_way_ends_where_it_began(self) -> None:
        hanging = self.sink(delay=lambda verb: 0.2 if verb == "END" else 0.0)
        fresh = await self.connect(hanging)
        busy = await self.connect(hanging)
        delivering = Deferred.fromCoroutine(busy.deliver(mail()))
        await self.load(self.sink())
        self.made[0].is_ready = True
        self.made[0].ready()
        assert busy.is_open
        assert fresh.is_open
        for replies in (await delivering, await fresh.deliver(mail())):
            assert replies[0].code == 250
        assert not busy.is_open
        assert not fresh.is_open

    async def test_without_the_process_it_goes_on_here(self) -> None:
        sink = self.sink()
        await self.load(sink)
        (process,) = self.made
        session = await self.connect(sink)  # it is not ready yet
        assert process.hosts == []
        process.is_ready = True
        process.ready()
        process.is_ready = False
        process.ended()
        await session.deliver(mail())
        session = await self.connect(sink)
        assert (await session.deliver(mail()))[0].code == 250

    async def test_a_process_that_dies_while_it_is_asked(self) -> None:
        sink = self.sink()
        await self.load(sink)
        (process,) = self.made
        process.ready()

        class Dying:
            is_ready = True

            async def connect(self, *_: Any, **__: Any) -> None:
                raise ProcessEnded

        self.patch(process, "proxy", Dying())
        session = await self.connect(sink)
        assert (await session.deliver(mail()))[0].code == 250

    async def test_the_next_one_is_tried_after_a_while(self) -> None:
        sink = self.sink()
        await self.load(sink)
        self.made[0].ended()
        await self.load(sink)
        assert len(self.made) == 1
        self.clock.advance(AGAIN_S)
        await self.load(sink)
        assert len(self.made) == 2

    async def test_none_can_be_had(self) -> None:
        def fail(_: Fake) -> None:
            raise OSError("no more processes")

        self.patch(Fake, "start", fail)
        sessions = await self.load(self.sink())
        assert all(session.is_open for session in sessions)
        assert len(self.made) == 1

    async def test_one_processor_is_not_shared_out(self) -> None:
        self.choose(busy=0)
        await self.load(self.sink())
        assert self.made == []

    async def test_the_end(self) -> None:
        await self.load(self.sink())
        await self.connector.close()
        await self.load(self.sink())
        assert len(self.made) == 1


# -- frames -----------------------------------------------------------------------------------

WORDS = st.lists(
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()), min_size=1
)


@given(st.lists(st.tuples(WORDS, st.binary())), st.integers(1, 50))
def test_frames_are_the_same_however_they_are_cut(frames, size):
    data = b"".join(frame(words, octets) for words, octets in frames)
    got = []
    parser = FrameParser(lambda words, octets: got.append((words, octets)))
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])
    assert got == frames


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\0\0\0\0",
        b"\0\0\0\1\xff\xff\xff\xff",
        b"\0\0\0\2\0\0\0\0{}",
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0\xc3\xa4",
        b"\0\0\0\3\0\0\0\0[1}",
    ],
)
def test_what_is_no_frame_ends_the_channel(data):
    with pytest.raises(FrameError):
        FrameParser(lambda words, octets: None).feed(data)


@given(
    st.builds(
        RemoteReply, st.integers(200, 599), st.text(), st.text(), st.text(), is_ours=st.booleans()
    )
)
def test_replies_come_back_as_they_were(reply):
    assert values.to_reply(json.loads(json.dumps(values.of_reply(reply)))) == reply


@given(
    st.builds(Host, st.text(), st.text(), st.integers(0, 65535)),
    st.text(),
    st.builds(TlsPolicy, st.sampled_from(Tls), st.booleans(), st.text(), st.text()),
    st.none() | st.builds(Login, st.text(), st.text()),
    st.booleans(),
)
def test_wishes_come_back_as_they_were(host, hostname, policy, login, is_lmtp):
    words = json.loads(json.dumps(values.of_wishes(host, hostname, policy, login, is_lmtp)))
    assert values.to_wishes(words) == {
        "host": host,
        "hostname": hostname,
        "policy": policy,
        "login": login,
        "is_lmtp": is_lmtp,
    }


@given(
    st.builds(
        Outgoing,
        st.text(),
        st.lists(st.builds(OutgoingRecipient, st.text(), st.text(), st.sampled_from(Notify))).map(
            tuple
        ),
        st.integers(0),
        st.none(),
        envid=st.text(),
        ret=st.text(),
        body=st.text(),
        smtputf8=st.booleans(),
        requiretls=st.booleans(),
    )
)
def test_messages_come_back_as_they_were(outgoing):
    words = json.loads(json.dumps(values.of_mail(outgoing)))
    assert values.to_mail(words, outgoing.blocks) == outgoing
