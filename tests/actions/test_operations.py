from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import event

from mailtwist.actions.builtin import OPERATIONS
from mailtwist.errors import Conflict, NotFound, ProtocolViolation, Refusal
from mailtwist.mail.permissions import NOBODY, SYSTEM
from mailtwist.store.entities.model import Ref
from mailtwist.store.sql import Statement
from tests.actions.conftest import PASSWORD, Server
from tests.support.now import now

LETTER = b"From: a@b.example\r\nMessage-ID: <1@b.example>\r\nSubject: %s\r\n\r\nhello\r\n"


def test_every_operation_has_its_row_once_and_again_after_it_was_removed(server):
    def names():
        rows = server.rows("action", size=100)
        return sorted(row.attributes["action_name"] for row in rows)

    expected = sorted(name for _, name in OPERATIONS)
    assert names() == expected
    now(server.database.write(server.seed))
    assert names() == expected


def test_an_operation_added_later_is_locked_where_there_is_an_administrator(server):
    admin = server.administrator()
    (row,) = [r for r in server.rows("action", size=100) if r.attributes["action_name"] == "send"]
    now(server.resources.delete(admin, "action", row.id))
    now(server.database.write(server.seed))
    with pytest.raises(Refusal, match="forbidden"):
        server.act("outbox", "send", {"from": "a@x.org", "to": "b@x.org"})


# -- the server ---------------------------------------------------------------------------------


@pytest.mark.mission("DAP-080")
def test_sync_brings_the_listeners_in_line(server):
    admin = server.administrator()
    assert server.act("mail_server", "sync_mail_servers", viewer=admin) == []
    assert server.listeners.calls == ["apply"]


@pytest.mark.mission("DAP-085")
def test_what_is_wrong_with_the_listeners_is_told(server):
    admin = server.administrator()
    server.listeners.error = Conflict("a.x.org and b.x.org are both on 0.0.0.0:25")
    with pytest.raises(Conflict, match=r"a\.x\.org and b\.x\.org"):
        server.act("mail_server", "sync_mail_servers", viewer=admin)


@pytest.mark.mission("DAP-090")
def test_without_smtp_there_is_nothing_to_bring_in_line(database):
    server = Server(database, disable_smtp=True)
    admin = server.administrator()
    with pytest.raises(Conflict, match="disabled"):
        server.act("mail_server", "sync_mail_servers", viewer=admin)
    assert server.listeners.calls == []


@pytest.mark.mission("DAP-089")
def test_a_restart_is_answered_first(server):
    admin = server.administrator()
    answer = server.act("world", "restart_daptin", viewer=admin)
    assert answer == [
        {
            "ResponseType": "client.notify",
            "Attributes": {
                "message": "Initiating system update.",
                "title": "Success",
                "type": "success",
            },
        },
        {
            "ResponseType": "client.redirect",
            "Attributes": {"delay": 5000, "location": "/", "window": "self"},
        },
    ]
    assert server.listeners.calls == ["restart"]


@pytest.mark.mission("DAP-139")
def test_the_outbox_is_gone_through_once(server):
    admin = server.administrator()
    assert server.act("outbox", "process_outbox", viewer=admin) == []
    assert server.runner.runs == 1


@pytest.mark.mission("DAP-087")
@pytest.mark.parametrize(
    "entity, name",
    [
        ("mail_server", "sync_mail_servers"),
        ("world", "restart_daptin"),
        ("outbox", "process_outbox"),
        ("certificate", "generate_self_certificate"),
        ("certificate", "download_certificate"),
    ],
)
def test_others_than_administrators_are_refused(server, entity, name):
    server.user("b@x.org")
    server.administrator()
    other = server.viewer(server.sign_in("b@x.org"))
    for viewer in (other, NOBODY):
        with pytest.raises(Refusal, match="forbidden"):
            server.act(entity, name, viewer=viewer)
    assert server.listeners.calls == []
    assert server.runner.runs == 0


# -- certificates -------------------------------------------------------------------------------


@pytest.fixture
def host(server):
    return server.create("certificate", {"hostname": "mail.x.org"}, server.administrator())


def generate(server, row):
    admin = server.viewer(server.sign_in("admin@x.org"))
    return server.act(
        "certificate", "generate_self_certificate", {"certificate_id": row.id}, viewer=admin
    )


