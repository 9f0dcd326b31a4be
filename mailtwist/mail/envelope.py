"""ENVELOPE of a message, and what the store searches of its header (RFC 9051 §7.5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailtwist.mail.addresslist import Budget, render_addresses
from mailtwist.mail.dates import parse_date
from mailtwist.mail.fields import Fields
from mailtwist.mail.wire import NIL, nstring
from mailtwist.mail.words import decode_words, fold

MAX_MESSAGE_ID: Final = 255  # it stands in an index
MAX_SUBJECT: Final = 8000  # characters


def render_envelope(fields: Fields, budget: Budget) -> bytes:
    """The parenthesised list, ready to send."""
    get = fields.get
    from_ = _addresses(get(b"from"), budget)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(get(b"date")),
        nstring(get(b"subject")),
        from_,
        # RFC 9051 §7.5.2: absent or empty, these two say what From says.
        _addresses(get(b"sender"), budget, from_),
        _addresses(get(b"reply-to"), budget, from_),
        _addresses(get(b"to"), budget),
        _addresses(get(b"cc"), budget),
        _addresses(get(b"bcc"), budget),
        nstring(get(b"in-reply-to")),
        nstring(get(b"message-id")),
    )


def _addresses(value: bytes | None, budget: Budget, default: bytes = NIL) -> bytes:
    if not value:
        return default
    found = render_addresses(value, budget)
    return b"(%b)" % b"".join(found) if found else default


@dataclass(slots=True)
class Summary:
    """The searchable side of a header. ``folded_*`` are whole values: names and addresses."""

    message_id: str
    subject: str
    folded_subject: str
    folded_from: str
    folded_to: str
    folded_cc: str
    folded_bcc: str
    sent_at: int | None
    sent_day: int | None


def summarise(fields: Fields) -> Summary:
    """Decode and fold what SEARCH and the listing of messages look at."""
    get = fields.get
    subject = decode_words(get(b"subject", b""))[:MAX_SUBJECT]
    sent = parse_date(get(b"date", b""))
    return Summary(
        message_id(fields),
        subject,
        fold(subject),
        _folded(get(b"from")),
        _folded(get(b"to")),
        _folded(get(b"cc")),
        _folded(get(b"bcc")),
        sent and sent[0],
        sent and sent[1],
    )


def message_id(fields: Fields) -> str:
    return fields.get(b"message-id", b"")[:MAX_MESSAGE_ID].decode("ascii", "replace")


def _folded(value: bytes | None) -> str:
    return fold(decode_words(value)) if value else ""
