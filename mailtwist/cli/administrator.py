"""The administrator of a sandbox, made without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mailtwist.cli.filing import inline, run_now

if TYPE_CHECKING:
    from mailtwist.actions.resources import Resources
    from mailtwist.config import Settings
    from mailtwist.store.database import Inline
    from mailtwist.store.engine import Engine

NAME = "Administrator"


def ensure(engine: Engine, settings: Settings, email: str, password: str) -> bool:
    """Have the user with this password, and make him the first administrator.

    False: somebody else is it, and the user is not one.
    """
    from mailtwist.actions.resources import Resources
    from mailtwist.policy import hashing
    from mailtwist.store import secrets
    from mailtwist.store.ids import now_us

    with inline(engine) as database:
        resources = Resources(
            database,
            secrets=secrets.load_or_make(Path(settings.data_dir)),
            derivation=hashing.Inline(),
            cost=settings.auth.bcrypt_cost,
            now=now_us,
        )
        return run_now(_ensure(database, resources, email, password))


async def _ensure(database: Inline, resources: Resources, email: str, password: str) -> bool:
    from mailtwist.actions import world
    from mailtwist.control.rest import seed
    from mailtwist.mail.permissions import SYSTEM
    from mailtwist.policy import passwords
    from mailtwist.store import identities

    await database.write(seed)
    given = {"name": NAME, "email": email, "password": password}
    known = await database.read(lambda connection: identities.active(connection, email))
    if known is None:
        await resources.create(SYSTEM, "user_account", given, {})
        known = await database.read(lambda connection: identities.active(connection, email))
        assert known is not None, "just made"
    user_id = known.account_id
    user, verifiers = await database.read(
        lambda connection: (
            identities.user_of_number(connection, user_id),
            identities.verifiers(connection, user_id),
        )
    )
    assert user is not None, "was found by its address"
    if not passwords.check(list(verifiers), password):
        await resources.update(
            SYSTEM, "user_account", user.reference_id, {"password": password}, {}
        )
    return user.is_admin or await world.make_first(database, user_id)
