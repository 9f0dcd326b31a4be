"""What a row shows of a message's octets: the whole as base64, the first text as text.

Read in ranges of at most 1 MiB; an answer never holds more than its bound.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from mailtwist.errors import Refusal
from mailtwist.mail.parts import Kind, Part, decode
from mailtwist.mail.text import part_text
from mailtwist.store import content

MAX_BODY: Final = 64 * 1024  # octets of the first text that are looked at
# What one answer may hold of whole messages. A single message may be larger.
MAX_RAW: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Octets:
    """A stored message: ``prefix`` stands before ``octets`` octets of a content."""

    content_id: int
    octets: int
    prefix: bytes = b""


class Budget:
    """Counts what an answer holds of whole messages."""

    def __init__(self) -> None:
        self._left = MAX_RAW
        self._is_first = True

    def take(self, octets: int) -> None:
        """Raises: Refusal when the answer would be too large; never for its first message."""
        self._left -= octets
        if self._left < 0 and not self._is_first:
            raise Refusal("Too many octets: ask for fewer messages with their raw text at a time")
        self._is_first = False


def raw(connection: Connection, message: Octets, budget: Budget) -> str:
    """The whole message in base64; "" when the store has given its content up."""
    if not message.content_id:
        return ""
    budget.take(len(message.prefix) + message.octets)
    gathered = bytearray(message.prefix)
    for start in range(0, message.octets, content.CHUNK):
        end = min(start + content.CHUNK, message.octets)
        gathered += content.read(connection, message.content_id, start, end)
    return b64encode(gathered).decode("ascii")


def body(connection: Connection, message: Octets, parts: bytes, budget: Budget) -> str:
    """The first text part, decoded; text/plain before others, "" when there is none."""
    part = _first_text(parts)
    if part is None or not message.content_id:
        return ""
    end = min(part.end, part.header_end + MAX_BODY)
    budget.take(end - part.header_end)
    octets = content.read(connection, message.content_id, part.header_end, end)
    return part_text(octets, part)


def content_type(parts: bytes) -> str:
    """The media type of the message as a whole."""
    first, _, _ = parts.partition(b"\n")
    words = first.split(b" ")
    return words[5].decode("ascii", "replace") if len(words) > 5 else ""


def _first_text(parts: bytes) -> Part | None:
    if not parts:
        return None
    found = None
    for part in decode(parts).walk():
        if part.kind is Kind.LEAF and part.content_type.startswith("text/"):
            if part.content_type == "text/plain":
                return part
            found = found or part
    return found
