"""Random histories of one account, compared with a model that is too simple to be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mailtwist.errors import Conflict, NotFound, OverQuota
from mailtwist.store import check, mailboxes, snapshot
from mailtwist.store.engine import Connection, Engine
from mailtwist.store.messages import copy, deliver, expunge, move, store_flags
from mailtwist.store.snapshot import Snapshot, changes_between
from tests.store.making import acceptance, account

NAMES = st.sampled_from(["INBOX", "Spam", "a", "a/b"])
FLAGS = st.integers(0, 31)
KEYWORDS = st.sets(st.sampled_from(["k1", "k2", "k3"]), max_size=2)
UIDS = st.sets(st.integers(1, 12), max_size=6)
QUOTA = 30
SIZE = 25


@dataclass(frozen=True)
class Message:
    flags: int
    words: frozenset[str]


@dataclass
class Box:
    messages: dict[int, Message] = field(default_factory=dict)
    uidnext: int = 1
    uidvalidity: int = 0

    def add(self, message: Message) -> int:
        uid, self.uidnext = self.uidnext, self.uidnext + 1
        self.messages[uid] = message
        return uid


class History(RuleBasedStateMachine):
    """Subclassed with the engine it runs on."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[str, Box] = {}
        self.views: dict[str, tuple[int, Snapshot, list[tuple[int, int]]]] = {}
        self.used: set[int] = set()
        self.modseq = 0

    @initialize()
    def begin(self) -> None:
        with self.engine.write() as connection:
            for table in ("account", "account_state", "address", "mailbox", "mailbox_state",
                          "subscription", "keyword", "message", "email", "email_detail", "expunged",
                          "content", "content_doubt"):  # fmt: skip
                connection.exec_driver_sql(f"DELETE FROM {table}")
            self.account = account(connection, quota_messages=QUOTA)
        for name in ("INBOX", "Sent", "Draft", "Trash", "Spam", "Archive"):
            self.boxes[name] = Box(uidvalidity=self.state(name).uidvalidity)

    # -- what happens -----------------------------------------------------------------------

    @rule(
        arriving=st.lists(st.tuples(NAMES, FLAGS, KEYWORDS), min_size=1, max_size=4),
        is_mail=st.booleans(),
    )
    def arrive(self, arriving: list[tuple[str, int, set[str]]], *, is_mail: bool) -> None:
        with self.write() as connection:
            answers = deliver(
                connection,
                [
                    acceptance(
                        self.account, name, flags=flags, keywords=tuple(sorted(words)),
                        received_as=1 if is_mail else None,
                    )
                    for name, flags, words in arriving
                ],
            )  # fmt: skip
        for (name, flags, words), answer in zip(arriving, answers, strict=True):
            place = name if name in self.boxes or not is_mail else "INBOX"
            if place not in self.boxes:
                assert isinstance(answer, NotFound)
            elif self.total >= QUOTA:
                assert isinstance(answer, OverQuota)
            else:
                uid = self.boxes[place].add(Message(flags, frozenset(words)))
                assert isinstance(answer, tuple)
                assert [d.uid for d in answer] == [uid]

    @rule(name=NAMES, uids=UIDS, op=st.sampled_from("+-="), flags=FLAGS, words=KEYWORDS)
    def store(self, name: str, uids: set[int], op: str, flags: int, words: set[str]) -> None:
        box = self.boxes.get(name)
        if box is None:
            return
        with self.write() as connection:
            number = self.number(connection, name)
            stored = store_flags(
                connection, self.account, number, sorted(uids), op, flags, sorted(words)
            )
        changed = []
        for uid in sorted(uids & set(box.messages)):
            old = box.messages[uid]
            new = {
                "+": Message(old.flags | flags, old.words | words),
                "-": Message(old.flags & ~flags, old.words - words),
                "=": Message(flags, frozenset(words)),
            }[op]
            if new != old:
                changed.append(uid)
                box.messages[uid] = new
        assert [uid for uid, _, _ in stored.changed] == changed

    @rule(source=NAMES, to=NAMES, uids=UIDS, moves=st.booleans())
    def copy_or_move(self, source: str, to: str, uids: set[int], *, moves: bool) -> None:
        if source not in self.boxes:
            return
        there = sorted(uids & set(self.boxes[source].messages))
        expected: type[Exception] | None = None
        if to not in self.boxes:
            expected = NotFound
        elif not moves and self.total + len(there) > QUOTA:
            expected = OverQuota
        try:
            with self.write() as connection:
                number = self.number(connection, source)
                work = move if moves else copy
                copied = work(connection, self.account, number, sorted(uids), to)
        except (NotFound, OverQuota) as refusal:
            refused: type[Exception] | None = type(refusal)
        else:
            refused = None
        assert refused is expected
        if refused is not None:
            return
        pairs = []
        for uid in there:
            message = self.boxes[source].messages[uid]
            if moves:
                del self.boxes[source].messages[uid]
            pairs.append((uid, self.boxes[to].add(message)))
        assert copied.uids == pairs
        assert copied.uidvalidity == self.boxes[to].uidvalidity

    @rule(name=NAMES, uids=st.none() | UIDS)
    def expunge(self, name: str, uids: set[int] | None) -> None:
        box = self.boxes.get(name)
        if box is None:
            return
        with self.write() as connection:
            number = self.number(connection, name)
            named = None if uids is None else sorted(uids)
            gone = expunge(connection, self.account, number, named).uids
        expected = [
            uid for uid, message in box.messages.items()
            if message.flags & 8 and (uids is None or uid in uids)
        ]  # fmt: skip
        assert gone == expected
        for uid in expected:
            del box.messages[uid]

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        try:
            with self.write() as connection:
                mailboxes.create(connection, self.account, name)
        except Conflict:
            assert name in self.boxes
            return
        assert name not in self.boxes
        for made in ("a", "a/b") if name == "a/b" else (name,):
            if made not in self.boxes:
                self.boxes[made] = Box(uidvalidity=self.state(made).uidvalidity)
                assert self.boxes[made].uidvalidity not in self.used
                self.used.add(self.boxes[made].uidvalidity)

    @rule(name=st.sampled_from(["Spam", "a/b"]))
    def delete(self, name: str) -> None:
        try:
            with self.write() as connection:
                mailboxes.delete(connection, self.account, name)
        except NotFound:
            assert name not in self.boxes
            return
        del self.boxes[name]
        self.views.pop(name, None)

    @rule(old=NAMES, new=st.sampled_from(["Spam", "b"]))
    def rename(self, old: str, new: str) -> None:
        if old in {"a", new}:
            return
        try:
            with self.write() as connection:
                mailboxes.rename(connection, self.account, old, new)
        except NotFound:
            assert old not in self.boxes
            return
        except Conflict:
            assert new in self.boxes
            return
        self.views.pop(old, None)
        if old == "INBOX":
            box = Box(uidvalidity=self.state(new).uidvalidity)
            for uid in sorted(self.boxes["INBOX"].messages):
                box.add(self.boxes["INBOX"].messages.pop(uid))
            self.boxes[new] = box
        else:
            self.boxes[new] = self.boxes.pop(old)

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        """A session on the mailbox takes note of what changed since it looked last."""
        if name not in self.boxes:
            return
        with self.engine.read() as connection:
            number = self.number(connection, name)
            known_number, known, view = self.views.get(name, (0, None, []))
            if known_number != number:
                known, view = None, []
            taken = snapshot.current(connection, self.account, number, known)
            assert taken == snapshot.current(connection, self.account, number)
        if known is None:
            view = list(zip(taken.uids, taken.flags, strict=True))
        else:
            diff = changes_between(known, taken)
            for seq in diff.expunged_seqs:
                del view[seq - 1]
            view += list(zip(taken.uids, taken.flags, strict=True))[len(view) :]
            changed = dict(diff.changed)
            view = [(uid, changed.get(uid, flags)) for uid, flags in view]
            assert len(view) == diff.exists
        self.views[name] = number, taken, view
        words = taken.keywords
        assert {
            uid: Message(flags & 31, frozenset(words.spelled(flags))) for uid, flags in view
        } == self.boxes[name].messages

    # -- what must hold ---------------------------------------------------------------------

    @invariant()
    def is_sound(self) -> None:
        if not self.boxes:
            return
        with self.engine.read() as connection:
            assert check.verify(connection) == []
            listed = mailboxes.list(connection, self.account)
            states = mailboxes.statuses(connection, self.account)
            assert {m.name for m in listed} == set(self.boxes)
            for mailbox in listed:
                box, state = self.boxes[mailbox.name], states[mailbox.mailbox_id]
                assert (state.messages, state.uidnext) == (len(box.messages), box.uidnext)
                assert state.uidvalidity == box.uidvalidity
                marks = [message.flags for message in box.messages.values()]
                assert state.unseen == sum(not flags & 1 for flags in marks)
                assert state.deleted == sum(bool(flags & 8) for flags in marks)
                assert state.octets == SIZE * len(marks)
            modseq = connection.exec_driver_sql("SELECT modseq FROM account_state").scalar_one()
            assert modseq >= self.modseq
            self.modseq = modseq

    @property
    def total(self) -> int:
        return sum(len(box.messages) for box in self.boxes.values())

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self.engine.write() as connection:
            yield connection

    def number(self, connection: Connection, name: str) -> int:
        return mailboxes.get(connection, self.account, name).mailbox_id

    def state(self, name: str) -> mailboxes.MailboxState:
        with self.engine.read() as connection:
            number = self.number(connection, name)
            return mailboxes.status(connection, self.account, number)


def test_random_histories_agree_with_the_model(engine: Engine) -> None:
    machine = type("HistoryOnEngine", (History,), {"engine": engine})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30 if engine.is_sqlite else 8,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
