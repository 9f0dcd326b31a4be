"""API keys: what a program shows instead of a person's token.

``mt_live_`` or ``mt_test_`` and 43 characters of chance. The row keeps a hash and the first
characters, so that the key is seen once, when it is made. What is sent with a test key is
captured and never leaves.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.permissions import Scope
from mailtwist.mail.scopes import parse_scopes

LIVE: Final = "mt_live_"
TEST: Final = "mt_test_"
SHOWN: Final = 12
MAX_KEY: Final = 128


@dataclass(frozen=True, slots=True)
class NewKey:
    """``text`` goes to the person, the rest into the row."""

    text: str = field(repr=False)
    prefix: str
    digest: str = field(repr=False)


def make(*, is_test: bool) -> NewKey:
    text = (TEST if is_test else LIVE) + secrets.token_urlsafe(32)
    return NewKey(text, text[:SHOWN], digest(text))


def looks_like_key(token: str) -> bool:
    return token.startswith((LIVE, TEST))


def digest(text: str) -> str:
    """What a row keeps; 256 bits of chance need no slow hash."""
    return hashlib.sha256(text[:MAX_KEY].encode("utf-8", "replace")).hexdigest()


def scopes(text: str) -> tuple[Scope, ...]:
    """The scopes of a row; of what cannot be read none, which lets nothing be done."""
    try:
        return parse_scopes(json.loads(text))
    except (ValueError, TypeError, ProtocolViolation):
        return ()


def is_configured(given: str, keys: Iterable[str]) -> bool:
    """Whether what a request shows is one of the keys that the settings name; "" is none."""
    shown = _whole_digest(given)
    # All of them, whichever fits: time tells nothing. Digests are of one length.
    fitting = [hmac.compare_digest(shown, _whole_digest(key)) for key in keys if key]
    return bool(given) and any(fitting)


def _whole_digest(text: str) -> bytes:
    return hashlib.sha256(text.strip().encode("utf-8", "replace")).digest()
