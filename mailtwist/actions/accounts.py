"""Users: signing up and signing in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mailtwist.actions.registry import (
    FOR_GUESTS,
    Context,
    Input,
    Operation,
    Response,
    notify,
    redirect,
)
from mailtwist.mail.permissions import SYSTEM
from mailtwist.store.entities.model import Item

REDIRECT_MS: Final = 2000


async def sign_up(
    context: Context, attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Make a user. Raises: Conflict when the address has one."""
    given = {name: attributes.get(name) or "" for name in ("name", "email", "mobile", "password")}
    # Who may is what the gate of the action says; guests may not write the table itself.
    await context.services.resources.create(SYSTEM, "user_account", given, {})
    return (
        notify("Sign-up successful. Redirecting to sign in"),
        redirect("/auth/signin", REDIRECT_MS),
    )


async def sign_in(
    context: Context, attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Give a token. Raises: Unauthorized, TooManyTries."""
    token = await context.services.identities.sign_in(
        attributes["email"], attributes["password"], peer=context.peer
    )
    return (
        Response("client.store.set", {"key": "token", "value": token}),
        Response("client.cookie.set", {"key": "token", "value": f"{token}; SameSite=Strict"}),
        notify("Logged in"),
        redirect("/", REDIRECT_MS),
    )


OPERATIONS: Final = (
    Operation(
        "user_account",
        "signup",
        "Sign up",
        sign_up,
        inputs=(
            Input("name", is_required=True),
            Input("email", "email", is_required=True, tags=("email",)),
            Input("mobile"),
            Input(
                "password",
                "password",
                is_required=True,
                tags=("min=8", "max=1024", "eqfield=passwordConfirm"),
            ),
            Input("passwordConfirm", "password", label="Confirm password"),
        ),
    ),
    Operation(
        "user_account",
        "signin",
        "Sign in",
        sign_in,
        inputs=(
            Input("email", "email", is_required=True),
            Input("password", "password", is_required=True),
        ),
        permission=FOR_GUESTS,
    ),
)
