"""The tokens that a sign-in gives: JSON Web Tokens under one secret of this installation.

One algorithm, one header: a token whose header differs from ours by an octet (``none``, another
algorithm, a key id, a key address) is refused before anything in it is parsed.

Standards: RFC 7519, RFC 7515 §3.1, RFC 8725 §3.1.
"""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ALGORITHM: Final = "HS256"
MAX_TOKEN: Final = 4096
MAX_KNOWN: Final = 10_000
# A node whose clock is a little behind takes what another node has just made.
LEEWAY_S: Final = 10
REQUIRED: Final = ("exp", "nbf", "iat", "iss", "sub", "jti", "auth_version")
DEFAULT_LIFE_S: Final = 72 * 3600

_HEADER: Final = urlsafe_b64encode(
    json.dumps({"alg": ALGORITHM, "typ": "JWT"}, separators=(",", ":")).encode("ascii")
).rstrip(b"=").decode("ascii") + "."  # fmt: skip


class BadToken(Exception):
    """Forged, expired, not valid yet, or no token at all."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What is read back of a token: ``subject`` is the user's reference id."""

    subject: str
    auth_version: int
    begins_at: int  # seconds
    expires_at: int


class Tokens:
    """Makes and reads tokens. ``life_s`` is how long one is good."""

    def __init__(self, secret: str, *, issuer: str, life_s: int = DEFAULT_LIFE_S) -> None:
        self._secret = secret.encode("utf-8")
        self.issuer = issuer
        self.life_s = life_s
        # Tokens whose signature was good: checking one takes 50 us, and each request does.
        self._known: dict[str, Claims] = {}

    def issue(self, *, subject: str, email: str, name: str, auth_version: int, now: float) -> str:
        """Make a token for a user; ``now`` in seconds."""
        import jwt

        at = int(now)
        claims: dict[str, Any] = {
            "email": email,
            "sub": subject,
            "name": name,
            "nbf": at,
            "exp": at + self.life_s,
            "iss": self.issuer,
            "iat": at,
            "jti": str(uuid.uuid4()),
            "auth_version": auth_version,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def read(self, token: str, *, now: float) -> Claims:
        """Check a token and give what it claims. Raises: BadToken."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._verified(token)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[token] = claims
        if now >= claims.expires_at or now < claims.begins_at - LEEWAY_S:
            raise BadToken("not valid now")
        return claims

    def _verified(self, token: str) -> Claims:
        import jwt

        if len(token) > MAX_TOKEN or not token.startswith(_HEADER) or not token.isascii():
            raise BadToken("not one of ours")
        try:
            # Times are compared by the caller, with a clock that is handed in.
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                options={
                    "require": list(REQUIRED),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise BadToken(str(error)) from error
        return _claims(claims)


def _claims(claims: Mapping[str, Any]) -> Claims:
    """Raises: BadToken."""
    begin, end, version = (claims[name] for name in ("nbf", "exp", "auth_version"))
    if not all(type(each) is int for each in (begin, end, version)):
        raise BadToken("a number is none")
    return Claims(str(claims["sub"]), version, begin, end)
