"""Captured mail: what the inboxes list, how long it stays, and what takes it out of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Connection, delete, func, insert, select

from mailtwist.errors import Conflict, NotFound, ProtocolViolation
from mailtwist.mail.flags import DELETED
from mailtwist.store import (
    accounts,
    changes,
    copies,
    domains,
    expunge,
    flags,
    inbox,
    inbox_rows,
    mailboxes,
    projects,
)
from mailtwist.store.check import verify
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.engine import Engine
from mailtwist.store.inbox import Captured
from mailtwist.store.tables import content_doubt, email, inbox_message, message
from tests.store.making import NOW, account, spooled

HOUR = 3_600_000_000
DAY = 24 * HOUR
_QUEUE_IDS = itertools.count(1 << 50)


@pytest.fixture
def box(engine: Engine) -> int:
    """The number of the inbox account."""
    with engine.write() as connection:
        return inbox.ensure_account(connection, now=NOW)


def capture(
    connection: Connection, account_id: int, *addresses: str, apart: bool = False, at: int = NOW
) -> int:
    """One message for those addresses, in one entry or each in its own; its queue id."""
    groups: Sequence[tuple[str, ...]] = [(each,) for each in addresses] if apart else [addresses]
    entries = tuple(
        Entry(
            account_id,
            "INBOX",
            prefix=b"Return-Path: <a@b>\r\n",
            internaldate=at,
            return_path="a@b",
            recipient=group[0],
            inbox=group,
        )
        for group in groups
    )
    queue_id = next(_QUEUE_IDS)
    (answer,) = deliver(connection, [Acceptance(spooled(), entries, queue_id, at)])
    assert isinstance(answer, tuple), answer
    return queue_id


def ids(found: Sequence[Captured]) -> list[int]:
    return [each.queue_id for each in found]


def listed(connection: Connection, account_id: int, name: str | None, **options: int) -> list[int]:
    return ids(inbox.list(connection, account_id, name, **{"since": 0, "limit": 50} | options))  # type: ignore[arg-type]


def left(connection: Connection, account_id: int) -> tuple[int, int]:
    """How many rows of inboxes and how many messages an account has."""
    rows = select(func.count()).where(inbox_message.c.account_id == account_id)
    messages = select(func.count()).where(message.c.account_id == account_id)
    return connection.execute(rows).scalar_one(), connection.execute(messages).scalar_one()


# -- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("bob@inbox.example", ("bob", "inbox.example")),
        ("Bob+Tag@INBOX.Example", ("bob+tag", "inbox.example")),
        ("GRÖSSE@inbox.example", ("grösse", "inbox.example")),
        ("STRASSE@bücher.example", ("strasse", "xn--bcher-kva.example")),
        ('"a b"@inbox.example', ("a b", "inbox.example")),
        ("bob", ("bob", "")),
        ("Postmaster", ("postmaster", "")),
        ("", ("", "")),
        ("../x", ("../x", "")),
        ("a..b@inbox.example", ("a..b", "inbox.example")),
        ("x@" + "y" * 300, ("x", "y" * 300)),
        ("a\0b", ("a\0b", "")),
    ],
)
def test_an_inbox_has_a_folded_name(given: str, name: tuple[str, str]) -> None:
    assert inbox.name_of(given) == name


# -- listing --------------------------------------------------------------------------------


def test_the_inbox_account_is_made_once_and_nobody_logs_in(engine: Engine) -> None:
    with engine.write() as connection:
        assert inbox.account(connection) == 0
        made = inbox.ensure_account(connection, now=NOW)
        assert inbox.ensure_account(connection) == inbox.account(connection) == made
        assert accounts.secrets(connection, made) == []
        # Nor does a login or an account without a domain belong to its domain.
        assert domains.first(connection) == ""
        domains.add(connection, "example.com")
        assert domains.first(connection) == "example.com"


@pytest.mark.mission("ADG-13")
def test_each_recipient_has_it_in_his_own_inbox(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        queue_id = capture(connection, box, "a@inbox.example", "B@inbox.example", apart=True)
        (a,) = inbox.list(connection, box, "a", since=0, limit=50)
        (b,) = inbox.list(connection, box, "b", since=0, limit=50)
        assert (a.queue_id, a.address, a.uid) == (queue_id, "a@inbox.example", 1)
        assert (b.queue_id, b.address, b.uid) == (queue_id, "B@inbox.example", 2)
        assert listed(connection, box, "c") == []
        assert listed(connection, box, None) == [queue_id]


def test_a_captured_message_tells_all_that_shows_and_reads_it(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        queue_id = capture(connection, box, "Bob@inbox.example")
        found = inbox.find(connection, box, "bob", queue_id, since=0)
        assert found is not None
        assert (found.account_id, found.entry_id, found.uid) == (box, 1, 1)
        assert (found.local_part, found.domain) == ("bob", "inbox.example")
        assert (found.return_path, found.received_at) == ("a@b", NOW)
        assert (found.prefix, found.parts) == (b"Return-Path: <a@b>\r\n", b"")
        assert found.octets == len(found.prefix) + found.content_octets
        assert (found.header_octets, found.subject, found.message_id) == (14, "hello", "<a@b>")
        assert found.has_attachment is False
        assert found.mailbox_id == mailboxes.get(connection, box, "INBOX").mailbox_id


def test_lists_are_newest_first_in_pages(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        made = [capture(connection, box, "bob@inbox.example", at=NOW + n) for n in range(5)]
        others = [capture(connection, box, f"x{n}@inbox.example") for n in range(3)]
        assert listed(connection, box, "bob") == made[::-1]
        assert listed(connection, box, "bob", limit=2) == [made[4], made[3]]
        assert listed(connection, box, "bob", limit=2, before=made[3]) == [made[2], made[1]]
        assert listed(connection, box, "bob", before=made[0]) == []
        assert listed(connection, box, "bob", before=2**70) == made[::-1]
        assert listed(connection, box, None) == (made + others)[::-1]
        assert listed(connection, box, None, limit=4) == [*others[::-1], made[4]]


def test_what_is_too_old_is_listed_nowhere(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        old = capture(connection, box, "bob@inbox.example", at=NOW)
        young = capture(connection, box, "bob@inbox.example", at=NOW + 1)
        for name in ("bob", None):
            assert listed(connection, box, name, since=NOW + 1) == [young]
            assert listed(connection, box, name, since=NOW) == [young, old]
            assert inbox.find(connection, box, name, old, since=NOW + 1) is None
            assert inbox.find(connection, box, name, young, since=NOW + 1) is not None


def test_a_message_for_many_is_listed_once(engine: Engine, box: int) -> None:
    everybody = [f"u{n}@{domain}.example" for n in range(9) for domain in ("a", "b")]
    with engine.write() as connection:
        first = capture(connection, box, *everybody)
        second = capture(connection, box, *everybody, "U3@A.example")
        assert listed(connection, box, None) == [second, first]
        assert listed(connection, box, "u3") == [second, first]
        (shown, _) = inbox.list(connection, box, "u3", since=0, limit=5)
        assert shown.address == "u3@a.example"
        (shown, _) = inbox.list(connection, box, "u3", domain="b.example", since=0, limit=5)
        assert shown.address == "u3@b.example"
        assert inbox.list(connection, box, "u3", domain="c.example", since=0, limit=5) == []
        assert inbox.addresses(connection, box, shown.entry_id) == sorted(everybody)
        assert left(connection, box) == (36, 2)


def test_one_message_is_found_by_its_name_alone(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        first = capture(connection, box, "a@x.example")
        second = capture(connection, box, "b@x.example")
        for name, queue_id, is_there in [
            ("a", first, True), ("a", second, False), ("b", second, True), (None, second, True),
            ("a", first + 100, False), ("a", 0, False), ("a", -1, False), ("a", 2**63, False),
            (None, 10**30, False),
        ]:  # fmt: skip
            assert (inbox.find(connection, box, name, queue_id, since=0) is not None) is is_there
        assert inbox.find(connection, box, "a", first, domain="y.example", since=0) is None
        assert inbox.find(connection, box, "a", first, domain="x.example", since=0) is not None


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000, "' OR 1=1 --", "%", "_", ""])
def test_odd_names_are_nobodys(engine: Engine, box: int, name: str) -> None:
    with engine.write() as connection:
        queue_id = capture(connection, box, "bob@x.example")
        assert listed(connection, box, name) == []
        assert inbox.find(connection, box, name, queue_id, since=0) is None
        assert inbox.delete(connection, box, name, None) == 0
        assert inbox.delete(connection, box, "bob", None, domain=name or "y") == 0
        for number in (-1, 0, 2**63, 10**30):
            assert inbox.delete(connection, box, "bob", number) == 0
        assert listed(connection, box, "bob") == [queue_id]


def test_who_waits_sees_every_address_of_what_is_new(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        assert inbox.latest_entry(connection, box) == 0
        capture(connection, box, "old@x.example")
        latest = inbox.latest_entry(connection, box)
        assert inbox.new(connection, box, latest, 10) == []
        together = capture(connection, box, "a@x.example", "b@x.example")
        apart = capture(connection, box, "a@x.example", "c@x.example", apart=True)
        found = inbox.new(connection, box, latest, 10)
        assert [(each.queue_id, each.local_part) for each in found] == [
            (together, "a"), (together, "b"), (apart, "a"), (apart, "c"),
        ]  # fmt: skip
        # A message comes with all of its addresses, or later.
        page = inbox.new(connection, box, latest, 1)
        assert [each.local_part for each in page] == ["a", "b"]
        assert ids(inbox.new(connection, box, page[-1].entry_id, 1)) == [apart]
        assert inbox.latest_entry(connection, box) == found[-1].entry_id


def test_accounts_that_capture_do_not_see_each_other(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        shop = projects.add(connection, "shop", [], now=NOW).account_id
        ours = capture(connection, box, "bob@x.example")
        theirs = capture(connection, shop, "bob@x.example")
        assert listed(connection, box, "bob") == [ours]
        assert listed(connection, shop, "bob") == listed(connection, shop, None) == [theirs]


def test_mail_that_was_not_captured_is_in_no_inbox(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        (answer,) = deliver(
            connection, [Acceptance(spooled(), (Entry(box, "INBOX", internaldate=NOW),), 7, NOW)]
        )
        assert isinstance(answer, tuple)
        assert listed(connection, box, None) == []
        assert inbox.sweep(connection, NOW + 9 * DAY, DAY)
        assert left(connection, box) == (0, 1)


# -- what takes it out ----------------------------------------------------------------------


def expunged(connection: Connection, account_id: int) -> None:
    number = mailboxes.get(connection, account_id, "INBOX").mailbox_id
    flags.store_flags(connection, account_id, number, [1], "+", DELETED)
    expunge.expunge(connection, account_id, number)


def moved(connection: Connection, account_id: int) -> None:
    number = mailboxes.get(connection, account_id, "INBOX").mailbox_id
    copies.move(connection, account_id, number, [1], "Archive")


def renamed(connection: Connection, account_id: int) -> None:
    mailboxes.rename(connection, account_id, "INBOX", "Kept")


@pytest.mark.parametrize(("take", "messages"), [(expunged, 0), (moved, 1), (renamed, 1)])
def test_what_leaves_its_mailbox_leaves_its_inboxes(
    engine: Engine, box: int, take: Callable[[Connection, int], None], messages: int
) -> None:
    with engine.write() as connection:
        queue_id = capture(connection, box, "a@x.example", "b@x.example")
        take(connection, box)
        assert left(connection, box) == (0, messages)
        assert listed(connection, box, None) == listed(connection, box, "a") == []
        assert inbox.delete(connection, box, "a", queue_id) == 0
        # What was moved elsewhere was meant to be kept.
        assert inbox.sweep(connection, NOW + 9 * DAY, DAY)
        assert left(connection, box) == (0, messages)


def test_a_copy_stays_when_the_captured_message_goes(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        capture(connection, box, "a@x.example")
        number = mailboxes.get(connection, box, "INBOX").mailbox_id
        copies.copy(connection, box, number, [1], "Archive")
        assert inbox.delete(connection, box, "a", None) == 1
        assert left(connection, box) == (0, 1)


def test_deleting_from_one_inbox_leaves_the_others(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        queue_id = capture(connection, box, "a@x.example", "b@x.example")
        apart = capture(connection, box, "a@x.example", "b@x.example", apart=True)
        assert inbox.delete(connection, box, "a", queue_id) == 1
        assert listed(connection, box, "a") == [apart]
        assert listed(connection, box, "b") == [apart, queue_id]
        assert left(connection, box) == (3, 3)
        assert inbox.delete(connection, box, "a", apart) == 1
        assert left(connection, box) == (2, 2)
        assert inbox.delete(connection, box, None, apart) == 1
        assert inbox.delete(connection, box, "nobody", queue_id) == 0
        assert inbox.delete(connection, box, "b", queue_id, domain="y.example") == 0
        assert inbox.delete(connection, box, "b", queue_id, domain="x.example") == 1
        assert left(connection, box) == (0, 0)


@pytest.mark.parametrize("name", ["bob", None])
def test_an_inbox_is_cleared_in_steps(engine: Engine, box: int, name: str | None) -> None:
    with engine.write() as connection:
        for _ in range(5):
            capture(connection, box, "bob@x.example", "Bob@y.example")
        other = capture(connection, box, "eve@x.example")
        removed: list[int] = []
        while not removed or removed[-1]:
            removed.append(inbox.delete(connection, box, name, None, limit=4))
        assert sum(removed) == (5 if name else 6)
        assert max(removed) == 4
        assert listed(connection, box, "eve") == ([other] if name else [])
        assert left(connection, box) == ((1, 1) if name else (0, 0))


def test_clearing_tells_sessions_and_counts(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        capture(connection, box, "bob@x.example")
        number = mailboxes.get(connection, box, "INBOX").mailbox_id
        changes.forget(connection)
        inbox.delete(connection, box, "bob", None, now=NOW)
        assert (box, number) in changes.pending(connection).modseqs
        assert mailboxes.status(connection, box, number).messages == 0
        assert accounts.get(connection, box).octets == 0
        assert connection.execute(select(func.count()).select_from(email)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(content_doubt)).scalar_one() == 1


def test_an_account_that_is_gone_has_nothing_to_clear(engine: Engine) -> None:
    with engine.write() as connection:
        assert inbox.delete(connection, 99, "bob", None) == 0
        assert inbox.list(connection, 99, None, since=0, limit=5) == []


# -- retention ------------------------------------------------------------------------------


@pytest.mark.mission("ADG-12")
def test_each_message_stays_for_its_own_day(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        old = capture(connection, box, "bob@x.example", at=NOW)
        new = capture(connection, box, "bob@x.example", at=NOW + HOUR)
        assert inbox.sweep(connection, NOW + DAY, DAY)
        assert listed(connection, box, "bob") == [new, old]
        assert inbox.sweep(connection, NOW + DAY + 1, DAY)
        assert listed(connection, box, "bob") == [new]
        # Mail that came meanwhile makes nothing stay longer.
        newest = capture(connection, box, "bob@x.example", at=NOW + DAY)
        assert inbox.sweep(connection, NOW + HOUR + DAY + 1, DAY)
        assert listed(connection, box, "bob") == [newest]
        assert left(connection, box) == (1, 1)


def test_a_sweep_goes_over_all_accounts_in_steps(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        shop = projects.add(connection, "shop", [], now=NOW).account_id
        for n in range(6):
            capture(connection, (box, shop)[n % 2], "a@x.example", "b@x.example", at=NOW + n)
        kept = capture(connection, shop, "a@x.example", at=NOW + DAY)
        steps = 0
        while not inbox.sweep(connection, NOW + DAY + HOUR, DAY, limit=5):
            steps += 1
        assert steps >= 2
        assert left(connection, box) == (0, 0)
        assert left(connection, shop) == (1, 1)
        assert listed(connection, shop, "a") == [kept]


def test_a_sweep_does_not_stop_at_an_account_under_removal(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        shop = projects.add(connection, "shop", [], now=NOW)
        for _ in range(3):
            capture(connection, shop.account_id, "a@x.example")
        capture(connection, box, "a@x.example", at=NOW + 1)
        assert projects.remove(connection, shop.project_id) == shop.account_id
        while not inbox.sweep(connection, NOW + 9 * DAY, DAY, limit=2):
            pass
        assert left(connection, box) == (0, 0)
        while not accounts.remove_step(connection, shop.account_id):
            pass
        assert left(connection, shop.account_id) == (0, 0)


def test_removing_an_account_takes_its_inboxes(engine: Engine) -> None:
    with engine.write() as connection:
        shop = projects.add(connection, "shop", [], now=NOW)
        capture(connection, shop.account_id, *(f"u{n}@x.example" for n in range(5)))
        projects.remove(connection, shop.project_id)
        steps = 0
        while not accounts.remove_step(connection, shop.account_id, limit=2):
            steps += 1
        assert steps >= 4
        assert left(connection, shop.account_id) == (0, 0)


# -- what must hold -------------------------------------------------------------------------


def test_the_check_finds_rows_of_messages_that_are_not_there(engine: Engine, box: int) -> None:
    with engine.write() as connection:
        capture(connection, box, "a@x.example")
        for entry_id, account_id in ((77, box), (1, 99)):
            row = inbox_rows.of_entry(account_id, 5, entry_id, ["b@x.example"], NOW)[0]
            names = [column.name for column in inbox_message.columns]
            connection.execute(insert(inbox_message), dict(zip(names, row, strict=True)))
        assert inbox.list(connection, box, "b", since=0, limit=5) == []
        found = verify(connection)
        assert [each.partition(":")[0] for each in found] == [
            "inbox row of no account", "inbox row whose message is not in INBOX",
        ]  # fmt: skip
        connection.execute(delete(inbox_message).where(inbox_message.c.local_part == "b"))


# -- projects -------------------------------------------------------------------------------


def test_a_project_is_found_by_name_and_by_id(engine: Engine) -> None:
    with engine.write() as connection:
        made = projects.add(connection, "My-Shop", [], now=NOW)
        assert (made.name, made.username) == ("my-shop", "my-shop@projects.invalid")
        for name in ("my-shop", " MY-shop", made.reference_id, made.reference_id.upper()):
            assert projects.find(connection, name) == made
        assert projects.find(connection, "other") is None
        assert projects.get(connection, made.project_id) == made
        assert projects.of_account(connection, made.account_id) == made
        assert projects.list(connection) == [made]
        assert projects.list(connection, owner_user_id=7) == []
        assert accounts.get(connection, made.account_id).username == made.username
        assert projects.capturing(connection, made.account_id)
        assert not projects.capturing(connection, account(connection))
        assert domains.first(connection) == "example.com"


def test_a_project_cannot_take_a_name_that_another_one_has(engine: Engine) -> None:
    with engine.write() as connection:
        made = projects.add(connection, "shop", [], now=NOW)
        with pytest.raises(Conflict):
            projects.add(connection, "SHOP", [], now=NOW)
        # Nor an id: keys name projects by it.
        with pytest.raises(ProtocolViolation):
            projects.add(connection, made.reference_id, [], now=NOW)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a.b", "a b", "ä", "a@b", "x" * 64, "a\n", "a/b"])
def test_a_projects_name_is_a_label(engine: Engine, name: str) -> None:
    if name == "a\n":
        assert projects.folded(name) == "a"
        return
    with engine.write() as connection, pytest.raises(ProtocolViolation):
        projects.add(connection, name, [], now=NOW)


def test_a_project_that_was_removed_is_gone_with_its_login(engine: Engine) -> None:
    with engine.write() as connection:
        made = projects.add(connection, "shop", [], now=NOW)
        projects.remove(connection, made.project_id)
        assert projects.find(connection, "shop") is None
        assert not projects.capturing(connection, made.account_id)
        assert accounts.find(connection, made.username) is None
        with pytest.raises(NotFound):
            projects.remove(connection, made.project_id)
        while not accounts.remove_step(connection, made.account_id):
            pass
        again = projects.add(connection, "shop", [], now=NOW)
        assert again.account_id != made.account_id


def test_a_project_goes_with_its_account(engine: Engine) -> None:
    with engine.write() as connection:
        made = projects.add(connection, "shop", [], now=NOW)
        accounts.remove_step(connection, made.account_id)
        assert projects.list(connection) == []
