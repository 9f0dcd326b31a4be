"""A new DKIM key takes over once the world can know it.

:func:`prepare` makes the key that will follow; it signs as soon as its record is seen in
DNS. The key before it retires then; its record must stay for a week, because mail that it
signed may still be on its way.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final, Protocol

from twisted.logger import Logger

from mailtwist.errors import NotFound
from mailtwist.net.dns import DnsError
from mailtwist.net.periodic import Periodic
from mailtwist.policy.keyring import Keyring, selector_of
from mailtwist.store import dkim_keys
from mailtwist.store.dkim_keys import ACTIVE, NEXT, Key
from mailtwist.store.ids import now_us

log = Logger()

EVERY_S: Final = 600.0
KEEP_US: Final = 7 * 86_400_000_000

# "d1" is followed by "d2", "mail" by "mail2".
_NUMBERED = re.compile(r"(.*?)(\d{0,9})")


class Resolver(Protocol):
    async def txt(self, name: str) -> list[bytes]: ...


def record_name(key: Key) -> str:
    return f"{key.selector}._domainkey.{key.domain}"


def record_value(key: Key) -> str:
    """The TXT record of a key (RFC 6376 §3.6.1)."""
    kind = key.algorithm.removesuffix("-sha256")
    return f"v=DKIM1; k={kind}; p={key.public_key}"


async def is_published(resolver: Resolver, key: Key) -> bool:
    """Whether DNS has the record of this key. Raises nothing for what DNS does."""
    try:
        records = await resolver.txt(record_name(key))
    except DnsError:
        return False
    return any(_tags(record).get("p") == key.public_key for record in records)


def _tags(record: bytes) -> dict[str, str]:
    text = "".join(record.decode("ascii", "replace").split())
    return {name: value for name, _, value in (tag.partition("=") for tag in text.split(";"))}


async def prepare(keyring: Keyring, domain: str, algorithm: str, selector: str = "") -> Key:
    """The key that will follow the active one: the one that waits already, else a new one.

    ``selector``: of a new RSA key, "" for the next free one. Raises: NotFound when nothing is
    active, Conflict when the selector is or was in use.
    """
    database, group = keyring.database, (algorithm, keyring.configured)
    known: list[Key] = await database.read(lambda connection: dkim_keys.list(connection, domain))
    peers = {key.state: key for key in known if (key.algorithm, key.configured) == group}
    wanted = selector and selector_of(selector, algorithm)
    if NEXT in peers and wanted in {"", peers[NEXT].selector}:
        return peers[NEXT]
    if ACTIVE not in peers:
        raise NotFound(f"{domain} has no {algorithm} key yet")
    name = wanted or next_selector(peers[ACTIVE], {key.selector for key in known})
    made = replace(await keyring.make(domain, name, algorithm), state=NEXT)
    await database.write(lambda connection: dkim_keys.add_next(connection, made))
    return made


def next_selector(active: Key, taken: Collection[str]) -> str:
    """A selector that no key of the domain has or had."""
    suffix = selector_of("", active.algorithm)
    match = _NUMBERED.fullmatch(active.selector.removesuffix(suffix))
    assert match is not None, "the pattern matches anything"
    base, number = match[1], int(match[2] or 1)
    while (name := f"{base}{(number := number + 1)}{suffix}") in taken:
        pass
    return name


async def activate(database: Any, key: Key) -> None:
    """Sign with a prepared key from now on. Raises: NotFound."""
    await database.write(lambda connection: dkim_keys.activate(connection, key, now_us()))


async def activate_published(database: Any, resolver: Resolver) -> list[Key]:
    """Activate every prepared key whose record is in DNS; which these were."""
    activated = []
    for key in await database.read(dkim_keys.pending):
        if not await is_published(resolver, key):
            continue
        try:
            await activate(database, key)
        except NotFound:
            continue  # another node was quicker
        log.info("DKIM key {name} is published and signs now", name=record_name(key))
        activated.append(key)
    return activated


class Rotation:
    """Looks every ten minutes whether a prepared key was published; ``clock`` is the reactor's."""

    def __init__(self, database: Any, resolver: Resolver, clock: Any) -> None:
        self._database = database
        self._resolver = resolver
        self._looking = Periodic("a look at DKIM keys", self._look, every_s=EVERY_S, clock=clock)

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        self._looking.cancel()

    async def _look(self) -> None:
        await activate_published(self._database, self._resolver)
