"""The keywords of an account: bits 8 to 62 of the flags, each with a name.

A bit, once given, keeps its meaning, so that a copy inside the account needs no translation.
Names compare without case and are shown as first spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection

from mailtwist.errors import Refusal
from mailtwist.mail.flags import FIRST_KEYWORD_BIT, LAST_KEYWORD_BIT
from mailtwist.store.sql import Statement, many

MAX_NAME: Final = 100
CAPACITY: Final = LAST_KEYWORD_BIT - FIRST_KEYWORD_BIT + 1
_ALL: Final = (1 << LAST_KEYWORD_BIT + 1) - (1 << FIRST_KEYWORD_BIT)

# RFC 9051 §9: flag-keyword = atom.
_ATOM = re.compile(r'[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]+')

_LOAD = Statement("SELECT account_id, bit, name FROM keyword WHERE account_id {numbers}")
_INSERT = Statement("INSERT INTO keyword (account_id, bit, name, folded) VALUES (?, ?, ?, ?)")


@dataclass(frozen=True, slots=True)
class Keywords:
    """``names``: bit number to name; ``bits``: folded name to bit number."""

    names: Mapping[int, str] = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Mapping[int, str]) -> Keywords:
        bits = {name.lower(): bit for bit, name in names.items()}
        return cls(MappingProxyType(dict(sorted(names.items()))), MappingProxyType(bits))

    @property
    def is_full(self) -> bool:
        r"""No new name fits: PERMANENTFLAGS then lacks ``\*``."""
        return len(self.names) >= CAPACITY

    def mask(self, names: Iterable[str]) -> int:
        """Join the bits of those names that are known."""
        known = (self.bits.get(name.lower()) for name in names)
        mask = 0
        for bit in known:
            mask |= 1 << bit if bit is not None else 0
        return mask

    def spelled(self, flags: int) -> list[str]:
        """List the keywords that are set."""
        if not flags & _ALL:
            return []
        return [name for bit, name in self.names.items() if flags >> bit & 1]

    def missing(self, names: Iterable[str]) -> dict[str, str]:
        """Find the names that have no bit: folded to spelled, each once."""
        wanted: dict[str, str] = {}
        for name in names:
            if name.lower() not in self.bits:
                wanted.setdefault(name.lower(), name)
        return wanted


EMPTY: Final = Keywords.of({})


def is_valid(name: str) -> bool:
    return len(name) <= MAX_NAME and _ATOM.fullmatch(name) is not None


def load(connection: Connection, account_id: int) -> Keywords:
    """Read the keywords of an account."""
    return load_all(connection, (account_id,))[account_id]


def load_all(connection: Connection, account_ids: Iterable[int]) -> dict[int, Keywords]:
    """Read the keywords of several accounts in one statement."""
    names: dict[int, dict[int, str]] = {account_id: {} for account_id in account_ids}
    for account_id, bit, name in _LOAD(connection, (many(connection, names),)):
        names[account_id][bit] = name
    return {number: Keywords.of(known) if known else EMPTY for number, known in names.items()}


def add(connection: Connection, account_id: int, names: Iterable[str]) -> Keywords:
    """Give bits to those names that lack one; the caller holds the account's lock.

    Raises Refusal with imap_code LIMIT when a name is no atom or no bit is left, having
    changed nothing.
    """
    known = load(connection, account_id)
    wanted = known.missing(names)
    if not wanted:
        return known
    if not all(map(is_valid, wanted.values())):
        raise Refusal(f"A keyword is an atom of at most {MAX_NAME} characters", imap_code="LIMIT")
    if len(known.names) + len(wanted) > CAPACITY:
        raise Refusal(f"No more than {CAPACITY} keywords", imap_code="LIMIT")
    return _insert(connection, {account_id: wanted}, {account_id: known})[account_id]


def add_fitting(connection: Connection, names: Mapping[int, Iterable[str]]) -> dict[int, Keywords]:
    """Give bits to the keywords of messages that arrive, for several accounts at once.

    What is no atom or finds no bit is left out: a message counts for more than its keywords.
    """
    known = load_all(connection, names)
    wanted: dict[int, dict[str, str]] = {}
    for account_id, spelled in names.items():
        room = CAPACITY - len(known[account_id].names)
        fitting = [
            item for item in known[account_id].missing(spelled).items() if is_valid(item[1])
        ][:room]
        if fitting:
            wanted[account_id] = dict(fitting)
    return _insert(connection, wanted, known)


def _insert(
    connection: Connection, wanted: Mapping[int, dict[str, str]], known: dict[int, Keywords]
) -> dict[int, Keywords]:
    rows = []
    for account_id, spelled in wanted.items():
        names = dict(known[account_id].names)
        free = [n for n in range(FIRST_KEYWORD_BIT, LAST_KEYWORD_BIT + 1) if n not in names]
        for (folded, name), bit in zip(spelled.items(), free, strict=False):
            names[bit] = name
            rows.append((account_id, bit, name, folded))
        known[account_id] = Keywords.of(names)
    _INSERT.each(connection, rows)
    return known
