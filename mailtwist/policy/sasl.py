"""The SASL mechanisms, for every protocol that has them (RFC 4422).

An exchange takes the client's decoded responses and gives a challenge for each, or in the end
the login. How challenges and responses are written down is the protocol's matter, and so are
time-outs, the count of tries and ``*``.

``MECHANISMS`` is the one list; ``auth.methods`` chooses from it.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.policy import scram
from mailtwist.policy.passwords import Scram as Keys

NONCE_OCTETS: Final = 18

L_co = TypeVar("L_co", covariant=True)


class Door(Protocol[L_co]):
    """The logins, as one connection sees them. All raise MailError."""

    async def login(self, username: str, password: str) -> L_co: ...
    async def scram_keys(self, username: str) -> Keys: ...
    async def prove(self, username: str, proof: scram.Proof) -> L_co: ...


@dataclass(frozen=True, slots=True)
class Challenge:
    octets: bytes


class Exchange(Protocol):
    """One run of a mechanism."""

    async def take(self, response: bytes | None) -> Any:
        """Take a response; None: the client sent no initial one.

        Returns a Challenge or, in the end, the login. Raises: ProtocolViolation (501 5.5.2,
        BAD) for what can't be read, else what the login raises.
        """


@dataclass(frozen=True, slots=True)
class Channel:
    """What is known of the TLS connection. ``bindings``: data by the name of the binding's type.

    ``offers_plus``: whether this client was told of a -PLUS mechanism.
    """

    bindings: Mapping[str, bytes]
    offers_plus: bool = False


class Plain:
    """RFC 4616: authorization identity, username, password, parted by NUL."""

    def __init__(self, door: Door[Any], _channel: Channel) -> None:
        self._door = door

    async def take(self, response: bytes | None) -> Any:
        if response is None:
            return Challenge(b"")
        fields = response.split(b"\0")
        if len(fields) != 3:
            raise unreadable("Invalid PLAIN response")
        authorization, username, password = map(_text, fields)
        require_self(authorization, username)
        return await self._door.login(username, password)


class Login:
    """The old two questions: username, then password."""

    def __init__(self, door: Door[Any], _channel: Channel) -> None:
        self._door = door
        self._username: str | None = None

    async def take(self, response: bytes | None) -> Any:
        if response is None:
            return Challenge(b"Username:")
        text = _text(response)
        if self._username is None:
            self._username = text
            return Challenge(b"Password:")
        return await self._door.login(self._username, text)


class Scram:
    """SCRAM-SHA-256; what it says and proves is in :mod:`mailtwist.policy.scram`."""

    is_plus = False

    def __init__(self, door: Door[Any], channel: Channel) -> None:
        self._door = door
        self._channel = channel
        self._opening: scram.Opening | None = None
        self._keys: Keys | None = None
        self._first = b""
        self._login: Any = None

    async def take(self, response: bytes | None) -> Any:
        if self._login is not None:
            if response:  # the client has nothing more to say
                raise scram.malformed()
            return self._login
        if self._opening is not None:
            return await self._end(self._opening, response or b"")
        # RFC 4422 §5: where the client speaks first, its turn is an empty challenge.
        return Challenge(b"") if response is None else await self._open(response)

    async def _open(self, response: bytes) -> Challenge:
        opening = scram.read_opening(response)
        self._require_binding(opening)
        require_self(opening.authorization, opening.username)
        self._keys = await self._door.scram_keys(opening.username)
        ours = base64.b64encode(os.urandom(NONCE_OCTETS))
        self._first = scram.first_answer(opening, ours, self._keys)
        self._opening = opening
        return Challenge(self._first)

    def _require_binding(self, opening: scram.Opening) -> None:
        # RFC 5802 §6
        if bool(opening.binding) is not self.is_plus:
            raise scram.malformed()
        if opening.could_bind and self._channel.offers_plus:
            raise _refused("a client that can bind the channel was not told that we can")
        if self.is_plus and opening.binding not in self._channel.bindings:
            raise _refused(f"channel binding {opening.binding} is not supported here")

    async def _end(self, opening: scram.Opening, response: bytes) -> Challenge:
        assert self._keys is not None
        ending = scram.read_ending(response, opening, self._first)
        expected = opening.gs2_header
        if self.is_plus:
            expected += self._channel.bindings[opening.binding]
        if not hmac.compare_digest(ending.binding, expected):
            raise _refused("the client is at the end of another channel")
        nonce = self._first.partition(b",")[0].removeprefix(b"r=")
        if not hmac.compare_digest(ending.nonce, nonce):
            raise scram.malformed()
        self._login = await self._door.prove(opening.username, ending.proof)
        return Challenge(ending.proof.last_answer(self._keys))


class ScramPlus(Scram):
    is_plus = True


Make = Callable[[Door[Any], Channel], Exchange]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """``shows_password``: to the server. ``needs_keys``: of the back-end."""

    make: Make
    shows_password: bool = False
    needs_keys: bool = False
    needs_channel: bool = False


# In the order in which they are announced.
MECHANISMS: Final[Mapping[str, Mechanism]] = {
    "PLAIN": Mechanism(Plain, shows_password=True),
    "LOGIN": Mechanism(Login, shows_password=True),
    "SCRAM-SHA-256": Mechanism(Scram, needs_keys=True),
    "SCRAM-SHA-256-PLUS": Mechanism(ScramPlus, needs_keys=True, needs_channel=True),
}


def chosen(methods: Iterable[str], *, has_keys: bool) -> tuple[str, ...]:
    """The mechanisms of ``auth.methods`` that the back-end can serve, in the order given."""
    names = dict.fromkeys(method.upper() for method in methods)
    return tuple(name for name in names if has_keys or not MECHANISMS[name].needs_keys)


def usable(names: Iterable[str], *, can_bind: bool) -> tuple[str, ...]:
    """Those of the mechanisms that work on a connection."""
    return tuple(name for name in names if can_bind or not MECHANISMS[name].needs_channel)


def unreadable(text: str) -> ProtocolViolation:
    return ProtocolViolation(text, status="5.5.2")


def require_self(authorization: str, username: str) -> None:
    """Nobody acts for somebody else here; silence about the wish would be a lie."""
    if authorization and authorization.casefold() != username.casefold():
        raise Refusal(
            "May not act as another user",
            code=535,
            status="5.7.8",
            imap_code="AUTHORIZATIONFAILED",
        )


def _refused(detail: str) -> Refusal:
    return Refusal(
        "Authentication credentials invalid",
        detail=detail,
        code=535,
        status="5.7.8",
        imap_code="AUTHENTICATIONFAILED",
    )


def _text(octets: bytes) -> str:
    if b"\0" in octets:  # in no user name (RFC 4616 §2), and in no text of a database
        raise unreadable("NUL in credentials")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise unreadable("Credentials are not valid UTF-8") from None
