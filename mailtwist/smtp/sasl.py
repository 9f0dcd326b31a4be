"""The server's side of AUTH exchanges: challenges out, credentials in (RFC 4954; RFC 4616).

An exchange never looks at a password: it hands on what the client said.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mailtwist.mail.reply import Reply
from mailtwist.smtp import replies

# Octets of one response in base64; tokens of known mechanisms are shorter.
MAX_RESPONSE = 8192


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"


class Exchange(Protocol):
    def start(self) -> Reply:
        """The first challenge, for a client that sent no initial response."""

    def take(self, response: bytes) -> Reply | Credentials:
        """A decoded response; a reply of code 334 goes on, any other ends the exchange."""


class Plain:
    """RFC 4616: authorization identity, username, password, parted by NUL."""

    def start(self) -> Reply:
        return replies.CHALLENGE_NOTHING

    def take(self, response: bytes) -> Reply | Credentials:
        fields = response.split(b"\0")
        if len(fields) != 3:
            return replies.AUTH_BAD_RESPONSE
        authorization, username, password = map(_text, fields)
        if authorization is None or username is None or password is None:
            return replies.AUTH_BAD_RESPONSE
        # Nobody acts for somebody else here; silence about it would be a lie.
        if authorization not in {"", username}:
            return replies.BAD_CREDENTIALS
        return Credentials(username, password)


class Login:
    """The old two-step mechanism: username, then password."""

    def __init__(self) -> None:
        self._username: str | None = None

    def start(self) -> Reply:
        return replies.CHALLENGE_USERNAME

    def take(self, response: bytes) -> Reply | Credentials:
        text = _text(response)
        if text is None or "\0" in text:
            return replies.AUTH_BAD_RESPONSE
        if self._username is None:
            self._username = text
            return replies.CHALLENGE_PASSWORD
        return Credentials(self._username, text)


MECHANISMS: Mapping[str, type[Plain] | type[Login]] = {"PLAIN": Plain, "LOGIN": Login}


def decoded(response: bytes) -> bytes | None:
    """Strict base64; None when it is none (RFC 4954 §4: such a response is refused)."""
    try:
        return binascii.a2b_base64(response, strict_mode=True)
    except ValueError:
        return None


def _text(field: bytes) -> str | None:
    try:
        return field.decode("utf-8")
    except UnicodeDecodeError:
        return None
