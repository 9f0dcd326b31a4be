"""Address fields of a header as the address lists of ENVELOPE (RFC 9051 §7.5.2).

Whatever the field holds, each address comes out as a whole tuple (name route
mailbox host): a host that is missing is the empty string, because NIL there
means the start or end of a group. Encoded words stay as they are.

RFC 5322 §3.4, §4.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailtwist.mail.fields import unquote
from mailtwist.mail.wire import string

MAX_ADDRESSES: Final = 1000  # in one field

_ATOM = rb'[^\s"(),:;<>@\[\\\]]'
# "Name" <local@host>, Name <local@host> or local@host, up to the next comma.
_COMMON = re.compile(
    rb'[\s,]*+(?:(?:"([^"\\]*+)"\s*+|([^"(),:;<>@\[\\\]]*+))<(%b++)@(%b++)>|(%b++)@(%b++))'
    rb"\s*+(?:,|\Z)" % (_ATOM, _ATOM, _ATOM, _ATOM)
)
_TOKEN = re.compile(
    rb'(?P<blank>\s++)|"(?P<quoted>[^"\\]*+(?:\\[\s\S][^"\\]*+)*+)"?|(?P<literal>\[[^\]]*+\]?)'
    rb"|(?P<atom>%b++)|(?P<special>[\s\S])" % _ATOM
)
_COMMENT_MARK = re.compile(rb"\\[\s\S]|[()]")
_BLANK_DOT = re.compile(rb" ?\. ?")

_GROUP_END: Final = b"(NIL NIL NIL NIL)"


@dataclass(slots=True)
class Budget:
    """What one message may cost, whatever the number of its fields."""

    addresses: int = 4000
    tokens: int = 20000


def render_addresses(value: bytes, budget: Budget) -> list[bytes]:
    """The tuples of an unfolded address field without NUL, as many as the budget allows."""
    limit = min(MAX_ADDRESSES, budget.addresses)
    found = _render(value, limit, budget)
    budget.addresses -= len(found)
    return found


def _render(value: bytes, limit: int, budget: Budget) -> list[bytes]:
    found: list[bytes] = []
    plain = value.isascii()
    at, end = 0, len(value)
    while at < end and len(found) < limit:
        match = _COMMON.match(value, at)
        if match is None:
            # Something rare: groups, comments, routes, errors.
            return _Rare(value, at, found, limit).read(budget)
        quoted, words, local, host, bare_local, bare_host = match.groups()
        at = match.end()
        if local is None:
            local, host = bare_local, bare_host
        name = quoted or b" ".join((words or b"").split())
        if plain:
            # The pattern lets nothing through that would need escaping.
            rendered = b'"%b"' % name if name else b"NIL"
            found.append(b'(%b NIL "%b" "%b")' % (rendered, local, host))
        else:
            found.append(_tuple(name, b"", local, host))
    return found


def _tuple(name: bytes, route: bytes, mailbox: bytes, host: bytes) -> bytes:
    return b"(%b %b %b %b)" % (
        string(name) if name else b"NIL",
        string(route) if route else b"NIL",
        string(mailbox),
        string(host),
    )


class _Rare:
    """Reads the rest of a field token by token, in one pass."""

    def __init__(self, value: bytes, at: int, found: list[bytes], limit: int) -> None:
        self._value = value
        self._at = at
        self._found = found
        self._limit = limit
        self._in_group = False
        self._clear()

    def _clear(self) -> None:
        self._words: list[bytes | None] = []  # None: blanks
        self._phrase = self._comment = self._route = self._local = self._host = b""
        self._in_angle = self._at_sign = self._is_begun = self._is_closed = False

    def read(self, budget: Budget) -> list[bytes]:
        value, end = self._value, len(self._value)
        while self._at < end and len(self._found) < self._limit and budget.tokens > 0:
            match = _TOKEN.match(value, self._at)
            assert match is not None, "the last alternative takes any octet"
            self._at = match.end()
            budget.tokens -= 1
            self._take(match.lastgroup or "", match)
        self._finish()
        if self._in_group:
            self._found.append(_GROUP_END)
        return self._found

    def _take(self, kind: str, match: re.Match[bytes]) -> None:
        if kind == "blank":
            if self._words:
                self._words.append(None)
        elif kind == "quoted":
            self._words.append(unquote(match["quoted"]))
            self._is_begun = True
        elif kind == "special" and match[0] in _MARKS:
            self._special(match[0])
        else:
            self._words.append(match[0])
            self._is_begun = True

    def _special(self, mark: bytes) -> None:
        # Inside "<@a,@b:" comma and at sign belong to the route.
        in_route = self._in_angle and mark in b",@" and self._route_begun()
        no_group = mark == b":" and not self._in_angle and (self._in_group or self._at_sign)
        if in_route or no_group:
            self._words.append(mark)
            return
        _MARKS[mark](self)

    def _end_group(self) -> None:
        self._finish()
        if self._in_group:
            self._found.append(_GROUP_END)
        self._in_group = False

    def _take_colon(self) -> None:
        if self._in_angle:
            self._route, self._at_sign, self._local = self._taken(), False, b""
            return
        self._found.append(b"(NIL NIL %b NIL)" % string(self._taken()))
        self._in_group = True
        self._clear()

    def _close_angle(self) -> None:
        if self._in_angle:
            self._host, self._in_angle, self._is_closed = self._taken(), False, True

    def _route_begun(self) -> bool:
        """Whether what stands in the angle so far is the route ``@a,@b`` before a colon."""
        if self._route or self._at_sign:
            return False
        return not self._words or self._words[0] == b"@"

    def _open_angle(self) -> None:
        words = self._taken()
        if self._is_closed:
            # A second angle without a comma between them.
            self._finish()
        elif self._at_sign:
            # "ann@example.org <ann@example.org>": an address for a name.
            words = b"%b %b@%b" % (self._phrase, self._local, words)
        self._at_sign, self._local = False, b""
        self._phrase, self._in_angle, self._is_begun = words.strip(), True, True

    def _take_at_sign(self) -> None:
        if self._is_closed:
            return
        if self._at_sign:
            # A second one: the first belonged to the local part.
            self._local += b"@" + self._taken()
            return
        while self._words and self._words[-1] is None:
            self._words.pop()
        words = self._words
        if not self._in_angle and None in words:
            # "Ann Example ann@example.org": only the last word is the local part.
            cut = len(words) - words[::-1].index(None)
            self._words = words[:cut]
            self._phrase = self._taken()
            self._words = words[cut:]
        self._local, self._at_sign, self._is_begun = self._taken(), True, True

    def _taken(self) -> bytes:
        text = b"".join([b" " if word is None else word for word in self._words])
        self._words = []
        return text.strip(b" ")

    def _skip_comment(self) -> None:
        depth, start = 1, self._at
        for match in _COMMENT_MARK.finditer(self._value, start):
            depth += {b"(": 1, b")": -1}.get(match[0], 0)
            if depth == 0:
                self._comment = self._comment or self._value[start : match.start()]
                self._at = match.end()
                return
        self._comment = self._comment or self._value[start:]
        self._at = len(self._value)

    def _finish(self) -> None:
        text = self._host if self._is_closed else self._taken()
        if self._is_begun:
            self._found.append(self._render(text))
        self._clear()

    def _render(self, text: bytes) -> bytes:
        # "ann@example.org (Ann Example)": the comment is the name (RFC 5322 §3.4).
        name = self._phrase or unquote(self._comment)
        if self._at_sign:
            return _tuple(name, self._route, self._local, _BLANK_DOT.sub(b".", text))
        if not self._is_closed and not self._in_angle and b" " in text:
            return _tuple(text, b"", b"", b"")
        return _tuple(name, self._route, text, b"")


_MARKS: Final[dict[bytes, Callable[[_Rare], None]]] = {
    b"(": _Rare._skip_comment,
    b",": _Rare._finish,
    b";": _Rare._end_group,
    b"<": _Rare._open_angle,
    b">": _Rare._close_angle,
    b"@": _Rare._take_at_sign,
    b":": _Rare._take_colon,
}
