"""What a mailbox looked like at one modseq: shared by the sessions, never changed.

A session numbers its messages by the snapshot it holds and moves to a newer one when the
protocol lets it; :func:`changes_between` tells what to announce then. Sessions on one
mailbox share the arrays: twelve octets for each message, however many sessions.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, compress
from operator import ne
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection

from mailtwist.errors import NotFound
from mailtwist.mail.uidset import expand
from mailtwist.store import keywords
from mailtwist.store.keywords import Keywords
from mailtwist.store.names import HIDDEN
from mailtwist.store.sql import Statement

T = TypeVar("T")

MAX_OCTETS: Final = 64 * 2**20
_OVERHEAD: Final = 1024  # of a snapshot's objects, roughly
_BLOCK: Final = 1024  # elements compared at one go


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``uids`` ascending and ``flags`` beside them: a sequence number is an index plus one."""

    account_id: int
    mailbox_id: int
    uidvalidity: int
    uidnext: int
    modseq: int
    uids: array[int]
    flags: array[int]
    recent_from: int
    keywords: Keywords

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def octets(self) -> int:
        return (
            len(self.uids) * self.uids.itemsize + len(self.flags) * self.flags.itemsize
        ) + _OVERHEAD

    @property
    def recent(self) -> int:
        r"""Count the messages that are \Recent to whoever claims them."""
        return len(self.uids) - bisect_left(self.uids, self.recent_from)

    def seq_of(self, uid: int) -> int:
        """Tell the sequence number of a uid, 0 when it is not there."""
        n = bisect_left(self.uids, uid)
        return n + 1 if n < len(self.uids) and self.uids[n] == uid else 0


@dataclass(frozen=True, slots=True)
class Diff:
    """What a session that knew the old snapshot must be told.

    ``expunged_seqs``: old sequence numbers, highest first, so that each is right when it
    is sent. ``exists``: messages now. ``added``: how many of them are new. ``changed``:
    (uid, flags) of those that it knew with other flags.
    """

    expunged_seqs: list[int]
    expunged_uids: list[int]
    exists: int
    added: int
    changed: list[tuple[int, int]]

    def __bool__(self) -> bool:
        return bool(self.expunged_seqs or self.added or self.changed)


# -- reading --------------------------------------------------------------------------------

_STATE = Statement(
    """
    SELECT b.uidvalidity, s.uidnext, s.highestmodseq, s.recent_from, s.messages,
           s.expunged_floor,
           (SELECT count(*) FROM keyword AS k WHERE k.account_id = s.account_id)
    FROM mailbox_state AS s JOIN mailbox AS b
      ON b.account_id = s.account_id AND b.mailbox_id = s.mailbox_id
    WHERE s.account_id = ? AND s.mailbox_id = ? AND substr(b.name, 1, 1) <> ?
    """
)
_ALL = Statement(
    "SELECT uid, flags FROM message WHERE account_id = ? AND mailbox_id = ? ORDER BY uid"
)
_CHANGED = Statement(
    """
    SELECT uid, flags FROM message {index ix_message_account_id_mailbox_id_modseq}
    WHERE account_id = ? AND mailbox_id = ? AND modseq > ? ORDER BY uid LIMIT ?
    """
)
_EXPUNGED = Statement(
    "SELECT uids FROM expunged WHERE account_id = ? AND mailbox_id = ? AND modseq > ?"
)


def current(
    connection: Connection, account_id: int, mailbox_id: int, known: Snapshot | None = None
) -> Snapshot:
    """Read the present state of a mailbox, from an older snapshot where there is one.

    The result shares what did not change with ``known`` and is ``known`` itself when
    nothing did. NotFound when the mailbox is gone. The statements must see one state of
    the database, as those of a reading transaction do.
    """
    row = _STATE(connection, (account_id, mailbox_id, HIDDEN)).first()
    if row is None:
        raise NotFound("No such mailbox")
    uidvalidity, uidnext, modseq, recent_from, messages, floor, named = row
    if known is not None and (known.uidvalidity != uidvalidity or known.modseq > modseq):
        known = None
    if known is not None and len(known.keywords.names) == named:
        words = known.keywords
        if known.modseq == modseq:
            return (
                known
                if known.recent_from == recent_from
                else replace(known, recent_from=recent_from)
            )
    else:
        words = keywords.load(connection, account_id)
    key = (account_id, mailbox_id)
    arrays = None
    if known is not None:
        if known.modseq == modseq:
            return replace(known, recent_from=recent_from, keywords=words)
        if known.modseq >= floor:
            arrays = _update(connection, key, known, messages)
    uids, flags = arrays or _load(connection, key)
    return Snapshot(*key, uidvalidity, uidnext, modseq, uids, flags, recent_from, words)


def _load(connection: Connection, key: tuple[int, int]) -> tuple[array[int], array[int]]:
    # Flattened into one array: the quickest of five ways.
    flat = array("q", chain.from_iterable(_ALL.stream(connection, key)))
    return array("I", flat[::2]), flat[1::2]


