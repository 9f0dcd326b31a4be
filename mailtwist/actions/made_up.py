"""Passwords that nobody thought of."""

from __future__ import annotations

import secrets as chance
import string
from typing import Final

PASSWORD_LENGTH: Final = 16
# Easily told apart in every typeface.
PASSWORD_CHARACTERS: Final = "".join(
    sorted(set(string.ascii_letters + string.digits) - set("0O1lI"))
)


def password(length: int = PASSWORD_LENGTH) -> str:
    return "".join(chance.choice(PASSWORD_CHARACTERS) for _ in range(length))
