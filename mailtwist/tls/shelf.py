"""Certificates by the names that they are for, of which only those in use are in memory.

The index has every name and is cheap; a context costs some 20 KB and a millisecond, so it is
built, in a thread, when a client first asks for it, and the least used one makes room. A row
that changed counts as not built: the next handshake has the new one.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from mailtwist.errors import MailError

log = Logger()

MAX_CONTEXTS: Final = 1_000
# So long a handshake waits for its certificate; then it gets the listener's own.
LOADING_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate that there is. ``version`` differs when its content does.

    ``own``: the names that were asked for; of two certificates for one name the one that was
    asked to be for it comes first.
    """

    number: int
    names: tuple[str, ...]
    version: Hashable
    own: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Built:
    version: Hashable
    context: SSL.Context | None  # None: it cannot be used


# Builds the context of an entry. Raises: MailError, ValueError.
Load = Callable[[int], Awaitable[SSL.Context]]


class Shelf:
    """``clock`` None: loading may take as long as it takes."""

    def __init__(self, load: Load, *, clock: Any = None, size: int = MAX_CONTEXTS) -> None:
        self._load = load
        self._clock = clock
        self._size = size
        self._entries: dict[int, Entry] = {}
        self._by_name: dict[str, tuple[int, ...]] = {}
        self._built: OrderedDict[int, _Built] = OrderedDict()
        self._kept: frozenset[int] = frozenset()
        self._loading: dict[tuple[int, Hashable], list[Deferred[None]]] = {}
        self.generation = 0  # counts changes of the index

    # -- the index --------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def numbers(self) -> Collection[int]:
        return self._entries.keys()

    @property
    def contexts(self) -> int:
        """How many are in memory."""
        return len(self._built)

    def put(self, entries: Iterable[Entry]) -> None:
        """Add entries, or replace those of the same numbers."""
        for entry in entries:
            known = self._entries.get(entry.number)
            if known == entry:
                continue
            if known is not None:
                self._unname(known)
            self._entries[entry.number] = entry
            self.generation += 1
            for name in entry.names:
                self._by_name[name] = self._ranked(name, entry.number)

    def remove(self, numbers: Iterable[int]) -> None:
        """Take entries out, their contexts too."""
        for number in numbers:
            entry = self._entries.pop(number, None)
            if entry is not None:
                self._unname(entry)
                self.generation += 1
            self._built.pop(number, None)

    def _unname(self, entry: Entry) -> None:
        for name in entry.names:
            left = tuple(n for n in self._by_name.get(name, ()) if n != entry.number)
            if left:
                self._by_name[name] = left
            else:
                self._by_name.pop(name, None)

    def _ranked(self, name: str, number: int) -> tuple[int, ...]:
        """All for a name with this one, the one that counts first."""
        others = self._by_name.get(name)
        if others is None:
            return (number,)
        # A name may be that of thousands: they are in order already.
        found = [each for each in others if each != number]
        insort(found, number, key=lambda n: (name not in self._entries[n].own, n))
        return tuple(found)

    def has(self, name: str) -> bool:
        """Whether there is one for exactly this name."""
        return name in self._by_name

    def number_of(self, name: str) -> int | None:
        """The one that counts for exactly this name."""
        return self._by_name.get(name, (None,))[0]

    # -- contexts ---------------------------------------------------------------------------

    def find(self, name: str) -> SSL.Context | None:
        """The context for exactly this name, when it is in memory; it may be the one before."""
        number = self.number_of(name)
        built = None if number is None else self._built.get(number)
        if number is None or built is None:
            return None
        self._built.move_to_end(number)
        return built.context

    def misses(self, name: str) -> bool:
        """Whether what there is for exactly this name is yet to be built."""
        number = self.number_of(name)
        return number is not None and not self._is_built(number)

    def _is_built(self, number: int) -> bool:
        built = self._built.get(number)
        return built is not None and built.version == self._entries[number].version

    def keep(self, numbers: Collection[int]) -> None:
        """Never drop these for want of room."""
        self._kept = frozenset(numbers)

    async def fetch(self, name: str) -> None:
        """Have the context for exactly this name in memory; what goes wrong is logged."""
        number = self.number_of(name)
        if number is None or self._is_built(number):
            return
        key = number, self._entries[number].version
        mine: Deferred[None] = Deferred()
        waiting = self._loading.setdefault(key, [])
        waiting.append(mine)
        if len(waiting) == 1:
            Deferred.fromCoroutine(self._build(*key))
        if self._clock is not None and not mine.called:
            mine.addTimeout(LOADING_S, self._clock)
        try:
            await mine
        except TimeoutError:
            log.warn("the certificate of {name} takes too long to load", name=name)

    async def _build(self, number: int, version: Hashable) -> None:
        """Build it and wake who waits. One that cannot be used is not tried again."""
        before = self._built.get(number)
        built = _Built(version, before.context if before is not None else None)
        is_known = True
        try:
            built.context = await self._load(number)
        except MailError as error:
            # The store may be back at the next handshake.
            is_known = False
            log.warn("a certificate cannot be loaded: {error}", error=error)
        except ValueError as error:
            log.error("certificate {number} cannot be used: {error}", number=number, error=error)
        except Exception:
            log.failure("a certificate cannot be loaded")
        entry = self._entries.get(number)
        if is_known and entry is not None and entry.version == version:
            self._add(number, built)
        for each in self._loading.pop((number, version), ()):
            if not each.called:
                each.callback(None)

    def _add(self, number: int, built: _Built) -> None:
        self._built[number] = built
        self._built.move_to_end(number)
        if len(self._built) > self._size + len(self._kept):
            oldest = next((each for each in self._built if each not in self._kept), None)
            if oldest is not None:
                del self._built[oldest]
