"""What a call of an action writes: seen by its outcomes, written at once or not at all."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import event, text

from mailtwist.actions.buffer import MAX_OCTETS, MAX_UNITS, Buffer, Stale
from mailtwist.errors import Conflict, NotFound, ProtocolViolation, StoreUnavailable
from mailtwist.mail.address import parse_address
from mailtwist.mail.permissions import SYSTEM
from mailtwist.store import changes
from mailtwist.store.entities.model import ListRequest
from mailtwist.store.queue.values import Lease
from tests.support.now import now

LETTER = b"From: a@x.org\r\nMessage-ID: <%d@x.org>\r\nSubject: hello\r\n\r\nhello\r\n"


class Outbound:
    """Stands for the runner: notes which messages have room, came and were given back."""

    def __init__(self, rooms=100):
        self.rooms, self.calls = rooms, []

    def reserve(self, message, octets):
        if not self.rooms:
            return None
        self.rooms -= 1
        self.calls.append(("reserve", message.queue_id))
        return Lease(1, 2_000_000_000_000_000)

    def take(self, message, data, lease):
        self.calls.append(("take", message.queue_id))

    def give_back(self, message):
        self.calls.append(("give back", message.queue_id))

    def wake(self):
        self.calls.append("wake")


@pytest.fixture
def outbound(server):
    server.intake.outbound = Outbound()
    return server.intake.outbound


@pytest.fixture
def buffer(server):
    return Buffer(server.database, server.intake)


@pytest.fixture
def commits(engine):
    found = []
    event.listen(engine.writing, "commit", lambda connection: found.append(1))
    return found


@pytest.fixture
def rollbacks(engine):
    found = []
    event.listen(engine.writing, "rollback", lambda connection: found.append(1))
    return found


def prepared(server, *recipients, number=1):
    return now(
        server.intake.prepare(
            LETTER % number,
            reverse_path=parse_address("a@x.org"),
            recipients=[parse_address(each) for each in recipients or ("far@elsewhere.example",)],
        )
    )


def made(server, hostname):
    """A unit that makes the row of a mail server."""
    planned = now(server.resources.creating(SYSTEM, "mail_server", {"hostname": hostname}, {}))
    return planned.unit


def hostnames(server):
    return sorted(row.attributes["hostname"] for row in server.rows("mail_server"))


def queue_ids(server):
    read = server.database.read(
        lambda c: c.execute(text("SELECT queue_id FROM queue_message ORDER BY queue_id")).scalars()
    )
    return list(now(read))


# -- rows -----------------------------------------------------------------------------------


def test_nothing_is_written_before_the_end(server, buffer):
    row = now(buffer.perform(made(server, "a.x.org")))
    assert row.attributes["hostname"] == "a.x.org"
    assert hostnames(server) == []
    now(buffer.commit())
    (written,) = server.rows("mail_server")
    assert (written.id, written.attributes["hostname"]) == (row.id, "a.x.org")


def test_later_reads_and_writes_see_earlier_ones(server, buffer):
    now(buffer.perform(made(server, "a.x.org")))
    buffer.add(made(server, "b.x.org"))
    page = now(buffer.preview(server.resources.listing(SYSTEM, "mail_server", ListRequest())))
    assert len(page.items) == 2
    with pytest.raises(Conflict, match="hostname"):
        now(buffer.perform(made(server, "A.x.org")))
    now(buffer.commit())
    assert hostnames(server) == ["a.x.org", "b.x.org"], "what was refused is not in it"


def test_reading_an_empty_buffer_does_not_trouble_the_writer(server, buffer, rollbacks):
    now(buffer.preview(server.resources.listing(SYSTEM, "mail_server", ListRequest())))
    assert rollbacks == []


def test_a_unit_that_fails_at_the_end_takes_all_with_it(server, buffer):
    def refuse(connection):
        raise NotFound("gone meanwhile")

    done = []
    now(buffer.perform(made(server, "a.x.org")))
    buffer.add(refuse)

    async def effect():
        done.append("effect")

    buffer.after(effect)
    with pytest.raises(NotFound, match="meanwhile"):
        now(buffer.commit())
    assert (hostnames(server), done) == ([], [])


def test_all_is_one_transaction_and_effects_follow_in_order(server, buffer, commits):
    seen = []

    async def effect(name):
        seen.append((name, len(hostnames(server))))

    now(buffer.perform(made(server, "a.x.org")))
    buffer.after(partial(effect, "first"))
    now(buffer.perform(made(server, "b.x.org")))
    buffer.after(partial(effect, "second"))
    before = len(commits)
    now(buffer.commit())
    assert len(commits) - before == 1
    assert seen == [("first", 2), ("second", 2)]


def test_an_empty_buffer_writes_nothing(buffer, commits):
    before = len(commits)
    now(buffer.commit())
    assert len(commits) == before


def test_what_others_changed_meanwhile_makes_it_stale(server, buffer):
    account = server.create("mail_account", {"username": "a@x.org", "password": "adminadmin"})

    def box(name):
        given = {"name": name, "mail_account_id": account.id}
        return now(server.resources.creating(SYSTEM, "mail_box", given, {})).unit

    seen = now(buffer.perform(box("ours")))
    # Its number comes from the account's counter, which somebody else is the first to take.
    theirs = server.create("mail_box", {"name": "theirs", "mail_account_id": account.id})
    assert theirs.id == seen.id
    with pytest.raises(Stale):
        now(buffer.commit())
    names = {row.attributes["name"] for row in server.rows("mail_box", size=100)}
    assert "theirs" in names
    assert "ours" not in names


# -- outcomes that fail and may -------------------------------------------------------------


def test_what_was_added_since_a_mark_can_be_taken_back(server, buffer, outbound):
    done = []

    async def effect(name):
        done.append(name)

    now(buffer.perform(made(server, "a.x.org")))
    buffer.after(partial(effect, "kept"))
    mark = buffer.mark()
    now(buffer.perform(made(server, "b.x.org")))
    buffer.mail(prepared(server))
    buffer.after(partial(effect, "dropped"))
    buffer.drop(mark)
    now(buffer.commit())
    assert hostnames(server) == ["a.x.org"]
    assert (done, outbound.calls, queue_ids(server)) == (["kept"], [], [])


def test_effects_that_may_fail_do_not_end_the_others(buffer):
    done = []

    async def fail(error):
        raise error

    async def effect():
        done.append("effect")

    mark = buffer.mark()
    buffer.after(partial(fail, Conflict("no")))
    buffer.forgive(mark)
    buffer.after(effect)
    now(buffer.commit())
    assert done == ["effect"]
    buffer.after(partial(fail, Conflict("no")))
    with pytest.raises(Conflict):
        now(buffer.commit())


# -- mail -----------------------------------------------------------------------------------


def test_one_mail_alone_goes_the_way_of_all_mail(server, buffer, outbound, commits, rollbacks):
    acceptance = prepared(server)
    buffer.mail(acceptance)
    commits_before, rollbacks_before = len(commits), len(rollbacks)
    now(buffer.commit())
    number = acceptance.queue.queue_id
    assert outbound.calls == [("reserve", number), ("take", number)]
    assert queue_ids(server) == [number]
    assert (len(commits) - commits_before, len(rollbacks) - rollbacks_before) == (1, 0)


def test_mail_and_rows_are_one_transaction(server, buffer, outbound, commits):
    first, second = prepared(server, number=1), prepared(server, number=2)
    buffer.mail(first)
    now(buffer.perform(made(server, "a.x.org")))
    assert queue_ids(server) == []
    assert outbound.calls == [], "trying out asks for no room"
    buffer.mail(second)
    before = len(commits)
    now(buffer.commit())
    assert len(commits) - before == 1
    numbers = [first.queue.queue_id, second.queue.queue_id]
    assert queue_ids(server) == numbers
    assert hostnames(server) == ["a.x.org"]
    assert outbound.calls == [
        *(("reserve", number) for number in numbers),
        *(("take", number) for number in numbers),
    ]


def test_mail_without_room_waits_in_its_rows(server, buffer):
    outbound = server.intake.outbound = Outbound(rooms=1)
    first, second = prepared(server, number=1), prepared(server, number=2)
    buffer.mail(first)
    buffer.mail(second)
    now(buffer.commit())
    number = first.queue.queue_id
    assert outbound.calls == [("reserve", number), ("take", number), "wake"]
    assert queue_ids(server) == [number, second.queue.queue_id]


def test_room_is_given_back_when_nothing_was_written(server, buffer, outbound, monkeypatch):
    buffer.mail(prepared(server, number=1))
    now(buffer.perform(made(server, "a.x.org")))

    async def unwell(work, **more):
        raise StoreUnavailable

    monkeypatch.setattr(server.database, "write", unwell)
    with pytest.raises(StoreUnavailable):
        now(buffer.commit())
    (reserved, given_back) = outbound.calls
    assert (reserved[0], given_back[0]) == ("reserve", "give back")
    assert (queue_ids(server), hostnames(server)) == ([], [])


def test_mail_to_a_mailbox_here_is_seen_by_later_outcomes(server, buffer):
    server.create("mail_account", {"username": "bob@x.org", "password": "adminadmin"})
    buffer.mail(prepared(server, "bob@x.org"))
    listing = server.resources.listing(SYSTEM, "mail", ListRequest())
    assert [each.attributes["subject"] for each in now(buffer.preview(listing)).items] == ["hello"]
    assert server.rows("mail") == ()
    now(buffer.commit())
    (mail,) = server.rows("mail")
    assert mail.attributes["subject"] == "hello"


def test_a_mailbox_that_is_full_at_the_end_stops_everything(server, buffer, outbound):
    server.create("mail_account", {"username": "bob@x.org", "password": "adminadmin"})
    now(
        server.database.write(
            lambda c: c.execute(text("UPDATE account SET quota_messages = 0, quota_octets = 1"))
        )
    )
    buffer.mail(prepared(server, "bob@x.org"))
    buffer.add(made(server, "a.x.org"))
    with pytest.raises(Exception, match="full"):
        now(buffer.commit())
    assert (hostnames(server), server.rows("mail")) == ([], ())


# -- bounds ---------------------------------------------------------------------------------


def test_one_call_writes_so_much_at_most(server, buffer):
    for _ in range(MAX_UNITS):
        buffer.add(lambda connection: changes.bump(connection, "x"))
    with pytest.raises(ProtocolViolation, match="too much"):
        buffer.add(lambda connection: None)
    other = Buffer(server.database, server.intake)
    other.add(lambda connection: None, octets=MAX_OCTETS)
    with pytest.raises(ProtocolViolation, match="too much"):
        other.add(lambda connection: None, octets=1)