@pytest.mark.mission("DAP-190", "DAP-191", "DAP-192")
def test_a_certificate_is_made_for_the_host_name_of_the_row(server, host):
    assert host.attributes["issuer"] == "self"
    assert host.attributes["certificate_pem"] == ""
    assert generate(server, host) == [
        {
            "ResponseType": "client.notify",
            "Attributes": {
                "message": "Certificate generated for mail.x.org",
                "title": "Success",
                "type": "message",
            },
        }
    ]
    row = server.get(host).attributes
    found = x509.load_pem_x509_certificate(row["certificate_pem"].encode())
    (name,) = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert name.value == "mail.x.org"
    assert list(names) == [x509.DNSName("mail.x.org")]
    assert ExtendedKeyUsageOID.SERVER_AUTH in usage
    key = found.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size >= 2048
    left = found.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=360) < left <= timedelta(days=366)
    shown = serialization.load_pem_public_key(row["public_key_pem"].encode())
    assert shown == key
    assert row["issuer"] == "self"
    assert row["generated_at"].endswith("Z")
    assert "private_key_pem" not in row


@pytest.mark.mission("DAP-193", "DAP-202")
def test_each_call_makes_another_key_which_only_we_can_open(server, engine, host):
    generate(server, host)
    first = server.get(host).attributes["certificate_pem"]
    generate(server, host)
    second = server.get(host).attributes["certificate_pem"]
    assert first != second
    with engine.read() as connection:
        row = Statement("SELECT * FROM certificate")(connection).first()
        sealed = Statement("SELECT private_key_pem FROM certificate")(connection).scalar()
    assert "PRIVATE KEY" not in repr(row)
    opened = server.secrets.open(sealed, "certificate.private_key_pem").encode()
    key = serialization.load_pem_private_key(opened, None)
    assert key.public_key() == x509.load_pem_x509_certificate(second.encode()).public_key()


@pytest.mark.mission("DAP-200")
def test_a_certificate_can_be_downloaded_once_there_is_one(server, host):
    admin = server.viewer(server.sign_in("admin@x.org"))
    given = {"certificate_id": host.id}
    with pytest.raises(NotFound, match=r"mail\.x\.org"):
        server.act("certificate", "download_certificate", given, viewer=admin)
    generate(server, host)
    row = server.get(host).attributes
    for name, column, suffix in (
        ("download_certificate", "certificate_pem", ".pem.crt"),
        ("download_public_key", "public_key_pem", ".pem.key.pub"),
    ):
        (file,) = server.act("certificate", name, given, viewer=admin)
        assert file["ResponseType"] == "client.file.download"
        assert b64decode(file["Attributes"]["content"]).decode() == row[column]
        assert file["Attributes"]["name"] == f"mail.x.org{suffix}"
        assert file["Attributes"]["contentType"] == "application/x-x509-ca-cert"


@pytest.mark.mission("DAP-194")
@pytest.mark.parametrize(
    "given, error",
    [
        ({}, ProtocolViolation),
        ({"certificate_id": ""}, ProtocolViolation),
        ({"certificate_id": ["x"]}, ProtocolViolation),
        ({"certificate_id": "nope"}, NotFound),
        ({"certificate_id": "0199c1d0-6f2a-7000-8000-000000000001"}, NotFound),
    ],
)
def test_a_certificate_that_is_not_there_is_not_made(server, given, error):
    with pytest.raises(error) as refused:
        server.act("certificate", "generate_self_certificate", given, viewer=SYSTEM)
    assert refused.value.http_status in {400, 404}


# -- mailboxes ----------------------------------------------------------------------------------


def account(server, username, owner):
    return server.create(
        "mail_account",
        {"username": username, "password": PASSWORD, "user_account_id": owner.reference_id},
    )


def boxes_of(server, made):
    rows = server.rows("mail_box", size=100)
    return {
        row.attributes["name"]: row for row in rows if row.attributes["mail_account_id"] == made.id
    }


def append(server, box, subject, **more):
    text = b64encode(LETTER % subject.encode()).decode()
    server.create("mail", {"mail": text, **more}, SYSTEM, mail_box_id=Ref("mail_box", box.id))


