"""twisted.cred over our logins, so that stock protocols of Twisted run on our store.

The realm holds one avatar factory for each interface (``IMessageDelivery``, ``IAccount``);
the front-ends' adapters bring them. Our own protocols go to the
:class:`~mailtwist.policy.auth.Authenticator` straight, which is the same check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from mailtwist.errors import Refusal, TemporaryFailure
from mailtwist.policy.auth import Login

AvatarFactory = Callable[[Login], Any]
# By interface; what zope makes of one is no type that Mapping could name.
Avatars = Mapping[Any, AvatarFactory]


class Logins(Protocol):
    """The part of :class:`mailtwist.policy.auth.Authenticator` that is needed here."""

    async def login(self, username: str, password: str, *, peer: str, service: str) -> Login: ...


def make_portal(
    authenticator: Logins,
    avatars: Avatars,
    *,
    service: str,
    peer: str = "",
) -> Portal:
    """Make a portal; ``peer`` is the address that its bad logins count for."""
    return Portal(Realm(avatars), [PasswordChecker(authenticator, service=service, peer=peer)])


@implementer(IRealm)
class Realm:
    """Turns a login into the avatar that a protocol asks for."""

    def __init__(self, avatars: Avatars) -> None:
        self._avatars = dict(avatars)

    # An avatar's id is opaque to a portal; ours is the Login, which saves a second read.
    def requestAvatar(  # type: ignore[override]  # noqa: N802
        self,
        avatarId: Login,  # noqa: N803
        mind: object,
        *interfaces: type[Interface],
    ) -> tuple[type[Interface], Any, Callable[[], None]]:
        for interface in interfaces:
            make = self._avatars.get(interface)
            if make is not None:
                return interface, make(avatarId), lambda: None
        raise NotImplementedError(f"no avatar for {interfaces}")


@implementer(ICredentialsChecker)
class PasswordChecker:
    """Checks a username and a password; the avatar's id is the :class:`Login`."""

    credentialInterfaces = (IUsernamePassword,)  # noqa: N815

    def __init__(self, authenticator: Logins, *, service: str, peer: str = "") -> None:
        self._authenticator = authenticator
        self._service = service
        self._peer = peer

    def requestAvatarId(  # type: ignore[override]  # noqa: N802
        self, credentials: Any
    ) -> Deferred[Login]:
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: Any) -> Login:
        try:
            return await self._authenticator.login(
                _text(credentials.username),
                _text(credentials.password),
                peer=self._peer,
                service=self._service,
            )
        except Refusal as error:
            raise UnauthorizedLogin(error.text) from error
        except TemporaryFailure as error:
            raise LoginFailed(error.text) from error


def _text(value: bytes | str) -> str:
    if isinstance(value, bytes):
        # Octets that are no UTF-8 belong to no account; they must not raise.
        return value.decode("utf-8", "surrogateescape")
    return value
