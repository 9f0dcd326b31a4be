"""Making, changing and removing accounts through their rows."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from mailtwist.errors import Conflict, ProtocolViolation, Refusal
from mailtwist.mail.address import Address, parse_address
from mailtwist.store import accounts, changes, domains, projects
from mailtwist.store.entities.model import Change, Facts
from mailtwist.store.entities.tables import row_group
from mailtwist.store.ledger import Ledger
from mailtwist.store.removal import remove_step
from mailtwist.store.tables import account, address

NAME: Final = "mail_account"


def create(change: Change) -> str:
    """Make an account with its default mailboxes. Raises: Conflict, ProtocolViolation."""
    values = change.values
    made = _add(change, _address(change.connection, values["username"], change.facts))
    _set(
        change.connection,
        made.account_id,
        owner_user_id=change.owner or 0,
        permission=change.permission,
        mail_server_id=_server(change),
    )
    return made.reference_id


def _add(change: Change, name: Address) -> accounts.Account:
    verifiers = change.values.get("password") or ()
    try:
        return accounts.add(change.connection, name, verifiers, now=change.now)
    except (Conflict, ProtocolViolation):
        raise
    except Refusal as refusal:
        raise ProtocolViolation(f"username: {refusal.text}") from refusal


def _address(connection: Connection, username: str, facts: Facts) -> Address:
    """The whole address that a user name stands for; without domain it is in our first one."""
    if "@" not in username:
        first = _first_domain(connection, facts)
        if not first:
            raise ProtocolViolation("username: there is no local domain, so give a whole address")
        username = f"{username}@{first}"
    try:
        return parse_address(username)
    except ProtocolViolation as error:
        raise ProtocolViolation(f"username: {error.text}") from error


def _first_domain(connection: Connection, facts: Facts) -> str:
    return facts.local_domains[0] if facts.local_domains else domains.first(connection)


def _server(change: Change) -> int:
    server = change.relations.get("mail_server_id")
    return 0 if server is None else int(server.key)


def change(change: Change) -> None:
    """Apply what differs: a new name, password, server, owner or permission."""
    connection, account_id = change.connection, int(change.key)
    Ledger.of(connection, account_id)
    values: dict[str, Any] = {}
    if "username" in change.values:
        values |= _rename(change, account_id)
    if change.values.get("password"):
        accounts.set_secrets(connection, account_id, change.values["password"], now=change.now)
    if "mail_server_id" in change.relations:
        values["mail_server_id"] = _server(change)
    if change.owner is not None:
        values["owner_user_id"] = change.owner
    if change.permission is not None:
        values["permission"] = change.permission
    _set(connection, account_id, updated_at=change.now, **values)
    changes.bump(connection, "account")


def _rename(change: Change, account_id: int) -> dict[str, Any]:
    """Give the account another address; the old one is free again, logins end."""
    connection = change.connection
    name = _address(connection, change.values["username"], change.facts)
    before = accounts.get(connection, account_id)
    if name.folded == before.username:
        return {}
    if not name.domain or not name.local_part:
        raise ProtocolViolation("username: an account is named by a whole address")
    if projects.capturing(connection, account_id):
        raise Conflict("The account of a project keeps its name")
    place = domains.ensure(connection, name.domain, now=change.now)
    local_part = name.folded.rpartition("@")[0]
    taken = select(address.c.kind).where(
        address.c.domain_id == place.domain_id, address.c.local_part == local_part
    )
    if connection.execute(taken).first():
        raise Conflict(f"The address {name} exists already")
    old_part = before.username.rpartition("@")[0]
    connection.execute(
        update(address)
        .where(address.c.domain_id == before.domain_id, address.c.local_part == old_part)
        .values(domain_id=place.domain_id, local_part=local_part)
    )
    changes.bump(connection, "address")
    return {
        "username": name.folded,
        "domain_id": place.domain_id,
        "auth_version": account.c.auth_version + 1,
    }


def _set(connection: Connection, account_id: int, **values: Any) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    if given:
        connection.execute(update(account).where(account.c.account_id == account_id).values(given))


def remove(change: Change) -> None:
    """Shut the account: no login, no delivery. Its mail goes in later steps (store.steps)."""
    account_id = int(change.key)
    shared = (row_group.c.entity == NAME) & (row_group.c.row_id == account_id)
    change.connection.execute(delete(row_group).where(shared))
    remove_step(change.connection, account_id)
