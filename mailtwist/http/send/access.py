"""Who may send over HTTP: whoever has a key, and without one this machine and listed pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, ClassVar, Final

from twisted.logger import Logger

from mailtwist.errors import MailError, Refusal
from mailtwist.http.exchange import Exchange
from mailtwist.http.send.origins import HostPolicy, policy_of, read_origin
from mailtwist.mail.host_names import is_address
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.net.counters import network_of
from mailtwist.net.networks import LOOPBACK
from mailtwist.policy import api_keys
from mailtwist.policy.identities import Unauthorized
from mailtwist.policy.rates import Client, Event, Rates

if TYPE_CHECKING:
    from mailtwist.config import Settings

log = Logger()

SERVICE: Final = "service"
_USER: Final = "user:"


class TooManyRequests(MailError):
    http_status = 429
    default_text: ClassVar[str] = "Too many requests, try again later"
    retry_after_s = 1


@dataclass(frozen=True, slots=True)
class Asker:
    """``scope``: the name under which his requests are kept; ``viewer`` a guest for `send.api_key`
    and for those who need no key.
    """

    scope: str
    viewer: Viewer = NOBODY

    @property
    def is_service(self) -> bool:
        return self.scope == SERVICE

    @property
    def key_scope(self) -> str:
        """The same, apart for keys whose mail goes elsewhere."""
        viewer = self.viewer
        return f"{self.scope} {'test' if viewer.is_test else ''} {viewer.project}"

    def sees(self, scope: str) -> bool:
        """Whether he may know of a request of somebody."""
        if self.viewer.is_admin or self.scope == scope:
            return True
        # Where there is a key, what was sent without one was sent before there was.
        return self.is_service and not scope.startswith(_USER)


class Access:
    """``settings``: as they are now."""

    def __init__(self, settings: Callable[[], Settings], rates: Rates) -> None:
        self._settings = settings
        self._rates = rates
        self._is_told = False

    def policy(self) -> HostPolicy:
        return policy_of(self._settings().send.allowed_hosts)

    async def asker(self, exchange: Exchange, *, is_counted: bool) -> Asker:
        """Who asks. Raises: Refusal (403), Unauthorized (401), TooManyRequests (429)."""
        is_listed = self._check_origin(exchange)
        client = Client(exchange.client)
        if is_counted and not await self._rates.take(Event.SEND_REQUEST, client):
            raise self._too_many(Event.SEND_REQUEST, client)
        try:
            return await self._known(exchange, is_listed)
        except Unauthorized:
            if not await self._rates.take(Event.WRONG_KEY, client):
                raise self._too_many(Event.WRONG_KEY, client) from None
            raise

    async def _known(self, exchange: Exchange, is_listed: bool) -> Asker:
        given, wanted = exchange.header("x-api-key").strip(), self._settings().send.api_key
        if api_keys.is_configured(given, (wanted,)):
            return Asker(SERVICE)
        if wanted or _has_token(exchange):
            viewer = await exchange.identify()
            if not viewer.is_guest:
                return Asker(f"{_USER}{viewer.user_id}", viewer)
        if wanted:
            raise Unauthorized("invalid API key" if given else "An API key is needed: X-API-KEY")
        if not is_listed and not self._is_local(exchange):
            raise Refusal("An API key is needed to send from this address")
        return Asker(f"client:{network_of(exchange.client)}")

    def _check_origin(self, exchange: Exchange) -> bool:
        """Whether the page that asks is listed. Raises: Refusal for a page that may not ask.

        Also from this machine: a browser here runs what anybody wrote.
        """
        origin = exchange.header("origin")
        if not origin:
            return False
        if self.policy().allows(origin):
            return True
        if origin.lower() != exchange.origin.lower() or not self._is_ours(origin):
            raise Refusal("This origin may not send: it is not in send.allowed_hosts")
        return False

    def _is_ours(self, origin: str) -> bool:
        """Whether a name that leads here is ours: anybody's may be made to (DNS rebinding)."""
        found, settings = read_origin(origin), self._settings()
        if found is None:
            return False
        names = ("localhost", settings.hostname, *settings.domains)
        return is_address(found.host.strip("[]")) or any(
            found.host == name or found.host.endswith(f".{name}") for name in names if name
        )

    def _is_local(self, exchange: Exchange) -> bool:
        if exchange.client not in LOOPBACK:
            return False
        if exchange.header("x-forwarded-for") and not self._is_told:
            trusted = self._settings().http.trusted_proxies
            if not trusted:
                self._is_told = True
                log.warn(
                    "/send is open to this machine, and a request came through a proxy on it: "
                    "set http.trusted_proxies or send.api_key"
                )
        return True

    def _too_many(self, event: Event, client: Client) -> TooManyRequests:
        error = TooManyRequests()
        error.retry_after_s = max(1, ceil(self._rates.ends_in(event, client)))
        return error


def _has_token(exchange: Exchange) -> bool:
    """Whether a request names a user; a key that is none of ours counts only where one is set."""
    return bool(
        exchange.header("authorization")
        or exchange.header("x-api-key").strip().startswith("mt_")
        or exchange.first("token")
        or exchange.by_cookie
    )
