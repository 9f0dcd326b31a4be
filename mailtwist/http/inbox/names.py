"""What a request to ``/emails`` names: an inbox, a message, and the parameters beside them.

A path is taken apart as it was sent, before its escapes are undone: ``%2F`` is a character of
a name and never parts it. A ``+tag`` belongs to the name; letter case does not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from mailtwist.errors import NotFound, ProtocolViolation
from mailtwist.http.exchange import Exchange
from mailtwist.http.inbox.finding import Wanted, search_of
from mailtwist.mail.address import MAX_LOCAL_PART, MAX_PATH
from mailtwist.mail.inbox_query import parse
from mailtwist.store.inbox import name_of

MAX_LIMIT: Final = 50
MAX_TIMEOUT_S: Final = 300.0
DEFAULT_TIMEOUT_S: Final = 30.0
MAX_FILTER: Final = 1_000  # characters of `subject` and `from`

_LINE_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBER = re.compile(r"[0-9]{1,19}")
_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{0,9})?")
# Ids count milliseconds in their upper bits and are far above; seconds since 1970 are below.
_FIRST_ID: Final = 10**11


@dataclass(frozen=True, slots=True)
class Name:
    """An inbox. ``spelled``: as the request has it, decoded; the others are folded."""

    spelled: str
    local_part: str
    domain: str


def segments(path: str) -> tuple[str, ...]:
    """What stands behind ``/emails/``, each piece decoded. Raises: ProtocolViolation, NotFound."""
    first, *pieces = map(_unquoted, path.lstrip("/").split("/"))
    if first != "emails":
        raise NotFound()  # "/emails%2Fbob" is one piece, though a route was found
    return tuple(pieces)


def _unquoted(piece: str) -> str:
    try:
        return unquote_to_bytes(piece).decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolViolation("The path is not UTF-8") from None


def read_name(text: str) -> Name:
    """Read ``bob``, or ``bob@inbox.example`` of that domain alone. Raises: ProtocolViolation."""
    if _LINE_BREAKS.search(text):
        raise ProtocolViolation("The name of an inbox has no control characters")
    if len(text.encode("utf-8", "replace")) > MAX_PATH:
        raise ProtocolViolation("The name of the inbox is too long")
    local_part, domain = name_of(text)
    if not local_part or text.startswith("@"):
        raise ProtocolViolation("The name of an inbox begins with its local part")
    # RFC 5321 §4.5.3.1.1
    if len(local_part.encode("utf-8", "replace")) > MAX_LOCAL_PART:
        raise ProtocolViolation(f"The name of an inbox has at most {MAX_LOCAL_PART} octets")
    return Name(text, local_part, domain)


def read_id(text: str) -> int:
    """The id of a message. Raises: NotFound for what can be none."""
    if _NUMBER.fullmatch(text) is None:
        raise NotFound("No such message")
    return int(text)


def read_limit(exchange: Exchange) -> int:
    """How many messages a list may have; more than ``MAX_LIMIT`` are never in it."""
    text = exchange.first("limit")
    if not text:
        return MAX_LIMIT
    if _NUMBER.fullmatch(text) is None or not int(text):
        raise ProtocolViolation("limit: a number from 1 to 50 is expected")
    return min(int(text), MAX_LIMIT)


def read_before(exchange: Exchange) -> int | None:
    """The id of the message that a list goes on behind."""
    text = exchange.first("before")
    if not text:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise ProtocolViolation("before: the id of a message is expected")
    return int(text)


def read_timeout(exchange: Exchange) -> float:
    """How long to wait, in seconds."""
    text = exchange.first("timeout")
    if not text:
        return DEFAULT_TIMEOUT_S
    if _SECONDS.fullmatch(text) is None or float(text) > MAX_TIMEOUT_S:
        raise ProtocolViolation(f"timeout: seconds from 0 to {MAX_TIMEOUT_S:g} are expected")
    return float(text)


def read_wanted(exchange: Exchange, account_id: int, name: Name | None) -> Wanted:
    """What a list or a waiting client asks for. Raises: ProtocolViolation."""
    query = exchange.first("query")
    return Wanted(
        account_id,
        name.local_part if name is not None else None,
        name.domain if name is not None else "",
        tree=search_of(parse(query)) if query else None,
    )


def read_awaited(exchange: Exchange, account_id: int, name: Name) -> Wanted:
    """The same with what only waiting takes: ``subject``, ``from`` and ``after``."""
    asked = read_wanted(exchange, account_id, name)
    after_id, after_us = _after(exchange.first("after"))
    return replace(
        asked,
        subject=_filter(exchange, "subject"),
        sender=_filter(exchange, "from"),
        after_id=after_id,
        after_us=after_us,
    )


def _filter(exchange: Exchange, name: str) -> str:
    text = exchange.first(name)
    if len(text) > MAX_FILTER:
        raise ProtocolViolation(f"{name}: at most {MAX_FILTER} characters are taken")
    return text


def _after(text: str) -> tuple[int, int]:
    """(id, microseconds), one of them 0."""
    if not text:
        return 0, 0
    if _NUMBER.fullmatch(text) is not None and int(text) >= _FIRST_ID:
        return int(text), 0
    if _SECONDS.fullmatch(text) is None:
        raise ProtocolViolation("after: the id of a message, or seconds since 1970, are expected")
    seconds, _, fraction = text.partition(".")
    return 0, int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
