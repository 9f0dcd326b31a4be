"""Which addresses a user of the REST interface may send as: those of the accounts he owns."""

from __future__ import annotations

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
