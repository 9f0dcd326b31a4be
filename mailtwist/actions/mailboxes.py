"""Mailboxes as people and programs give them: ``a@x``, ``Ann <a@x>``, many with commas, a list
of these or of objects, ``{"email": "a@x", "name": "Ann"}``.

RFC 5322 §3.4, without groups and comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, parse_address
from mailtwist.mail.header import encode_words
from mailtwist.mail.words import decode_words

# Of one field. Whoever has more than these has a mailing list.
MAX_GIVEN: Final = 1000
MAX_TEXT: Final = 1 << 16
MAX_NAME: Final = 200

# What some program somewhere takes for the end of a line, and all that nobody can see.
BREAKS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")

# A name or an address, an address in angle brackets behind a name, and what parts it from more.
_ITEM = re.compile(
    r'\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^"<>,;]*+))'
    r"\s*+(?:<(?P<address>[^<>]*+)>)?\s*+(?:[,;]|\Z)"
)
_PAIR = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Mailbox:
    address: Address
    name: str = ""

    def __str__(self) -> str:
        """As it stands in a header field."""
        if not self.name:
            return str(self.address)
        if self.name.isascii():
            quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{quoted}" <{self.address}>'
        # RFC 2047 §5: an encoded word never stands inside quotes.
        return f"{encode_words(self.name)} <{self.address}>"


def breaks(text: str) -> bool:
    """Whether a text may end a line, as it is or once a reader undoes its encoded words."""
    if BREAKS.search(text) is not None:
        return True
    return "=?" in text and BREAKS.search(decode_words(text.encode("utf-8", "replace"))) is not None


def read(field: str, given: Any) -> tuple[Mailbox, ...]:
    """The mailboxes that a text, an object or a list of these names; none for None and "".

    Raises: ProtocolViolation, which names the field.
    """
    if given is None:
        return ()
    items = given if isinstance(given, list) else [given]
    found: list[Mailbox] = []
    for item in items[: MAX_GIVEN + 1]:
        if isinstance(item, Mapping):
            found.append(_of_object(field, item))
        elif isinstance(item, str):
            found += _of_text(field, item)
        else:
            raise _refusal(field, item)
    if len(found) > MAX_GIVEN or len(items) > MAX_GIVEN:
        raise ProtocolViolation(f"invalid value for {field}: too many addresses")
    return tuple(found)


def _of_text(field: str, text: str) -> list[Mailbox]:
    if breaks(text) or len(text) > MAX_TEXT:
        raise _refusal(field, text)
    text = text.strip()
    if not text:
        return []
    try:
        return [Mailbox(parse_address(text))]
    except ProtocolViolation:
        return _split(field, text)


def _of_object(field: str, item: Mapping[str, Any]) -> Mailbox:
    address, name = item.get("email", item.get("address")), item.get("name") or ""
    if not isinstance(address, str) or breaks(address):
        raise _refusal(field, address)
    if not isinstance(name, str) or breaks(name):
        raise _refusal(field, name, "name")
    return _checked(field, address, " ".join(name.split()))


def _split(field: str, text: str) -> list[Mailbox]:
    found: list[Mailbox] = []
    at = 0
    while at < len(text):
        matched = _ITEM.match(text, at)
        if matched is None or len(found) > MAX_GIVEN:
            raise _refusal(field, text)
        at = matched.end()
        if matched.group().strip(" \t,;"):
            found.append(_mailbox(field, matched))
    return found


def _mailbox(field: str, matched: re.Match[str]) -> Mailbox:
    quoted, plain, address = matched.group("quoted", "plain", "address")
    name = _PAIR.sub(r"\1", quoted) if quoted is not None else " ".join(plain.split())
    if address is None:
        address, name = (plain or "").strip(), ""
    return _checked(field, address, name)


def _checked(field: str, address: str, name: str) -> Mailbox:
    if len(name) > MAX_NAME:
        raise _refusal(field, name, "name")
    try:
        name.encode("utf-8")
        return Mailbox(parse_address(address.strip()), name)
    except (ProtocolViolation, UnicodeEncodeError) as error:
        raise _refusal(field, address) from error


def _refusal(field: str, given: Any, expected: str = "address") -> ProtocolViolation:
    shown = ascii(given if isinstance(given, str) else type(given).__name__)[:100]
    return ProtocolViolation(f"invalid value for {field}: {shown} is no {expected}")
