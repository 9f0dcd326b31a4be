"""Users that are rows of our own store."""

from __future__ import annotations

from collections.abc import Sequence

from mailtwist.policy.lockout import ACCOUNT, USER
from mailtwist.store import accounts, identities, logins
from mailtwist.store.accounts import Verifier
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active


class Accounts:
    """Mail accounts: SMTP, IMAP."""

    scope = ACCOUNT
    ask = None
    find = staticmethod(logins.active)

    def verifiers(self, connection: Connection, who: Active) -> Sequence[Verifier]:
        return accounts.secrets(connection, who.account_id)

    def unknown(self) -> Sequence[Verifier]:
        return ()

    def addresses(self, connection: Connection, who: Active) -> frozenset[str]:
        return accounts.addresses(connection, who.account_id)


class Users:
    """Users of the REST interface, who send as nobody by themselves."""

    scope = USER
    ask = None
    find = staticmethod(identities.active)

    def verifiers(self, connection: Connection, who: Active) -> Sequence[Verifier]:
        return identities.verifiers(connection, who.account_id)

    def unknown(self) -> Sequence[Verifier]:
        return ()

    def addresses(self, _connection: Connection, _who: Active) -> frozenset[str]:
        return frozenset()
