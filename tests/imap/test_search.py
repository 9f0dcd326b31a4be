"""SEARCH against a naive evaluation in plain Python, on both databases."""

from __future__ import annotations

import base64
import quopri
import random
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.mail import flags as bits
from mailtwist.mail import search as tree
from mailtwist.mail.uidset import SequenceSet
from mailtwist.store import expunge, flags
from mailtwist.store.database import Inline
from mailtwist.store.masks import indexes
from mailtwist.store.search import Search
from mailtwist.store.snapshot import Snapshot
from tests.imap.making import new_account, put, view_of
from tests.support.now import now

WORDS = ("alpha", "Übung", "straße", "zebra", "x%y_z", "дом", "Mail", "ILIKE'?--", "e\u0301t")
FOLK = (("Anna Lind", "anna@example.com"), ("Jörg", "j.m@example.org"), ("", "zoe@sub.test"))
FLAGS = tuple(bits.SYSTEM)
KEYWORDS = ("$Work", "later", "$Junk")
DAYS = [date(2024, 2, 28) + timedelta(days=n) for n in range(4)]
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Mail:
    """What the naive evaluation knows of a message; ``data`` is what the store gets."""

    subject: str
    sender: str
    to: str
    cc: str
    tag: str | None
    body: str
    sent: date | None
    internaldate: int
    flags: frozenset[str]
    data: bytes
    uid: int = 0

    @property
    def header(self) -> str:
        tag = "" if self.tag is None else f"x-tag: {self.tag}"
        return "\n".join((self.subject, self.sender, self.to, self.cc, tag))


def folded(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", text.casefold())


def word64(text: str) -> bytes:
    if text.isascii():
        return text.encode()
    return b"=?utf-8?b?" + base64.b64encode(text.encode()) + b"?="


def person(chance: random.Random) -> tuple[str, bytes]:
    name, address = chance.choice(FOLK)
    if not name:
        return address, address.encode()
    return f"{name} {address}", b"%b <%b>" % (word64(name), address.encode())


def phrase(chance: random.Random, most: int = 4) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))


def encoded(chance: random.Random, text: str) -> tuple[bytes, bytes]:
    """A transfer encoding and the body in it."""
    data = text.encode()
    match chance.randint(0, 2):
        case 0:
            return b"8bit", data + b"\r\n"
        case 1:
            return b"base64", base64.encodebytes(data).replace(b"\n", b"\r\n")
    return b"quoted-printable", quopri.encodestring(data).replace(b"\n", b"\r\n") + b"\r\n"


