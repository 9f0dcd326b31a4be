"""Codes, tokens and chance: ``otp.generate``, ``jwt.token``, ``random.generate``."""

from __future__ import annotations

import secrets as chance
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from mailtwist.actions import one_time_codes
from mailtwist.actions.letters import invalid, text_of
from mailtwist.actions.made_up import PASSWORD_LENGTH, password
from mailtwist.actions.registry import Call, Performed, Performer, Response
from mailtwist.errors import ProtocolViolation

MAX_LENGTH: Final = 1024


async def one_time_code(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Six digits under ``otp``. With ``email`` they count once for reset-password-verify.

    An address that is no user's gets digits as well, which count for nothing: nobody is told.
    """
    code = one_time_codes.make()
    email = text_of("email", attributes.get("email"))
    codes = call.context.services.codes
    if email and codes is not None:
        call.buffer.add(partial(_put, codes=codes, email=email, code=code))
    return Performed({"otp": code})


def _put(connection: Any, *, codes: one_time_codes.OneTimeCodes, email: str, code: str) -> None:
    user = one_time_codes.user_of(connection, email)
    if user is not None:
        codes.putting(
            connection, purpose=one_time_codes.RESET, subject=user.reference_id, code=code
        )


async def token(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Sign somebody in by ``email`` and ``password``; the token under ``token``.

    Raises: Unauthorized, TooManyTries.
    """
    email, given = (text_of(name, attributes.get(name)) for name in ("email", "password"))
    if not email or not given:
        raise ProtocolViolation(f"missing required field: {'password' if email else 'email'}")
    context = call.context
    made = await context.services.identities.sign_in(email, given, peer=context.peer)
    return Performed(
        {"token": made},
        (
            Response("client.store.set", {"key": "token", "value": made}),
            Response("client.cookie.set", {"key": "token", "value": f"{made}; SameSite=Strict"}),
        ),
    )


async def random(_call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Something that nobody can guess, under ``value``; ``type`` says in what form."""
    kind = text_of("type", attributes.get("type")) or "password"
    make = _KINDS.get(kind)
    if make is None:
        raise invalid("type", f"one of {', '.join(_KINDS)}")
    return Performed({"value": make(_length(attributes.get("length")))})


def _length(given: Any) -> int:
    if given is None or given == "":
        return PASSWORD_LENGTH
    try:
        length = int(given)
    except (TypeError, ValueError, OverflowError):
        length = 0
    if not 1 <= length <= MAX_LENGTH:
        raise invalid("length", f"a number from 1 to {MAX_LENGTH}")
    return length


_KINDS: Final[Mapping[str, Callable[[int], str]]] = {
    "password": password,
    "digits": one_time_codes.make,
    "hex": lambda length: chance.token_hex((length + 1) // 2)[:length],
    "uuid": lambda _length: str(uuid.uuid4()),
}

PERFORMERS: Final[Mapping[str, Performer]] = {
    "otp.generate": one_time_code,
    "jwt.token": token,
    "random.generate": random,
}
