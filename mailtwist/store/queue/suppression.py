"""Foreign addresses that were refused for good: how often, and why.

The SMTP server refuses recipients with too many of these beforehand. A delivery clears
an address, as does an operator.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from mailtwist.errors import NotFound
from mailtwist.mail.address import fold_local_part
from mailtwist.store import changes
from mailtwist.store.queue.values import Attempt, Outcome
from mailtwist.store.sql import Statement, many

# The generation that is raised with every change.
KIND: Final = "suppression"


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A foreign address and its hard bounces; ``reply``: the last one's, with its codes."""

    address: str
    bounces: int
    since: int
    last_at: int
    reply: str
    queue_id: int


# RFC 3463 §3.2: of the sender's address, for which the recipient's is not to blame.
_OF_SENDERS: Final = frozenset({"5.1.7", "5.1.8"})

_COLUMNS = "address, bounces, since, last_at, reply, queue_id"
_FIND = Statement(f"SELECT {_COLUMNS} FROM suppression WHERE address = ?")
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM suppression WHERE bounces >= ? AND address > ?"
    " ORDER BY address LIMIT ?"
)
_KNOWN = Statement("SELECT address FROM suppression WHERE address {texts}")
_REMOVE = Statement("DELETE FROM suppression WHERE address {texts}")
_COUNT = Statement(
    """
    INSERT INTO suppression (address, bounces, since, last_at, reply, queue_id)
    VALUES (?, 1, ?, ?, ?, ?)
    ON CONFLICT (address) DO UPDATE SET bounces = suppression.bounces + 1,
        last_at = excluded.last_at, reply = excluded.reply, queue_id = excluded.queue_id
    """
)


def key(address: str) -> str:
    """An address in its wire form as the table's key."""
    local_part, _, domain = address.rpartition("@")
    return f"{fold_local_part(local_part)}@{domain.lower()}"


def is_hard(attempt: Attempt) -> bool:
    """Whether the other side said that there is no such mailbox."""
    return (
        attempt.outcome is Outcome.FAILED
        and 500 <= attempt.code < 600
        and attempt.stage == "rcpt"
        # RFC 3463 §3.2: bad address; §3.3: mailbox disabled
        and (attempt.status.startswith("5.1.") or attempt.status == "5.2.1")
        and attempt.status not in _OF_SENDERS
    )


def count(connection: Connection, bounced: Sequence[tuple[str, str, int, int]]) -> None:
    """Note hard bounces: (address, reply, queue_id, time) of each."""
    found = sorted(
        (key(address), at, at, reply, queue_id) for address, reply, queue_id, at in bounced
    )
    if found:
        _COUNT.each(connection, found)
        changes.bump(connection, KIND)


def clear(connection: Connection, addresses: Collection[str]) -> None:
    """Forget addresses that took mail: one look-up when none of them is there."""
    if not addresses:
        return
    wanted = many(connection, {key(address) for address in addresses})
    known = sorted(row[0] for row in _KNOWN(connection, (wanted,)))
    if known:
        _REMOVE(connection, (many(connection, known),))
        changes.bump(connection, KIND)


def find(connection: Connection, address: str) -> Suppressed | None:
    """What is known against an address; None: nothing."""
    row = _FIND(connection, (key(address),)).first()
    return None if row is None else Suppressed(*row)


def list(
    connection: Connection, *, at_least: int = 1, after: str = "", limit: int = 100
) -> tuple[Suppressed, ...]:
    """Addresses with ``at_least`` so many bounces, by name, from behind ``after``."""
    return tuple(Suppressed(*row) for row in _LIST(connection, (at_least, after, limit)))


def remove(connection: Connection, address: str) -> None:
    """Let an address receive mail again. Raises: NotFound."""
    if not _REMOVE(connection, (many(connection, [key(address)]),)).rowcount:
        raise NotFound("No such suppressed address")
    changes.bump(connection, KIND)
