"""Who asks over HTTP: users with passwords and tokens, and API keys.

``viewer(token)`` is what each request calls: the token of a sign-in, or an API key
(``mt_live_...``, ``mt_test_...``), becomes a Viewer. Viewers are remembered until anything about
users, groups or keys changes; a token counts only with the ``auth_version`` that its user
has now, so that it dies with a change of the password.
"""

from __future__ import annotations

import hashlib
import secrets as chance
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.errors import MailError, Refusal, TemporaryFailure
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.mail.scopes import has_all
from mailtwist.policy import api_keys
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.backends.sql import Users
from mailtwist.policy.hashing import Derivation, Turns
from mailtwist.policy.passwords import DEFAULT_COST
from mailtwist.policy.tokens import DEFAULT_LIFE_S, BadToken, Tokens
from mailtwist.store import identities
from mailtwist.store.engine import Connection
from mailtwist.store.identities import ApiKey, User

log = Logger()

SECRET_KEY: Final = "jwt.secret"  # noqa: S105
ISSUER_KEY: Final = "jwt.token.issuer"
LIFE_KEY: Final = "jwt.token.life.hours"
MAX_LIFE_HOURS: Final = 24 * 365 * 10
MAX_REMEMBERED: Final = 10_000
# When a key was used last is written this often at most.
USED_EVERY_US: Final = 300 * 1_000_000
LOCKED_OUT: Final = 454


class Unauthorized(Refusal):
    """Who asks is not known: no such token, key or password."""

    http_status = 401
    default_text: ClassVar[str] = "Unauthorized"


class TooManyTries(TemporaryFailure):
    """Locked out for some minutes after bad sign-ins."""

    http_status = 429
    default_text: ClassVar[str] = "Too many failed logins, try again later"


class Clock(Protocol):
    def seconds(self) -> float: ...
    def callLater(self, delay: float, function: Callable[..., Any], /, *args: Any) -> Any: ...  # noqa: N802


class Values(Protocol):
    """The keys of ``_config``: :class:`mailtwist.store.config_values.ConfigValues`."""

    def get(self, name: str) -> str: ...
    def watch(self, callback: Callable[[], object]) -> None: ...
    async def establish(self, name: str, make: Callable[[], str]) -> str: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """A user or key as it was read; ``version`` is the auth_version that tokens must have."""

    viewer: Viewer
    version: int = 0
    expires_at: int = 0
    key_id: int = 0


