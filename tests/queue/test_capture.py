"""Whose inbox a message lands in: the inbox domain, dev_mode, test keys and projects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from mailtwist.config.outgoing import Delivery, Inbox
from mailtwist.errors import NotFound, OverQuota, Refusal
from mailtwist.mail.address import parse_address
from mailtwist.policy.checks import Verdict
from mailtwist.queue.envelope import Envelope, Mail, Origin
from mailtwist.queue.plan import make_plan, with_verdict
from mailtwist.store import accounts, domains, inbox, projects
from mailtwist.store.database import Inline
from mailtwist.store.directory import Foreign
from mailtwist.store.engine import open_engine
from mailtwist.store.inbox import Captured
from mailtwist.store.projects import Project
from mailtwist.store.queue.values import LOCAL, Notify
from mailtwist.store.tables import inbox_message, message
from tests.queue.test_intake import LETTER, NOW, STRANGER, Bench, addresses
from tests.support.now import now
from tests.support.smtp_server import stored
from tests.support.stores import violations

DOMAIN = "inbox.example"


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[Bench]:
    """example.com with alice and bob, and an inbox domain."""
    engine = open_engine(sqlite_url)
    database = Inline(engine)
    made = Bench(database).build(inbox=Inbox(domain="Inbox.Example"))
    now(made.intake.start())
    yield made
    try:
        assert violations(engine) == []
    finally:
        database.release()
        engine.dispose()


@pytest.fixture
def shop(bench: Bench) -> Project:
    with bench.database.engine.write() as connection:
        return projects.add(connection, "shop", [], now=NOW)


def login_of(project: Project) -> Origin:
    return replace(
        STRANGER, account_id=project.account_id, is_authenticated=True, may_relay=True,
        protocol="ESMTPSA", is_tls=True,
    )  # fmt: skip


def listed(bench: Bench, name: str | None, account_id: int = 0) -> list[Captured]:
    with bench.database.engine.read() as connection:
        account_id = account_id or inbox.account(connection)
        return inbox.list(connection, account_id, name, since=0, limit=50)


def shown(bench: Bench, name: str | None, account_id: int = 0) -> list[str]:
    return [each.address for each in listed(bench, name, account_id)]


def sent_by(
    bench: Bench, project: Project, *names: str, sender: str = "news@shop.test", **rest: Any
) -> str:
    """Take a message in that a project's login sends."""
    admitted = bench.admit(*names, may_relay=True, account_id=project.account_id)
    mail = Mail(parse_address(sender))
    for_whom = [replace(each, notify=rest.get("notify", Notify.UNSET)) for each in admitted]
    incoming = bench.intake.receive(Envelope(mail, for_whom), login_of(project), limit=1 << 20)
    now(incoming.write(LETTER))
    return now(incoming.accept())


# -- the inbox domain -----------------------------------------------------------------------


@pytest.mark.mission("ADG-03")
@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("anybody@inbox.example", "anybody"),
        ("a+b@inbox.example", "a+b"),
        ('"a b"@inbox.example', "a b"),
        ("grüße@inbox.example", "grüsse"),
        ("postmaster@inbox.example", "postmaster"),
        ("SRS0=abcd=xy=far.test=bob@inbox.example", "srs0=abcd=xy=far.test=bob"),
    ],
)
def test_every_name_of_the_inbox_domain_is_an_inbox(bench: Bench, address: str, name: str) -> None:
    queue_id = bench.receive(address, origin=STRANGER)
    (found,) = listed(bench, name)
    assert str(found.queue_id) == queue_id
    assert found.address == address
    assert found.return_path == "alice@example.com"
    assert bench.queued() == []


@pytest.mark.mission("ADG-15")
def test_the_case_of_a_name_and_of_the_domain_does_not_matter(bench: Bench) -> None:
    bench.receive("User@INBOX.Example", origin=STRANGER)
    assert shown(bench, "user") == ["User@inbox.example"]
    assert b"Delivered-To: user@inbox.example\r\n" in listed(bench, "user")[0].prefix


