"""FETCH as a whole, on both databases: every octet, pages, streams, and changes meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mailtwist.imap.commands import fetch as command
from mailtwist.mail.structure import Parser
from mailtwist.store.content import CHUNK
from tests.imap.making import put
from tests.imap.responses import fetched
from tests.support.imap import Server
from tests.support.transcript import Peer

MULTIPART = (
    b"From: a@example.com\r\nReceived: one\r\nSubject: s\r\nReceived: two\r\n\tfolded\r\n"
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\n"
    b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner\r\n--x--\r\n"
)


def sized(octets: int, seed: int = 0) -> bytes:
    head = b"Subject: %d\r\nX-Long: %b\r\n\r\n" % (octets, b"h" * 50)
    line = random.Random(octets + seed).randbytes(48).hex().encode() + b"\r\n"
    return (head + line * (octets // len(line) + 1))[:octets]


# Empty body, inline, one chunk, many chunks, and the borders between them.
BODIES = [
    b"Subject: no body\r\n\r\n",
    b"no header at all",
    b"\xff\xfe\x80 8-bit: \xc3\xa4\r\n\r\n\xe4)\r\n* 1 FETCH (BODY[] {1}\r\n",
    MULTIPART,
    sized(65_535),
    sized(65_536),
    sized(65_537),
    sized(400_000),
    sized(CHUNK),
    sized(CHUNK + 1),
    sized(3 * CHUNK + 17),
]
PREFIX = b"Return-Path: <x@example.com>\r\nReceived: by us\r\n"


@pytest.fixture
def server(store_url: str) -> Iterator[Server]:
    made = Server(store_url, allow_plaintext=True)
    yield made
    made.database.release()


@pytest.fixture
def filled(server: Server) -> Server:
    for n, body in enumerate(BODIES):
        put(server.database, server.account_id, body, prefix=PREFIX if n % 2 else b"")
    return server


def whole(n: int) -> bytes:
    return (PREFIX if n % 2 else b"") + BODIES[n]


def ask(peer: Peer, line: bytes) -> dict[int, dict[bytes, bytes]]:
    answer = peer.ask(b"t " + line)
    assert b"\r\nt OK " in answer or answer.startswith(b"t OK "), answer[-200:]
    return fetched(answer)


@pytest.mark.mission("DAP-225")
def test_bodies_come_back_octet_for_octet(filled: Server) -> None:
    peer = filled.login(b"0 SELECT INBOX")
    items = b"(FLAGS UID RFC822.SIZE ENVELOPE BODYSTRUCTURE INTERNALDATE BODY.PEEK[])"
    answers = ask(peer, b"FETCH 1:* " + items)
    assert len(answers) == len(BODIES)
    for n in range(len(BODIES)):
        answer = answers[n + 1]
        assert answer[b"BODY[]"] == whole(n)
        assert int(answer[b"RFC822.SIZE"]) == len(whole(n))
        structure = parsed(BODIES[n])
        assert answer[b"ENVELOPE"] == structure.envelope
        assert answer[b"BODYSTRUCTURE"] == structure.bodystructure


def parsed(data: bytes) -> Any:
    parser = Parser()
    parser.feed(data)
    return parser.close()


@pytest.mark.mission("DAP-227")
def test_sections_and_partials_are_slices_of_the_message(filled: Server) -> None:
    peer = filled.login(b"0 SELECT INBOX")
    chance = random.Random(3)
    for n in range(len(BODIES)):
        data, border = whole(n), len(whole(n)) - len(BODIES[n])
        head_end = border + parsed(BODIES[n]).header_octets
        wanted = {b"": data, b"HEADER": data[:head_end], b"TEXT": data[head_end:]}
        partial = {}
        for _ in range(12):
            section = chance.choice(list(wanted))
            text = wanted[section]
            starts = [0, 1, border, len(text) - 3, len(text), chance.randint(0, len(data))]
            start = max(chance.choice(starts), 0)
            count = chance.choice([1, 10, 70_000, len(data)])
            partial[section, start] = count, text[start : start + count]
        items = b" ".join(
            b"BODY.PEEK[%b]<%d.%d>" % (section, start, count)
            for (section, start), (count, _) in partial.items()
        )
        answer = ask(peer, b"FETCH %d (%b)" % (n + 1, items))[n + 1]
        assert answer == {b"BODY[%b]<%d>" % place: text for place, (_, text) in partial.items()}
        for section, text in wanted.items():
            name = b"BODY[%b]" % section
            assert ask(peer, b"FETCH %d BODY.PEEK[%b]" % (n + 1, section))[n + 1][name] == text


@pytest.mark.mission("DAP-227")
def test_chosen_header_fields_keep_their_octets_and_order(filled: Server) -> None:
    peer = filled.login(b"0 SELECT INBOX")
    number = BODIES.index(MULTIPART) + 1
    answer = ask(peer, b"FETCH %d BODY.PEEK[HEADER.FIELDS (received FROM)]" % number)[number]
    assert list(answer.values()) == [
        b"Received: by us\r\nFrom: a@example.com\r\nReceived: one\r\n"
        b"Received: two\r\n\tfolded\r\n\r\n"
    ]
    last = len(BODIES)
    answer = ask(peer, b"FETCH %d (BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[1]<5.5>)" % last)[
        last
    ]
    assert answer[b"BODY[HEADER.FIELDS (SUBJECT)]"] == b"Subject: %d\r\n\r\n" % len(BODIES[-1])
    assert answer[b"BODY[1]<5>"] == BODIES[-1].partition(b"\r\n\r\n")[2][5:10]


@pytest.mark.parametrize("page, octets", [(1, 1 << 20), (3, 1 << 20), (2000, 100_000), (4, 1)])
def test_pages_of_any_size_give_the_same_answers(
    filled: Server, monkeypatch: pytest.MonkeyPatch, page: int, octets: int
) -> None:
    peer = filled.login(b"0 SELECT INBOX")
    commands = [
        b"FETCH 1:* (UID FLAGS BODY.PEEK[])",
        b"FETCH 2,4:6,11 (BODY.PEEK[HEADER] UID)",
        b"UID FETCH 1,3,5,7:9,11 (ENVELOPE BODY.PEEK[TEXT])",
        b"FETCH 1:* FAST",
    ]
    before = [peer.ask(b"t " + line) for line in commands]
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command, "OCTETS", octets)
    monkeypatch.setattr(command, "BLOCK", 12_345)
    assert [peer.ask(b"t " + line) for line in commands] == before


@pytest.mark.parametrize("step", [3, 1000])
def test_flags_from_the_arrays_are_those_of_the_rows(
    server: Server, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    server.deliver(10)
    monkeypatch.setattr(command, "STEP", step)
    monkeypatch.setattr(command, "LINES", step)
    peer = server.login(b"0 SELECT INBOX", b"0 STORE 2:5 +FLAGS.SILENT (\\Seen $Work)")
    for numbers in (b"1:*", b"2,4,6:7", b"3"):
        arrays = ask(peer, b"FETCH %b (UID FLAGS)" % numbers)
        rows = ask(peer, b"FETCH %b (UID FLAGS RFC822.SIZE)" % numbers)
        assert {n: (a[b"UID"], a[b"FLAGS"]) for n, a in arrays.items()} == {
            n: (a[b"UID"], a[b"FLAGS"]) for n, a in rows.items()
        }
    server.expunge("4,5")
    arrays = ask(peer, b"FETCH 1:* (UID FLAGS)")
    assert sorted(arrays) == [1, 2, 3, 6, 7, 8, 9, 10]
    assert arrays[6][b"UID"] == b"6"


def test_a_keyword_that_another_session_makes_is_named_at_once(server: Server) -> None:
    server.deliver(2)
    reader = server.login(b"0 SELECT INBOX")
    writer = server.login(b"0 SELECT INBOX")
    ask(writer, b"STORE 1 +FLAGS.SILENT (brand-new)")
    answer = reader.ask(b"t FETCH 1 (FLAGS RFC822.SIZE)")
    assert b"brand-new) RFC822.SIZE 25)" in answer


@pytest.mark.mission("DAP-226")
def test_reading_a_large_message_marks_it_too(filled: Server) -> None:
    peer = filled.login(b"0 SELECT INBOX")
    last = len(BODIES)
    answer = ask(peer, b"FETCH %d BODY[]" % last)[last]
    assert answer[b"BODY[]"] == whole(last - 1)
    assert b"\\Seen" in answer[b"FLAGS"]
    assert b"\\Seen" in ask(peer, b"FETCH %d FLAGS" % last)[last][b"FLAGS"]


def test_internal_dates_of_all_ages_are_written(server: Server) -> None:
    moments = [0, -1, -62_135_596_800_000_000, 253_402_300_799_999_999, 951_782_399_000_000]
    for moment in moments:
        put(server.database, server.account_id, b"a: b\r\n\r\n", internaldate=moment)
    peer = server.login(b"0 SELECT INBOX")
    dates = [a[b"INTERNALDATE"] for a in ask(peer, b"FETCH 1:* INTERNALDATE").values()]
    assert dates == [
        b" 1-Jan-1970 00:00:00 +0000",
        b"31-Dec-1969 23:59:59 +0000",
        b" 1-Jan-0001 00:00:00 +0000",
        b"31-Dec-9999 23:59:59 +0000",
        b"28-Feb-2000 23:59:59 +0000",
    ]


@contextmanager
def reads_nothing(peer: Peer) -> Iterator[None]:
    """The client stops reading as soon as something was written to it."""
    pump, write = peer.protocol.pump, peer.wire.write

    def write_and_clog(data: bytes) -> None:
        write(data)
        pump.pauseProducing()

    peer.wire.write = write_and_clog  # type: ignore[method-assign]
    yield
    peer.wire.write = write  # type: ignore[method-assign]
    pump.resumeProducing()


def test_a_slow_reader_holds_the_server_back(filled: Server) -> None:
    peer = filled.login(b"0 SELECT INBOX")
    with reads_nothing(peer):
        peer.send(b"t FETCH 1:* BODY.PEEK[]\r\n")
        held = len(peer.received())
        assert 0 < held < 2 * CHUNK
    total = held + len(peer.received())
    assert total > sum(map(len, BODIES))


@pytest.mark.parametrize(
    "items",
    [
        b"BODY.PEEK[HEADER]",
        b"BODY.PEEK[HEADER.FIELDS (Subject X-Long)]",
        b"(%b)" % b" ".join(b"BODY.PEEK[]<%d.50000>" % n for n in range(64)),
    ],
)
def test_no_page_is_much_longer_than_its_bound(server: Server, items: bytes) -> None:
    header = b"Subject: s\r\n" + b"X-Long: %b\r\n" % (b"h" * 900) * 500 + b"\r\n"
    for _ in range(6):
        put(server.database, server.account_id, header)
    peer = server.login(b"0 SELECT INBOX")
    with reads_nothing(peer):
        peer.send(b"t FETCH 1:* %b\r\n" % items)
        answer = peer.received()
        assert 0 < len(answer) < 2 * CHUNK
    found = fetched(answer + peer.received())
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    for name, value in found[6].items():
        start = int(name.partition(b"<")[2][:-1] or 0)
        assert value == header[start:][: len(value)]