def _update(
    connection: Connection, key: tuple[int, int], known: Snapshot, messages: int
) -> tuple[array[int], array[int]] | None:
    """Bring known arrays up to date; None when reading all is quicker."""
    most = max(256, messages // 4)
    changed = _CHANGED(connection, (*key, known.modseq, most + 1)).all()
    if len(changed) > most:
        return None
    uids, flags = array("I", known.uids), array("q", known.flags)
    last = uids[-1] if uids else 0
    appended = len(changed)
    for n, (uid, value) in enumerate(changed):
        if uid > last:
            appended = n
            break
        at = bisect_left(uids, uid)
        flags[at] = value
    gone: list[int] = []
    for (text,) in _EXPUNGED(connection, (*key, known.modseq)):
        gone.extend(expand(text))
    uids, flags = _without(uids, flags, gone)
    for uid, value in changed[appended:]:
        uids.append(uid)
        flags.append(value)
    return uids, flags


def _without(
    uids: array[int], flags: array[int], gone: Iterable[int]
) -> tuple[array[int], array[int]]:
    """Drop uids, in time linear in both; those that are not there were never seen."""
    indexes = []
    for uid in sorted(gone):
        at = bisect_left(uids, uid)
        if at < len(uids) and uids[at] == uid:
            indexes.append(at)
    if not indexes:
        return uids, flags
    kept_uids, kept_flags = array(uids.typecode), array(flags.typecode)
    start = 0
    for at in (*indexes, len(uids)):
        if at > start:
            kept_uids += uids[start:at]
            kept_flags += flags[start:at]
        start = at + 1
    return kept_uids, kept_flags


# -- comparing ------------------------------------------------------------------------------


def changes_between(old: Snapshot, new: Snapshot) -> Diff:
    """Tell what differs; linear, and by whole blocks where nothing does."""
    if old.uids is new.uids and old.flags is new.flags:
        return Diff([], [], len(new), 0, [])
    gone = _gone(old.uids, new.uids)
    uids, flags = _without(old.uids, old.flags, gone)
    seqs = [bisect_left(old.uids, uid) + 1 for uid in reversed(gone)]
    changed = _differing(flags, new)
    return Diff(seqs, gone, len(new), len(new) - len(uids), changed)


def _gone(old: array[int], new: array[int]) -> list[int]:
    """Find the uids that are no longer there; what both ends have in common is skipped."""
    start, old_end = 0, len(old)
    new_end = bisect_right(new, old[-1]) if old else 0
    while start < new_end and old[start : start + _BLOCK] == new[start : start + _BLOCK]:
        start += _BLOCK
    while (
        new_end - start >= _BLOCK
        and old[old_end - _BLOCK : old_end] == new[new_end - _BLOCK : new_end]
    ):
        old_end -= _BLOCK
        new_end -= _BLOCK
    # Two sets: subtracting an array from one would copy the set first.
    return sorted(set(old[start:old_end]) - set(new[start:new_end]))


def _differing(flags: array[int], new: Snapshot) -> list[tuple[int, int]]:
    changed: list[tuple[int, int]] = []
    for at in range(0, len(flags), _BLOCK):
        before, now = flags[at : at + _BLOCK], new.flags[at : at + _BLOCK]
        before_end = len(before)
        if before != now[:before_end]:
            differs = map(ne, before, now)
            changed += compress(zip(new.uids[at : at + before_end], now, strict=False), differs)
    return changed


# -- sharing --------------------------------------------------------------------------------


class Reader(Protocol):
    """What is needed of :class:`mailtwist.store.database.Database`."""

    def read(self, work: Callable[[Connection], T], *, account_id: int = ...) -> Awaitable[T]: ...


class Snapshots:
    """The newest snapshot of each mailbox in use, up to a bound of octets in all.

    What falls out stays with the sessions that hold it.
    """

    def __init__(self, database: Reader, *, max_octets: int = MAX_OCTETS) -> None:
        self._database = database
        self._max_octets = max_octets
        self._octets = 0
        self._newest: OrderedDict[tuple[int, int], Snapshot] = OrderedDict()
        self._lock = threading.Lock()  # reads run in several threads

    async def current(self, account_id: int, mailbox_id: int) -> Snapshot:
        """Read the state as it is now; the arrays are built outside the reactor."""
        return await self._database.read(
            lambda connection: self.read(connection, account_id, mailbox_id),
            account_id=account_id,
        )

    def read(self, connection: Connection, account_id: int, mailbox_id: int) -> Snapshot:
        """Do the same within a read that is under way."""
        key = (account_id, mailbox_id)
        with self._lock:
            known = self._newest.get(key)
            if known is not None:
                self._newest.move_to_end(key)
        try:
            snapshot = current(connection, account_id, mailbox_id, known)
        except NotFound:
            self._keep(key, None)
            raise
        if snapshot is not known:
            self._keep(key, snapshot)
        return snapshot

    @property
    def octets(self) -> int:
        return self._octets

    def _keep(self, key: tuple[int, int], snapshot: Snapshot | None) -> None:
        with self._lock:
            before = self._newest.pop(key, None)
            if before is not None:
                self._octets -= before.octets
                # A slower thread may come with an older state.
                if snapshot is not None and before.modseq > snapshot.modseq:
                    snapshot = before
            if snapshot is None:
                return
            self._newest[key] = snapshot
            self._octets += snapshot.octets
            while self._octets > self._max_octets and len(self._newest) > 1:
                _, oldest = self._newest.popitem(last=False)
                self._octets -= oldest.octets
