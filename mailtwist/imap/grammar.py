"""Octets to values and back: the tokens of one whole command (RFC 9051 §9).

A command reaches the :class:`Parser` whole, each literal in its place behind
``{n}CRLF``, as it stood on the wire. All methods take what they name at the
current position, leave the position behind it, and raise
:class:`ProtocolViolation` otherwise. Every one is linear in what it takes;
nesting is bounded; nothing recurses by itself.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TypeVar

from mailtwist.errors import ProtocolViolation
from mailtwist.imap import mutf7
from mailtwist.imap.limits import NESTING, PATTERN_OCTETS, PATTERNS, TAG_OCTETS, WILDCARDS
from mailtwist.mail import flags as system_flags
from mailtwist.mail.uidset import SequenceSet
from mailtwist.store.names import canonical

T = TypeVar("T")

MAXIMUM_NUMBER = 2**32 - 1
MAXIMUM_NUMBER64 = 2**63 - 1

_ATOM_CHAR = rb"\x21\x23\x24\x26\x27+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~"
ATOM = re.compile(rb"[" + _ATOM_CHAR + rb"]+")
ASTRING_ATOM = re.compile(rb"[" + _ATOM_CHAR + rb"\]]+")
LIST_ATOM = re.compile(rb"[" + _ATOM_CHAR + rb"\]%*]+")
TAG = re.compile(rb"[" + _ATOM_CHAR.replace(rb"+", rb"", 1) + rb"\]]+")
QUOTED = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
LITERAL = re.compile(rb"\{([0-9]{1,10})\+?\}\r\n")
NUMBER = re.compile(rb"[0-9]+")
SEQUENCE_SET = re.compile(rb"[0-9*:,]+")
BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_ESCAPE = re.compile(rb'\\(["\\])')

_DATE = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
_DATE_TIME = re.compile(
    rb'"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) '
    rb'([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = {name.upper().encode(): number for number, name in enumerate(MONTHS, 1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SYSTEM_FLAGS = {name.upper(): bit for name, bit in system_flags.SYSTEM.items()}


class Parser:
    """One whole command, read from left to right."""

    __slots__ = ("_depth", "data", "position", "utf8")

    def __init__(self, data: bytes, position: int = 0, *, utf8: bool = False) -> None:
        self.data = data
        self.position = position
        # Mailbox names are UTF-8, not modified UTF-7 (RFC 6855 §3).
        self.utf8 = utf8
        self._depth = 0

    # -- pieces -----------------------------------------------------------------------------

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.data)

    def peek(self) -> bytes:
        """The next octet, empty at the end."""
        return self.data[self.position : self.position + 1]

    def accept(self, token: bytes) -> bool:
        """Take ``token`` (case counts) if it is next."""
        if not self.data.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def expect(self, token: bytes) -> None:
        if not self.accept(token):
            raise self.violation(f"{token.decode()!r} expected")

    def space(self) -> None:
        if not self.accept(b" "):
            raise self.violation("space expected")

    def end(self) -> None:
        """Nothing may follow."""
        if not self.at_end:
            raise self.violation("unexpected text behind the arguments")

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Take what ``pattern`` matches here."""
        found = pattern.match(self.data, self.position)
        if found is not None:
            self.position = found.end()
        return found

    def take(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        found = self.match(pattern)
        if found is None:
            raise self.violation(f"{what} expected")
        return found[0]

    def violation(self, text: str) -> ProtocolViolation:
        return ProtocolViolation(f"Syntax error at octet {self.position}: {text}")

    @contextmanager
    def nested(self) -> Iterator[None]:
        """One level deeper, at most 32: for every rule that refers to itself."""
        self._depth += 1
        if self._depth > NESTING:
            raise self.violation("nested too deeply")
        yield
        self._depth -= 1

    def items(self, item: Callable[[], T], *, empty: bool = False) -> list[T]:
        """``(item item ...)``."""
        self.expect(b"(")
        found: list[T] = []
        if empty and self.accept(b")"):
            return found
        with self.nested():
            found.append(item())
            while self.accept(b" "):
                found.append(item())
        self.expect(b")")
        return found

    # -- strings ----------------------------------------------------------------------------

    def tag(self) -> bytes:
        """What stands before the command; its octets are echoed, so they are few."""
        tag = self.take(TAG, "tag")
        if len(tag) > TAG_OCTETS:
            raise self.violation("tag too long")
        return tag

    def atom(self) -> bytes:
        return self.take(ATOM, "atom")

    def keyword(self) -> str:
        """An atom that the grammar itself names, in capitals."""
        return self.atom().decode("ascii").upper()

    def astring(self) -> bytes:
        found = self.match(ASTRING_ATOM)
        return found[0] if found is not None else self.string()

    def string(self) -> bytes:
        """Quoted or literal."""
        found = self.match(QUOTED)
        if found is not None:
            text = found[1]
            return _ESCAPE.sub(rb"\1", text) if b"\\" in text else text
        return self.literal()

    def literal(self) -> bytes:
        found = self.match(LITERAL)
        if found is None:
            raise self.violation("string expected")
        end = self.position + int(found[1])
        if end > len(self.data):
            raise self.violation("literal is cut off")
        octets = self.data[self.position : end]
        self.position = end
        if b"\0" in octets:  # RFC 9051 §4.3: no NUL outside literal8
            raise self.violation("NUL in literal")
        return octets

    def nil(self) -> bool:
        """Take NIL if it is next."""
        if self.data[self.position : self.position + 3].upper() != b"NIL":
            return False
        self.position += 3
        return True

    def nstring(self) -> bytes | None:
        """A string, or None for NIL."""
        return None if self.nil() else self.string()

    def text(self) -> str:
        """An astring as text: UTF-8."""
        return self.decode(self.astring())

    def decode(self, octets: bytes) -> str:
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            raise self.violation("not valid UTF-8") from None

    def base64(self) -> bytes:
        """A base64 token; ``=`` alone is the empty string (RFC 4959 §3)."""
        return decode_base64(self.take(BASE64, "base64"))

    # -- numbers ----------------------------------------------------------------------------

    def number(self) -> int:
        return self._number(0, MAXIMUM_NUMBER)

    def nz_number(self) -> int:
        return self._number(1, MAXIMUM_NUMBER)

    def number64(self) -> int:
        return self._number(0, MAXIMUM_NUMBER64)

    def _number(self, minimum: int, maximum: int) -> int:
        digits = self.take(NUMBER, "number")
        # The length first: int() of many digits is not linear.
        if len(digits) > 19 or not minimum <= int(digits) <= maximum:
            raise self.violation("number out of range")
        return int(digits)

    def sequence_set(self) -> SequenceSet:
        return SequenceSet.parse(self.take(SEQUENCE_SET, "sequence set"))

    # -- flags ------------------------------------------------------------------------------

    def flag(self) -> str:
        r"""One flag: ``\Seen`` and its like as spelled in the RFC, a keyword as it came."""
        if self.accept(b"\\"):
            name = "\\" + self.atom().decode("ascii")
            bit = _SYSTEM_FLAGS.get(name.upper())
            if bit is None:
                raise self.violation(f"no such flag: {name}")
            return name
        return self.atom().decode("ascii")

    def flag_list(self) -> tuple[int, tuple[str, ...]]:
        """``(flag flag ...)`` as bits of system flags and names of keywords."""
        return gather_flags(self.items(self.flag, empty=True))

    def store_flags(self) -> tuple[int, tuple[str, ...]]:
        """A flag list that may stand without its parentheses (STORE)."""
        if self.peek() == b"(":
            return self.flag_list()
        found = [self.flag()]
        while self.accept(b" "):
            found.append(self.flag())
        return gather_flags(found)

    # -- dates ------------------------------------------------------------------------------

    def date(self) -> date:
        """``1-Feb-1994``, quoted or not."""
        quoted = self.accept(b'"')
        found = self.match(_DATE)
        if found is None:
            raise self.violation("date expected")
        if quoted:
            self.expect(b'"')
        try:
            return date(int(found[3]), _MONTH[found[2].upper()], int(found[1]))
        except (KeyError, ValueError):
            raise self.violation("no such date") from None

    def date_time(self) -> int:
        """``"17-Jul-1996 02:44:25 -0700"`` as microseconds since 1970."""
        found = self.match(_DATE_TIME)
        if found is None:
            raise self.violation("date-time expected")
        day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        try:
            moment = datetime(
                int(year),
                _MONTH[month.upper()],
                int(day),
                int(hour),
                int(minute),
                min(int(second), 59),  # a leap second
                tzinfo=timezone(-offset if sign == b"-" else offset),
            )
        except (KeyError, ValueError):
            raise self.violation("no such date-time") from None
        return (moment - _EPOCH) // timedelta(microseconds=1)

    # -- mailboxes --------------------------------------------------------------------------

    def mailbox(self) -> str:
        """A mailbox name: Unicode, levels parted by ``/``, INBOX in capitals."""
        return canonical(self._name(self.astring()))

    def pattern(self) -> str:
        """A LIST pattern; ``*`` and ``%`` may stand in an atom."""
        found = self.match(LIST_ATOM)
        octets = found[0] if found is not None else self.string()
        if len(octets) > PATTERN_OCTETS or octets.count(b"*") + octets.count(b"%") > WILDCARDS:
            raise self.violation("pattern too long")
        return canonical(self._name(octets))

    def patterns(self) -> list[str]:
        """One pattern, or several in parentheses (RFC 5258 §6)."""
        if self.peek() != b"(":
            return [self.pattern()]
        found = self.items(self.pattern)
        if len(found) > PATTERNS:
            raise self.violation("too many patterns")
        return found

    def _name(self, octets: bytes) -> str:
        return self.decode(octets) if self.utf8 else mutf7.decode(octets)


def gather_flags(names: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    r"""Part system flags (as bits) from keywords; each keyword once, as first spelled."""
    bits = 0
    keywords: dict[str, str] = {}
    for name in names:
        if name.startswith("\\"):
            bits |= _SYSTEM_FLAGS[name.upper()]
        else:
            keywords.setdefault(name.casefold(), name)
    return bits, tuple(keywords.values())


def decode_base64(data: bytes) -> bytes:
    """Strict base64 (RFC 4648 §3); ``=`` is the empty string (RFC 4959 §3)."""
    if data == b"=":
        return b""
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        raise ProtocolViolation("Invalid base64") from None


def no_arguments(parser: Parser) -> None:
    """The whole of what most parsers of commands say: nothing follows the name."""
    parser.end()


# -- values to octets -----------------------------------------------------------------------

_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")


def quote(octets: bytes) -> bytes:
    """A string: quoted where that is allowed, else a literal."""
    if len(octets) > 1024 or _QUOTABLE.fullmatch(octets) is None:
        return b"{%d}\r\n%b" % (len(octets), octets)
    return b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def nquote(octets: bytes | None) -> bytes:
    """A string, or NIL."""
    return b"NIL" if octets is None else quote(octets)


def format_mailbox(name: str, *, utf8: bool = False) -> bytes:
    """A mailbox name as astring."""
    if utf8:
        return b'"' + name.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    octets = mutf7.encode(name)
    if ASTRING_ATOM.fullmatch(octets) is not None and octets.upper() != b"NIL":
        return octets
    return quote(octets)


def format_date_time(microseconds: int) -> bytes:
    """INTERNALDATE, in UTC, with its quotes."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return (
        f'"{moment.day:2d}-{MONTHS[moment.month - 1]}-{moment.year:04d} '
        f'{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} +0000"'
    ).encode("ascii")
