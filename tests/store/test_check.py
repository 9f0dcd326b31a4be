"""Each rule finds what breaks it: a check that cannot fail proves nothing."""

from __future__ import annotations

import pytest

from mailtwist.store import accounts, check, projects
from mailtwist.store.engine import Engine
from mailtwist.store.messages import expunge
from mailtwist.store.queue.outcomes import record
from tests.store.making import NOW, account, put
from tests.store.queued import claim, deferred, enqueue, outcome, queued

CHUNK = "INSERT INTO content_chunk (content_id, n, start, data) SELECT content_id, {n}, {start}, "

# the rule, statements that break it
BROKEN: dict[str, tuple[str, ...]] = {
    "secret of no user": (
        "INSERT INTO user_secret (user_id, secret_id, kind, verifier, created_at)"
        " VALUES (99, 1, 'a', 'b', 0)",
    ),
    "member who is no user": ("INSERT INTO user_group VALUES (99, 99)",),
    "member of no group": ("INSERT INTO user_group VALUES (99, 99)",),
    "row shared with no group": ("INSERT INTO row_group VALUES ('mail_server', 1, 99)",),
    "action of no table": (
        "INSERT INTO action (action_name, world_id, action_schema, reference_id, permission,"
        " created_at, updated_at) VALUES ('a', 99, '', 'b', 0, 0, 0)",
    ),
    "key of no user": (
        "INSERT INTO api_key (prefix, hash, scopes, owner_user_id, reference_id, permission,"
        " created_at, updated_at) VALUES ('a', 'b', '[]', 99, 'c', 0, 0, 0)",
    ),
    "account of no user": ("UPDATE account SET owner_user_id = 99",),
    "account of no mail server": ("UPDATE account SET mail_server_id = 99",),
    "alias without id": ("UPDATE address SET reference_id = NULL",),
    "account without state": ("DELETE FROM account_state",),
    "state without account": ("INSERT INTO account_state (account_id) VALUES (99)",),
    "account without domain": ("UPDATE account SET domain_id = 99",),
    "account without INBOX": ("UPDATE mailbox SET name = 'Old' WHERE name = 'INBOX'",),
    "account whose name is not its address": (
        "UPDATE account SET username = 'x@y' WHERE username = 'anna@example.com'",
    ),
    "address without domain": ("UPDATE address SET domain_id = 99",),
    "address of no account": ("UPDATE address SET account_id = 99 WHERE kind = 'account'",),
    "address neither of an account nor an alias": ("UPDATE address SET kind = 'odd'",),
    "alias without target": ("DELETE FROM address_target",),
    "target of no alias": ("UPDATE address_target SET local_part = 'odd'",),
    "secret of no account": (
        "INSERT INTO account_secret (account_id, secret_id, kind, verifier, created_at)"
        " VALUES (99, 1, 'a', 'b', 0)",
    ),
    "subscription of no account": ("INSERT INTO subscription VALUES (99, 'a')",),
    "keyword of no account": ("UPDATE keyword SET account_id = 99",),
    "keyword with a bit of its own kind of flags": ("UPDATE keyword SET bit = 3",),
    "mailbox without account": (
        "UPDATE mailbox SET account_id = account_id + 90 WHERE name = 'Sent'",
    ),
    "mailbox without state": ("DELETE FROM mailbox_state WHERE mailbox_id = 2",),
    "state without mailbox": ("DELETE FROM mailbox WHERE mailbox_id = 2",),
    "mailbox beyond its account's counters": ("UPDATE account_state SET next_mailbox = 3",),
    "mailbox state out of order": ("UPDATE mailbox_state SET recent_from = uidnext + 1",),
    "mailbox counters that are not the counts": ("UPDATE mailbox_state SET unseen = unseen + 1",),
    "account counters that are not the counts": ("UPDATE account_state SET octets = octets + 1",),
    "expunged row of no mailbox": ("UPDATE expunged SET mailbox_id = 99",),
    "expunged row above its mailbox's modseq": ("UPDATE expunged SET modseq = 999",),
    "message without mailbox": ("UPDATE message SET mailbox_id = 99",),
    "message without e-mail": ("DELETE FROM email",),
    "e-mail without account": ("UPDATE email SET account_id = 99",),
    "e-mail without message": ("DELETE FROM message",),
    "e-mail whose number is not its account's": ("UPDATE account_state SET next_entry = 1",),
    "message of another size than its e-mail": ("UPDATE email SET prefix = prefix || prefix",),
    "message with flags of no meaning": ("UPDATE message SET flags = flags + 128",),
    "e-mail without details": ("DELETE FROM email_detail",),
    "details without e-mail": ("DELETE FROM email",),
    "inbox row of no account": ("UPDATE inbox_message SET account_id = 99",),
    "inbox row whose message is not in INBOX": ("UPDATE inbox_message SET queue_id = 99",),
    "project of another account than its own": ("UPDATE project SET name = 'other'",),
    "project of no user": ("UPDATE project SET owner_user_id = 99",),
    "e-mail without content": ("DELETE FROM content",),
    "e-mail of another size than its content": ("UPDATE email SET header_octets = octets + 1",),
    "content that no e-mail, message of the queue or doubt names": ("DELETE FROM content_doubt",),
    "doubt about no content": ("INSERT INTO content_doubt VALUES (99999999, 0)",),
    "upload that is published": ("INSERT INTO upload SELECT content_id, 1, 0 FROM content",),
    "content of another size than its data": ("UPDATE content SET data = prefix FROM email",),
    "content both whole and in chunks": (
        CHUNK.format(n=0, start=0) + "data FROM content WHERE data IS NOT NULL",
    ),
    "chunk of no content and no upload": (
        "INSERT INTO content_chunk (content_id, n, start, data)"
        " SELECT 99999999, 0, 0, data FROM content LIMIT 1",
    ),
    "chunks with a gap": (
        CHUNK.format(n=1, start=0) + "data FROM content WHERE data IS NOT NULL",
        "UPDATE content SET data = NULL",
    ),
    "queue recipient without message": ("DELETE FROM queue_message",),
    "queue message without recipient": ("DELETE FROM queue_recipient",),
    "key of no request": (
        "INSERT INTO send_key (name, digest, queue_id, status, details, created_at)"
        " VALUES ('a', 'b', 1, 200, '', 1)",
    ),
    "attempt for no recipient": ("DELETE FROM queue_recipient WHERE n = 0",),
    "queue message with other counts than its recipients": (
        "UPDATE queue_message SET finished_at = 1",
    ),
    "queue message without content": ("UPDATE queue_message SET content_id = 0",),
    "queue message of another size than its content": (
        "UPDATE queue_message SET octets = octets + 1",
    ),
    "queue recipient in no state": ("UPDATE queue_recipient SET lease_until = 1",),
    "queue recipient held apart from its message": ("UPDATE queue_message SET held = 1",),
    "destination that is due later than its recipients": (
        "UPDATE queue_destination SET next_due = next_due + 1000000000",
    ),
    "destination that is due while it is suspended": (
        "UPDATE queue_destination SET suspended_until = next_due + 1",
    ),
    "keyword bit without a name": ("DELETE FROM keyword",),
    "mailbox with a name that is not allowed": (
        "UPDATE mailbox SET name = 'a/' WHERE name = 'Sent'",
    ),
    "message that was expunged": ("UPDATE message SET uid = 2 WHERE uid = 1",),
}


def test_every_rule_is_proven() -> None:
    assert set(BROKEN) == {*check._RULES, *check._COMPUTED}


def fill(engine: Engine) -> None:
    """Make a store that has a row of everything."""
    with engine.write() as connection:
        anna = account(connection)
        accounts.add_alias(connection, "info@example.com", ["anna@example.com"])
        put(connection, anna, prefix=b"Received: x\r\n", keywords=("k",))
        put(connection, anna, flags=8)
        expunge(connection, anna, 1)
        shop = projects.add(connection, "shop", [], now=NOW).account_id
        put(connection, shop, received_as=7, inbox=("bert@example.net",))
        enqueue(connection, queued("bert@example.net", "carl@example.org"))
        (message, _) = claim(connection)
        record(connection, [outcome(message, deferred())])


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_told(engine: Engine, rule: str) -> None:
    fill(engine)
    with engine.writing.connect() as connection:  # never committed
        assert check.verify(connection) == []
        for statement in BROKEN[rule]:
            connection.exec_driver_sql(statement)
        assert rule in [violation.partition(":")[0] for violation in check.verify(connection)]
