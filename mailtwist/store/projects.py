"""Developers' projects: each has an account, and whatever that sends is captured in it.

The account is ``<name>@projects.invalid`` with a login of its own; its INBOX holds what was
captured (:mod:`mailtwist.store.inbox`).
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select

from mailtwist.errors import Conflict, NotFound, ProtocolViolation
from mailtwist.mail.permissions import OWN_MAIL
from mailtwist.store import accounts, changes, domains
from mailtwist.store.accounts import Verifier
from mailtwist.store.ledger import microseconds
from mailtwist.store.reference import reference_id
from mailtwist.store.sql import Statement
from mailtwist.store.tables import account, project

# The kind of :mod:`mailtwist.store.changes`.
KIND: Final = "project"
DOMAIN: Final = "projects.invalid"  # can be nobody's (RFC 2606 §2)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Keys name a project by its id: nobody may call his own so.
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_CAPTURING = Statement("SELECT 1 FROM project WHERE account_id = ?")


@dataclass(frozen=True, slots=True)
class Project:
    """``owner_user_id`` 0: nobody, administrators see it; times in microseconds."""

    project_id: int
    name: str
    account_id: int
    reference_id: str
    owner_user_id: int
    permission: int
    created_at: int
    updated_at: int

    @property
    def username(self) -> str:
        return username(self.name)


_COLUMNS: Final = (
    project.c.project_id,
    project.c.name,
    project.c.account_id,
    project.c.reference_id,
    project.c.owner_user_id,
    project.c.permission,
    project.c.created_at,
    project.c.updated_at,
)


def username(name: str) -> str:
    """The login of a project, which is its account's address."""
    return f"{name}@{DOMAIN}"


def folded(name: str) -> str:
    """A name as it is kept. Raises: ProtocolViolation for what is none."""
    name = name.strip().lower()
    if _NAME.fullmatch(name) is None:
        raise ProtocolViolation(
            "A project's name is 1 to 63 letters, digits and hyphens, with no hyphen at its ends"
        )
    if _ID.fullmatch(name):
        raise ProtocolViolation(f"{name} looks like an id")
    return name


def capturing(connection: Connection, account_id: int) -> bool:
    """Whether an account is a project's."""
    return _CAPTURING(connection, (account_id,)).first() is not None


def find(connection: Connection, name: str) -> Project | None:
    """A project by its name in any case, or by its reference id."""
    given = name.strip().lower()
    fits = (project.c.name == given) | (project.c.reference_id == given)
    row = connection.execute(select(*_COLUMNS).where(fits)).first()
    return None if row is None else _project(row)


def get(connection: Connection, project_id: int) -> Project:
    """A project by number. Raises: NotFound."""
    query = select(*_COLUMNS).where(project.c.project_id == project_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("No such project", detail=f"project {project_id}")
    return _project(row)


def of_account(connection: Connection, account_id: int) -> Project | None:
    """The project that an account belongs to."""
    query = select(*_COLUMNS).where(project.c.account_id == account_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _project(row)


def list(connection: Connection, *, owner_user_id: int | None = None) -> builtins.list[Project]:
    """All projects, or those of an owner, by name."""
    query = select(*_COLUMNS).order_by(project.c.name)
    if owner_user_id is not None:
        query = query.where(project.c.owner_user_id == owner_user_id)
    return [_project(row) for row in connection.execute(query)]


def _project(row: Row[*tuple[Any, ...]]) -> Project:
    return Project(*row)


def add(
    connection: Connection,
    name: str,
    verifiers: Sequence[Verifier],
    owner_user_id: int = 0,
    now: int | None = None,
    *,
    permission: int | None = None,
) -> Project:
    """Make a project and its account. Raises: Conflict, ProtocolViolation."""
    name, now = folded(name), microseconds(now)
    if connection.execute(select(project.c.name).where(project.c.name == name)).first():
        raise Conflict(f"The project {name} exists already")
    # No domain for mail: nobody but its login and its keys puts anything in there.
    domains.ensure(connection, DOMAIN, "relay", now=now)
    made = accounts.add(connection, username(name), verifiers, now=now)
    connection.execute(
        account.update()
        .where(account.c.account_id == made.account_id)
        .values(owner_user_id=owner_user_id)
    )
    values = {
        "name": name,
        "account_id": made.account_id,
        "reference_id": reference_id(now),
        "owner_user_id": owner_user_id,
        "permission": OWN_MAIL if permission is None else permission,
        "created_at": now,
        "updated_at": now,
    }
    number = connection.execute(
        insert(project).values(values).returning(project.c.project_id)
    ).scalar_one()
    changes.bump(connection, KIND)
    return Project(number, **values)  # type: ignore[arg-type]


def remove(connection: Connection, project_id: int) -> int:
    """Remove a project and shut its account, whose number is the answer.

    The mail goes in further steps: :func:`mailtwist.store.accounts.remove_step`, which
    housekeeping takes too. Raises: NotFound.
    """
    found = get(connection, project_id)
    connection.execute(delete(project).where(project.c.project_id == project_id))
    changes.bump(connection, KIND)
    accounts.remove_step(connection, found.account_id)
    return found.account_id
