"""Whatever a client sends, it is answered in the grammar of replies and nothing of ours raises."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from mailtwist.errors import Refusal
from mailtwist.mail.address import Address
from mailtwist.net.counters import Connections
from mailtwist.net.factory import SessionFactory
from mailtwist.queue.envelope import Envelope, Origin, Recipient
from mailtwist.smtp.ports import Terms
from mailtwist.smtp.protocol import MailESMTP
from tests.support.smtp_server import FakeLogins
from tests.support.transcript import Peer, Wire

VERBS = [
    b"EHLO c\r\n",
    b"HELO c\r\n",
    b"MAIL FROM:<a@b.example>\r\n",
    b"MAIL FROM:<a@b.example> SIZE=",
    b"RCPT TO:<c@d.example>\r\n",
    b"RCPT TO:<no@d.example>\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 3 LAST\r\n",
    b"XCLIENT ADDR=1.2.3.4\r\n",
    b"XDEBUG\r\n",
    b"RSET\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN",
    b"AUTH LOGIN\r\n",
    b"AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==",
    b"*\r\n",
    b"=\r\n",
    b" ",
    b"\r\n",
    b"\n",
    b"\r",
    b".\r\n",
    b"\r\n.\r\n",
    b"x" * 600,
    b"\xff\x00",
]
streams = st.lists(st.sampled_from(VERBS) | st.binary(max_size=12), max_size=30)
REPLIES = re.compile(rb"(?:([2345]\d\d)(?:-[ -~]*\r\n\1)* ?[ -~]*\r\n)*")


class Accepts:
    """Takes everything but no@d.example, and keeps it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def captures(self, account_id: int) -> bool:
        return False

    async def admit(self, address: Address, **rest: Any) -> Recipient:
        if address.local_part == "no":
            raise Refusal("User unknown", code=550, status="5.1.1")
        return Recipient(address, ())

    def receive(self, envelope: Envelope, origin: Origin, *, limit: int) -> Kept:
        return Kept(self)


class Kept:
    def __init__(self, all_of_them: Accepts) -> None:
        self.all_of_them = all_of_them
        self.octets = b""

    async def write(self, block: bytes) -> None:
        self.octets += block

    async def accept(self) -> str:
        self.all_of_them.messages.append(self.octets)
        return "1"

    async def discard(self) -> None:
        self.octets = b""


def talk(chunks: list[bytes]) -> tuple[bytes, list[bytes], int]:
    """What is answered, what was accepted, and how often TLS began."""
    accepts = Accepts()
    terms = Terms("mail.example.com", offers_tls=True, mechanisms=("PLAIN", "LOGIN"))
    factory = SessionFactory(
        lambda factory, address: MailESMTP(
            terms, mailboxes=accepts, logins=FakeLogins(), tls=object(), client_address="::1"
        ),
        refusal=lambda reason: b"",
        clock=Clock(),
        counters=Connections(),
    )
    peer = Peer(factory.buildProtocol(IPv4Address("TCP", "::1", 1)), Wire("::1"))
    for chunk in chunks:
        if not peer.closed:
            peer.send(chunk)
    said = peer.received()
    starts = peer.wire.tls_starts
    peer.hang_up()
    assert not factory.sessions
    return said, accepts.messages, starts


@given(pieces=streams)
def test_any_input_is_answered_in_the_grammar(pieces: list[bytes]) -> None:
    said, messages, _ = talk(pieces)
    assert said.startswith(b"220 mail.example.com ")
    assert REPLIES.fullmatch(said), said
    assert b"451 4.3.0" not in said
    for message in messages:
        assert re.search(rb"\r(?!\n)|(?<!\r)\n", message) is None


@given(pieces=streams)
def test_the_cut_of_the_stream_changes_nothing(pieces: list[bytes]) -> None:
    stream = b"".join(pieces).replace(b"STARTTLS", b"STARTTLX")
    whole = talk([stream])
    assert talk([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert talk([stream[i : i + 7] for i in range(0, len(stream), 7)]) == whole