@pytest.mark.mission("DAP-072")
def test_the_status_tells_counters_and_the_latest_message(server):
    owner = server.user("a@x.org")
    made = account(server, "a@x.org", owner)
    inbox = boxes_of(server, made)["INBOX"]
    append(server, inbox, "first")
    append(server, inbox, "second", seen=True)
    (answer,) = server.act("mail_box", "status", {"mail_box_id": inbox.id}, viewer=owner)
    assert answer["ResponseType"] == "mail_box.status"
    (row,) = answer["Attributes"]["data"]
    latest = row.pop("latest_message")
    assert row == {
        "mail_box_id": inbox.id,
        "mail_account_id": made.id,
        "name": "INBOX",
        "messages": 2,
        "recent": 2,
        "unseen": 1,
        "uidnext": 3,
        "uidvalidity": inbox.attributes["uidvalidity"],
    }
    assert set(latest) == {
        "subject", "from_address", "internal_date", "message_id", "seen", "recent", "uid",
        "reference_id",
    }  # fmt: skip
    assert (latest["subject"], latest["from_address"]) == ("second", "a@b.example")
    assert (latest["seen"], latest["recent"], latest["uid"]) == (True, True, 2)
    assert latest["message_id"].strip("<>") == "1@b.example"
    assert answer["Attributes"]["pagination"] == {
        "current_page": 1, "from": 1, "per_page": 50, "to": 1, "total": 1,
    }  # fmt: skip
    json.dumps(answer)


def test_the_status_comes_in_pages_by_name(server):
    owner = server.user("a@x.org")
    made = account(server, "a@x.org", owner)
    given = {"mail_account_id": made.id, "page_size": 4, "page_number": "2"}
    (answer,) = server.act("mail_box", "status", given, viewer=owner)
    names = sorted(boxes_of(server, made))
    assert [row["name"] for row in answer["Attributes"]["data"]] == names[4:]
    assert answer["Attributes"]["pagination"] == {
        "current_page": 2, "from": 5, "per_page": 4, "to": 6, "total": 6,
    }  # fmt: skip
    assert all(row["latest_message"] is None for row in answer["Attributes"]["data"])


@pytest.mark.mission("DAP-073")
def test_the_status_shows_ones_own_mailboxes_and_all_to_administrators(server):
    first, second = server.user("a@x.org"), server.user("b@x.org")
    admin = server.administrator()
    mine, theirs = account(server, "a@x.org", first), account(server, "b@x.org", second)

    def accounts_seen(viewer, **given):
        viewer = server.viewer(server.sign_in(viewer.email))
        (answer,) = server.act("mail_box", "status", given, viewer=viewer)
        assert answer["Attributes"]["pagination"]["total"] == len(answer["Attributes"]["data"])
        return {row["mail_account_id"] for row in answer["Attributes"]["data"]}

    assert accounts_seen(first) == {mine.id}
    assert accounts_seen(second) == {theirs.id}
    assert accounts_seen(first, mail_account_id=theirs.id) == set()
    box = boxes_of(server, theirs)["INBOX"]
    assert accounts_seen(first, mail_box_id=box.id) == set()
    assert accounts_seen(admin) == {mine.id, theirs.id}
    with pytest.raises(Refusal, match="forbidden"):
        server.act("mail_box", "status")


def test_the_status_of_many_mailboxes_takes_a_fixed_number_of_statements(
    server, engine, monkeypatch
):
    admin = server.administrator()
    seen = []
    call = Statement.__call__

    def counted(statement, connection, parameters=()):
        seen.append(statement)
        return call(statement, connection, parameters)

    monkeypatch.setattr(Statement, "__call__", counted)
    event.listen(engine.reading, "before_cursor_execute", lambda *given: seen.append(given[2]))

    def statements():
        seen.clear()
        (answer,) = server.act("mail_box", "status", viewer=admin)
        return len(answer["Attributes"]["data"]), len(seen)

    account(server, "a@x.org", admin)
    few, statements_of_few = statements()
    for n in range(5):
        account(server, f"u{n}@x.org", admin)
    many, statements_of_many = statements()
    assert many == 6 * few
    assert statements_of_many == statements_of_few > 3


@pytest.mark.parametrize(
    "given, name",
    [
        ({"page_size": "x"}, "page_size"),
        ({"page_size": "-1"}, "page_size"),
        ({"page_number": "9" * 1000}, "page_number"),
        ({"page_number": "1.5"}, "page_number"),
        ({"page_size": "٣"}, "page_size"),
        ({"mail_account_id": {"a": 1}}, "mail_account_id"),
    ],
)
def test_a_page_that_is_none_is_named(server, given, name):
    with pytest.raises(ProtocolViolation, match=name):
        server.act("mail_box", "status", given, viewer=SYSTEM)


