"""What administrators store under ``/_config``: rows, and the values in use.

Secret values are sealed before they become rows. Each change raises the generation
``config``; every process then reads the rows again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, text
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.config import Settings, overlay
from mailtwist.config.kinds import MASK
from mailtwist.errors import Conflict, NotFound, ProtocolViolation
from mailtwist.store import changes
from mailtwist.store.secrets import Secrets, Unreadable

log = Logger()

T = TypeVar("T")

KIND: Final = "config"
# Keys that are only kept for somebody else; who needs more keeps them elsewhere.
MAX_KEYS: Final = 1000

_ALL = text("SELECT name, value, is_sealed FROM config_value ORDER BY name")
_ONE = text("SELECT value FROM config_value WHERE name = :name")
_COUNT = text("SELECT count(*) FROM config_value WHERE name <> :name")
_PUT = text(
    "INSERT INTO config_value (name, value, is_sealed, updated_at)"
    " VALUES (:name, :value, :is_sealed, :now)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value,"
    " is_sealed = excluded.is_sealed, updated_at = excluded.updated_at"
)
_ESTABLISH = text(
    "INSERT INTO config_value (name, value, is_sealed, updated_at)"
    " VALUES (:name, :value, :is_sealed, :now) ON CONFLICT (name) DO NOTHING"
)
_REMOVE = text("DELETE FROM config_value WHERE name = :name")


@dataclass(frozen=True, slots=True)
class Row:
    """A value as it is stored; ``value`` is sealed where ``is_sealed``."""

    name: str
    value: str
    is_sealed: bool = False


def rows(connection: Connection) -> list[Row]:
    return [Row(name, value, bool(sealed)) for name, value, sealed in connection.execute(_ALL)]


def put(connection: Connection, row: Row, now: int) -> None:
    """Store a value in place of the one before. Raises: Conflict when there are too many."""
    if (connection.execute(_COUNT, {"name": row.name}).scalar() or 0) >= MAX_KEYS:
        raise Conflict(f"There are {MAX_KEYS} keys already")
    connection.execute(_PUT, _parameters(row, now))
    changes.bump(connection, KIND)


def establish(connection: Connection, row: Row, now: int) -> str:
    """Store a value unless there is one; the stored one, of whichever node was quicker."""
    if connection.execute(_ESTABLISH, _parameters(row, now)).rowcount == 1:
        changes.bump(connection, KIND)
    return str(connection.execute(_ONE, {"name": row.name}).scalar_one())


def remove(connection: Connection, name: str) -> None:
    """Raises: NotFound."""
    if connection.execute(_REMOVE, {"name": name}).rowcount == 0:
        raise NotFound(f"{name} is not set")
    changes.bump(connection, KIND)


def _parameters(row: Row, now: int) -> dict[str, Any]:
    # A flag is a small integer on both engines.
    return {"name": row.name, "value": row.value, "is_sealed": int(row.is_sealed), "now": now}


class Store(Protocol):
    """What is needed of :class:`mailtwist.store.database.Database`."""

    @property
    def changes(self) -> Any: ...
    def read(self, work: Callable[[Connection], T]) -> Awaitable[T]: ...
    def write(self, work: Callable[[Connection], T]) -> Awaitable[T]: ...


class ConfigValues:
    """The values in use, in memory; one for the process. Belongs to the reactor's thread.

    ``settings``: as they were read at the start. ``now``: in microseconds.
    """

    def __init__(
        self, database: Store, settings: Settings, secrets: Secrets, *, now: Callable[[], int]
    ) -> None:
        self._database = database
        self._given = settings
        self._secrets = secrets
        self._now = now
        self._values: Mapping[str, str] = {}
        self._watchers: list[Callable[[], object]] = []
        self._asked = self._loaded = 0
        self.settings = settings
        database.changes.watch(KIND, self._reload)

    # -- reading ------------------------------------------------------------------------------

    def get(self, name: str) -> str:
        """The value in use: of the source that locks it, else the stored one, else the default."""
        name = overlay.canonical(name)
        if overlay.locked_by(self._given, name):
            return overlay.in_use(self._given, name)
        return self._values.get(name) or overlay.default(name)

    def shown(self, name: str) -> str:
        """What an administrator may see of a key that is set. Raises: NotFound."""
        name = overlay.canonical(name)
        if name not in self._values and not overlay.locked_by(self._given, name):
            raise NotFound(f"{name} is not set")
        return self._masked(name)

    def all_shown(self) -> dict[str, str]:
        """Every value in use, secrets masked."""
        names = dict.fromkeys([*(key.name for key in overlay.KEYS), *self._values])
        return {name: self._masked(name) for name in names}

    def _masked(self, name: str) -> str:
        value = self.get(name)
        return MASK if value and overlay.is_secret(name) else value

    # -- changing -----------------------------------------------------------------------------

    async def put(self, name: str, value: str) -> None:
        """Store a value; it is in use on return.

        Raises: Conflict when a source of the settings has given it, ProtocolViolation for a
        value that the key cannot use.
        """
        name = self._open_to_change(name)
        if overlay.is_secret(name) and value == MASK:
            raise ProtocolViolation(f"{name}: is the mask that hides it, not a value")
        try:
            overlay.check(name, value)
        except ValueError as error:
            raise ProtocolViolation(f"{name}: {error}") from None
        row = self._row(name, value)
        await self._database.write(partial(put, row=row, now=self._now()))
        await self.load()

    async def remove(self, name: str) -> None:
        """Forget a value; the default is in use on return. Raises: Conflict, NotFound."""
        name = self._open_to_change(name)
        await self._database.write(partial(remove, name=name))
        await self.load()

    async def establish(self, name: str, make: Callable[[], str]) -> str:
        """The stored value; a new one where there is none, or none that can be opened."""
        if not self._values.get(name):
            row = self._row(name, make())
            stored = await self._database.write(partial(establish, row=row, now=self._now()))
            if self._opened(Row(name, stored, row.is_sealed)) is None:
                await self._database.write(partial(put, row=row, now=self._now()))
            await self.load()
        return self._values[name]

    def _open_to_change(self, name: str) -> str:
        try:
            overlay.check_name(name)
        except ValueError as error:
            raise ProtocolViolation(f"The key {error}") from None
        name = overlay.canonical(name)
        source = overlay.locked_by(self._given, name)
        if source:
            raise Conflict(f"{name} is given by the {source}")
        return name

    def _row(self, name: str, value: str) -> Row:
        is_sealed = overlay.is_secret(name)
        sealed = self._secrets.seal(value, _purpose(name)) if is_sealed else value
        return Row(name, sealed, is_sealed)

    # -- keeping up with the rows -------------------------------------------------------------

    def watch(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change of the values."""
        self._watchers.append(callback)

    async def load(self) -> None:
        """Read the rows and put them into use. Raises: MailError."""
        self._asked += 1
        turn = self._asked
        found = await self._database.read(self._read)
        if turn < self._loaded:
            return  # one that began later has come back before
        self._loaded = turn
        if found == self._values:
            return
        self._values = found
        self.settings = overlay.overlaid(self._given, found)
        for callback in tuple(self._watchers):
            callback()

    def _reload(self) -> None:
        loading = Deferred.fromCoroutine(self.load())
        loading.addErrback(lambda failure: log.warn("config: {error}", error=failure.value))

    def _read(self, connection: Connection) -> dict[str, str]:
        opened = {row.name: self._opened(row) for row in rows(connection)}
        return {name: value for name, value in opened.items() if value is not None}

    def _opened(self, row: Row) -> str | None:
        if not row.is_sealed:
            return row.value
        try:
            return self._secrets.open(row.value, _purpose(row.name))
        except Unreadable as error:
            log.error("config: {name}: {error}", name=row.name, error=error)
            return None


def _purpose(name: str) -> str:
    return f"config {name}"
