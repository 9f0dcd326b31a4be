"""Senders: which addresses a user may send as, and by whose name letters leave."""

from __future__ import annotations

from dataclasses import dataclass

from mailtwist.mail.address import Address
from mailtwist.store.engine import Connection
from mailtwist.store.sql import Statement

_OWN = Statement(
    """
    SELECT account_id FROM account
    WHERE username = ? AND owner_user_id = ? AND state = 'active'
    """
)
_BY_ALIAS = Statement(
    """
    SELECT account.account_id FROM address_target
    JOIN domain ON domain.domain_id = address_target.domain_id
    JOIN account ON account.username = address_target.target
    WHERE domain.name = ? AND address_target.local_part = ?
      AND account.owner_user_id = ? AND account.state = 'active'
    ORDER BY address_target.n LIMIT 1
    """
)
_HOSTNAME = Statement(
    """
    SELECT mail_server.hostname FROM account
    JOIN mail_server ON mail_server.mail_server_id = account.mail_server_id
    WHERE account.account_id = ?
    """
)
_ANY = Statement("SELECT account_id FROM account WHERE username = ? AND state = 'active'")
_SERVER = Statement("SELECT hostname FROM mail_server WHERE hostname = ?")
_FIRST_SERVER = Statement(
    "SELECT hostname FROM mail_server ORDER BY is_enabled DESC, created_at, mail_server_id LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Sending:
    """By whose name a letter leaves ("": the server's own), and whose it is (0: nobody's)."""

    hostname: str
    account_id: int


def account_for(connection: Connection, user_id: int, address: Address) -> int | None:
    """The account of this user that the address, or an alias of that name, belongs to."""
    if not user_id:
        return None
    account_id = _OWN(connection, (address.folded, user_id)).scalar()
    if account_id is None:
        local_part, _, domain = address.folded.rpartition("@")
        account_id = _BY_ALIAS(connection, (domain, local_part, user_id)).scalar()
    return None if account_id is None else int(account_id)


def hostname_of(connection: Connection, account_id: int) -> str:
    """The host name of the mail_server row that the account names; "": it names none."""
    return str(_HOSTNAME(connection, (account_id,)).scalar() or "")


def sending(connection: Connection, hostname: str, sender: Address) -> Sending | None:
    """How a letter of an action leaves; None: there is no mail_server row of that name.

    Without a name the oldest enabled row counts, if there is any. The sender need not have an
    account.
    """
    statement, given = (_SERVER, (hostname,)) if hostname else (_FIRST_SERVER, ())
    found = statement(connection, given).scalar()
    if hostname and found is None:
        return None
    account_id = _ANY(connection, (sender.folded,)).scalar()
    return Sending(str(found or ""), int(account_id or 0))