class Identities:
    """One in a process; ``derivation``, ``cost`` and ``turns`` as for the Authenticator."""

    def __init__(
        self,
        database: Any,
        *,
        values: Values,
        clock: Clock,
        derivation: Derivation | None = None,
        cost: int = DEFAULT_COST,
        turns: Turns | None = None,
    ) -> None:
        self._database = database
        self._values = values
        self._passwords = Authenticator(
            database, clock=clock, derivation=derivation, cost=cost, turns=turns, backend=Users()
        )
        self._clock = clock
        self._tokens: Tokens | None = None
        self._known: dict[str, _Known] = {}
        self._generation = 0
        self._used: dict[int, int] = {}
        database.changes.watch(identities.KIND, self._forget)
        values.watch(self._forget_tokens)

    # -- whose token ------------------------------------------------------------------------

    async def viewer(self, token: str) -> Viewer:
        """Whose token or API key this is; of "" a guest's. Raises: Unauthorized."""
        if not token:
            return NOBODY
        if api_keys.looks_like_key(token):
            return await self._viewer_of_key(token)
        try:
            claims = (await self._signing()).read(token, now=self._clock.seconds())
        except BadToken as error:
            raise Unauthorized("The token is not valid", detail=str(error)) from error
        known = self._known.get(claims.subject) or await self._read(
            claims.subject, partial(_known_user, reference_id=claims.subject)
        )
        if known is None or known.version != claims.auth_version:
            raise Unauthorized("The token is no longer valid")
        return known.viewer

    async def _viewer_of_key(self, token: str) -> Viewer:
        digest = api_keys.digest(token)
        known = self._known.get(digest) or await self._read(
            digest, partial(_known_key, digest=digest)
        )
        now = int(self._clock.seconds() * 1_000_000)
        if known is None or (known.expires_at and known.expires_at <= now):
            raise Unauthorized("The API key is not valid")
        self._note_use(known.key_id, now)
        return known.viewer

    async def viewer_of(self, user_id: int) -> Viewer | None:
        """Who a user is that our own rows name; None: there is no such user any more."""
        user: User | None = await self._database.read(
            partial(identities.user_of_number, user_id=user_id)
        )
        return None if user is None else _viewer(user)

    async def _read(self, name: str, find: Callable[[Connection], _Known | None]) -> _Known | None:
        generation = self._generation
        known: _Known | None = await self._database.read(find)
        if known is not None and generation == self._generation:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[name] = known
        return known

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()

    def _note_use(self, key_id: int, now: int) -> None:
        if now - self._used.get(key_id, 0) < USED_EVERY_US:
            return
        if len(self._used) >= MAX_REMEMBERED:
            self._used.clear()
        self._used[key_id] = now
        writing = Deferred.fromCoroutine(self._write_use(key_id, now))
        writing.addErrback(lambda failure: log.failure("the use of a key is not noted", failure))

    async def _write_use(self, key_id: int, now: int) -> None:
        try:
            await self._database.write(partial(identities.key_used, key_id=key_id, now=now))
        except MailError as error:
            log.info("the use of a key is not noted", reason=error.detail)

    # -- signing in -------------------------------------------------------------------------

    async def sign_in(self, email: str, password: str, *, peer: str) -> str:
        """A token for a user. Raises: Unauthorized for a wrong pair, TooManyTries."""
        try:
            login = await self._passwords.login(email, password, peer=peer, service="http")
        except Refusal as error:
            raise Unauthorized("Invalid username or password", detail=error.detail) from error
        except TemporaryFailure as error:
            if error.code == LOCKED_OUT:
                raise TooManyTries(detail=error.detail) from error
            raise
        user: User | None = await self._database.read(
            partial(identities.user_of_number, user_id=login.account_id)
        )
        # The password may have been changed since it was found right.
        if user is None or user.auth_version != login.auth_version:
            raise Unauthorized("Invalid username or password")
        return await self.issue(user)

    async def issue(self, user: User) -> str:
        """A token for a user who has proved who he is."""
        return (await self._signing()).issue(
            subject=user.reference_id,
            email=user.email,
            name=user.name,
            auth_version=user.auth_version,
            now=self._clock.seconds(),
        )

    # -- what tokens are signed with ----------------------------------------------------------

    async def _signing(self) -> Tokens:
        """The tokens of the secret in use, which is made when there is none yet."""
        if self._tokens is None:
            secret = await self._values.establish(SECRET_KEY, _make_secret)
            issuer = self._values.get(ISSUER_KEY) or _issuer(secret)
            self._tokens = Tokens(secret, issuer=issuer, life_s=_life_s(self._values))
        return self._tokens

    def _forget_tokens(self) -> None:
        self._tokens = None


def _make_secret() -> str:
    return chance.token_urlsafe(48)


def _issuer(secret: str) -> str:
    """A name for this installation that tells nothing about its secret."""
    return f"mailtwist-{hashlib.sha256(secret.encode('utf-8')).hexdigest()[:6]}"


def _life_s(values: Values) -> int:
    try:
        hours = float(values.get(LIFE_KEY) or 0)
    except ValueError:
        hours = 0
    return int(min(hours, MAX_LIFE_HOURS) * 3600) if hours > 0 else DEFAULT_LIFE_S


def _known_user(connection: Connection, *, reference_id: str) -> _Known | None:
    user = identities.user(connection, reference_id)
    return None if user is None else _Known(_viewer(user), version=user.auth_version)


def _known_key(connection: Connection, *, digest: str) -> _Known | None:
    key = identities.api_key(connection, digest)
    user = None if key is None else identities.user_of_number(connection, key.owner_user_id)
    if key is None or user is None:
        return None
    return _Known(_viewer(user, key), expires_at=key.expires_at, key_id=key.key_id)


def _viewer(user: User, key: ApiKey | None = None) -> Viewer:
    """A key may what its owner may, within its scopes; an administrator's needs `admin` for it."""
    scopes = None if key is None else api_keys.scopes(key.scopes)
    return Viewer(
        user_id=user.user_id,
        reference_id=user.reference_id,
        email=user.email,
        groups=user.groups,
        is_admin=user.is_admin and has_all(scopes),
        scopes=scopes,
        is_test=key is not None and key.is_test,
    )
