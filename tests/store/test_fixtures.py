"""Stores that earlier versions left: HEAD opens them, reads what is in them, and goes on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from mailtwist.mail.permissions import NOBODY, SYSTEM, Viewer
from mailtwist.store import (
    accounts,
    acme,
    certificates,
    content,
    entities,
    event_feed,
    events,
    identities,
    inbox,
    mailboxes,
    projects,
    rates,
    send_requests,
    tasks,
    webhooks,
)
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.entities import engine
from mailtwist.store.entities.model import ListRequest
from mailtwist.store.queue import claims, control, listing
from mailtwist.store.queue.outcomes import record
from mailtwist.store.secrets import Secrets
from mailtwist.store.tables import content as content_table
from mailtwist.store.upgrade import SCHEMA_HEAD, current_revision, upgrade
from mailtwist.tls import rows as certificate_rows
from tests.store.making import NOW, spooled
from tests.store.queued import NODE, claim, delivered, enqueue, outcome, queued
from tests.support.dumps import dump, from_json, load, to_json
from tests.support.postgres import Server
from tests.support.stores import violations

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.json"))


@pytest.fixture(params=["sqlite", "postgresql"])
def cluster(request: pytest.FixtureRequest) -> Server | None:
    """None: SQLite."""
    if request.param == "sqlite":
        return None
    server: Server = request.getfixturevalue("postgresql_server")
    return server


@pytest.fixture
def empty(cluster: Server | None, tmp_path: Path) -> Iterator[Engine]:
    url = cluster.empty() if cluster else f"sqlite:///{tmp_path}/fixture.db"
    yield from opened(url, cluster)


def opened(url: str, cluster: Server | None) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()
    if cluster:
        cluster.drop(url)


@pytest.fixture(scope="module")
def originals() -> dict[tuple[str, bool], str]:
    """The URLs of what :func:`left` makes copies of."""
    return {}


@pytest.fixture(params=FIXTURES, ids=[path.stem for path in FIXTURES])
def left(
    request: pytest.FixtureRequest,
    cluster: Server | None,
    originals: dict[tuple[str, bool], str],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> Iterator[Engine]:
    """A store as an earlier version left it, brought up to date."""
    key = (request.param.stem, cluster is None)
    if key not in originals:
        folder = tmp_path_factory.mktemp("original")
        url = cluster.empty() if cluster else f"sqlite:///{folder}/fixture.db"
        engine = open_engine(url)
        try:
            load(engine, from_json(request.param.read_text()))
            upgrade(engine)
        finally:
            engine.dispose()
        originals[key] = url
    if cluster:
        yield from opened(cluster.copy(originals[key]), cluster)
    else:
        path = tmp_path / "fixture.db"
        shutil.copyfile(originals[key].removeprefix("sqlite:///"), path)
        yield from opened(f"sqlite:///{path}", None)


def test_there_are_fixtures() -> None:
    assert FIXTURES


def test_a_store_left_by_an_earlier_version_is_whole(left: Engine) -> None:
    with left.read() as connection:
        assert current_revision(connection) == SCHEMA_HEAD
        usernames = [account.username for account in accounts.list(connection)]
    people = [name for name in usernames if not name.endswith(".invalid")]
    assert people == ["anna@example.com", "bert@example.org"]
    assert violations(left) == []


def test_every_octet_of_it_is_read(left: Engine) -> None:
    with left.read() as connection:
        rows = connection.execute(select(content_table)).all()
        for row in rows:
            pages = range(0, row.octets, content.CHUNK)
            octets = b"".join(
                content.read(connection, row.content_id, at, row.octets) for at in pages
            )
            assert hashlib.sha256(octets).digest() == row.sha256
    assert len(rows) >= 7


def test_mail_and_accounts_go_on_in_it(left: Engine) -> None:
    with left.write() as connection:
        anna = accounts.find(connection, "anna@example.com")
        assert anna is not None
        inbox = mailboxes.get(connection, anna.account_id, "INBOX")
        before = mailboxes.status(connection, anna.account_id, inbox.mailbox_id)
        entry = Entry(anna.account_id, "INBOX", internaldate=1)
        ((delivered,),) = deliver(connection, [Acceptance(spooled(), (entry,), 1, 1)])  # type: ignore[misc]
        assert delivered.uid == before.uidnext
        assert delivered.uidvalidity == before.uidvalidity
        assert accounts.add(connection, "new@example.com", []).account_id > anna.account_id
    assert violations(left) == []


def test_mail_of_the_queue_goes_on_in_it(left: Engine) -> None:
    with left.write() as connection:
        earlier = len(listing.list(connection))
        (queue_id,) = enqueue(connection, queued("new@example.net"))
        claims.disown(connection, NODE)
        control.retry(connection, None, NOW)
        found = claim(connection)
        assert queue_id in {message.queue_id for message in found}
        done = [outcome(message, delivered()) for message in found]
        assert record(connection, done) == [True] * len(done)
        left_over = listing.list(connection)
        assert {listed.state for listed in left_over} <= {"held", "failed"}
        assert len(left_over) < earlier or earlier == 0
    assert violations(left) == []


def test_its_rows_are_listed_for_who_may_see_them(left: Engine) -> None:
    with left.write() as connection:
        entities.seed(connection, NOW)
        for name in entities.ENTITIES:
            page = engine.list_rows(connection, SYSTEM, name, ListRequest(size=1000))
            assert len(page.items) == page.total
            assert engine.list_rows(connection, NOBODY, name, ListRequest()).total <= page.total
        aliases = engine.list_rows(connection, SYSTEM, "alias", ListRequest(size=1000)).items
        for alias in aliases:
            assert engine.get_row(connection, SYSTEM, "alias", alias.id).attributes["targets"]
        assert len(aliases) == len(accounts.aliases(connection)) > 0


def test_users_go_on_with_what_they_had(empty: Engine) -> None:
    (rest,) = (path for path in FIXTURES if path.stem == "0003_rest")
    load(empty, from_json(rest.read_text()))
    upgrade(empty)
    with empty.write() as connection:
        anna = identities.active(connection, "anna@example.com")
        root = identities.active(connection, "root@example.com")
        assert anna is not None
        assert root is not None
        known = identities.user_of_number(connection, anna.account_id)
        assert known is not None
        viewer = Viewer(known.user_id, known.reference_id, known.email, known.groups)
        own = engine.list_rows(connection, viewer, "mail_account", ListRequest()).items
        assert [item.attributes["username"] for item in own] == ["anna@example.com"]
        shared = engine.list_rows(connection, viewer, "mail_server", ListRequest()).items
        assert [item.attributes["hostname"] for item in shared] == ["mail.example.com"]
        assert engine.list_rows(connection, viewer, "credential", ListRequest()).total == 0
        administrator = identities.user_of_number(connection, root.account_id)
        assert administrator is not None
        assert administrator.is_admin


def test_a_dump_loads_as_it_was(left: Engine, tmp_path: Path) -> None:
    copy = open_engine(f"sqlite:///{tmp_path}/copy.db")
    dumped = dump(left)
    load(copy, from_json(to_json(dumped)))
    key = str
    for name, rows in dump(copy)["tables"].items():
        assert sorted(rows, key=key) == sorted(dumped["tables"][name], key=key), name
    copy.dispose()


def test_events_and_webhooks_go_on_with_what_they_had(empty: Engine) -> None:
    (before,) = (path for path in FIXTURES if path.stem == "0004_events")
    load(empty, from_json(before.read_text()))
    upgrade(empty)
    with empty.write() as connection:
        found = event_feed.read_after(connection, 0).events
        assert [event.kind for event in found] == ["received", "deferred", "bounced"]
        (hook,) = webhooks.active(connection)
        assert Secrets(b"k" * 32).open(hook.secret, "webhook.secret") == "a secret of a hook"
        webhooks.enqueue(connection, [hook], found, settled=3, now=NOW)
        due, _ = webhooks.due(connection, {hook.webhook_id: 4}, (), NOW)
        assert [delivery.event_id for delivery in due] == [2]
        events.write(connection, [(0, events.RECEIVED, {})])
        assert events.latest(connection) == 4
        (task,) = tasks.claim(connection, NOW + 3_600_000_000, (), 9)
        assert (task.name, task.action) == ("nightly", "process_outbox")


def test_certificates_rates_and_scores_go_on_with_what_they_had(empty: Engine) -> None:
    (before,) = (path for path in FIXTURES if path.stem == "0007_rates")
    load(empty, from_json(before.read_text()))
    upgrade(empty)
    with empty.write() as connection:
        held = certificates.of_hostname(connection, "imap.example.com")
        assert held is not None
        material = certificate_rows.follower(
            held, Secrets(b"k" * 32), datetime(2026, 12, 1, tzinfo=UTC)
        )
        assert material.facts.names == ("imap.example.com", "mail.example.org")
        certificates.store_issued(connection, held.certificate_id, material, issuer="self", now=NOW)
        known = acme.account(connection, "https://acme.example/directory")
        assert known is not None
        assert known.email == "hostmaster@example.com"
        assert acme.answer(connection, "token-one", NOW) == "token-one.thumbprint"
        counted = rates.find(connection, "sender", "bulk@example.net", lasts=60_000_000, now=NOW)
        assert counted is not None
        assert counted.n == 50
        mails = engine.list_rows(connection, SYSTEM, "mail", ListRequest(size=1000)).items
        (spam,) = (each for each in mails if each.attributes["spam_score"])
        assert (spam.attributes["spam_score"], spam.attributes["spam"]) == (300, True)


def test_inboxes_projects_and_requests_go_on_with_what_they_had(empty: Engine) -> None:
    (before,) = (path for path in FIXTURES if path.stem == "0009_send")
    load(empty, from_json(before.read_text()))
    upgrade(empty)
    with empty.write() as connection:
        box = inbox.account(connection)
        (to_eve,) = inbox.list(connection, box, "eve+tag", since=0, limit=50)
        assert to_eve.address == "Eve+tag@inbox.example"
        sent, received = inbox.list(connection, box, "bob", since=0, limit=50)
        assert sent.queue_id > received.queue_id
        shop = projects.find(connection, "shop")
        assert shop is not None
        (captured,) = inbox.list(connection, shop.account_id, None, since=0, limit=50)
        recipients = inbox.addresses(connection, shop.account_id, captured.entry_id)
        assert sorted(recipients) == ["ann@far.example", "bob@far.example"]
        asked = send_requests.find(connection, sent.queue_id)
        assert asked is not None
        fates = [(fate.address, fate.state) for fate in send_requests.fates(connection, asked)]
        assert fates == [("bob@inbox.example", "delivered"), ("eve@example.com", "refused")]
        known = send_requests.kept(connection, "a" * 64, now=NOW)
        assert known is not None
        assert known.digest == "b" * 64
        assert inbox.delete(connection, box, "bob", None, now=NOW) == 2
    assert violations(empty) == []
