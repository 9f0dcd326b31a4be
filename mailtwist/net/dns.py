"""Questions to DNS without blocking: a bounded cache, and each question once at a time.

:class:`Stub` is the blocking way, for commands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from mailtwist.mail.host_names import is_address
from mailtwist.net.stub import (
    Answer,
    DnsError,
    LookupFailed,
    Missing,
    Mx,
    NoData,
    NoSuchName,
    Stub,
    addresses_by_system,
)

__all__ = [
    "Answer",
    "DnsError",
    "LookupFailed",
    "Mx",
    "NoData",
    "NoSuchName",
    "Resolver",
    "Stub",
]

log = Logger()

# They wait, and use no processor. As many as it takes that the slow domains of a bad
# hour do not keep the others waiting.
THREADS: Final = 16

MIN_TTL_S: Final = 30
MAX_TTL_S: Final = 3600
CACHED_ANSWERS: Final = 10_000
# Larger ones are rare, and ten thousand of them would be a burden.
CACHED_OCTETS: Final = 4096


class Resolver:
    """The same without blocking. ``reactor``: its clock, and where results come back."""

    def __init__(self, server: str = "", *, reactor: Any, stub: Stub | None = None) -> None:
        self.server = server
        self._reactor = reactor
        self._stub = stub or Stub(server)
        self._pool = ThreadPool(minthreads=0, maxthreads=THREADS, name="dns")
        self._is_closed = False
        self._cache: OrderedDict[tuple[str, str], tuple[float, Answer | Missing]] = OrderedDict()
        self._asking: dict[tuple[str, str], list[Deferred[Answer | Missing]]] = {}

    async def query(self, name: str, kind: str) -> Answer:
        """Of a name in A-labels. Raises: NoSuchName, NoData, LookupFailed."""
        key = (name.rstrip(".").lower(), kind)
        return await self._result(key, lambda: self._stub.ask(*key))

    async def mx(self, name: str) -> tuple[Mx, ...]:
        return (await self.query(name, "MX")).values

    async def txt(self, name: str) -> list[bytes]:
        return list((await self.query(name, "TXT")).values)

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Of a host that the configuration names: an address, or a name of this network.

        Without a server of our own the system is asked, which knows /etc/hosts too.
        Raises: NoSuchName, NoData, LookupFailed.
        """
        folded = name.rstrip(".").lower()
        # RFC 6761 §6.3: no question for DNS.
        if folded == "localhost" or folded.endswith(".localhost"):
            return ("127.0.0.1", "::1")
        if is_address(folded):
            return (folded,)
        return (await self._result((folded, "host"), lambda: self._host(folded))).values

    def _host(self, name: str) -> Answer | Missing:
        try:
            return Answer(self._addresses(name), MIN_TTL_S)
        except (NoSuchName, NoData) as error:
            return Missing(type(error), str(error), MIN_TTL_S)
        except LookupFailed as error:
            return Missing(LookupFailed, str(error), 0)

    def _addresses(self, name: str) -> tuple[str, ...]:
        if not self.server:
            return addresses_by_system(name)
        found: list[str] = []
        missing: Missing | None = None
        for kind in ("A", "AAAA"):
            answer = self._stub.ask(name, kind)
            if isinstance(answer, Answer):
                found += answer.values
            elif missing is None or answer.error is LookupFailed:
                missing = answer
        if not found and missing is not None:
            raise missing.error(missing.text)
        return tuple(found)

    async def _result(self, key: tuple[str, str], work: Callable[[], Answer | Missing]) -> Answer:
        found = self._cached(key)
        if found is None:
            mine: Deferred[Answer | Missing] = Deferred()
            waiting = self._asking.setdefault(key, [])
            waiting.append(mine)
            if len(waiting) == 1:
                Deferred.fromCoroutine(self._work(key, work))
            found = await mine
        if isinstance(found, Missing):
            raise found.error(found.text)
        return found

    async def _work(self, key: tuple[str, str], work: Callable[[], Answer | Missing]) -> None:
        """Answer all who ask for ``key``; those who were cancelled meanwhile do not hear it."""
        found: Answer | Missing = Missing(LookupFailed, f"{' '.join(key)}: shutting down", 0)
        try:
            if not self._is_closed:
                if not self._pool.started:
                    self._pool.start()
                found = await deferToThreadPool(self._reactor, self._pool, work)
        except Exception:
            log.failure("DNS question {key} failed", key=key)
            found = Missing(LookupFailed, f"{' '.join(key)}: internal error", 0)
        self._keep(key, found)
        for each in self._asking.pop(key):
            each.callback(found)

    def _cached(self, key: tuple[str, str]) -> Answer | Missing | None:
        until, found = self._cache.get(key, (0.0, None))
        if found is None:
            return None
        if until <= self._reactor.seconds():
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        return found

    def _keep(self, key: tuple[str, str], found: Answer | Missing) -> None:
        if isinstance(found, Missing):
            if found.error is LookupFailed:
                return
        elif sum(len(each.name if isinstance(each, Mx) else each) for each in found.values) > (
            CACHED_OCTETS
        ):
            return
        ttl = min(max(found.ttl, MIN_TTL_S), MAX_TTL_S)
        self._cache[key] = (self._reactor.seconds() + ttl, found)
        if len(self._cache) > CACHED_ANSWERS:
            self._cache.popitem(last=False)

    async def close(self) -> None:
        """Ask nothing more; wait, in a thread, for the questions under way."""
        self._is_closed = True
        if self._pool.started:
            pool = self._reactor.getThreadPool()
            await deferToThreadPool(self._reactor, pool, self._pool.stop)
