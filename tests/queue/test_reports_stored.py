"""A report comes into the sender's mailbox, or into the queue, with the outcome it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from mailtwist.config import Settings
from mailtwist.queue.intake import Intake
from mailtwist.queue.reports import Reports
from mailtwist.store import content
from mailtwist.store.directory import Directory
from mailtwist.store.queue.outcomes import record
from mailtwist.store.queue.values import Attempt, Message, Notify
from mailtwist.store.sql import Statement
from tests.store import making, queued
from tests.support.now import now

ORIGINAL = b"Message-ID: <1@example.com>\r\nSubject: Lunch\r\n\r\nAt noon?\r\n"
_DATA = Statement(
    """
    SELECT c.data, d.return_path, b.name FROM message AS m
    JOIN mailbox AS b ON b.mailbox_id = m.mailbox_id
    JOIN email AS e ON e.email_id = m.email_id
    JOIN email_detail AS d ON d.email_id = m.email_id
    JOIN content AS c ON c.content_id = e.content_id
    """
)


class World:
    """A store with the account anna@example.com, and mail of hers in the queue."""

    def __init__(self, database: Any) -> None:
        self.database = database
        settings = Settings(hostname="mail.example.com", domains=("example.com",))
        self.intake = Intake(
            database, Directory(database, settings), settings=settings, now=lambda: making.NOW
        )
        self.reports = Reports(
            database, self.intake, settings=settings, now=lambda: making.NOW + queued.HOUR
        )

    def fail(self, attempt: Attempt, **message: Any) -> Sequence[Any]:
        """Queue a message to bob, claim it, and record what came of it."""
        acceptance = queued.queued("bob@example.net", data=ORIGINAL, **message)
        now(self.database.write(lambda c: queued.enqueue(c, acceptance)))
        (claimed,) = now(self.database.write(queued.claim))
        attempts = (replace(attempt, n=claimed.recipients[0].n),)
        reports = now(self.reports.of(claimed, attempts))
        finished = replace(queued.outcome(claimed, *attempts), reports=reports)
        answers = now(
            self.database.write_set(
                record, finished, accounts=finished.accounts, octets=len(ORIGINAL)
            )
        )
        assert answers is True
        return reports

    def inbox(self) -> list[tuple[bytes, str, str]]:
        return now(self.database.read(lambda c: [tuple(row) for row in _DATA(c).all()]))

    def queue(self) -> list[Message]:
        return now(self.database.write(queued.claim))


@pytest.fixture
def world(database: Any) -> World:
    now(database.write(lambda c: making.account(c, "anna@example.com")))
    return World(database)


def parse(octets: bytes) -> EmailMessage:
    message = message_from_bytes(octets, policy=policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    return message


def fields(octets: bytes) -> Any:
    status: Any = list(parse(octets).iter_parts())[1]
    return status.get_payload()[1]


@pytest.mark.mission("DAP-141")
def test_a_refusal_comes_back_into_the_senders_inbox(world: World) -> None:
    world.fail(queued.failed())

    ((letter, return_path, mailbox),) = world.inbox()
    assert (return_path, mailbox) == ("", "INBOX")
    assert parse(letter)["To"] == "anna@example.com"
    assert fields(letter)["Final-Recipient"] == "rfc822; bob@example.net"
    assert (fields(letter)["Action"], fields(letter)["Status"]) == ("failed", "5.1.1")
    assert b"At noon?" in letter
    assert world.queue() == []  # bob is not tried again


@pytest.mark.mission("DAP-142", "ELE-49")
def test_giving_up_comes_back_with_what_was_said_last(world: World) -> None:
    world.fail(queued.failed(code=451, status="4.4.7", text="4.3.2 Out for lunch", stage="end"))

    ((letter, *_),) = world.inbox()
    assert fields(letter)["Status"] == "4.4.7"
    assert fields(letter)["Diagnostic-Code"] == "smtp; 451 4.3.2 Out for lunch"


def test_a_full_account_still_hears_what_became_of_its_mail(database: Any) -> None:
    now(database.write(lambda c: making.account(c, "anna@example.com", quota_octets=1)))
    world = World(database)

    world.fail(queued.failed())

    assert len(world.inbox()) == 1


def test_a_foreign_sender_gets_his_report_through_the_queue(world: World) -> None:
    world.fail(queued.failed(), reverse_path="carl@example.org", requiretls=True)

    assert world.inbox() == []
    (report,) = world.queue()
    assert report.reverse_path == ""
    assert report.requiretls
    (recipient,) = report.recipients
    assert (recipient.address, recipient.notify) == ("carl@example.org", Notify.NEVER)
    letter = now(
        world.database.read(lambda c: content.read(c, report.content_id, 0, report.octets))
    )
    assert fields(letter)["Action"] == "failed"


def test_a_report_that_fails_is_not_reported_on(world: World) -> None:
    world.fail(queued.failed(), reverse_path="carl@example.org")
    (report,) = world.queue()

    assert now(world.reports.of(report, [queued.failed(n=report.recipients[0].n)])) == ()


def test_a_sender_without_a_mailbox_here_gets_nothing_and_harms_nothing(world: World) -> None:
    assert world.fail(queued.failed(), reverse_path="gone@example.com") == ()
    assert world.queue() == []
    assert world.inbox() == []
