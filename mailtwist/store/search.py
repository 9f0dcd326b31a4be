"""SEARCH: which messages of a mailbox match a tree (RFC 9051 §6.4.4).

A tree is evaluated over one :class:`Snapshot` to a *mask*: one octet for each
of its messages, 1 where the message matches. Each kind of node has the
cheapest source that knows it:

* flags, keywords, numbers: the snapshot's arrays, no statement at all;
* what the store keeps in columns: SQL, all such neighbours in one statement;
* other header fields, TEXT and BODY: the decoded messages themselves.

Nodes of an AND are taken in that order and each sees only the messages still
in question, so that a scan reads few. Every page is a read of its own: no
transaction is held for long and other accounts get their turns.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from mailtwist.errors import Refusal
from mailtwist.mail import flags as bits
from mailtwist.mail import search as tree
from mailtwist.store import fetch, scan
from mailtwist.store.conditions import (
    EVERYTHING,
    Condition,
    chained,
    compiled,
    select,
)
from mailtwist.store.masks import (
    HAS_BIT,
    INVERSE,
    Mask,
    both,
    either,
    indexes,
    octet_of,
    of_spans,
    without,
)
from mailtwist.store.sql import many

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mailtwist.store.database import Database
    from mailtwist.store.snapshot import Snapshot

# Messages that one statement looks at: some 20 ms.
PAGE: Final = 16384
# Messages of which one read decodes as many as its bound of octets allows.
SCAN_PAGE: Final = 500
# Keys that read rows or messages: each costs a pass over the mailbox.
MAXIMUM_PASSES: Final = 100


# -- the evaluation -------------------------------------------------------------------------


class Search:
    """One SEARCH over the messages of ``now``.

    Sequence numbers in the tree count in ``view``, of which ``now`` may lack
    some; ``recent_from`` is the session's. ``is_sparse``: the mailbox has many others between
    those that ``now`` has.
    """

    def __init__(
        self,
        database: Database,
        view: Snapshot,
        now: Snapshot,
        recent_from: int,
        *,
        is_sparse: bool = False,
    ) -> None:
        self._database = database
        self._numbering = view.uids
        self._view = now
        self._recent_from = recent_from
        self._octets = now.flags.tobytes()
        self._is_sparse = is_sparse

    async def matches(self, node: tree.Node) -> Mask:
        """The mask of all messages.

        Raises: ProtocolViolation for a tree that is too deep or too large,
        Refusal for one that would read the mailbox too often.
        """
        tree.check_bounds(node)
        if _passes(node) > MAXIMUM_PASSES:
            raise Refusal("Search is too complex", imap_code="LIMIT")
        return await self._evaluate(node, b"\1" * len(self._view.uids))

    async def _evaluate(self, node: tree.Node, within: Mask) -> Mask:
        """The part of ``within`` that matches."""
        if 1 not in within:
            return within
        kind = type(node)
        if kind in _FROM_ARRAYS:
            return both(within, _FROM_ARRAYS[kind](self, node))
        condition = compiled(node)
        if condition is not None:
            return await self._selected(condition, within)
        return await _EVALUATE[kind](self, node, within)

    async def _and(self, node: tree.And, within: Mask) -> Mask:
        # The arrays first, then all columns in one statement, then what reads messages.
        rest = sorted(node.items, key=_cost)
        conditions = [item for item in map(compiled, rest) if item is not None]
        others = [item for item in rest if compiled(item) is None]
        free = [item for item in others if _cost(item) == 0]
        for item in free:
            within = await self._evaluate(item, within)
        if conditions:
            within = await self._selected(chained("AND", conditions), within)
        for item in others[len(free) :]:
            within = await self._evaluate(item, within)
        return within

    async def _or(self, node: tree.Or, within: Mask) -> Mask:
        first, second = sorted((node.a, node.b), key=_cost)
        found = await self._evaluate(first, within)
        return either(found, await self._evaluate(second, without(within, found)))

    async def _not(self, node: tree.Not, within: Mask) -> Mask:
        return without(within, await self._evaluate(node.a, within))

    # -- from the arrays --------------------------------------------------------------------

    def _flag(self, node: tree.Flag) -> Mask:
        return self._bit(bits.SYSTEM[node.bit_name].bit_length() - 1, present=node.present)

    def _keyword(self, node: tree.Keyword) -> Mask:
        bit = self._view.keywords.bits.get(node.name.lower())
        if bit is None:
            return (b"\0" if node.present else b"\1") * len(self._view.uids)
        return self._bit(bit, present=node.present)

    def _bit(self, bit: int, *, present: bool) -> Mask:
        # One octet of each 64-bit value; arrays are in the machine's order.
        mask = self._octets[octet_of(bit) :: 8].translate(HAS_BIT[bit % 8])
        return mask if present else mask.translate(INVERSE)

    def _uid(self, node: tree.Uid) -> Mask:
        uids = self._view.uids
        return of_spans(node.numbers.spans(uids, uids[-1] if uids else 0), len(uids))

    def _sequence(self, node: tree.Sequence) -> Mask:
        numbering, uids = self._numbering, self._view.uids
        spans = []
        # A number beyond the last message names nothing; it is no error here.
        for low, high in node.numbers.ranges(len(numbering)):
            if low <= len(numbering):
                last = numbering[min(high, len(numbering)) - 1]
                spans.append((bisect_left(uids, numbering[low - 1]), bisect_right(uids, last)))
        return of_spans(spans, len(uids))

    def _recent(self, node: tree.Recent | tree.Old | tree.New) -> Mask:
        first = bisect_left(self._view.uids, self._recent_from)
        recent = bytes(first) + b"\1" * (len(self._view.uids) - first)
        if isinstance(node, tree.Old):
            return recent.translate(INVERSE)
        if isinstance(node, tree.New):
            return without(recent, self._bit(0, present=True))
        return recent

    # -- from columns -----------------------------------------------------------------------

    async def _selected(self, condition: Condition, within: Mask) -> Mask:
        if condition is EVERYTHING or 1 not in within:
            return within

        def page(connection: Connection, uids: Sequence[int], dense: bool) -> Iterable[int]:
            sql = select(connection, "m.uid", condition, listed=not dense)
            rows = fetch.execute(connection, sql, self._bounds(connection, uids, dense, condition))
            return {row[0] for row in rows.fetchall()}

        return await self._paged(within, page)

    def _bounds(
        self, connection: Connection, uids: Sequence[int], dense: bool, condition: Condition
    ) -> list[Any]:
        view = self._view
        bounds: list[Any] = [view.account_id, view.mailbox_id, uids[0], uids[-1]]
        if not dense:
            bounds.append(many(connection, uids))
        return [*bounds, *condition.parameters]

    async def _paged(
        self, within: Mask, page: Callable[[Connection, Sequence[int], bool], Iterable[int]]
    ) -> Mask:
        """Ask page by page; one statement sees the messages of one page."""
        found = bytearray(len(within))
        for start in range(0, len(within), PAGE):
            part = within[start : start + PAGE]
            count = part.count(1)
            if not count:
                continue
            uids = self._view.uids[start : start + PAGE]
            # Few of many are named one by one.
            dense = count * 8 > len(part) and not self._is_sparse
            asked = uids if dense else list(compress(uids, part))

            def work(
                connection: Connection,
                asked: Sequence[int] = asked,
                uids: Sequence[int] = uids,
                dense: bool = dense,
            ) -> bytes:
                return bytes(map(_as_set(page(connection, asked, dense)).__contains__, uids))

            mask = await self._database.read(work, account_id=self._view.account_id)
            found[start : start + PAGE] = both(part, mask)
        return bytes(found)

    # -- from the messages ------------------------------------------------------------------

    async def _scanned(self, node: tree.Header | tree.Text | tree.Body, within: Mask) -> Mask:
        test = scan.test_of(node)
        chosen = indexes(within)
        found = bytearray(len(within))
        view = self._view
        start = 0
        while start < len(chosen):
            page = chosen[start : start + SCAN_PAGE]
            uids = [view.uids[index] for index in page]

            def work(connection: Connection, uids: list[int] = uids) -> tuple[int, set[int]]:
                return scan.page(connection, view.account_id, view.mailbox_id, uids, test)

            count, matching = await self._database.read(work, account_id=view.account_id)
            for index, uid in zip(page, uids, strict=True):
                if uid in matching:
                    found[index] = 1
            start += count
        return bytes(found)


def _as_set(found: Iterable[int]) -> set[int]:
    return found if isinstance(found, set) else set(found)


_FROM_ARRAYS: Final[dict[type, Callable[[Search, Any], Mask]]] = {
    tree.Flag: Search._flag,
    tree.Keyword: Search._keyword,
    tree.Uid: Search._uid,
    tree.Sequence: Search._sequence,
    tree.Recent: Search._recent,
    tree.Old: Search._recent,
    tree.New: Search._recent,
}

_EVALUATE: Final[dict[type, Callable[[Search, Any, Mask], Awaitable[Mask]]]] = {
    tree.And: Search._and,
    tree.Or: Search._or,
    tree.Not: Search._not,
    tree.Header: Search._scanned,
    tree.Text: Search._scanned,
    tree.Body: Search._scanned,
}


def _walk(node: tree.Node) -> Iterator[tree.Node]:
    waiting = [node]
    while waiting:
        part = waiting.pop()
        yield part
        waiting.extend(tree.children(part))


def _cost(node: tree.Node) -> int:
    """0 for the arrays, 1 for columns, 2 where messages are decoded; of the dearest part."""
    return max(_COSTS.get(type(part), 0) for part in _walk(node))


def _passes(node: tree.Node) -> int:
    return sum(type(part) in _COSTS for part in _walk(node))


_COSTS: Final[dict[type, int]] = {
    tree.Attached: 1,
    tree.Field: 1,
    tree.Larger: 1,
    tree.Smaller: 1,
    tree.InternalDate: 1,
    tree.ModSeq: 1,
    tree.SentDate: 1,
    tree.Header: 2,
    tree.Text: 2,
    tree.Body: 2,
}
