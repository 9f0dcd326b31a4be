"""The server as a whole: its first administrator, its listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from mailtwist.actions.registry import (
    FOR_USERS,
    Context,
    Operation,
    Response,
    notify,
    redirect,
)
from mailtwist.errors import Conflict, Refusal
from mailtwist.store import administration
from mailtwist.store.administration import TableRights
from mailtwist.store.engine import Connection
from mailtwist.store.entities.model import Item
from mailtwist.store.entities.registry import ENTITIES
from mailtwist.store.ids import now_us


async def become_administrator(
    context: Context, _attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Make the viewer the first administrator and shut the tables, in one write.

    Raises: Refusal when there is one already, or for a guest.
    """
    viewer = context.viewer
    if viewer.is_guest or not await make_first(context.services.database, viewer.user_id):
        raise Refusal("Unauthorized")
    return redirect("/", 7000), Response("Restart")


async def make_first(database: Any, user_id: int) -> bool:
    """Make a user the administrator; False: there is one already."""
    is_first: bool = await database.write(partial(_made_first, user_id=user_id, now=now_us()))
    return is_first


def become_first(connection: Connection, *, user_id: int, now: int) -> None:
    """The same in a transaction. Raises: Refusal when there is one already, or for a guest."""
    if not user_id or not _made_first(connection, user_id=user_id, now=now):
        raise Refusal("Unauthorized")


def _made_first(connection: Connection, *, user_id: int, now: int) -> bool:
    # Late: the table of all operations names this one.
    from mailtwist.actions.builtin import OPERATIONS as ALL

    tables = {
        name: TableRights(entity.table_permission, entity.row_permission)
        for name, entity in ENTITIES.items()
    }
    return administration.become_administrator(
        connection,
        user_id,
        tables=tables,
        actions=[operation.row for operation in ALL.values()],
        now=now,
    )


async def sync_mail_servers(
    context: Context, _attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Bring the listeners in line with the rows. Raises: Conflict, which names what clashes."""
    if context.services.is_smtp_disabled:
        raise Conflict("SMTP is disabled by the configuration (disable_smtp)")
    await context.services.reconciliation.apply()
    return ()


async def restart(
    context: Context, _attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Rebuild what runs from what is wanted, right after the answer."""
    context.services.reconciliation.restart()
    return notify("Initiating system update."), redirect("/", 5000)


OPERATIONS: Final = (
    Operation(
        "world",
        "become_an_administrator",
        "Become an administrator",
        become_administrator,
        # Whoever comes second is told so.
        permission=FOR_USERS,
    ),
    Operation("mail_server", "sync_mail_servers", "Sync mail servers", sync_mail_servers),
    Operation("world", "restart_daptin", "Restart", restart),
)
