"""Which addresses a captured message was captured for; see :mod:`mailtwist.store.inbox`.

Apart from the inboxes, for everything that takes a message out of its INBOX needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import Connection

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain, fold_local_part, parse_address
from mailtwist.store.sql import Statement, many

# account_id, local_part, queue_id, domain, entry_id, address, received_at
Row = tuple[int, str, int, str, int, str, int]

MAX_QUEUE_ID: Final = 2**63 - 1

INSERT: Final = Statement(
    """
    INSERT INTO inbox_message
        (account_id, local_part, queue_id, domain, entry_id, address, received_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    """
)
_HAS_ANY = Statement("SELECT 1 FROM inbox_message WHERE account_id = ? LIMIT 1")
_FORGET = Statement("DELETE FROM inbox_message WHERE account_id = ? AND entry_id {numbers}")
_FORGET_SOME = Statement(
    """
    DELETE FROM inbox_message WHERE account_id = ? AND (local_part, queue_id, domain) IN
        (SELECT local_part, queue_id, domain FROM inbox_message WHERE account_id = ? LIMIT ?)
    """
)


def name_of(address: str) -> tuple[str, str]:
    """The name of an inbox and its domain, both folded; without a domain that is "".

    Nonsense has a name too: what nobody can receive, nobody finds.
    """
    try:
        parsed = parse_address(address)
    except ProtocolViolation:
        local_part, _, domain = address.rpartition("@")
        return (fold_local_part(local_part), _folded(domain)) if local_part else (
            fold_local_part(domain), "")  # fmt: skip
    return fold_local_part(parsed.local_part), parsed.domain


def is_possible(local_part: str | None, domain: str) -> bool:
    """Whether a row can have that name: no store holds NUL, nor half of a surrogate pair."""
    name = (local_part or "") + domain
    return "\0" not in name and name == name.encode(errors="replace").decode()


def _folded(domain: str) -> str:
    try:
        return fold_domain(domain)
    except ProtocolViolation:
        return domain.lower()


def of_entry(
    account_id: int, queue_id: int, entry_id: int, addresses: Iterable[str], received_at: int
) -> list[Row]:
    """The rows of one message, each address once."""
    named: dict[tuple[str, str], str] = {}
    for address in addresses:
        named.setdefault(name_of(address), address)
    return [
        (account_id, local_part, queue_id, domain, entry_id, address, received_at)
        for (local_part, domain), address in named.items()
    ]


def forget(connection: Connection, account_id: int, entry_ids: Collection[int]) -> None:
    """Drop the rows of messages that leave their INBOX."""
    if _HAS_ANY(connection, (account_id,)).first():
        _FORGET(connection, (account_id, many(connection, entry_ids)))


def forget_some(connection: Connection, account_id: int, limit: int) -> int:
    """Drop some rows of an account that is being removed; tells how many."""
    return _FORGET_SOME(connection, (account_id, account_id, limit)).rowcount


def condition(is_named: bool, is_held: bool) -> str:
    """The condition for the rows of an account, an inbox, a domain."""
    named = " AND i.local_part = ?" if is_named else ""
    return "i.account_id = ?" + named + (" AND i.domain = ?" if is_held else "")


def parameters(local_part: str | None, domain: str) -> list[str]:
    """Its parameters behind the account."""
    return [*([] if local_part is None else [local_part]), *([domain] if domain else [])]
