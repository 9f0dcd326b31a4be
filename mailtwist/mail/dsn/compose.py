"""The whole report: header, the part for people, the part for programs, the original."""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterator, Mapping
from typing import Final

from mailtwist.mail.address import Address
from mailtwist.mail.dsn.original import original_part
from mailtwist.mail.dsn.status import status_fields
from mailtwist.mail.dsn.values import Action, Kind, Report, printable
from mailtwist.mail.dsn.words import write
from mailtwist.mail.fields import read_fields
from mailtwist.mail.header import encode_words, fold_line, format_field
from mailtwist.mail.trace import clean_helo, date_time
from mailtwist.mail.words import decode_words

MAX_SUBJECT: Final = 120  # characters of the original's

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,240}>")
_HEADER_READ: Final = 65536

_TITLES: Final = {
    Kind.FAILURE: ("Undelivered", "Your message was not delivered"),
    Kind.DELAY: ("Delayed", "Your message is delayed"),
    Kind.SUCCESS: ("Delivered", "Your message was delivered"),
}
_HANDED_ON: Final = ("Handed on", "Your message was handed on")


def compose(report: Report) -> bytes:
    """The message, CRLF line ends, to be sent with the null reverse-path.

    It is 8-bit only where the original (returned whole) or an address is, and it needs SMTPUTF8
    only when the sender's address does.
    """
    fields, _ = read_fields(report.header[:_HEADER_READ])
    subject = printable(decode_words(fields.get(b"subject", b"")[:4096]), MAX_SUBJECT)
    parts = [_text_part(report, subject), _status_part(report)]
    if report.header or report.whole:
        parts.append(_part(*original_part(report)))
    boundary = f"=_{report.token}".encode("ascii")
    encoding = b"7bit" if all(map(bytes.isascii, parts)) else b"8bit"
    return b"".join(
        (
            *_header_fields(report, subject, fields),
            b"MIME-Version: 1.0\r\n",
            # RFC 6522 §3: the subtype of the second part.
            b"Content-Type: multipart/report; report-type=%b;\r\n" % _status_type(report),
            b'\tboundary="%b"\r\n' % boundary,
            b"Content-Transfer-Encoding: %b\r\n\r\n" % encoding,
            *(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts),
            b"--%b--\r\n" % boundary,
        )
    )


def _header_fields(report: Report, subject: str, fields: Mapping[bytes, bytes]) -> Iterator[bytes]:
    hostname = clean_helo(report.hostname)
    yield format_field("Date", date_time(report.now / 1_000_000))
    yield format_field("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>")
    # Never as encoded words: those are no address (RFC 2047 §5).
    yield fold_line(f"To: {_mailbox(report.sender)}".encode())
    yield format_field("Subject", _title(report, subject))
    yield format_field("Message-ID", f"<{report.token}@{hostname}>")
    # RFC 3834 §3.1.5: the report stands in the thread of the message that it is about.
    if _MESSAGE_ID.fullmatch(message_id := fields.get(b"message-id", b"")):
        yield b"In-Reply-To: %b\r\nReferences: %b\r\n" % (message_id, message_id)
    # RFC 3834 §5: no responder answers this.
    yield b"Auto-Submitted: auto-replied\r\n"


def _mailbox(address: Address) -> str:
    return f"<{printable(str(address))}>"


def _title(report: Report, subject: str) -> str:
    is_relayed = all(fate.action is Action.RELAYED for fate in report.fates)
    word, sentence = _HANDED_ON if is_relayed else _TITLES[report.kind]
    return f"{word}: {encode_words(subject)}" if subject else sentence


def _text_part(report: Report, subject: str) -> bytes:
    text = write(report, subject=subject).replace("\n", "\r\n")
    kind = b"text/plain; charset=utf-8"
    if text.isascii():
        return _part(kind, b"7bit", text.encode("ascii"))
    return _part(kind, b"quoted-printable", b2a_qp(text.encode("utf-8", "replace")))


def _status_type(report: Report) -> bytes:
    # RFC 6533 §4: the global form is for who sent with SMTPUTF8.
    return b"global-delivery-status" if report.is_global else b"delivery-status"


def _status_part(report: Report) -> bytes:
    fields = status_fields(report)
    encoding = b"7bit" if fields.isascii() else b"8bit"
    return _part(b"message/" + _status_type(report), encoding, fields)


def _part(kind: bytes, encoding: bytes, octets: bytes) -> bytes:
    return (
        b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\nContent-Disposition: inline\r\n"
        b"\r\n%b" % (kind, encoding, octets)
    )
