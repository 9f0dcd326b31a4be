"""What a list of mailboxes shows beside their names: the counters and the latest message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import case, func, select, tuple_

from mailtwist.store.engine import Connection
from mailtwist.store.tables import mailbox, mailbox_state, message

# (account_id, mailbox_id)
Key = tuple[int, int]

_messages = (message.c.account_id == mailbox_state.c.account_id) & (
    message.c.mailbox_id == mailbox_state.c.mailbox_id
)
# Nobody has looked yet: all are recent, and need not be counted.
_recent: Final = case(
    (mailbox_state.c.recent_from == 1, mailbox_state.c.messages),
    else_=select(func.count())
    .select_from(message)
    .where(_messages, message.c.uid >= mailbox_state.c.recent_from)
    .correlate(mailbox_state)
    .scalar_subquery(),
)
_latest: Final = (
    select(message.c.entry_id)
    .where(_messages)
    .order_by(message.c.uid.desc())
    .limit(1)
    .correlate(mailbox_state)
    .scalar_subquery()
)
_STATUS: Final = (
    select(
        mailbox_state.c.account_id,
        mailbox_state.c.mailbox_id,
        mailbox_state.c.messages,
        mailbox_state.c.unseen,
        _recent.label("recent"),
        mailbox_state.c.uidnext,
        mailbox.c.uidvalidity,
        _latest.label("latest_entry"),
    )
    .join(
        mailbox,
        (mailbox.c.account_id == mailbox_state.c.account_id)
        & (mailbox.c.mailbox_id == mailbox_state.c.mailbox_id),
    )
    .order_by(mailbox_state.c.account_id, mailbox_state.c.mailbox_id)
)


@dataclass(frozen=True, slots=True)
class Status:
    """``latest_entry``: of the message with the highest uid; None in an empty mailbox."""

    messages: int
    unseen: int
    recent: int
    uidnext: int
    uidvalidity: int
    latest_entry: int | None


def read(connection: Connection, keys: Collection[Key]) -> Mapping[Key, Status]:
    """The counters of some hundred mailboxes, in one statement; those that are gone miss."""
    if not keys:
        return {}
    among = tuple_(mailbox_state.c.account_id, mailbox_state.c.mailbox_id).in_(list(keys))
    rows = connection.execute(_STATUS.where(among))
    return {(account_id, number): Status(*rest) for account_id, number, *rest in rows}