@pytest.mark.mission("ADG-13")
def test_each_recipient_gets_a_message_that_names_no_other(bench: Bench) -> None:
    bench.receive("a@inbox.example", "b@inbox.example", "A@inbox.example", origin=STRANGER)
    (a,), (b,) = listed(bench, "a"), listed(bench, "b")
    assert (a.queue_id, a.address) == (b.queue_id, "a@inbox.example")
    assert a.entry_id != b.entry_id
    assert b"b@inbox" not in a.prefix
    assert b"for <b@inbox.example>" in b.prefix
    assert rows(bench) == (2, 2)


def rows(bench: Bench) -> tuple[int, int]:
    """How many rows the inboxes have, and how many messages all accounts."""
    with bench.database.engine.read() as connection:
        return (
            connection.execute(select(func.count()).select_from(inbox_message)).scalar_one(),
            connection.execute(select(func.count()).select_from(message)).scalar_one(),
        )


def test_one_name_in_two_inbox_domains_is_one_message(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        domains.add(connection, "other.example", "inbox")
    bench.receive("bob@inbox.example", "Bob@other.example", origin=STRANGER)
    assert shown(bench, "bob") == ["bob@inbox.example"]
    assert rows(bench) == (2, 1)
    assert now(bench.intake.is_local("OTHER.example"))


def test_a_disabled_row_does_not_close_the_domain_of_the_settings(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        domains.add(connection, DOMAIN, "relay")
    bench.receive("bob@inbox.example", origin=STRANGER)
    assert shown(bench, "bob") == ["bob@inbox.example"]


def test_an_account_and_the_inbox_of_its_name_both_get_it(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        accounts.add(connection, "carol@inbox.example", [], now=NOW)
        accounts.add_alias(connection, "team@inbox.example", ["bob@example.com", "y@far.test"])
    bench.receive("carol@inbox.example", "carol+x@inbox.example", origin=STRANGER)
    bench.receive("Team@inbox.example", origin=STRANGER)
    assert len(stored(bench.database.engine, "carol@inbox.example")) == 1
    assert len(bench.stored("bob")) == 1
    assert [each.recipients[0].address for each in bench.queued()] == ["y@far.test"]
    assert shown(bench, "carol") == ["carol@inbox.example"]
    assert shown(bench, "carol+x") == ["carol+x@inbox.example"]
    assert shown(bench, "team") == ["Team@inbox.example"]


def test_what_catches_the_rest_elsewhere_gets_nothing_of_it(bench: Bench) -> None:
    bench.build(aliases={"*": "bob@example.com", "postmaster": "alice@example.com"})
    bench.receive("anybody@inbox.example", "postmaster@inbox.example", origin=STRANGER)
    assert bench.stored("bob") == []
    assert len(bench.stored("alice")) == 1
    assert shown(bench, None) == ["anybody@inbox.example"]
    assert shown(bench, "postmaster") == ["postmaster@inbox.example"]


def test_an_alias_may_lead_into_an_inbox(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        accounts.add_alias(connection, "help@example.com", ["Desk@inbox.example"])
    bench.receive("Help@example.com", origin=STRANGER)
    assert shown(bench, "desk") == ["desk@inbox.example"]
    assert shown(bench, "help") == []


@pytest.mark.mission("ADG-14")
def test_other_domains_and_unknown_users_are_refused_for_good(bench: Bench) -> None:
    for address in ("x@wrong.example", "nobody@example.com", "x@sub.inbox.example"):
        with pytest.raises(Refusal) as refused:
            bench.admit(address)
        assert 500 <= refused.value.code < 600


def test_the_account_of_inboxes_is_made_when_it_is_needed(sqlite_url: str) -> None:
    database = Inline(open_engine(sqlite_url))
    bench = Bench(database)
    with database.engine.write() as connection:
        domains.add(connection, DOMAIN, "inbox")
        assert inbox.account(connection) == 0
    bench.receive("a@inbox.example", "b@inbox.example", origin=STRANGER)
    assert shown(bench, "a") == ["a@inbox.example"]
    # What was known of the address before is not used again.
    bench.receive("a@inbox.example", origin=STRANGER)
    assert len(listed(bench, "a")) == 2
    database.release()


def test_an_lmtp_server_gets_no_mail_of_inboxes(bench: Bench) -> None:
    bench.build(delivery=Delivery(mode="lmtp", host="127.0.0.1"))
    bench.receive("x@inbox.example", "bob@example.com", origin=STRANGER)
    assert shown(bench, "x") == ["x@inbox.example"]
    assert [r.destination for each in bench.queued() for r in each.recipients] == [LOCAL]


def test_spam_stays_where_inboxes_are_listed_from(bench: Bench) -> None:
    (a, b, bob) = bench.admit("a@inbox.example", "b@inbox.example", "bob@example.com")
    envelope = Envelope(Mail(None), [a, b, bob])
    plan = make_plan(STRANGER, envelope, queue_id=1, now=NOW)
    judged = with_verdict(plan, Verdict(score=999.0), "mx.example.com")
    assert [(each.mailbox, each.inbox) for each in judged.entries] == [
        ("INBOX", ("a@inbox.example",)), ("INBOX", ("b@inbox.example",)), ("Spam", ()),
    ]  # fmt: skip


# -- dev_mode and test keys -----------------------------------------------------------------


def test_a_sandbox_captures_one_message_for_all_that_nobody_owns(bench: Bench) -> None:
    bench.build(dev_mode=True)
    origin = replace(bench.login, is_sandbox=True)
    bench.receive("X@far.test", "bob@example.com", "y@far.test", "b@inbox.example", origin=origin)
    (x,), (y,), (b,) = (listed(bench, name) for name in "xyb")
    assert x.entry_id == y.entry_id != b.entry_id
    assert (x.address, y.address) == ("X@far.test", "y@far.test")
    assert listed(bench, "bob") == []
    assert len(bench.stored("bob")) == 1
    assert bench.queued() == []


def test_what_a_test_key_sends_is_in_the_inbox_of_each_recipient(bench: Bench) -> None:
    prepared = now(
        bench.intake.prepare(
            LETTER,
            reverse_path=parse_address("alice@example.com"),
            recipients=addresses("x@far.test", "bob@example.com"),
            account_id=bench.alice,
            is_captured=True,
            sent_copy=True,
        )
    )
    assert prepared is not None
    now(bench.intake.commit(prepared))
    assert shown(bench, "x") == ["x@far.test"]
    assert shown(bench, "bob") == ["bob@example.com"]
    assert listed(bench, "x")[0].queue_id == prepared.received_as
    assert rows(bench) == (2, 1)
    assert bench.queued() == []


# -- projects -------------------------------------------------------------------------------


def test_all_that_a_projects_login_sends_is_captured_in_it(bench: Bench, shop: Project) -> None:
    recipients = ["x@far.test", "bob@example.com", "b@inbox.example", "nobody@example.com"]
    sent_by(bench, shop, *recipients)
    found = listed(bench, None, shop.account_id)
    assert len(found) == 1
    with bench.database.engine.read() as connection:
        for_whom = inbox.addresses(connection, shop.account_id, found[0].entry_id)
    assert for_whom == sorted(recipients)
    assert found[0].return_path == "news@shop.test"
    assert bench.stored("bob") == []
    assert bench.queued() == []
    assert listed(bench, None) == []


def test_a_projects_login_captures_in_a_sandbox_too(bench: Bench, shop: Project) -> None:
    bench.build(dev_mode=True)
    sent_by(bench, shop, "x@far.test", "bob@example.com")
    assert shown(bench, "bob", shop.account_id) == ["bob@example.com"]
    assert bench.stored("bob") == []


def test_nothing_is_reported_of_captured_mail_and_no_copy_kept(bench: Bench, shop: Project) -> None:
    bench.build(delivery=Delivery(sent_copy=True))
    sent_by(bench, shop, "x@far.test", notify=Notify.SUCCESS)
    assert rows(bench) == (1, 1)
    assert bench.queued() == []


def test_a_projects_quota_holds(bench: Bench, shop: Project) -> None:
    with bench.database.engine.write() as connection:
        accounts.set_quota(connection, shop.account_id, messages=1)
    sent_by(bench, shop, "x@far.test")
    with pytest.raises(OverQuota):
        bench.admit("y@far.test", may_relay=True, account_id=shop.account_id)


def test_nobody_writes_to_the_accounts_that_capture(bench: Bench, shop: Project) -> None:
    for address in (shop.username, inbox.ACCOUNT):
        with pytest.raises(Refusal):
            bench.admit(address)


@pytest.mark.parametrize("way", ["captured_in", "account_id"])
def test_letters_of_a_project_are_captured_in_it(bench: Bench, shop: Project, way: str) -> None:
    now(
        bench.intake.submit(
            LETTER,
            reverse_path=parse_address("news@shop.test"),
            recipients=addresses("x@far.test", "bob@example.com"),
            sent_copy=True,
            **{way: shop.account_id},
        )
    )
    assert shown(bench, "x", shop.account_id) == ["x@far.test"]
    assert shown(bench, "bob", shop.account_id) == ["bob@example.com"]
    assert rows(bench) == (2, 1)
    assert bench.queued() == []


def test_a_letter_for_a_project_that_is_gone_goes_nowhere(bench: Bench, shop: Project) -> None:
    with bench.database.engine.write() as connection:
        projects.remove(connection, shop.project_id)
    for account_id in (shop.account_id, bench.alice):
        with pytest.raises(NotFound):
            now(
                bench.intake.submit(
                    LETTER,
                    reverse_path=None,
                    recipients=addresses("bob@example.com"),
                    captured_in=account_id,
                )
            )
    assert bench.stored("bob") == []


def test_a_session_that_outlives_its_project_sends_nothing(bench: Bench, shop: Project) -> None:
    with bench.database.engine.write() as connection:
        other = projects.add(connection, "other", [], now=NOW)
    assert now(bench.intake.captures(shop.account_id))
    with bench.database.engine.write() as connection:
        for project in (shop, other):
            projects.remove(connection, project.project_id)
    # One was known to be a project, the other one is asked about for the first time.
    for project in (shop, other):
        with pytest.raises(NotFound):
            sent_by(bench, project, "x@far.test")
    assert bench.queued() == []


def test_a_login_of_no_project_sends_as_ever(bench: Bench, shop: Project) -> None:
    assert not now(bench.intake.captures(bench.alice))
    assert now(bench.intake.captures(shop.account_id))
    assert not now(bench.intake.captures(0))
    (admitted,) = bench.admit("x@far.test", may_relay=True, account_id=bench.alice)
    assert admitted.targets == (Foreign("x@far.test", "far.test"),)


def test_whether_an_account_is_a_projects_is_asked_once(bench: Bench, shop: Project) -> None:
    bench.admit("bob@example.com", may_relay=True, account_id=bench.alice)
    bench.admit("bob@example.com", may_relay=True, account_id=shop.account_id)
    reads: list[object] = []

    async def read(work: Any) -> Any:
        reads.append(work)
        with bench.database.engine.read() as connection:
            return work(connection)

    bench.database.read = read  # type: ignore[method-assign, assignment]
    for account_id in (bench.alice, shop.account_id):
        bench.admit("bob@example.com", may_relay=True, account_id=account_id)
    assert reads == []
