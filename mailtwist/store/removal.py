"""Removing an account: at once for the outside, then in bounded steps."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, select, update

from mailtwist.store import changes, content, inbox_rows
from mailtwist.store.expunge import DELETE_DETAILS
from mailtwist.store.sql import Statement, many
from mailtwist.store.tables import (
    account,
    account_secret,
    account_state,
    address,
    keyword,
    mailbox,
    mailbox_state,
    project,
    subscription,
)

REMOVING: Final = "removing"

_LOCK = Statement("SELECT s.account_id FROM account_state AS s WHERE s.account_id = ? {lock s}")
_SOME_MESSAGES = Statement(
    """
    DELETE FROM message WHERE account_id = ? AND (mailbox_id, uid) IN
        (SELECT mailbox_id, uid FROM message WHERE account_id = ? LIMIT ?)
    """
)
_SOME_EMAILS = Statement(
    """
    DELETE FROM email WHERE email_id IN
        (SELECT email_id FROM email WHERE email_id BETWEEN ? AND ? LIMIT ?)
    RETURNING email_id, content_id
    """
)
_SOME_EXPUNGED = Statement(
    """
    DELETE FROM expunged WHERE account_id = ? AND (mailbox_id, modseq) IN
        (SELECT mailbox_id, modseq FROM expunged WHERE account_id = ? LIMIT ?)
    """
)


def remove_step(connection: Connection, account_id: int, limit: int = 1000) -> bool:
    """Take one bounded step of removing an account; tells whether nothing is left.

    The first step shuts it: no login, no delivery, and the name is free again. A crash
    leaves the account in state ``removing``; see :func:`removing`.
    """
    state = connection.execute(
        select(account.c.state).where(account.c.account_id == account_id)
    ).scalar()
    if state is None:
        return True
    if state != REMOVING:
        _shut(connection, account_id)
        return False
    # A delivery that waited for the lock while the account was shut may have come after.
    _LOCK(connection, (account_id,))
    if inbox_rows.forget_some(connection, account_id, limit):
        return False
    keys = (account_id, account_id)
    emails = (account_id << 32, (account_id + 1 << 32) - 1)
    for step, key in ((_SOME_MESSAGES, keys), (_SOME_EMAILS, emails), (_SOME_EXPUNGED, keys)):
        done = step(connection, (*key, limit))
        if step is _SOME_EMAILS:
            count = len(done.rows)
            DELETE_DETAILS(connection, (many(connection, [row[0] for row in done]),))
            content.doubt(connection, [row[1] for row in done])
        else:
            count = done.rowcount
        if count:
            return False
    for table in (subscription, keyword, mailbox_state, mailbox, account_state, account):
        connection.execute(delete(table).where(table.c.account_id == account_id))
    return True


def removing(connection: Connection) -> list[int]:
    """List accounts whose removal has begun and not ended."""
    query = select(account.c.account_id).where(account.c.state == REMOVING)
    return list(connection.execute(query).scalars())


def _shut(connection: Connection, account_id: int) -> None:
    # The lock comes first, as in every unit: a delivery under way ends before.
    modseq = connection.execute(
        update(account_state)
        .where(account_state.c.account_id == account_id)
        .values(modseq=account_state.c.modseq + 1)
        .returning(account_state.c.modseq)
    ).scalar_one()
    connection.execute(
        update(account)
        .where(account.c.account_id == account_id)
        .values(
            state=REMOVING,
            username=f"removing#{account_id}",
            auth_version=account.c.auth_version + 1,
        )
    )
    for table in (address, account_secret, project):
        connection.execute(delete(table).where(table.c.account_id == account_id))
    changes.bump(connection, "account")
    changes.bump(connection, "address")
    changes.bump(connection, "project")
    changes.touched(connection, account_id, 0, modseq)
