"""A Redis that several nodes share: counts that end, and values that end.

It may be away. Then ``is_up`` is False, every call raises :class:`RedisAway` at once, and
connecting is tried again in the background; no call takes longer than its deadline. So nothing
may be here alone, and whoever asks goes on without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError
from twisted.logger import Logger

from mailtwist.config.redis import read_redis
from mailtwist.errors import ConfigError, TemporaryFailure
from mailtwist.net.redis_replies import MAX_VALUE
from mailtwist.net.redis_windows import Taken, Window

if TYPE_CHECKING:
    from mailtwist.net.redis_connection import Connection

__all__ = ["Redis", "RedisAway", "Taken", "Window"]

log = Logger()
T = TypeVar("T")
# Counts do not wait behind long values: one connection for each.
Pair: TypeAlias = "tuple[Connection, Connection]"

# An attempt to connect, with login and trial.
CONNECT_S: Final = 2.0
FIRST_RETRY_S: Final = 0.5
MAX_RETRY_S: Final = 2.0
# Of a server that comes and goes, one warning in this time.
WARN_EVERY_S: Final = 60.0
STEPS: Final = 5
_TRIAL_MS: Final = 1000
_MAX_REASON: Final = 200


class RedisAway(TemporaryFailure):
    """It does not answer, or not so that it could be used."""

    default_text = "Redis does not answer"


class Redis:
    """One in a process. ``namespace``: begins every key. Raises: ConfigError for the URL."""

    def __init__(
        self, url: str, *, reactor: Any, deadline_s: float = 0.25, namespace: str = "mailtwist"
    ) -> None:
        try:
            self._server = read_redis(url)
        except ValueError as error:
            raise ConfigError(f"redis_url: {error}") from None
        self._reactor = reactor
        self._deadline_s = deadline_s
        self._namespace = namespace
        self._open: Pair | None = None
        self._attempt: Deferred[None] | None = None
        self._timer: Any = None
        self._retry_s = FIRST_RETRY_S
        self._is_told = False
        self._quiet_until = 0.0
        self._has_stopped = False

    @property
    def is_up(self) -> bool:
        return self._open is not None

    async def start(self) -> None:
        """Connect; what fails is tried again, and this never fails. At most CONNECT_S."""
        self._has_stopped = False
        await self._try()

    async def stop(self) -> None:
        """Close the connections, and make no more."""
        self._has_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempt is not None:
            self._attempt.cancel()
        pair, self._open = self._open, None
        if pair is not None:
            _abort(pair)

    # -- what it is asked for -----------------------------------------------------------------

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key; None: there is none. Raises: RedisAway."""
        if not keys:
            return []
        _, values = self._pair()
        return await self._in_time(values.get([self._key(key) for key in keys]))

    async def set_many(self, items: Sequence[tuple[str, bytes, int]]) -> None:
        """Keep values, each for its milliseconds; what is too large is left out.

        Raises: RedisAway, and then some may be kept.
        """
        kept = [
            (self._key(key), value, lasts)
            for key, value, lasts in items
            if lasts > 0 and len(value) <= MAX_VALUE
        ]
        if kept:
            _, values = self._pair()
            await self._in_time(values.set(kept))

    async def take(self, windows: Sequence[Window]) -> Taken:
        """Count one event in every window, or in none if one is full. Raises: RedisAway."""
        counts, _ = self._pair()
        return await self._in_time(self._take(counts, windows))

    async def _take(self, connection: Connection, windows: Sequence[Window]) -> Taken:
        return await connection.take([self._key(each.key) for each in windows], windows)

    def _key(self, key: str) -> bytes:
        return f"{self._namespace}:{key}".encode(errors="replace")

    # -- in time, or away ---------------------------------------------------------------------

    def _pair(self) -> Pair:
        if self._open is None:
            raise RedisAway
        return self._open

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of a question; whatever goes wrong with it, Redis is away."""
        pair = self._open
        calling: Deferred[T] = Deferred.fromCoroutine(work)
        deadline = _Deadline(self._reactor, self._deadline_s, calling.cancel)
        try:
            return await calling
        except CancelledError:
            if not deadline.has_passed:
                raise  # who asked has gone away
            self._lose(pair, "no answer in time")
            raise RedisAway from None
        except Exception as error:
            reason = self._reason(error)
            self._lose(pair, reason)
            raise RedisAway(detail=reason) from error
        finally:
            deadline.cancel()

    def _lose(self, pair: Pair | None, reason: str) -> None:
        """Do without from here on; once for what was open."""
        if pair is None or pair is not self._open:
            return
        self._open = None
        _abort(pair)
        self._away(reason)

    # -- connecting ---------------------------------------------------------------------------

    def _away(self, reason: str) -> None:
        self._tell(reason)
        if not self._has_stopped and self._timer is None:
            self._timer = self._reactor.callLater(self._retry_s, self._retry)
            self._retry_s = min(MAX_RETRY_S, self._retry_s * 2)

    def _retry(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._try()).addErrback(
            lambda failure: log.failure("redis", failure)
        )

    async def _try(self) -> None:
        reason = ""
        attempt = self._attempt = Deferred.fromCoroutine(self._connect())
        deadline = _Deadline(self._reactor, CONNECT_S, attempt.cancel)
        try:
            await attempt
        except CancelledError:
            reason = "no answer in time"
        except ImportError:
            reason = "txredisapi is not installed: pip install 'mailtwist[redis]'"
        except Exception as error:
            reason = self._reason(error)
        finally:
            self._attempt = None
            deadline.cancel()
        if reason and not self._has_stopped:
            self._away(reason)

    async def _connect(self) -> None:
        """Log in twice, and see that it does what it will be asked to do."""
        from mailtwist.net.redis_connection import Connection

        opened: list[Connection] = []
        try:
            for _ in range(2):
                connection = Connection(self._connection_lost)
                opened.append(connection)
                await connection.open(self._server, self._reactor)
            counts, values = opened
            await self._take(counts, [Window("trial", 1 << 30, _TRIAL_MS)])
            await values.set([(self._key("trial value"), b"1", _TRIAL_MS)])
            if not counts.connected:  # any more
                raise RedisAway
        except BaseException:
            _abort(opened)
            raise
        self._back((counts, values))

    def _connection_lost(self, connection: Connection, why: str) -> None:
        if self._open is not None and connection in self._open:
            self._lose(self._open, why)

    def _reason(self, error: BaseException) -> str:
        return self._server.hidden(_reason(error))[:_MAX_REASON]

    def _back(self, pair: Pair) -> None:
        if self._has_stopped:
            _abort(pair)
            return
        self._open = pair
        self._retry_s = FIRST_RETRY_S
        self._is_told = False
        log.info("Redis is in use", server=self._server.shown)

    def _tell(self, reason: str) -> None:
        """Warn once when it goes away; one that comes and goes does not fill the log."""
        if self._is_told:
            return
        self._is_told = True
        now = self._reactor.seconds()
        tell = log.info if now < self._quiet_until else log.warn
        self._quiet_until = now + WARN_EVERY_S
        tell(
            "Redis is away, what it holds is kept without it: {reason}",
            server=self._server.shown,
            reason=reason,
        )


class _Deadline:
    """Calls ``late`` once when the time is over, unless it is cancelled before.

    The time is waited for in steps, each a turn of the reactor: while that stands still it is
    we who are late, and what was answered meanwhile is read first.
    """

    __slots__ = ("_late", "_reactor", "_step_s", "_steps", "_timer", "has_passed")

    def __init__(self, reactor: Any, seconds: float, late: Callable[[], None]) -> None:
        self.has_passed = False
        self._reactor = reactor
        self._late = late
        self._steps = STEPS
        self._step_s = seconds / STEPS
        self._timer = reactor.callLater(self._step_s, self._step)

    def _step(self) -> None:
        self._steps -= 1
        if self._steps:
            self._timer = self._reactor.callLater(self._step_s, self._step)
        else:
            self.has_passed = True
            self._late()

    def cancel(self) -> None:
        if self._timer.active():
            self._timer.cancel()


def _abort(connections: Iterable[Connection]) -> None:
    for each in connections:
        each.abort()


def _reason(error: BaseException) -> str:
    if isinstance(error, FirstError):
        return _reason(error.subFailure.value)  # type: ignore[arg-type]
    return str(error) or type(error).__name__
