"""SMTP replies on the wire."""

from __future__ import annotations

import pytest

from mailtwist.errors import NotFound, OverQuota
from mailtwist.mail.reply import Reply


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply(250, "2.1.0", "OK"), b"250 2.1.0 OK\r\n"),
        (Reply(354, "", "Go"), b"354 Go\r\n"),
        (Reply(250, "", ("host", "SIZE 1", "HELP")), b"250-host\r\n250-SIZE 1\r\n250 HELP\r\n"),
        (Reply(214, "2.0.0", ("a", "b")), b"214-2.0.0 a\r\n214 2.0.0 b\r\n"),
        (Reply(250, "2.0.0", ()), b"250 2.0.0 \r\n"),
        (Reply.of(NotFound("User unknown")), b"550 5.1.1 User unknown\r\n"),
        (Reply.of(OverQuota()), b"452 4.2.2 Mailbox full\r\n"),
    ],
)
def test_a_reply_is_encoded(reply: Reply, wire: bytes) -> None:
    assert reply.encode() == wire


def test_a_text_can_forge_no_line_and_no_octet_beyond_ascii() -> None:
    wire = Reply(500, "5.5.2", "bad\r\n250 fine\0\x85\u2028é").encode()
    assert wire == b"500 5.5.2 bad??250 fine????\r\n"


def test_a_line_keeps_within_512_octets() -> None:
    assert len(Reply(500, "5.5.2", "x" * 9999).encode()) <= 512


def test_codes_from_400_on_are_errors() -> None:
    assert [Reply(code, "", "").is_error for code in (250, 354, 421, 550)] == [
        False,
        False,
        True,
        True,
    ]
