"""Messages that the server writes are whole and cannot be injected into."""

from __future__ import annotations

import email
import email.policy
import re

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address
from mailtwist.mail.compose import compose

ANN = Address("ann", "example.org")


def made(**changes: object) -> bytes:
    values: dict[str, object] = {
        "sender": Address("postmaster", "example.org"),
        "recipients": [ANN, Address("b o", "example.net")],
        "subject": "Grüße",
        "text": "Hallo Welt,\n\nschöne Grüße.\n" + "lang " * 300,
        "seconds": 0.0,
        "message_id": "1@example.org",
        "sender_name": "mail twist",
    }
    return compose(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.mission("DAP-134")
@pytest.mark.parametrize(
    ("name", "shown"),
    [("mail twist", "mail twist"), ("", ""), ("Jürgen", "Jürgen"), ('a"b\\', "ab")],
)
def test_a_message_reads_back(name: str, shown: str) -> None:
    data = made(sender_name=name)
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert b"\r\nSubject: =?utf-8?" in data
    assert re.search(rb"^Date: \w{3}, +\d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d ", data, re.MULTILINE)
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert (message["MIME-Version"], message.get_content_charset()) == ("1.0", "utf-8")
    assert message["Subject"] == "Grüße"
    assert message["From"].addresses[0].display_name == shown
    assert message["From"].addresses[0].addr_spec == "postmaster@example.org"
    assert [str(address) for address in message["To"].addresses] == [
        "ann@example.org",
        '"b o"@example.net',
    ]
    assert message["Date"].datetime.timestamp() == 0
    content = message.get_content().replace("\r\n", "\n")
    assert content.startswith("Hallo Welt,\n\nschöne Grüße.\nlang ")
    assert message.defects == []


@pytest.mark.parametrize("member", ["subject", "message_id", "sender_name"])
def test_no_value_begins_another_line(member: str) -> None:
    with pytest.raises(ProtocolViolation):
        made(**{member: "x\r\nBcc: evil@example.com"})