def make(chance: random.Random, n: int) -> Mail:
    subject, body = phrase(chance), phrase(chance, 8)
    sender, sender_field = person(chance)
    to, to_field = person(chance)
    cc, cc_field = person(chance) if chance.random() < 0.3 else ("", b"")
    tag = phrase(chance, 1) if chance.random() < 0.4 else None
    if n == 3:
        body += " big" * 30_000
    if n == 7:
        body = "huge " * 215_000 + body
    encoding, text = encoded(chance, body)
    sent = chance.choice([*DAYS, None])
    zone = chance.choice([-1200, -500, 0, 530, 1400])
    hour = chance.choice([0, 12, 23])
    lines = [
        b"Subject: " + word64(subject),
        b"From: " + sender_field,
        b"To: " + to_field,
        *([b"Cc: " + cc_field] if cc else []),
        *([b"X-Tag: " + word64(tag)] if tag is not None else []),
        *(
            [sent.strftime(f"Date: %a, %d %b %Y {hour:02d}:30:00 {zone:+05d}").encode()]
            if sent
            else []
        ),
        b"MIME-Version: 1.0",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Transfer-Encoding: " + encoding,
    ]
    day = datetime.combine(chance.choice(DAYS), datetime.min.time(), UTC)
    moment = int(day.timestamp()) * 1_000_000 + chance.choice([0, 1, DAY_US // 2, DAY_US - 1])
    names = chance.sample(FLAGS, chance.randint(0, 2)) + chance.sample(
        KEYWORDS, chance.randint(0, 2)
    )
    data = b"\r\n".join(lines) + b"\r\n\r\n" + text
    return Mail(subject, sender, to, cc, tag, body, sent, moment, frozenset(names), data)


# -- the naive evaluation -------------------------------------------------------------------


def compare(op: str, a: date, b: date) -> bool:
    return {"<": a < b, "=": a == b, ">=": a >= b}[op]


def matches(node: tree.Node, mail: Mail, view: Snapshot, recent_from: int) -> bool:
    def holds(value: str, text: str) -> bool:
        return folded(value) in folded(text)

    match node:
        case tree.All():
            return True
        case tree.And(items):
            return all(matches(item, mail, view, recent_from) for item in items)
        case tree.Or(a, b):
            return matches(a, mail, view, recent_from) or matches(b, mail, view, recent_from)
        case tree.Not(a):
            return not matches(a, mail, view, recent_from)
        case tree.Uid(numbers):
            return any(a <= mail.uid <= b for a, b in numbers.ranges(view.uids[-1]))
        case tree.Sequence(numbers):
            number = view.seq_of(mail.uid)
            return any(a <= number <= b for a, b in numbers.ranges(len(view.uids)))
        case tree.Flag(name, present) | tree.Keyword(name, present):
            known = {flag.lower() for flag in mail.flags}
            return (name.lower() in known) is present
        case tree.Recent():
            return mail.uid >= recent_from
        case tree.Old():
            return mail.uid < recent_from
        case tree.New():
            return mail.uid >= recent_from and "\\Seen" not in mail.flags
        case tree.Field(column, value):
            texts = {"SUBJECT": mail.subject, "FROM": mail.sender, "TO": mail.to, "CC": mail.cc}
            return holds(value, texts.get(column, ""))
        case tree.Header(name, value):
            return name.lower() == "x-tag" and mail.tag is not None and holds(value, mail.tag)
        case tree.Body(value):
            return holds(value, mail.body)
        case tree.Text(value):
            return holds(value, mail.header) or holds(value, mail.body)
        case tree.Larger(octets):
            return len(mail.data) > octets
        case tree.Smaller(octets):
            return len(mail.data) < octets
        case tree.InternalDate(op, day):
            stamp = datetime.fromtimestamp(mail.internaldate / 1_000_000, UTC).date()
            return compare(op, stamp, day)
        case tree.SentDate(op, day):
            return mail.sent is not None and compare(op, mail.sent, day)
    raise AssertionError(node)


# -- random trees ---------------------------------------------------------------------------


def leaf(chance: random.Random, count: int) -> tree.Node:
    number = chance.randint(1, count + 2)
    span = SequenceSet.parse(b"%d:%d,%d,*" % (number, chance.randint(1, count), number + 3))
    word = chance.choice(WORDS)[chance.randint(0, 2) :].swapcase()
    ops: list[tree.DateOp] = ["<", "=", ">="]
    columns: list[tree.Column] = ["FROM", "TO", "CC", "SUBJECT"]
    nodes: list[tree.Node] = [
        tree.All(),
        tree.Uid(span),
        tree.Sequence(span),
        tree.Flag(chance.choice(FLAGS), chance.random() < 0.5),
        tree.Keyword(chance.choice([*KEYWORDS, "$JUNK", "none"]), chance.random() < 0.5),
        tree.Field(chance.choice(columns), chance.choice([word, "Anna L", "EXAMPLE", "jörg"])),
        tree.Field("SUBJECT", word),
        tree.Header("X-TAG", chance.choice([word, ""])),
        tree.Body(word),
        tree.Text(word),
        tree.Larger(chance.choice([200, 300, 70_000])),
        tree.Smaller(chance.choice([200, 300, 70_000])),
        tree.InternalDate(chance.choice(ops), chance.choice(DAYS)),
        tree.SentDate(chance.choice(ops), chance.choice(DAYS)),
        tree.Recent(),
        tree.Old(),
        tree.New(),
    ]
    return chance.choice(nodes)


def random_tree(chance: random.Random, count: int, depth: int = 4) -> tree.Node:
    if depth == 0 or chance.random() < 0.3:
        return leaf(chance, count)
    below = [random_tree(chance, count, depth - 1) for _ in range(chance.randint(2, 4))]
    match chance.randint(0, 2):
        case 0:
            return tree.And(tuple(below))
        case 1:
            return tree.Or(below[0], below[1])
    return tree.Not(below[0])


# -- the tests ------------------------------------------------------------------------------


class Mailbox:
    """A mailbox with known messages, some of them expunged since the view was taken."""

    def __init__(self, database: Inline, count: int = 25) -> None:
        chance = random.Random(4)
        self.database = database
        account_id = new_account(database)
        mails = []
        for n in range(count):
            mail = make(chance, n)
            system = sum(bits.SYSTEM[name] for name in mail.flags if name in bits.SYSTEM)
            words = tuple(name for name in mail.flags if name not in bits.SYSTEM)
            delivered = put(
                database, account_id, mail.data,
                flags=system, keywords=words, internaldate=mail.internaldate,
            )  # fmt: skip
            mails.append(replace(mail, uid=delivered.uid))
        self.view = view_of(database, delivered)
        gone = [5, 6, 20]
        with database.engine.write() as connection:
            key = (account_id, delivered.mailbox_id)
            flags.store_flags(connection, *key, gone, "+", bits.DELETED)
            expunge.expunge(connection, *key, gone)
        self.now = view_of(database, delivered)
        self.mails = [mail for mail in mails if mail.uid not in gone]
        self.recent_from = 18

    def found(self, node: tree.Node) -> list[int]:
        search = Search(self.database, self.view, self.now, self.recent_from)
        return [self.now.uids[n] for n in indexes(now(search.matches(node)))]

    def expected(self, node: tree.Node) -> list[int]:
        return [m.uid for m in self.mails if matches(node, m, self.view, self.recent_from)]


@pytest.mark.mission("DAP-229")
def test_every_tree_finds_what_a_naive_evaluation_finds(database: Inline) -> None:
    mailbox = Mailbox(database)
    chance = random.Random(11)
    nodes = [leaf(chance, 25) for _ in range(90)] + [random_tree(chance, 25) for _ in range(80)]
    for node in nodes:
        assert mailbox.found(node) == mailbox.expected(node), node


def test_a_tree_that_reads_the_mailbox_too_often_is_refused(database: Inline) -> None:
    mailbox = Mailbox(database, 1)
    with pytest.raises(Refusal) as caught:
        mailbox.found(tree.And((tree.Text("a"),) * 101))
    assert caught.value.imap_code == "LIMIT"


def test_a_tree_as_large_as_may_be_is_one_statement(database: Inline) -> None:
    mailbox = Mailbox(database, 3)
    many = tree.And((tree.Larger(1),) * 99)
    assert mailbox.found(many) == mailbox.expected(many)
    flagged = tree.And((tree.Flag("\\Seen"),) * 999)
    assert mailbox.found(flagged) == mailbox.expected(flagged)
    with pytest.raises(ProtocolViolation):
        mailbox.found(tree.And((tree.All(),) * 1000))


def test_an_empty_mailbox_has_no_matches(database: Inline) -> None:
    mailbox = Mailbox(database, 1)
    empty = replace(mailbox.now, uids=mailbox.now.uids[:0], flags=mailbox.now.flags[:0])
    for node in (tree.All(), tree.Sequence(SequenceSet.parse(b"1:*")), tree.Text("a")):
        search = Search(database, empty, empty, 1)
        assert now(search.matches(node)) == b""
