"""SEARCH keys that only the messages themselves can answer: HEADER, TEXT, BODY.

They are decoded page by page in a reading thread, a bounded number of octets
each time. Comparison is on decoded, folded text, so that a key finds what a
person reads, whatever charset and encoding it came in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailtwist.mail import search as tree
from mailtwist.mail import text
from mailtwist.mail.header import split_fields
from mailtwist.mail.words import decode_words, fold
from mailtwist.store import content, fetch

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Octets that one read decodes; a single larger message is a read of its own.
PAGE_OCTETS: Final = 1 << 20
# Octets of one header block that are searched: more is no text for people.
HEADER_OCTETS: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Message:
    """The columns of one message that is searched; ``data`` is None when it is in chunks."""

    uid: int
    prefix: bytes
    header_octets: int
    content_octets: int
    parts: bytes
    content_id: int
    data: bytes | None
    connection: Connection = field(kw_only=True)

    def octets(self, start: int, end: int) -> bytes:
        """Octets ``[start:end]`` of the content."""
        if self.data is not None:
            return self.data[start:end]
        blocks = []
        while start < end:
            block = content.read(self.connection, self.content_id, start, end)
            if not block:
                break
            blocks.append(block)
            start += len(block)
        return b"".join(blocks)

    def header(self) -> bytes:
        return self.prefix + self.octets(0, min(self.header_octets, HEADER_OCTETS))


COLUMNS: Final = (
    "uid", "prefix", "header_octets", "content_octets", "parts", "content_id", "data",
)  # fmt: skip
HEADER_COLUMNS: Final = (*COLUMNS[:-1], "header")


@dataclass(frozen=True, slots=True)
class Test:
    """Whether a message matches, and whether that takes more than its header."""

    matches: Callable[[Message], bool]
    needs_body: bool


def test_of(node: tree.Header | tree.Text | tree.Body) -> Test:
    """The test that a node stands for."""
    match node:
        case tree.Header(name, value):
            return Test(_header(name, fold(value)), needs_body=False)
        case tree.Body(value):
            return Test(_body(fold(value)), needs_body=True)
        case tree.Text(value):
            return Test(_text(fold(value)), needs_body=True)
    raise AssertionError(node)


def page(
    connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int], test: Test
) -> tuple[int, set[int]]:
    """Test the first of ``uids``; tells how many were looked at and which of them match."""
    columns = HEADER_COLUMNS
    if test.needs_body:
        columns = COLUMNS
        count = fetch.fit(connection, account_id, mailbox_id, uids, PAGE_OCTETS)
        uids = uids[:count]
    rows = fetch.rows(connection, account_id, mailbox_id, uids, columns)
    messages = (Message(*row, connection=connection) for row in rows)
    return len(uids), {message.uid for message in messages if test.matches(message)}


def _header(name: str, value: str) -> Callable[[Message], bool]:
    wanted = name.lower().encode("ascii", "replace")

    def matches(message: Message) -> bool:
        return any(
            value in fold(decode_words(_value(raw)))
            for field, raw in split_fields(message.header())
            if field.lower() == wanted
        )

    return matches


def _value(raw: bytes) -> bytes:
    """The unfolded value of a field."""
    return raw.partition(b":")[2].translate(None, b"\r\n").strip()


def _body(value: str) -> Callable[[Message], bool]:
    return lambda message: value in body_text(message)


def _text(value: str) -> Callable[[Message], bool]:
    return lambda message: value in header_text(message) or value in body_text(message)


def header_text(message: Message) -> str:
    """The decoded header."""
    return fold(text.header_text(message.header()))


def body_text(message: Message) -> str:
    """The decoded text parts."""
    return text.searchable_from(message.octets, message.parts)
