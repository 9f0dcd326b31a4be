"""Messages over a session, against a real sink: what is said, what is sent, who got what."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from unittest import SkipTest

import pytest

from mailtwist.queue.values import Outgoing, OutgoingRecipient, RemoteReply
from mailtwist.store.queue.values import Notify
from tests.support.client import LETTER, ClientCase, mail
from tests.support.sink import EXTENSIONS

BOB, CAROL, DAVE = "bob@example.net", "carol@example.net", "dave@example.net"
LARGE = (b"x" * 70 + b"\r\n" + b".dots\r\n..\r\n") * 20_000


def codes(replies: tuple[RemoteReply, ...]) -> list[tuple[int, str]]:
    return [(reply.code, reply.stage) for reply in replies]


def without(*names: str) -> list[str]:
    return [line for line in EXTENSIONS if line.split()[0] not in names]


class Delivery(ClientCase):
    async def test_a_message_arrives_with_its_envelope(self) -> None:
        sink = self.sink()
        session = await self.connect(sink)
        (reply,) = await session.deliver(mail())
        assert reply == RemoteReply(250, "2.0.0", "taken", "end")
        (taken,) = sink.taken
        assert (taken.reverse_path, taken.recipients) == ("alice@example.com", [BOB])
        assert taken.parameters == {"SIZE": str(len(LETTER))}
        assert taken.data == LETTER
        assert sink.faults == []
        await session.quit()
        assert not session.is_open
        await self.gone(sink)
        assert sink.commands[-1] == "QUIT"

    async def test_hosts_have_addresses_of_both_kinds(self) -> None:
        if not has_ipv6():
            raise SkipTest("no IPv6 here")
        sink = self.sink(host="::1")
        session = await self.connect(sink)
        assert str(session.host) == f"[::1]:{sink.port}"
        assert codes(await session.deliver(mail())) == [(250, "end")]

    async def test_commands_leave_together_only_where_that_is_announced(self) -> None:
        """The sink tells of what comes too early."""
        for extensions in (EXTENSIONS, without("PIPELINING"), []):
            sink = self.sink(extensions=extensions)
            session = await self.connect(sink)
            assert codes(await session.deliver(mail(BOB, CAROL))) == [(250, "end")] * 2
            assert sink.faults == []
            assert sink.taken[0].recipients == [BOB, CAROL]

    async def test_one_write_holds_the_envelope(self) -> None:
        sink = self.sink()
        session = await self.connect(sink)
        writes: list[bytes] = []
        transport = self.held(session)._link.transport
        write = transport.write

        def note(data: bytes) -> None:
            writes.append(data)
            write(data)

        transport.write = note
        await session.deliver(mail(BOB, CAROL))
        assert [data.count(b"\r\n") for data in writes] == [4, LETTER.count(b"\r\n") + 1]

    async def test_a_session_serves_one_message_after_the_other(self) -> None:
        sink = self.sink()
        session = await self.connect(sink)
        for n in range(5):
            assert codes(await session.deliver(mail(f"user{n}@example.net"))) == [(250, "end")]
        assert len(sink.visits) == 1
        assert self.held(session).served == 5
        assert [found.recipients for found in sink.taken] == [
            [f"user{n}@example.net"] for n in range(5)
        ]

    async def test_each_recipient_has_its_own_reply(self) -> None:
        for extensions in (EXTENSIONS, without("PIPELINING")):
            sink = self.sink(
                extensions=extensions,
                replies={
                    f"RCPT {BOB}": "550 5.1.1 no such user",
                    f"RCPT {DAVE}": "451 4.7.1 grey",
                },
            )
            session = await self.connect(sink)
            replies = await session.deliver(mail(BOB, CAROL, DAVE))
            assert [str(reply) for reply in replies] == [
                "550 5.1.1 no such user",
                "250 2.0.0 taken",
                "451 4.7.1 grey",
            ]
            assert codes(replies) == [(550, "rcpt"), (250, "end"), (451, "rcpt")]
            assert sink.taken[0].recipients == [CAROL]

    async def test_a_refused_sender_settles_all_and_the_session_goes_on(self) -> None:
        for extensions in (EXTENSIONS, without("PIPELINING")):
            sink = self.sink(extensions=extensions, replies={"MAIL": ["553 5.1.8 not you"]})
            session = await self.connect(sink)
            assert codes(await session.deliver(mail(BOB, CAROL))) == [(553, "mail")] * 2
            assert codes(await session.deliver(mail())) == [(250, "end")]
            assert sink.faults == []

    async def test_without_a_recipient_no_content_is_sent(self) -> None:
        refusal = {"RCPT": ["550 5.1.1 no", "452 4.2.2 full"]}
        for extensions, data in (
            (EXTENSIONS, []),
            (EXTENSIONS, ["354 go ahead all the same"]),
            (without("PIPELINING"), []),
            ([*EXTENSIONS, "CHUNKING"], []),
        ):
            sink = self.sink(extensions=extensions, replies=refusal | {"DATA": data})
            session = await self.connect(sink)
            content = LARGE if "CHUNKING" in extensions else LETTER
            replies = await session.deliver(mail(BOB, CAROL, data=content))
            assert codes(replies) == [(550, "rcpt"), (452, "rcpt")]
            assert sink.mails == []
            assert codes(await session.deliver(mail())) == [(250, "end")]
            assert [found.data for found in sink.taken] == [LETTER]
            assert sink.faults == []

    async def test_data_may_be_refused(self) -> None:
        for extensions in (EXTENSIONS, without("PIPELINING")):
            sink = self.sink(extensions=extensions, replies={"DATA": ["451 4.3.0 not now"]})
            session = await self.connect(sink)
            assert codes(await session.deliver(mail())) == [(451, "data")]
            assert codes(await session.deliver(mail())) == [(250, "end")]

    async def test_the_content_may_be_refused(self) -> None:
        sink = self.sink(replies={"END": ["554 5.6.0 no", "451 4.3.0 later"]})
        session = await self.connect(sink)
        assert codes(await session.deliver(mail(BOB, CAROL))) == [(554, "end")] * 2
        assert codes(await session.deliver(mail())) == [(451, "end")]
        assert codes(await session.deliver(mail())) == [(250, "end")]

    async def test_too_many_recipients_go_in_further_transactions(self) -> None:
        addresses = [f"user{n}@example.net" for n in range(7)]
        script = ["250 ok", "250 ok", "452 4.5.3 too many"] + ["452 too many"] * 4
        for extensions in (EXTENSIONS, without("PIPELINING")):
            sink = self.sink(extensions=extensions, replies={"RCPT": script})
            session = await self.connect(sink)
            assert codes(await session.deliver(mail(*addresses))) == [(250, "end")] * 7
            assert [found.recipients for found in sink.taken] == [addresses[:2], addresses[2:]]

    async def test_a_full_mailbox_is_not_too_many_recipients(self) -> None:
        sink = self.sink(replies={f"RCPT {CAROL}": "452 4.2.2 full"})
        session = await self.connect(sink)
        assert codes(await session.deliver(mail(BOB, CAROL))) == [(250, "end"), (452, "rcpt")]
        assert len(sink.taken) == 1

    async def test_a_first_recipient_that_is_too_many_is_an_answer(self) -> None:
        sink = self.sink(replies={"RCPT": "452 4.5.3 too many"})
        session = await self.connect(sink)
        assert codes(await session.deliver(mail(BOB, CAROL))) == [(452, "rcpt")] * 2

    async def test_more_than_a_hundred_recipients_are_split(self) -> None:
        addresses = [f"user{n}@example.net" for n in range(250)]
        sink = self.sink()
        session = await self.connect(sink)
        assert set(codes(await session.deliver(mail(*addresses)))) == {(250, "end")}
        assert [len(found.recipients) for found in sink.taken] == [100, 100, 50]

    async def test_an_announced_limit_is_kept(self) -> None:
        sink = self.sink(extensions=[*EXTENSIONS, "LIMITS RCPTMAX=2"])
        session = await self.connect(sink)
        await session.deliver(mail(BOB, CAROL, DAVE))
        assert [found.recipients for found in sink.taken] == [[BOB, CAROL], [DAVE]]

    async def test_content_of_any_size_and_blocks_arrives_as_it_was(self) -> None:
        cut = len(LARGE) // 3
        pieces = (
            [LARGE],
            [LARGE[:cut], LARGE[cut : 2 * cut], LARGE[2 * cut :]],
            [LARGE[: 300_000 - 1], b"", LARGE[300_000 - 1 :]],
            [b"Prefix: 1\r\n", LARGE],
            [LARGE, b"no end"],
            [b"no end"],
            [b"."],
            [b""],
        )
        for extensions in (EXTENSIONS, [*EXTENSIONS, "CHUNKING"], []):
            sink = self.sink(extensions=extensions)
            session = await self.connect(sink)
            for blocks in pieces:
                whole = b"".join(blocks)
                assert codes(await session.deliver(mail(blocks=blocks))) == [(250, "end")]
                taken = sink.taken[-1]
                ending = b"" if whole.endswith(b"\r\n") or not whole else b"\r\n"
                assert taken.data == whole + ending
                is_large = len(whole) > 256 * 1024
                assert taken.by_bdat == (is_large and "CHUNKING" in extensions)
            assert sink.faults == []

    async def test_a_server_that_can_be_smuggled_through_sees_one_message(self) -> None:
        """It takes a lone LF for a line end; content that holds one never leaves."""
        attack = b"a\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<x@y>\r\nDATA\r\nb\r\n.\r\n"
        sink = self.sink(is_lenient=True)
        session = await self.connect(sink)
        for cut in range(len(attack)):
            await session.deliver(mail(blocks=[attack[:cut], attack[cut:]]))
        assert {found.reverse_path for found in sink.mails} == {"alice@example.com"}
        assert len(sink.mails) == len(attack)
        for evil in (attack.replace(b"\r\n", b"\n"), attack.replace(b"\r\n.\r\n", b"\n.\r\n")):
            for filling in (b"", LARGE):
                session = await self.connect(sink)
                (reply,) = await session.deliver(mail(blocks=[filling, evil]))
                assert (reply.code, reply.status, reply.is_ours) == (550, "5.6.11", True)
                assert not session.is_open
        assert len(sink.mails) == len(attack)

    async def test_content_that_is_short_is_never_ended(self) -> None:
        for extensions in (EXTENSIONS, [*EXTENSIONS, "CHUNKING"]):
            sink = self.sink(extensions=extensions)
            for data in (LETTER, LARGE):
                for octets in (len(data) + 1, len(data) - 1):
                    session = await self.connect(sink)
                    (reply,) = await session.deliver(mail(data=data, octets=octets))
                    assert (reply.code, reply.status, reply.is_ours) == (451, "4.3.0", True)
                    assert not session.is_open
            await self.gone(sink)
            assert sink.mails == []

    async def test_what_the_content_raises_ends_the_session_without_an_end(self) -> None:
        for extensions in (EXTENSIONS, [*EXTENSIONS, "CHUNKING"]):
            sink = self.sink(extensions=extensions)
            session = await self.connect(sink)
            letter = Outgoing("a@example.com", (OutgoingRecipient(BOB),), len(LARGE) * 2, failing)
            with pytest.raises(OSError, match="the disk"):
                await session.deliver(letter)
            assert not session.is_open
            await self.gone(sink)
            assert sink.mails == []


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def failing() -> AsyncIterator[bytes]:
    yield LARGE
    raise OSError("the disk")


class Extensions(ClientCase):
    async def test_a_message_larger_than_announced_is_not_tried(self) -> None:
        sink = self.sink(extensions=[*without("SIZE"), "SIZE 10"])
        session = await self.connect(sink)
        (reply,) = await session.deliver(mail())
        assert (reply.code, reply.status, reply.is_ours) == (552, "5.3.4", True)
        assert not any(command.startswith("MAIL") for command in sink.commands)

    async def test_8bit_content_is_declared_or_returned(self) -> None:
        eightbit = "Subject: gr\u00fc\u00dfe\r\n\r\n".encode()
        for data, body, announced, parameter in (
            (eightbit, "8BITMIME", True, "8BITMIME"),
            (eightbit, "7BIT", True, "8BITMIME"),
            (LETTER, "8BITMIME", True, "8BITMIME"),
            (LETTER, "7BIT", True, None),
            # Declared by habit; it may go to anybody.
            (LETTER, "8BITMIME", False, None),
            (LARGE, "8BITMIME", False, None),
        ):
            sink = self.sink(extensions=EXTENSIONS if announced else without("8BITMIME"))
            session = await self.connect(sink)
            replies = await session.deliver(mail(data=data, body=body))
            assert codes(replies) == [(250, "end")]
            assert sink.taken[0].parameters.get("BODY") == parameter
            assert sink.faults == []
        for data in (eightbit, LARGE + eightbit):
            sink = self.sink(extensions=without("8BITMIME"))
            session = await self.connect(sink)
            (reply,) = await session.deliver(mail(data=data, body="8BITMIME"))
            assert (reply.code, reply.status) == (554, "5.6.3")
            assert sink.mails == []
            assert session.is_open

    async def test_smtputf8_is_asked_for_or_the_message_returned(self) -> None:
        unicode = "\u00fcser@example.net"
        for given in (
            {"smtputf8": True},
            {"reverse_path": "\u00fc@example.com"},
            {"smtputf8": True, "reverse_path": "\u00fc@example.com"},
        ):
            able, unable = self.sink(), self.sink(extensions=without("SMTPUTF8"))
            session = await self.connect(able)
            assert codes(await session.deliver(mail(**given))) == [(250, "end")]
            assert "SMTPUTF8" in able.taken[0].parameters
            assert able.faults == []
            session = await self.connect(unable)
            (reply,) = await session.deliver(mail(**given))
            assert (reply.code, reply.status) == (553, "5.6.7")
            assert not any(command.startswith("MAIL") for command in unable.commands)
        unable = self.sink(extensions=without("SMTPUTF8"))
        session = await self.connect(unable)
        replies = await session.deliver(mail(unicode, BOB))
        assert [reply.status for reply in replies] == ["5.6.7", "2.0.0"]
        able = self.sink()
        session = await self.connect(able)
        await session.deliver(mail(unicode, BOB))
        assert able.taken[0].recipients == [unicode, BOB]

    async def test_dsn_parameters_go_where_they_are_understood(self) -> None:
        recipients = (
            OutgoingRecipient(BOB, "rfc822;robert@example.org", Notify.SUCCESS | Notify.FAILURE),
            OutgoingRecipient(CAROL, "", Notify.NEVER),
        )
        for extensions, sender, parameters in (
            (
                EXTENSIONS,
                {"RET": "HDRS", "ENVID": "q+2B1"},
                [
                    {"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;robert@example.org"},
                    {"NOTIFY": "NEVER"},
                ],
            ),
            (without("DSN"), {}, [{}, {}]),
        ):
            sink = self.sink(extensions=extensions)
            session = await self.connect(sink)
            assert ("DSN" in session.capabilities) == bool(sender)
            await session.deliver(mail(*recipients, ret="HDRS", envid="q+1"))
            taken = sink.taken[0]
            assert taken.parameters == {"SIZE": str(len(LETTER))} | sender
            assert taken.recipient_parameters == parameters
            assert sink.faults == []

    async def test_the_null_path_stays_null(self) -> None:
        sink = self.sink()
        session = await self.connect(sink)
        await session.deliver(mail(reverse_path=""))
        assert sink.taken[0].reverse_path == ""

    async def test_binary_content_goes_in_chunks_or_back(self) -> None:
        binary = b"a\nb\rc\x00.\r\n.\r\nd"
        sink = self.sink(extensions=[*EXTENSIONS, "CHUNKING", "BINARYMIME"])
        session = await self.connect(sink)
        assert codes(await session.deliver(mail(data=binary, body="BINARYMIME"))) == [(250, "end")]
        assert (sink.taken[0].data, sink.taken[0].by_bdat) == (binary, True)
        session = await self.connect(self.sink())
        (reply,) = await session.deliver(mail(data=binary, body="BINARYMIME"))
        assert reply.status == "5.6.3"

    async def test_a_chunk_may_be_refused(self) -> None:
        sink = self.sink(
            extensions=[*EXTENSIONS, "CHUNKING"], replies={"BDAT": ["552 5.3.4 too large"]}
        )
        session = await self.connect(sink)
        replies = await session.deliver(mail(blocks=[LARGE, LARGE]))
        assert codes(replies) == [(552, "data")]
        assert codes(await session.deliver(mail())) == [(250, "end")]

    async def test_an_address_cannot_forge_a_command(self) -> None:
        sink = self.sink()
        session = await self.connect(sink)
        replies = await session.deliver(mail("x@y>\r\nRCPT TO:<evil@example.net", BOB))
        assert [reply.status for reply in replies] == ["5.1.3", "2.0.0"]
        assert [line for line in sink.commands if "evil" in line] == []


class Lmtp(ClientCase):
    async def test_each_accepted_recipient_has_a_reply_of_its_own(self) -> None:
        for extensions in (EXTENSIONS, without("PIPELINING"), [*EXTENSIONS, "CHUNKING"]):
            for data in (LETTER, LARGE):
                sink = self.sink(
                    is_lmtp=True,
                    extensions=extensions,
                    replies={
                        f"RCPT {BOB}": "550 5.1.1 unknown",
                        f"END {DAVE}": "452 4.2.2 full",
                    },
                )
                session = await self.connect(sink)
                replies = await session.deliver(mail(CAROL, BOB, DAVE, data=data))
                assert codes(replies) == [(250, "end"), (550, "rcpt"), (452, "end")]
                assert sink.visits[0].verb == "LHLO"
                assert sink.taken[0].data == data

    async def test_a_connection_lost_between_the_replies_delivers_to_the_first_alone(self) -> None:
        sink = self.sink(is_lmtp=True, replies={f"END {CAROL}": "!close"})
        session = await self.connect(sink)
        replies = await session.deliver(mail(BOB, CAROL, DAVE))
        assert codes(replies) == [(250, "end"), (451, "end"), (451, "end")]
        assert replies[1].is_ours
