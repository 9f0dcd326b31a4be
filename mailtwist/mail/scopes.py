"""What an API key may be used for: a few narrow things, never more than its owner may.

===========================  ================================================================
scope                        what it lets a key do
===========================  ================================================================
``admin``                    all that its owner may
``mail:read:<mail_box id>``  read that mailbox and its mail
``send:<domain>``            send as addresses of that domain; ``*``: as any that its owner has
``project:<project id>``     read what that project captured, and send into it: none of it leaves
===========================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain
from mailtwist.mail.permissions import ADMIN, MAIL_READ, PROJECT, SEND, Scope

MAX_SCOPES: Final = 20
MAX_LENGTH: Final = 300


def parse_scope(text: str) -> Scope:
    """Read one scope. Raises: ProtocolViolation, which names it."""
    if text == ADMIN:
        return Scope(ADMIN)
    kind, _, target = text.rpartition(":")
    read = _TARGETS.get(kind)
    try:
        if read is None or len(text) > MAX_LENGTH:
            raise ValueError(text)
        return Scope(kind, read(target))
    except (ValueError, ProtocolViolation) as error:
        raise ProtocolViolation(f"invalid value for scopes: {text[:MAX_LENGTH]}") from error


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Read the scopes of one key, each once. Raises: ProtocolViolation."""
    scopes = tuple(dict.fromkeys(parse_scope(text) for text in texts))
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise ProtocolViolation(f"invalid value for scopes: 1 to {MAX_SCOPES} are needed")
    if sum(scope.kind == PROJECT for scope in scopes) > 1:
        # What is sent with the key is captured in one place.
        raise ProtocolViolation("invalid value for scopes: a key is for one project at most")
    return scopes


def format_scope(scope: Scope) -> str:
    return f"{scope.kind}:{scope.target}" if scope.target else scope.kind


def may_send(scopes: Iterable[Scope] | None, domain: str) -> bool:
    """Whether the scopes cover sending as an address of a domain. None: nothing is restricted."""
    return scopes is None or any(
        scope.kind == ADMIN or (scope.kind == SEND and scope.target in {"*", domain.lower()})
        for scope in scopes
    )


def has_all(scopes: Iterable[Scope] | None) -> bool:
    """Whether a viewer with these scopes may do all that the person may."""
    return scopes is None or any(scope.kind == ADMIN for scope in scopes)


def _id(text: str) -> str:
    return str(UUID(text))


def _domain(text: str) -> str:
    return text if text == "*" else fold_domain(text)


_TARGETS: Final[dict[str, Callable[[str], str]]] = {
    MAIL_READ: _id,
    SEND: _domain,
    PROJECT: _id,
}
