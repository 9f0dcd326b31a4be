"""What came of deliveries: rows, reports, destinations, suppressions; stale nodes."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from mailtwist.errors import NotFound, OverQuota
from mailtwist.store import mailboxes
from mailtwist.store.database import Inline
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.queue import claims, control, destinations, listing, suppression
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.outcomes import record
from mailtwist.store.queue.values import Outcome, State
from tests.store.making import NOW, account, spooled
from tests.store.queued import (
    HOUR,
    LEASE,
    MINUTE,
    claim,
    conclude,
    deferred,
    delivered,
    enqueue,
    failed,
    outcome,
    queued,
    states,
    value,
)
from tests.support.now import now as at_once
from tests.support.stores import violations


def leased(connection, *addresses: str, **values):
    """A message as it was handed over, leased from the start."""
    acceptance = queued(*addresses, lease=LEASE, **values)
    enqueue(connection, acceptance)
    return acceptance.queue


def finished_at(connection, queue_id: int):
    return value(connection, "SELECT finished_at FROM queue_message WHERE queue_id = ?", queue_id)


# -- acceptance -----------------------------------------------------------------------------


def test_local_and_foreign_recipients_are_accepted_as_one(engine: Engine) -> None:
    acceptance = queued("bert@example.net")
    with engine.write() as connection:
        anna = account(connection)
        both = replace(acceptance, entries=(Entry(anna, "INBOX"),))
        (answer,) = deliver(connection, [both])
        assert [place.account_id for place in answer] == [anna]
        (message,) = claim(connection)
        assert message.content_id == acceptance.content.content_id


def test_when_the_mailbox_is_full_nothing_leaves_either(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection, quota_octets=10)
        acceptance = replace(queued("bert@example.net"), entries=(Entry(anna, "INBOX"),))
        (answer,) = deliver(connection, [acceptance])
        assert isinstance(answer, OverQuota)
        assert states(connection) == {}


def test_a_report_arrives_in_a_full_mailbox(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection, quota_octets=10)
        report = Acceptance(spooled(), (Entry(anna, "INBOX", is_exempt=True),), 1, NOW)
        (answer,) = deliver(connection, [report])
        assert isinstance(answer, tuple)


def test_a_message_for_nobody_leaves_no_content(engine: Engine) -> None:
    with engine.write() as connection:
        assert deliver(connection, [Acceptance(spooled(), (), 1, NOW)]) == [()]
        assert value(connection, "SELECT count(*) FROM content") == 0


def test_only_waiting_recipients_wake_the_runners(database: Inline) -> None:
    woken: list[int] = []
    database.changes.watch("queue", lambda: woken.append(1))
    at_once(database.write_set(deliver, queued("a@one.net", lease=LEASE)))
    assert woken == []
    at_once(database.write_set(deliver, queued("a@one.net")))
    assert woken == [1]


# -- what is recorded -----------------------------------------------------------------------


def test_a_message_is_finished_with_its_last_recipient(engine: Engine) -> None:
    with engine.write() as connection:
        message = leased(connection, "a@one.net", "b@one.net", "c@two.net")
        one = replace(message, recipients=message.recipients[:2])
        two = replace(message, recipients=message.recipients[2:])
        assert record(connection, [outcome(one, delivered(), failed())]) == [True]
        assert finished_at(connection, message.queue_id) is None
        assert record(connection, [outcome(two, delivered(), now=NOW + 9)]) == [True]
        assert finished_at(connection, message.queue_id) == NOW + 9
        assert list(states(connection).values()) == [
            State.DELIVERED,
            State.FAILED,
            State.DELIVERED,
        ]
        assert listing.view(connection, message.queue_id).listed.state == "failed"


def test_every_attempt_is_kept_with_what_was_said(engine: Engine) -> None:
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net"))
        conclude(connection, deferred(NOW + MINUTE, tls="TLSv1.2"))
        conclude(connection, failed(host="mx2.one.net"), now=NOW + MINUTE)
        (recipient,) = listing.view(connection, queue_id).recipients
    first, second = recipient.tried
    assert (first.number, first.attempt.outcome, first.attempt.code) == (1, Outcome.DEFERRED, 451)
    assert (first.attempt.tls, first.attempt.address) == ("TLSv1.2", "192.0.2.1:25")
    assert (second.number, second.attempt.text) == (2, "no such user")
    assert (second.attempt.host, second.attempt.stage) == ("mx2.one.net", "rcpt")
    assert (recipient.attempts, recipient.last_error) == (2, "550 5.1.1 no such user")


def test_an_attempt_that_was_none_leaves_no_trace(engine: Engine) -> None:
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net"))
        conclude(connection, deferred(NOW + MINUTE))
        conclude(connection, deferred(NOW + HOUR, is_counted=False, code=0), now=NOW + MINUTE)
        (recipient,) = listing.view(connection, queue_id).recipients
    assert (len(recipient.tried), recipient.attempts) == (1, 1)
    assert (recipient.due_at, recipient.last_error) == (NOW + HOUR, "451 4.7.1 try later")


def test_whatever_a_remote_says_can_be_recorded(engine: Engine) -> None:
    nasty = "nul \0, half a pair \ud800, " + "x" * 5000
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net"))
        conclude(connection, deferred(text=nasty, status="\0", host="\0", tls="\ud800"))
        (recipient,) = listing.view(connection, queue_id).recipients
    assert recipient.last_error.startswith("451")
    assert len(recipient.tried[0].attempt.text) <= 1000


def test_a_node_that_lost_its_lease_changes_nothing(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        message = leased(connection, "a@one.net")
        claims.reclaim(connection, NOW, [])
        (again,) = claim(connection, node_id=8)
        report = Acceptance(spooled(), (Entry(anna, "INBOX"),), 1, NOW)
        state = DestinationState("one.net", NOW + HOUR, 1, "no")
        stale = outcome(message, failed(), reports=(report,), destination=state)
        assert record(connection, [stale]) == [False]
        assert set(states(connection).values()) == {State.LEASED}
        assert value(connection, "SELECT count(*) FROM message") == 0
        assert value(connection, "SELECT count(*) FROM queue_attempt") == 0
        assert destinations.find(connection, "one.net").failures == 0
        assert record(connection, [outcome(again, delivered(), node_id=8)]) == [True]


def test_an_outcome_counts_once(engine: Engine) -> None:
    with engine.write() as connection:
        message = leased(connection, "a@one.net")
        finished = outcome(message, delivered())
        assert record(connection, [finished, finished]) == [True, False]
        assert record(connection, [finished]) == [False]
        assert value(connection, "SELECT count(*) FROM queue_attempt") == 1


def test_what_is_held_while_it_is_tried_waits_no_more(engine: Engine) -> None:
    with engine.write() as connection:
        first, second = leased(connection, "a@one.net"), leased(connection, "b@one.net")
        control.hold(connection, first.queue_id)
        control.hold(connection, second.queue_id)
        assert record(connection, [outcome(first, deferred()), outcome(second, delivered())])
        assert list(states(connection).values()) == [State.HELD, State.DELIVERED]


def test_what_is_deleted_while_it_is_tried_stays_so(engine: Engine) -> None:
    with engine.write() as connection:
        message = leased(connection, "a@one.net")
        control.delete(connection, message.queue_id, NOW)
        assert record(connection, [outcome(message, failed())]) == [False]
        assert states(connection) == {}


def test_nodes_that_finish_a_message_together_finish_it(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    with engine.write() as connection:
        acceptances = [queued(f"a@{n % 5}.net", f"b@{n % 3}.org", lease=LEASE) for n in range(300)]
        enqueue(connection, *acceptances)
    messages = [acceptance.queue for acceptance in acceptances if acceptance.queue]
    broken: list[Exception] = []

    def run(half: slice, step: int) -> None:
        try:
            for at in range(0, len(messages), 20):
                parts = [
                    replace(message, recipients=message.recipients[half])
                    for message in messages[at : at + 20][::step]
                ]
                state = DestinationState(f"{at % 3}.org", NOW + at, at % 2, "no answer")
                made = deferred(NOW) if step < 0 and at % 40 else delivered()
                with engine.write() as connection:
                    told = [outcome(part, made, destination=state) for part in parts]
                    assert record(connection, told) == [True] * len(told)
        except Exception as error:
            broken.append(error)

    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in [(slice(0, 1), 1), (slice(1, 2), -1)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert broken == []
    assert violations(engine) == []
    with engine.read() as connection:
        finished = "SELECT count(*) FROM queue_message WHERE finished_at IS NOT NULL"
        assert value(connection, finished) == 160
    engine.dispose()


# -- reports --------------------------------------------------------------------------------


@pytest.mark.mission("DAP-141")
def test_a_report_arrives_with_the_outcome_that_it_tells(database: Inline) -> None:
    anna = at_once(database.write(account))
    acceptance = queued("a@one.net", lease=LEASE)
    at_once(database.write_set(deliver, acceptance))
    local = Acceptance(spooled(), (Entry(anna, "INBOX", is_exempt=True),), 1, NOW)
    foreign = queued("postmaster@two.net", reverse_path="")
    assert acceptance.queue
    finished = outcome(acceptance.queue, failed(), reports=(local, foreign))
    assert finished.accounts == {anna}
    assert at_once(database.write_set(record, finished, accounts=finished.accounts)) is True

    def check(connection) -> None:
        inbox = mailboxes.get(connection, anna, "INBOX")
        assert mailboxes.status(connection, anna, inbox.mailbox_id).messages == 1
        assert listing.list(connection, sender="")[0].recipients == ("postmaster@two.net",)

    at_once(database.read(check))


def test_the_outcome_counts_when_nobody_is_left_to_be_told(engine: Engine) -> None:
    with engine.write() as connection:
        message = leased(connection, "a@one.net")
        report = Acceptance(spooled(), (Entry(99, "INBOX"),), 1, NOW)
        assert record(connection, [outcome(message, failed(), reports=(report,))]) == [True]
        assert list(states(connection).values()) == [State.FAILED]


# -- destinations ---------------------------------------------------------------------------


def test_a_destination_tells_since_when_it_fails(engine: Engine) -> None:
    with engine.write() as connection:
        for n in range(3):
            message = leased(connection, "a@one.net")
            state = DestinationState("one.net", NOW + HOUR, n + 1, "no answer")
            finished = outcome(message, deferred(), now=NOW + n, destination=state)
            assert record(connection, [finished]) == [True]
        assert destinations.find(connection, "one.net") == state
        assert value(connection, "SELECT since FROM queue_destination") == NOW


@pytest.mark.parametrize(
    "stage, failures", [("connect", 2), ("greeting", 2), ("rcpt", 0), ("end", 0)]
)
def test_a_host_that_takes_commands_ends_the_failures(
    engine: Engine, stage: str, failures: int
) -> None:
    with engine.write() as connection:
        message = leased(connection, "a@one.net")
        state = DestinationState("one.net", NOW + HOUR, 2, "no answer")
        record(connection, [outcome(message, deferred(), destination=state)])
        record(connection, [outcome(leased(connection, "b@one.net"), deferred(stage=stage))])
        assert destinations.find(connection, "one.net").failures == failures


# -- suppression ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attempt, bounces",
    [
        (failed(), 1),
        (failed(status="5.1.10"), 1),
        (failed(status="5.2.1"), 1),
        (failed(status="5.1.8"), 0),  # the sender's address
        (failed(status="5.2.2"), 0),
        (failed(status="5.7.1"), 0),
        (failed(stage="mail"), 0),
        (failed(code=451), 0),  # given up after many of these
        (deferred(), 0),
    ],
)
def test_only_an_address_that_does_not_exist_is_a_hard_bounce(
    engine: Engine, attempt, bounces: int
) -> None:
    with engine.write() as connection:
        message = leased(connection, "Bert@one.net")
        record(connection, [outcome(message, attempt)])
        found = suppression.find(connection, "bert@one.net")
    assert (found.bounces if found else 0) == bounces


def test_bounces_are_counted_and_forgotten_with_a_delivery(database: Inline) -> None:
    changed: list[int] = []
    database.changes.watch("suppression", lambda: changed.append(1))

    def run(attempt):
        acceptance = queued("Bert@one.net", lease=LEASE)
        assert acceptance.queue
        at_once(database.write_set(deliver, acceptance))
        at_once(database.write_set(record, outcome(acceptance.queue, attempt)))
        return at_once(database.read(lambda c: suppression.find(c, "BERT@one.net")))

    assert run(failed()).bounces == 1
    found = run(failed(text="gone"))
    assert (found.bounces, found.reply) == (2, "550 5.1.1 gone")
    assert len(changed) == 2
    assert run(deferred()).bounces == 2
    assert len(changed) == 2
    assert run(delivered()) is None
    assert len(changed) == 3


def test_suppressed_addresses_are_listed_and_removed(engine: Engine) -> None:
    with engine.write() as connection:
        for address, bounces in [("a@one.net", 1), ("b@one.net", 3), ("c@one.net", 2)]:
            for _ in range(bounces):
                record(connection, [outcome(leased(connection, address), failed())])
        everybody = suppression.list(connection)
        assert [found.address for found in everybody] == ["a@one.net", "b@one.net", "c@one.net"]
        assert [found.address for found in suppression.list(connection, at_least=3)] == [
            "b@one.net"
        ]
        assert len(suppression.list(connection, after="a@one.net", limit=1)) == 1
        suppression.remove(connection, "B@one.net")
        with pytest.raises(NotFound):
            suppression.remove(connection, "b@one.net")
