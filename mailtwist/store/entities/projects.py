"""Developers' inboxes: each project has an account of its own that captures what it sends."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select, update

from mailtwist.errors import Conflict, ProtocolViolation
from mailtwist.mail.permissions import LOCKED, OPEN, OWNER, Bit
from mailtwist.store import accounts, projects
from mailtwist.store.entities.model import (
    PRIVATE_ROW,
    Change,
    Column,
    Entity,
    Relation,
    Type,
    by_name,
    relations,
)
from mailtwist.store.entities.tabular import Reference, Tabular
from mailtwist.store.tables import account, account_state, project

NAME: Final = "project"
MAX_NAME: Final = 63
# Of one who is no administrator: each is an account.
MAX_OF_USER: Final = 20
# What guests may do on a server that nobody administers yet is not to make accounts.
_WITHOUT_GUESTS: Final = OPEN & ~int(Bit.CREATE | Bit.UPDATE | Bit.DELETE)

_PROJECTS: Final = Tabular(
    project,
    "project_id",
    expressions={
        "username": select(account.c.username)
        .where(account.c.account_id == project.c.account_id)
        .scalar_subquery(),
        "messages": select(account_state.c.messages)
        .where(account_state.c.account_id == project.c.account_id)
        .scalar_subquery(),
    },
    references={"mail_account_id": Reference(project.c.account_id, account, account.c.account_id)},
    kinds=(projects.KIND,),
)


def _create(change: Change) -> str:
    _check_number(change)
    made = projects.add(
        change.connection,
        _checked_name(change.values["name"]),
        change.values.get("password") or (),
        owner_user_id=change.owner or 0,
        now=change.now,
        permission=change.permission,
    )
    return made.reference_id


def _checked_name(name: str) -> str:
    """Raises: ProtocolViolation naming the column."""
    try:
        return projects.folded(name)
    except ProtocolViolation as error:
        raise ProtocolViolation(f"invalid value for name: {error.text}") from error


def _check_number(change: Change) -> None:
    own = select(func.count()).where(project.c.owner_user_id == change.viewer.user_id)
    if not change.viewer.is_admin and change.connection.execute(own).scalar_one() >= MAX_OF_USER:
        raise Conflict(f"More than {MAX_OF_USER} projects")


def _update(change: Change) -> None:
    connection = change.connection
    account_id = projects.get(connection, int(change.key)).account_id
    if change.values.get("password"):
        accounts.set_secrets(connection, account_id, change.values["password"], now=change.now)
    if change.owner is not None:
        # Mailboxes and mail are rows of who owns the account.
        mine = account.c.account_id == account_id
        connection.execute(update(account).where(mine).values(owner_user_id=change.owner))
    _PROJECTS.write(change)


def _delete(change: Change) -> None:
    """Take the login away at once; the mail goes in later steps (store.steps)."""
    projects.remove(change.connection, int(change.key))


ENTITY: Final = Entity(
    name=NAME,
    doc="Developers' inboxes, each with a login of its own whose mail is captured.",
    columns=by_name(
        Column(
            "name",
            is_required=True,
            is_unique=True,
            is_fixed=True,
            is_folded=True,
            max_length=MAX_NAME,
            doc="Lower-case letters, digits and hyphens.",
        ),
        Column(
            "password",
            Type.PASSWORD,
            doc="Of the login; without one it is made up and shown once. Read as an empty text.",
        ),
        Column("username", is_readonly=True, doc="What its programs log in with."),
        Column("messages", Type.INTEGER, is_readonly=True, doc="What it holds at the moment."),
    ),
    relations=relations(
        Relation("mail_account_id", "mail_account", is_readonly=True, doc="Its mailboxes' account.")
    ),
    source=_PROJECTS,
    create=_create,
    update=_update,
    delete=_delete,
    is_private=True,
    is_shared=False,
    table_permission=LOCKED | (Bit.CREATE | Bit.UPDATE | Bit.DELETE) << OWNER,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    fresh_table_permission=_WITHOUT_GUESTS,
    labels=("name",),
)
