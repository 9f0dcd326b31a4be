"""Work too large for one unit, repeated until it is done.

Each step is committed by itself; a crash between two leaves rows that say so, and
:func:`resume` goes on with them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from mailtwist.store import accounts, mailboxes

T = TypeVar("T")


class Store(Protocol):
    """What is needed of :class:`mailtwist.store.database.Database`."""

    def read(self, work: Callable[[Connection], T]) -> Awaitable[T]: ...
    def write(
        self, work: Callable[[Connection], T], *, accounts: Collection[int] = ...
    ) -> Awaitable[T]: ...


async def _repeat(database: Store, account_id: int, step: Callable[[Connection], bool]) -> None:
    while not await database.write(step, accounts=(account_id,)):
        pass


async def delete_mailbox(database: Store, account_id: int, name: str) -> int:
    """Delete a mailbox however large; tells its number.

    See :func:`mailboxes.delete` for what it raises.
    """
    deletion = await database.write(
        lambda connection: mailboxes.delete(connection, account_id, name), accounts=(account_id,)
    )
    if not deletion.finished:
        await _empty_mailbox(database, account_id, deletion.mailbox_id)
    return deletion.mailbox_id


async def _empty_mailbox(database: Store, account_id: int, mailbox_id: int) -> None:
    await _repeat(
        database,
        account_id,
        lambda connection: mailboxes.remove_step(connection, account_id, mailbox_id),
    )


async def rename_mailbox(database: Store, account_id: int, old: str, new: str) -> None:
    """Rename a mailbox, or move INBOX's messages however many; see :func:`mailboxes.rename`."""
    renaming = await database.write(
        lambda connection: mailboxes.rename(connection, account_id, old, new),
        accounts=(account_id,),
    )
    if not renaming.finished:
        await _repeat(
            database,
            account_id,
            lambda connection: mailboxes.rename_step(connection, account_id, renaming.name),
        )


async def remove_account(database: Store, account_id: int) -> None:
    """Remove an account and all it holds."""
    await _repeat(database, account_id, partial(accounts.remove_step, account_id=account_id))


async def resume(database: Store) -> None:
    """Go on with removals that were cut short."""
    for account_id in await database.read(accounts.removing):
        await remove_account(database, account_id)
    while hidden := await database.read(mailboxes.deleted):
        for account_id, mailbox_id in hidden:
            await _empty_mailbox(database, account_id, mailbox_id)
