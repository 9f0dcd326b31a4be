"""Who hears that something changed: hints after each commit, in this process and in the others.

A hint is never the truth: whoever hears one reads again (``modseq > known``).
Units report through :func:`touched` and :func:`bump`; the writer carries the
reports of a batch to :meth:`Changes.publish` after its COMMIT. Commits of other
processes are noticed by :mod:`mailtwist.store.foreign`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select, text
from twisted.logger import Logger

from mailtwist.store.tables import account_state, generation, mailbox_state

log = Logger()

CHANNEL = "mailtwist"
# PostgreSQL refuses a payload of 8000 octets; a longer report says "look at everything".
_PAYLOAD_LIMIT = 7000
_KEY = "mailtwist.report"

OnMailbox = Callable[[int, int], object]
OnKind = Callable[[], object]


@dataclass(slots=True)
class Report:
    """What the units of one transaction changed."""

    modseqs: dict[tuple[int, int], int] = field(default_factory=dict)  # (account, mailbox): modseq
    kinds: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.modseqs or self.kinds)


def touched(connection: Connection, account_id: int, mailbox_id: int, modseq: int) -> None:
    """Report a change of a mailbox (0: the list of mailboxes) to be told after COMMIT."""
    pending(connection).modseqs[account_id, mailbox_id] = modseq


_BUMP = text(
    "INSERT INTO generation (kind, n) VALUES (:kind, 1)"
    " ON CONFLICT (kind) DO UPDATE SET n = generation.n + 1"
)


def bump(connection: Connection, kind: str) -> None:
    """Raise the generation of a kind of cached fact: ``address``, ``domain``, ``account``, ..."""
    connection.execute(_BUMP, {"kind": kind})
    pending(connection).kinds.add(kind)


def pending(connection: Connection) -> Report:
    """What was reported on this connection since :func:`forget`."""
    report: Report | None = connection.info.get(_KEY)
    if report is None:
        report = connection.info[_KEY] = Report()
    return report


def forget(connection: Connection) -> None:
    """Drop the reports: a transaction begins, or what they told was rolled back."""
    connection.info.pop(_KEY, None)


_NOTIFY = text("SELECT pg_notify(:channel, :payload)")


def notify(connection: Connection, report: Report, *, sender: str) -> None:
    """Tell the other nodes on PostgreSQL, in the connection's transaction."""
    if report:
        connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": encode(report, sender)})


def encode(report: Report, sender: str) -> str:
    """Write a report for NOTIFY."""
    triples = [[account, box, modseq] for (account, box), modseq in report.modseqs.items()]
    payload = json.dumps([sender, sorted(report.kinds), triples], separators=(",", ":"))
    return payload if len(payload) < _PAYLOAD_LIMIT else json.dumps([sender, None, None])


def decode(payload: str) -> tuple[str, Report | None]:
    """Read what :func:`encode` wrote; None: everything may have changed."""
    try:
        sender, kinds, triples = json.loads(payload)
        if kinds is None:
            return str(sender), None
        modseqs = {(int(account), int(box)): int(modseq) for account, box, modseq in triples}
        return str(sender), Report(modseqs, {str(kind) for kind in kinds})
    except (ValueError, TypeError):
        return "", None


class Changes:
    """The subscribers of this process. All methods but :meth:`recheck` belong to the reactor."""

    def __init__(self) -> None:
        self._accounts: dict[int, list[OnMailbox]] = {}
        self._kinds: dict[str, list[OnKind]] = {}
        # Up to where the last recheck looked. Our own reports don't move it: what another
        # process committed just before one of them would count as told. Rather a hint twice.
        self._known: dict[int, int] = {}
        self._generations: dict[str, int] = {}

    def subscribe(self, account_id: int, callback: OnMailbox) -> Callable[[], None]:
        """Call ``callback(mailbox_id, modseq)`` after each change; the answer ends it."""
        callbacks = self._accounts.setdefault(account_id, [])
        callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks and self._accounts.get(account_id) is callbacks:
                del self._accounts[account_id]
                self._known.pop(account_id, None)

        return unsubscribe

    def watch(self, kind: str, callback: OnKind) -> Callable[[], None]:
        """Call ``callback()`` after each :func:`bump` of a kind; the answer ends it."""
        callbacks = self._kinds.setdefault(kind, [])
        callbacks.append(callback)

        def unwatch() -> None:
            if callback in callbacks:
                callbacks.remove(callback)

        return unwatch

    def publish(self, report: Report) -> None:
        """Tell the subscribers. In the reactor thread, after COMMIT."""
        for (account_id, mailbox_id), modseq in report.modseqs.items():
            callbacks = self._accounts.get(account_id)
            if callbacks is None:
                continue
            for callback in tuple(callbacks):
                _tell(callback, mailbox_id, modseq)
        for kind in report.kinds:
            for watcher in tuple(self._kinds.get(kind, ())):
                _tell(watcher)

    def recheck(self, connection: Connection) -> Report:
        """Read what differs from what was told last. In any thread that may block."""
        return Report(self._changed_mailboxes(connection), self._changed_kinds(connection))

    def _changed_kinds(self, connection: Connection) -> set[str]:
        current = {row.kind: row.n for row in connection.execute(select(generation))}
        changed = {kind for kind, n in current.items() if self._generations.get(kind) != n}
        self._generations = current
        return changed

    def _changed_mailboxes(self, connection: Connection) -> dict[tuple[int, int], int]:
        changed: dict[tuple[int, int], int] = {}
        for accounts in _slices(tuple(self._accounts), 500):
            for account_id, modseq in connection.execute(_MODSEQS, {"accounts": accounts}):
                known = self._known.get(account_id, 0)
                if modseq <= known:
                    continue
                self._known[account_id] = modseq
                changed[account_id, 0] = modseq
                parameters = {"account": account_id, "known": known}
                for mailbox_id, highest in connection.execute(_MAILBOXES, parameters):
                    changed[account_id, mailbox_id] = highest
        return changed


_MODSEQS = select(account_state.c.account_id, account_state.c.modseq).where(
    account_state.c.account_id.in_(bindparam("accounts", expanding=True))
)
_MAILBOXES = select(mailbox_state.c.mailbox_id, mailbox_state.c.highestmodseq).where(
    mailbox_state.c.account_id == bindparam("account"),
    mailbox_state.c.highestmodseq > bindparam("known"),
)


def _tell(callback: Callable[..., object], *hint: int) -> None:
    # A subscriber that stumbles must not keep the others, and the answers behind, from coming.
    try:
        callback(*hint)
    except Exception:
        log.failure("a subscriber failed")


def _slices(items: Collection[int], size: int) -> Iterable[list[int]]:
    ordered = list(items)
    return (ordered[at : at + size] for at in range(0, len(ordered), size))
