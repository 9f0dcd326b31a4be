"""Next hops that hang, break off, talk nonsense or too slowly: all of it is a reason, none a hang.

The client's clock stands still but for what a test lets pass; connections are real.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from mailtwist.queue.client_link import Timeouts
from mailtwist.queue.client_session import GONE_S
from mailtwist.queue.smtp_client import Connector
from mailtwist.queue.values import RemoteReply, Tls
from tests.queue.test_client_session import LARGE
from tests.support.authority import Authority, server_context
from tests.support.client import LETTER, ClientCase, mail
from tests.support.sink import EXTENSIONS, Sink

BOB, CAROL = "bob@example.net", "carol@example.net"
LOCKSTEP = [line for line in EXTENSIONS if line != "PIPELINING"]
CHUNKING = [*EXTENSIONS, "CHUNKING"]


class Faults(ClientCase):
    async def deliver(self, sink: Sink, **given: Any) -> tuple[RemoteReply, ...]:
        self.session = await self.connect(sink)
        return await self.session.deliver(mail(BOB, CAROL, **given))

    def assert_lost(self, replies: tuple[RemoteReply, ...], stage: str, text: str) -> None:
        assert len(replies) == 2
        for reply in replies:
            assert (reply.code, reply.stage, reply.is_ours) == (451, stage, True), reply
            assert reply.status in {"4.4.2", "4.5.0"}
            assert text in reply.text, reply
        assert not self.session.is_open

    # -- before a session is there ---------------------------------------------------------------

    async def test_a_host_that_refuses_connections(self) -> None:
        sink = self.sink()
        sink.stop()
        error = await self.refused(sink)
        reply = error.reply
        assert (reply.code, reply.status, reply.stage) == (451, "4.4.1", "connect")
        assert reply.text == "connection refused while connecting"
        assert error.host is not None
        assert str(error.host) == str(sink)

    async def test_a_host_that_never_answers_the_connection(self) -> None:
        """Nobody is there (RFC 5737); in a sandbox without a network it is unreachable at once."""
        sink = self.sink()
        sink.host = "192.0.2.1"
        result = Deferred.fromCoroutine(self.refused(sink))
        await self.turns()
        self.clock.advance(Timeouts().connect)
        reply = (await result).reply
        assert (reply.code, reply.status, reply.stage) == (451, "4.4.1", "connect")

    async def test_each_silence_has_its_end(self) -> None:
        for verb, stage, seconds in (
            ("GREETING", "greeting", 300),
            ("EHLO", "ehlo", 300),
            ("STARTTLS", "starttls", 300),
        ):
            sink = self.sink(replies={verb: "!hang"}, tls=server_context(CERTIFICATE))
            error = await self.after(seconds, sink, self.refused(sink, Tls.REQUIRED))
            reply = error.reply
            assert (reply.code, reply.status, reply.stage) == (451, "4.4.2", stage)
            assert reply.text.startswith("timed out ")
            await self.gone(sink)

    async def test_greetings_and_refusals_are_passed_on(self) -> None:
        for replies, code, stage in (
            ({"GREETING": "421 4.3.2 busy"}, 421, "greeting"),
            ({"GREETING": "554 5.3.2 no mail here"}, 554, "greeting"),
            ({"GREETING": "450 4.3.2 wait"}, 450, "greeting"),
            ({"GREETING": "250 what"}, 451, "greeting"),
            ({"EHLO": "421 4.3.2 busy"}, 421, "ehlo"),
            ({"EHLO": "550 5.7.1 not you", "HELO": "550 5.7.1 not you"}, 550, "ehlo"),
            ({"EHLO": "450 4.7.1 wait"}, 450, "ehlo"),
            ({"EHLO": "!close"}, 451, "ehlo"),
            # One so quick may end the connection before we know of it.
            ({"GREETING": "!reset"}, 451, "connect greeting"),
            ({"GREETING": "!garbage"}, 451, "greeting"),
            ({"GREETING": "!long"}, 451, "greeting"),
            ({"GREETING": "!lines"}, 451, "greeting"),
            ({"EHLO": "!lines"}, 451, "ehlo"),
        ):
            sink = self.sink(replies=replies)
            error = await self.refused(sink)
            assert error.reply.code == code, replies
            assert error.reply.stage in stage.split(), replies
            await self.gone(sink)

    async def test_helo_is_tried_where_ehlo_is_unknown(self) -> None:
        sink = self.sink(replies={"EHLO": "502 5.5.1 what?"})
        session = await self.connect(sink)
        assert session.capabilities == {}
        assert sink.visits[0].verb == "HELO"
        assert (await session.deliver(mail()))[0].code == 250
        assert sink.faults == []

    async def test_a_peer_of_one_octet_at_a_time_is_understood(self) -> None:
        for context in (None, server_context(CERTIFICATE)):
            sink = self.sink(is_byte_wise=True, tls=context)
            replies = await self.deliver(sink)
            assert [reply.code for reply in replies] == [250, 250]
            assert sink.taken[0].data == LETTER

    async def test_octets_now_and_then_do_not_hold_a_connection_for_ever(self) -> None:
        """No wait between two octets is long, all together is."""
        sink = self.sink(replies={"MAIL": "!hang"})
        session = await self.connect(sink)
        result = Deferred.fromCoroutine(session.deliver(mail()))
        await self.until(lambda: sink.is_hanging)
        # A reply each 200 s, as if all were well.
        addresses = [f"user{n}@example.net" for n in range(99)]
        session = await self.connect(self.sink(replies={"MAIL": "!hang"}))
        slow = Deferred.fromCoroutine(session.deliver(mail(*addresses)))
        await self.turns()
        held = self.held(session)
        while not slow.called:
            held._link.dataReceived(b"250 2.1.0 ok\r\n")
            self.clock.advance(200)
            await self.turns()
            assert self.clock.seconds() < 2100
        assert {reply.text for reply in await slow} == {"timed out after RCPT"}
        assert (await result)[0].status == "4.4.2"

    # -- within a message --------------------------------------------------------------------------

    async def test_the_peer_falls_silent(self) -> None:
        for extensions, verb, stage, seconds, data in (
            (EXTENSIONS, "MAIL", "mail", 300, LETTER),
            (EXTENSIONS, "RCPT", "rcpt", 300, LETTER),
            (EXTENSIONS, "DATA", "data", 300, LETTER),
            (EXTENSIONS, "END", "end", 600, LETTER),
            (LOCKSTEP, "MAIL", "mail", 300, LETTER),
            (LOCKSTEP, "RCPT", "rcpt", 300, LETTER),
            (LOCKSTEP, "DATA", "data", 300, LETTER),
            (LOCKSTEP, "END", "end", 600, LETTER),
            (EXTENSIONS, "END", "end", 600, LARGE),
            (CHUNKING, "BDAT", "data", 600, LARGE),
            (CHUNKING, "END", "end", 600, LARGE),
        ):
            sink = self.sink(replies={verb: "!hang"}, extensions=extensions)
            blocks = [data[:100_000], data[100_000:]] if data is LARGE else None
            work = self.deliver(sink, blocks=blocks)
            self.assert_lost(await self.after(seconds, sink, work), stage, "timed out")
            await self.gone(sink)

    async def test_the_connection_ends(self) -> None:
        for fault in ("!close", "!reset"):
            for extensions in (EXTENSIONS, LOCKSTEP):
                for verb, stage in (("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data")):
                    sink = self.sink(replies={verb: fault}, extensions=extensions)
                    self.assert_lost(await self.deliver(sink), stage, "connection lost")

    async def test_a_lost_last_reply_is_no_delivery(self) -> None:
        for fault in ("!close", "!reset"):
            sink = self.sink(replies={"END": fault})
            self.assert_lost(await self.deliver(sink), "end", "it may have arrived")

    async def test_a_sense_that_breaks_in_the_middle_of_a_group_sends_nothing(self) -> None:
        sink = self.sink(replies={f"RCPT {CAROL}": "354 what"})
        replies = await self.deliver(sink)
        assert [(reply.code, reply.stage) for reply in replies] == [(451, "data"), (451, "rcpt")]
        await self.gone(sink)
        assert sink.mails == []

    async def test_recipients_that_were_refused_stay_so_when_the_connection_ends(self) -> None:
        sink = self.sink(replies={f"RCPT {BOB}": "550 5.1.1 unknown", "DATA": "!close"})
        replies = await self.deliver(sink)
        assert [(reply.code, reply.stage) for reply in replies] == [(550, "rcpt"), (451, "data")]

    async def test_nonsense_instead_of_replies(self) -> None:
        for fault in ("!garbage", "!long", "!lines", "!raw 250-a\\r\\n550 b\\r\\n"):
            for verb, stage in (
                ("MAIL", "mail"),
                ("RCPT", "rcpt"),
                ("DATA", "data"),
                ("END", "end"),
            ):
                sink = self.sink(replies={verb: fault})
                self.assert_lost(await self.deliver(sink), stage, "protocol error")

    async def test_replies_that_make_no_sense_there(self) -> None:
        for verb, reply, stage in (
            ("MAIL", "354 go ahead", "mail"),
            ("RCPT", "354 go ahead", "rcpt"),
            ("DATA", "250 done", "data"),
            ("END", "354 more", "end"),
        ):
            sink = self.sink(replies={verb: reply})
            self.assert_lost(await self.deliver(sink), stage, "unexpected reply")

    async def test_replies_that_nothing_asked_for_end_the_session(self) -> None:
        sink = self.sink(replies={"END": "250 2.0.0 taken\n250 2.0.0 and the next one too"})
        replies = await self.deliver(sink)
        assert [reply.code for reply in replies] == [250, 250]
        assert not self.session.is_open

    async def test_421_ends_the_session_and_speaks_for_what_is_owed(self) -> None:
        for verb, stage in (("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("END", "end")):
            sink = self.sink(replies={verb: "!then 421 4.3.2 shutting down"})
            replies = await self.deliver(sink)
            assert {str(reply) for reply in replies} == {"421 4.3.2 shutting down"}
            assert {reply.stage for reply in replies} == {stage}
            assert not self.session.is_open

    async def test_an_idle_session_hears_that_the_peer_leaves(self) -> None:
        for words in ("421 4.4.2 idle for too long", ""):
            sink = self.sink()
            await self.deliver(sink)
            assert self.session.is_open
            if words:
                self.held(self.session)._link.dataReceived(words.encode() + b"\r\n")
            else:
                sink.hang_up()
            await self.until(lambda: not self.session.is_open)
            replies = await self.session.deliver(mail())
            assert (replies[0].code, replies[0].stage) == (421 if words else 451, "mail")

    async def test_a_goodbye_that_crosses_our_mail_is_no_answer_to_it(self) -> None:
        sink = self.sink(replies={"MAIL": ["250 ok", "!then 421 4.4.2 idle for too long"]})
        await self.deliver(sink)
        replies = await self.session.deliver(mail())
        assert (replies[0].code, replies[0].stage) == (421, "mail")

    async def test_a_reused_session_that_falls_silent(self) -> None:
        sink = self.sink(replies={"MAIL": ["250 ok", "!hang"]})
        await self.deliver(sink)
        (reply,) = await self.after(300, sink, self.session.deliver(mail()))
        assert (reply.code, reply.stage, reply.is_ours) == (451, "mail", True)

    async def test_later_is_better(self) -> None:
        """451, then 250: over the same session."""
        for verb in ("MAIL", "RCPT", "DATA", "END"):
            sink = self.sink(replies={verb: ["451 4.7.1 later", "451 4.7.1 later"]})
            session = await self.connect(sink)
            codes = [(await session.deliver(mail()))[0].code for _ in range(3)]
            assert codes == [451, 451, 250], verb
            assert len(sink.taken) == 1

    async def test_a_reply_within_the_content_ends_it(self) -> None:
        sink = self.sink(replies={"DATA": "!early 552 5.3.4 too large"})
        replies = await self.deliver(sink, blocks=[LARGE] * 20)
        assert {str(reply) for reply in replies} == {"552 5.3.4 too large"}
        assert not self.session.is_open
        await self.gone(sink)
        assert sink.mails == []

    async def test_a_peer_that_takes_nothing_of_the_content(self) -> None:
        for context in (None, server_context(CERTIFICATE)):
            sink = self.sink(replies={"DATA": "!deaf 354 go ahead"}, tls=context)
            self.session = session = await self.connect(sink)
            letter = mail(BOB, CAROL, blocks=[LARGE] * 20)
            result = Deferred.fromCoroutine(session.deliver(letter))
            await self.hanging(sink)
            # The buffers of the system fill up.
            await self.turns(100)
            self.clock.advance(Timeouts().block - 1)
            assert not result.called
            self.clock.advance(1)
            self.assert_lost(await result, "end", "timed out within the content")

    async def test_a_connection_that_ends_within_the_content(self) -> None:
        sink = self.sink(replies={"DATA": "!then 354 go ahead"})
        replies = await self.deliver(sink, blocks=[LARGE] * 20)
        self.assert_lost(replies, "end", "connection lost")
        assert "it may have arrived" not in replies[0].text

    async def test_a_rset_that_is_refused_ends_the_session(self) -> None:
        sink = self.sink(replies={"RCPT": "550 5.1.1 no", "RSET": "500 what"})
        replies = await self.deliver(sink)
        assert [reply.code for reply in replies] == [550, 550]
        assert not self.session.is_open

    # -- the end -----------------------------------------------------------------------------------

    async def test_a_cancelled_delivery_ends_the_connection(self) -> None:
        sink = self.sink(replies={"END": "!hang"})
        session = await self.connect(sink)
        result = Deferred.fromCoroutine(session.deliver(mail()))
        await self.until(lambda: sink.is_hanging)
        result.cancel()
        with pytest.raises(CancelledError):
            await result
        assert not session.is_open
        await self.gone(sink)

    async def test_a_cancelled_connection_is_given_up(self) -> None:
        sink = self.sink(replies={"GREETING": "!hang"})
        result = Deferred.fromCoroutine(self.connect(sink))
        await self.until(lambda: sink.is_hanging)
        result.cancel()
        with pytest.raises(CancelledError):
            await result
        await self.gone(sink)

    async def test_a_peer_that_does_not_say_goodbye_is_left(self) -> None:
        for context in (None, server_context(CERTIFICATE)):
            sink = self.sink(replies={"QUIT": "!hang"}, tls=context)
            session = await self.connect(sink)
            await self.after(5, sink, session.quit())
            await self.turns()
            self.clock.advance(10)
            await self.gone(sink)
            await session.quit()
            session.abort()

    async def test_a_peer_that_says_goodbye_and_stays_is_left(self) -> None:
        sink = self.sink(replies={"QUIT": "!mute 221 2.0.0 bye"})
        session = await self.connect(sink)
        await self.after(GONE_S, sink, session.quit())
        assert not session.is_open
        await self.gone(sink)

    async def test_no_timer_is_left_behind(self) -> None:
        sink = self.sink()
        await self.deliver(sink)
        await self.session.quit()
        await self.gone(sink)
        await self.until(lambda: not self.clock.getDelayedCalls())

    async def test_the_default_clock_is_the_reactor(self) -> None:
        self.connector = Connector(reactor, timeouts=Timeouts(greeting=0.01))
        error = await self.refused(self.sink(replies={"GREETING": "!hang"}))
        assert error.reply.stage == "greeting"


CERTIFICATE = Authority().self_signed("mx.example.net")
