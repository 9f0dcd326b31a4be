"""Making, changing and removing mailboxes through their rows.

All of it goes the way that IMAP's commands go, so sessions hear of it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, update

from mailtwist.errors import Conflict, NotFound, ProtocolViolation, Refusal
from mailtwist.store import mailboxes
from mailtwist.store.accounts import DEFAULT_MAILBOXES
from mailtwist.store.entities import ids
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.model import Change
from mailtwist.store.ledger import Ledger
from mailtwist.store.mailboxes import Mailbox
from mailtwist.store.names import INBOX, canonical, checked
from mailtwist.store.tables import mailbox

# RFC 6154 §2: what attributes make of a new mailbox.
SPECIAL_USES: Final = {use.lower(): use for _, use in DEFAULT_MAILBOXES if use}
_KEPT: Final = ("attributes", "flags", "permanent_flags")


class Key(NamedTuple):
    account_id: int
    mailbox_id: int
    name: str


def create(change: Change) -> str:
    """Make a mailbox; one of those that every account has from the start is taken as it is.

    Raises: Conflict when there is another one of that name, ProtocolViolation.
    """
    connection, values = change.connection, change.values
    _refuse_owner(change)
    account_id = int(change.relations["mail_account_id"].key)
    name = _checked(values["name"])
    found = mailboxes.find(connection, account_id, name)
    if found is None:
        found = _make(change, account_id, name)
    elif not _is_default(found.name):
        raise Conflict(f"name: there is a mailbox {found.name} already")
    _apply(change, Key(account_id, found.mailbox_id, found.name))
    return ids.pack(Kind.MAIL_BOX, account_id, found.mailbox_id)


def _is_default(name: str) -> bool:
    return any(name == default for default, _ in DEFAULT_MAILBOXES)


def _checked(name: str) -> str:
    try:
        return checked(name)
    except Refusal as refusal:
        raise ProtocolViolation(f"name: {refusal.text}") from refusal


def _make(change: Change, account_id: int, name: str) -> Mailbox:
    use = _special_use(change, account_id, str(change.values.get("attributes") or ""))
    return mailboxes.create(change.connection, account_id, name, use, now=change.now)


def _special_use(change: Change, account_id: int, attributes: str) -> str:
    """The special use that attributes ask for, unless another mailbox has it."""
    given = {SPECIAL_USES.get(word) for word in attributes.lower().replace(",", " ").split()}
    taken = {each.special_use for each in mailboxes.list(change.connection, account_id)}
    return next(iter(sorted(use for use in given - taken if use)), "")


def change(change: Change) -> None:
    """Rename, subscribe, or keep other texts. Raises: Conflict, Refusal, ProtocolViolation."""
    _refuse_owner(change)
    key: Key = change.key
    if "mail_account_id" in change.relations:
        account = change.relations["mail_account_id"]
        if account is None or account.key != key.account_id:
            raise Conflict("mail_account_id: a mailbox stays in its account")
    name = change.values.get("name")
    if name is not None and canonical(name) != key.name:
        key = key._replace(name=_rename(change, key, _checked(name)))
    _apply(change, key)


def _rename(change: Change, key: Key, name: str) -> str:
    if key.name == INBOX:
        # It would move the messages and leave INBOX (RFC 9051 §6.3.6): not what a row means.
        raise Conflict("name: INBOX cannot be renamed")
    mailboxes.rename(change.connection, key.account_id, key.name, name, now=change.now)
    return name


def _refuse_owner(change: Change) -> None:
    if change.owner is not None and change.row is not None and change.owner != change.row.owner:
        raise Conflict("user_account_id: a mailbox belongs to the owner of its account")


def _apply(change: Change, key: Key) -> None:
    """Keep the texts, the subscription and the permission that the change gives."""
    connection, values = change.connection, change.values
    kept: dict[str, Any] = {name: values[name] or "" for name in _KEPT if name in values}
    if change.permission is not None and change.row is not None:
        kept["permission"] = change.permission
    _lock(connection, key)
    if kept:
        rows = update(mailbox).where(
            mailbox.c.account_id == key.account_id, mailbox.c.mailbox_id == key.mailbox_id
        )
        connection.execute(rows.values(kept))
    if values.get("subscribed") is not None:
        act = mailboxes.subscribe if values["subscribed"] else mailboxes.unsubscribe
        act(connection, key.account_id, key.name)


def _lock(connection: Connection, key: Key) -> None:
    Ledger.of(connection, key.account_id)


def remove(change: Change) -> None:
    """Delete the mailbox and its mails; many of them go in later steps (store.steps).

    Raises: Refusal for INBOX.
    """
    key: Key = change.key
    try:
        mailboxes.delete(change.connection, key.account_id, key.name, now=change.now)
    except NotFound:
        return  # another node was quicker
