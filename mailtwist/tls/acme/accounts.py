"""Our account at the authority: its key, its registration, and who uses it.

One account for each directory, kept in a row and used by all nodes. Its key is sealed.

Standards: RFC 8555 §7.3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from mailtwist.config.outgoing import Acme
from mailtwist.store import acme
from mailtwist.store.acme import Account
from mailtwist.store.secrets import Secrets, Unreadable
from mailtwist.tls.acme.chains import make_key
from mailtwist.tls.acme.threads import Steps
from mailtwist.tls.acme.values import AccountUnknown, Binding

if TYPE_CHECKING:
    from mailtwist.tls.acme.authority import Authority

log = Logger()

# What the key is sealed for.
PURPOSE: Final = "acme_account.private_key"


class Accounts:
    """``steps``: where it blocks; ``now``: in microseconds."""

    def __init__(
        self,
        database: Any,
        settings: Acme,
        *,
        secrets: Secrets,
        steps: Steps,
        now: Callable[[], int],
    ) -> None:
        self._database = database
        self._settings = settings
        self._secrets = secrets
        self._steps = steps
        self._now = now

    async def signed_in(self, email: str) -> Authority:
        """The authority, ready for orders; the account is registered where it is not.

        Raises: OrderFailed.
        """
        authority, account = await self.connected()
        binding = _binding(self._settings)
        sign_in = partial(
            authority.sign_in, account.url, email, known_as=account.email, binding=binding
        )
        try:
            url = await self._steps.run(sign_in)
        except AccountUnknown:
            # It is asked when the address changes.
            url = await self._steps.run(partial(authority.sign_in, "", email, binding=binding))
        if (url, email) != (account.url, account.email):
            await self._keep_registration(url, email)
        return authority

    async def connected(self) -> tuple[Authority, Account]:
        """The authority, which knows nobody yet. Raises: OrderFailed."""
        account, key = await self._account()
        authority = await self._steps.run(
            partial(_authority, self._settings, account_key=key, stop=self._steps.stop)
        )
        return authority, account

    async def forget(self) -> None:
        """The authority does not know the account any more."""
        await self._keep_registration("", "")

    async def row(self) -> Account | None:
        """Our account, if there is one."""
        url = self._settings.directory_url
        account: Account | None = await self._database.read(
            partial(acme.account, directory_url=url)
        )
        return account

    async def _account(self) -> tuple[Account, str]:
        """Our account at the authority and its key, made where there is none."""
        account = await self.row()
        if account is None:
            sealed = await self._steps.run(self._new_account_key)
            account = await self._database.write(
                partial(
                    acme.establish_account,
                    directory_url=self._settings.directory_url,
                    sealed_key=sealed,
                    now=self._now(),
                )
            )
        try:
            return account, self._secrets.open(account.sealed_key, PURPOSE)
        except Unreadable as error:
            log.warn("the ACME account's key: {error}; it gets another one", error=error)
        sealed = await self._steps.run(self._new_account_key)
        url = self._settings.directory_url
        await self._database.write(partial(acme.replace_key, directory_url=url, sealed_key=sealed))
        return Account(url, "", "", sealed), self._secrets.open(sealed, PURPOSE)

    async def _keep_registration(self, url: str, email: str) -> None:
        await self._database.write(
            partial(
                acme.keep_registration,
                directory_url=self._settings.directory_url,
                url=url,
                email=email,
            )
        )

    def _new_account_key(self) -> str:
        return self._secrets.seal(make_key("ecdsa"), PURPOSE)


def _authority(settings: Acme, *, account_key: str, stop: Event) -> Authority:
    # Late: it costs megabytes and most of a second.
    from mailtwist.tls.acme.authority import Authority

    made = Authority(settings.directory_url, account_key, ca_file=settings.ca_file, stop=stop)
    made.connect()
    return made


def _binding(settings: Acme) -> Binding | None:
    if not settings.eab_key_id:
        return None
    return Binding(settings.eab_key_id, settings.eab_hmac_key)
