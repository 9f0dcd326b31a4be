"""Whose captured mail a request may see, and how often it may ask.

A key of ``inbox.api_keys`` opens the inbox account, and so does the token of an administrator.
Another token or API key opens a project: the one that the key is for, or the one that
``?project=`` names. Keys are checked before the rate, and wrong ones are counted by themselves:
whoever guesses keeps nobody out who knows one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from mailtwist.config import Settings
from mailtwist.errors import MailError, NotFound, Refusal
from mailtwist.http.exchange import Exchange, no_pause
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.mail.scopes import has_all
from mailtwist.policy import api_keys
from mailtwist.policy.identities import Unauthorized
from mailtwist.policy.rates import Client, Event
from mailtwist.store import inbox, project_access
from mailtwist.store.engine import Connection

HEADER: Final = "x-api-key"
PROJECT: Final = "project"


class WrongKey(Unauthorized):
    """No key, or one that opens nothing; that it has expired is said in the same words."""

    default_text: ClassVar[str] = "invalid API key"


class RateExceeded(MailError):
    """RFC 6585 §4. ``retry_after_s``: when to come back."""

    http_status = 429
    default_text = "rate limit exceeded"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Place:
    """The account whose mail may be seen. ``viewer``: a guest when a key opened the inbox."""

    account_id: int
    viewer: Viewer = NOBODY


class Rates(Protocol):
    """What is asked of :class:`mailtwist.policy.rates.Rates`."""

    async def take(self, event: Event, client: Client) -> bool: ...
    def ends_in(self, event: Event, client: Client) -> float: ...


class Access:
    """``settings``: as they are now."""

    def __init__(self, database: Any, rates: Rates, *, settings: Callable[[], Settings]) -> None:
        self._database = database
        self._rates = rates
        self._settings = settings
        self._inbox_account = 0
        database.changes.watch("account", self._forget)

    def _forget(self) -> None:
        self._inbox_account = 0

    async def place_of(self, exchange: Exchange) -> Place:
        """What the request may see.

        Raises: WrongKey, RateExceeded, Refusal (403), NotFound for a project, TemporaryFailure.
        """
        client = Client(exchange.client)
        if api_keys.is_configured(exchange.header(HEADER), self._settings().inbox.api_keys):
            await self._count(Event.INBOX_REQUEST, client)
            if exchange.first(PROJECT):
                raise Refusal("This key opens no project")
            return Place(await self._inbox())
        try:
            viewer = await exchange.identify()
            if viewer.is_guest:
                raise WrongKey()
        except Unauthorized:
            await self._count(Event.WRONG_KEY, client)
            raise WrongKey() from None
        await self._count(Event.INBOX_REQUEST, client)
        return Place(await self._of_viewer(viewer, exchange.first(PROJECT)), viewer)

    def still(self, exchange: Exchange, place: Place) -> Callable[[], Awaitable[None]]:
        """Asks once more, for an answer that takes long: a token may have been revoked.

        What it gives raises what :meth:`place_of` raises, and counts nothing.
        """
        if place.viewer.is_guest:
            return no_pause  # keys of the settings hold as long as the process
        identify, name = exchange.identify_again, exchange.first(PROJECT)

        async def check() -> None:
            try:
                viewer = await identify()
            except Unauthorized:
                raise WrongKey() from None
            if await self._of_viewer(viewer, name) != place.account_id:
                raise WrongKey()

        return check

    async def _count(self, event: Event, client: Client) -> None:
        if not await self._rates.take(event, client):
            raise RateExceeded(self._rates.ends_in(event, client))

    async def _of_viewer(self, viewer: Viewer, name: str) -> int:
        if name or viewer.project:
            return await self._project(viewer, name)
        if viewer.is_admin and has_all(viewer.scopes):
            return await self._inbox()
        raise Refusal("Name a project of yours in ?project=")

    async def _project(self, viewer: Viewer, name: str) -> int:
        def work(connection: Connection) -> int:
            found = project_access.usable(connection, viewer, name)
            return found.account_id if found is not None else 0

        account_id: int = await self._database.read(work)
        if not account_id:
            raise NotFound("No such project")
        return account_id

    async def _inbox(self) -> int:
        if not self._inbox_account:
            # Who waits needs it before the first message comes.
            self._inbox_account = await self._database.read(
                inbox.account
            ) or await self._database.write(inbox.ensure_account)
        return self._inbox_account
