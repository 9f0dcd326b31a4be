"""DKIM signatures of arriving mail: judged with keys from DNS, told in the header and by REST."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.relaying import command
from tests.e2e.server import Server
from tests.support.dns import DnsServer
from tests.support.rest import SECRET, Rest

pytestmark = pytest.mark.real

SENDER = "ann@signed.example"


class Author:
    """Signs as signed.example; its key is in DNS."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = f"v=DKIM1; k=rsa; p={b64encode(public).decode()}"
        halves = " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
        self.zone = {"d1._domainkey.signed.example": {"TXT": [halves]}}

    def signed(self, message: bytes, times: int = 1) -> bytes:
        fields = b"".join(
            dkim.sign(message, b"d1", b"signed.example", self.pem, include_headers=[b"from"])
            for _ in range(times)
        )
        return fields + message


@pytest.fixture(scope="module")
def author() -> Author:
    return Author()


@pytest.fixture(scope="module")
def server(
    module_url: str, author: Author, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    settings: dict[str, Any] = {"database_url": module_url} if module_url else {}
    with DnsServer(author.zone) as names:
        names.servfail.add("d2._domainkey.signed.example")
        settings["outbound"] = {"resolver": names.address}
        with Server(tmp_path_factory.mktemp("dkim"), **settings) as running:
            yield running
        running.check()


@pytest.fixture
def mine(admin: Rest) -> tuple[Any, str, str]:
    user = admin.user()
    id, address = user.account()
    return user, id, address


def letter(to: str, text: str = "hello") -> bytes:
    return f"From: {SENDER}\r\nTo: {to}\r\nSubject: signed\r\n\r\n{text}\r\n".encode()


def arrived(
    server: Server, mine: tuple[Any, str, str], message: bytes
) -> tuple[dict[str, Any], bytes]:
    """The row of the only mail of an account, wherever it is, and the mail."""
    user, id, address = mine
    with server.smtp() as client:
        client.sendmail(SENDER, [address], message)
    (row,) = user.rows("mail", **{"included_relations": "mail"}).data
    boxes = {number: name for name, number in user.boxes(id).items()}
    found = dict(row["attributes"], box=boxes[row["relationships"]["mail_box_id"]["data"]["id"]])
    with server.imap() as imap:
        imap.login(address, SECRET)
        imap.select(found["box"], readonly=True)
        data: Any = imap.fetch("1", "(FLAGS BODY.PEEK[])")[1]
    found["imap_flags"] = data[0][0].decode()
    return found, data[0][1]


@pytest.mark.mission("DAP-113")
def test_a_good_signature_counts_nothing_and_is_told(server, author, mine):
    row, stored = arrived(server, mine, author.signed(letter(mine[2])))
    assert (row["spam_score"], row["spam"], row["box"]) == (0, False, "INBOX")
    assert (
        b"Authentication-Results: mx.example.com;\r\n"
        b"\tdkim=pass header.d=signed.example header.s=d1 header.a=rsa-sha256\r\n"
    ) in stored
    # Trace fields stand above it.
    assert stored.index(b"Received: ") < stored.index(b"Authentication-Results: ")


@pytest.mark.mission("DAP-113")
def test_a_broken_signature_marks_the_mail(server, author, mine):
    message = author.signed(letter(mine[2])).replace(b"\r\nhello", b"\r\nhallo")
    row, stored = arrived(server, mine, message)
    assert (row["spam_score"], row["spam"], row["box"]) == (100, True, "INBOX")
    assert "Spam" in row["imap_flags"]
    assert b'dkim=fail reason="body hash did not verify"' in stored


@pytest.mark.mission("DAP-114")
def test_three_broken_signatures_put_it_into_spam(server, author, mine):
    message = author.signed(letter(mine[2]), times=3).replace(b"\r\nhello", b"\r\nhallo")
    row, stored = arrived(server, mine, message)
    assert (row["spam_score"], row["spam"], row["box"]) == (300, True, "Spam")
    assert stored.count(b"dkim=fail") == 3


def test_a_key_that_dns_does_not_give_now_counts_nothing(server, author, mine):
    message = author.signed(letter(mine[2])).replace(b"s=d1;", b"s=d2;")
    row, stored = arrived(server, mine, message)
    assert (row["spam_score"], row["spam"]) == (0, False)
    assert b'dkim=temperror reason="key unavailable"' in stored


def test_what_pretends_to_be_ours_is_taken_out_and_the_rest_stays(server, author, mine):
    forged = (
        b"Authentication-Results: other.example; dkim=pass\r\n"
        b"Authentication-Results: MX.example.com; dkim=pass header.d=bank.example\r\n"
    )
    row, stored = arrived(server, mine, forged + letter(mine[2]))
    assert row["spam_score"] == 0
    assert b"bank.example" not in stored
    assert stored.count(b"Authentication-Results: ") == 1
    assert b"Authentication-Results: other.example; dkim=pass\r\n" in stored


def test_mail_without_signature_is_left_as_it_came(server, mine):
    message = letter(mine[2])
    row, stored = arrived(server, mine, message)
    assert stored.endswith(message)
    assert b"Authentication-Results" not in stored
    assert row["spam_score"] == 0


def test_rows_are_found_by_their_score(server, author, admin):
    user = admin.user()
    _, address = user.account()
    good = author.signed(letter(address))
    with server.smtp() as client:
        client.sendmail(SENDER, [address], good)
        client.sendmail(SENDER, [address], good.replace(b"\r\nhello", b"\r\nhallo"))
    assert user.rows("mail", ("spam_score", "more than", 50)).column("spam_score") == [100]
    assert user.rows("mail", sort="-spam_score").column("spam_score") == [100, 0]
    assert command(server, "db", "check")