# -- letters ------------------------------------------------------------------------------------


def queued(engine):
    with engine.read() as connection:
        return [row[0] for row in Statement("SELECT address FROM queue_recipient")(connection)]


def send(server, viewer, **given):
    return server.act(
        "outbox",
        "send",
        {"from": "a@x.org", "to": "b@far.example", "subject": "hi", "body": "hello", **given},
        viewer=viewer,
    )


def key_of(server, owner, *scopes, is_test=False):
    given = {"scopes": list(scopes), "is_test": is_test}
    return server.viewer(server.create("api_key", given, owner).attributes["key"])


def subjects(server, username):
    boxes = server.rows("mail_box", size=100)
    accounts = {row.id: row.attributes["username"] for row in server.rows("mail_account", size=50)}
    inboxes = {
        box.id for box in boxes if accounts.get(box.attributes["mail_account_id"]) == username
    }
    mails = server.rows("mail", size=100)
    return [m.attributes["subject"] for m in mails if m.attributes["mail_box_id"] in inboxes]


def test_a_letter_leaves_from_ones_own_address(server, engine):
    owner = server.user("a@x.org")
    account(server, "a@x.org", owner)
    (answer,) = send(server, owner)
    assert answer["Attributes"]["message"].startswith("queued as ")
    assert queued(engine) == ["b@far.example"]


def test_an_alias_of_ones_own_account_will_do_and_nobody_elses_address(server, engine):
    owner, other = server.user("a@x.org"), server.user("b@x.org")
    account(server, "a@x.org", owner)
    server.create("alias", {"address": "info@x.org", "targets": ["a@x.org"]})
    assert send(server, owner, **{"from": "Info@X.org"})
    for sender in ("a@x.org", "info@x.org", "b@x.org", "x@elsewhere.example"):
        with pytest.raises(Refusal, match="not yours"):
            send(server, other, **{"from": sender})
    with pytest.raises(Refusal):
        send(server, NOBODY)
    assert queued(engine) == ["b@far.example"]


def test_a_key_sends_for_its_domain_alone(server, engine):
    owner = server.user("a@x.org")
    for name in ("a@x.org", "a@y.org"):
        account(server, name, owner)
    key = key_of(server, owner, "send:x.org")
    assert send(server, key)
    with pytest.raises(Refusal, match=r"y\.org"):
        send(server, key, **{"from": "a@y.org"})
    for scopes in (["mail:read:0199c1d0-6f2a-7000-8000-000000000001"], ["send:y.org"]):
        with pytest.raises(Refusal):
            send(server, key_of(server, owner, *scopes))
    with pytest.raises(Refusal, match="forbidden"):
        server.act("mail_server", "sync_mail_servers", viewer=key)
    assert queued(engine) == ["b@far.example"]


def test_what_a_test_key_sends_is_captured_and_never_leaves(server, engine):
    owner = server.user("a@x.org")
    account(server, "a@x.org", owner)
    account(server, "local@x.org", owner)
    key = key_of(server, owner, "send:x.org", is_test=True)
    for to in ("b@far.example", ["local@x.org", "c@far.example"], "unknown@x.org"):
        assert send(server, key, to=to, subject="captured")
    assert queued(engine) == []
    assert subjects(server, "local@x.org") == []
    assert subjects(server, "captured@mailtwist.invalid") == ["captured"] * 3


@pytest.mark.mission("DAP-135")
@pytest.mark.parametrize(
    "given",
    [
        {"subject": "x\r\nBcc: e@evil.example"},
        {"subject": "x\u2028Bcc: e@evil.example"},
        {"subject": "x\x85y"},
        {"to": "b@far.example\r\nBcc: e@evil.example"},
        {"to": "b@far.example, e@evil.example"},
        {"to": ["b@far.example", 7]},
        {"to": {"a": 1}},
        {"to": [f"u{n}@far.example" for n in range(101)]},
        {"to": []},
        {"from": "nobody"},
        {"from": ""},
        {"subject": ["x"]},
    ],
)
def test_a_letter_that_is_wrong_leaves_nothing(server, engine, given):
    owner = server.user("a@x.org")
    account(server, "a@x.org", owner)
    with pytest.raises(ProtocolViolation) as refused:
        send(server, owner, **given)
    assert refused.value.http_status == 400
    assert queued(engine) == []
