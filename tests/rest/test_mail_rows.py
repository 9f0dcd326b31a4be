"""Accounts, mailboxes and mails as rows: the very ones that SMTP and IMAP know."""

from __future__ import annotations

import base64
import imaplib
import itertools
import re
import smtplib
import time

import pytest

from tests.e2e import mails
from tests.e2e.relaying import until
from tests.e2e.server import DOMAIN, Server, content_of, trusting
from tests.support.rest import SECRET, outcomes

pytestmark = [pytest.mark.real]

_clients = itertools.count(1)
DEFAULT_BOXES = {"INBOX", "Sent", "Draft", "Trash", "Spam", "Archive"}


@pytest.fixture
def alice(admin):
    return admin.user()


@pytest.fixture
def mine(alice):
    """An account of Alice's: (id, address)."""
    return alice.account()


def login(server: Server, address: str, password: str = SECRET) -> int:
    """The reply code to AUTH; each client has an address of its own, so none gets locked out."""
    client = smtplib.SMTP_SSL(
        "127.0.0.1",
        server.ports["submissions"],
        context=trusting(),
        timeout=60,
        source_address=(f"127.0.1.{next(_clients)}", 0),
    )
    with client:
        client.ehlo()
        try:
            return client.login(address, password)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


# -- accounts -------------------------------------------------------------------------------


@pytest.mark.mission("DAP-060", "DAP-061", "DAP-088")
@pytest.mark.parametrize("more", [{"password_md5": SECRET}, {}], ids=["with md5", "without"])
def test_an_account_works_at_once(admin, server, more):
    name = f"new{len(more)}@{DOMAIN}"
    made = admin.make("mail_account", {"username": name, "password": SECRET, **more})
    assert made["attributes"]["username"] == name
    assert login(server, name) == 235
    assert login(server, name, "wrong") == 535


@pytest.mark.mission("DAP-063", "DAP-064")
@pytest.mark.parametrize("column", ["password", "password_md5"])
def test_a_new_password_counts_at_once(admin, server, mine, column):
    id, address = mine
    assert login(server, address) == 235
    answer = admin.patch("mail_account", id, {column: "quite another"})
    assert answer.status == 200
    assert "quite another" not in answer.text
    if column == "password":
        assert login(server, address, "quite another") == 235
        assert login(server, address) == 535
    for octets in stored(server):
        assert b"quite another" not in octets


def stored(server: Server) -> list[bytes]:
    """What is on the disk, where the test can read it."""
    return [
        path.read_bytes()
        for path in server.data_dir.glob("mailtwist.db*")
        if not path.name.endswith("-shm")
    ]


@pytest.mark.mission("DAP-065")
def test_case_makes_no_other_account(admin, server, alice, mine):
    _, address = mine
    again = admin.create("mail_account", {"username": address.upper(), "password": SECRET})
    assert again.status == 409
    assert again.error
    server.send(address.upper().replace("EXAMPLE.COM", "Example.COM"), mails.simple("shouted"))
    assert [content_of(each) for each in server.mails(address).values()] == [
        mails.simple("shouted")
    ]


def test_a_name_without_domain_belongs_to_the_first_domain(admin, server):
    made = admin.make("mail_account", {"username": "bare", "password": SECRET})
    server.send(f"bare@{DOMAIN}", mails.simple("to bare"))
    assert len(server.mails(f"bare@{DOMAIN}")) == 1
    assert login(server, made["attributes"]["username"]) == 235


def test_a_new_domain_is_local_at_once(admin, server, alice):
    _, address = alice.account(domain="just-new.example")
    server.send(address, mails.simple("to a new domain"))
    assert len(server.mails(address)) == 1


@pytest.mark.mission("DAP-062", "GEN-05")
def test_secrets_never_leave(admin, server, alice, mine):
    secret = "very-secret-indeed"
    account, _ = mine
    admin.change("mail_account", account, password=secret, password_md5=secret)
    credential = admin.make(
        "credential", {"name": "ses", "content": f'{{"secret_key": "{secret}"}}'}
    )["id"]
    certificate = admin.make("certificate", {"hostname": "secrets.example.com"})["id"]
    made = admin.act("certificate", "generate_self_certificate", {"certificate_id": certificate})
    assert made.status == 200
    admin.change("user_account", alice.id, password=secret)
    rows = {
        "mail_account": account,
        "credential": credential,
        "certificate": certificate,
        "user_account": alice.id,
    }
    for entity, id in rows.items():
        every = {"fields": "password,password_md5"} if entity == "mail_account" else {}
        for answer in (
            admin.get(f"/api/{entity}/{id}"),
            admin.get(f"/api/{entity}", {"page[size]": 100}),
            admin.get(f"/api/{entity}/{id}", every),
            admin.patch(entity, id, {}),
        ):
            assert answer.status == 200
            assert secret not in answer.text
            assert "PRIVATE KEY" not in answer.text
            assert not re.search(r"\$2[aby]\$|SCRAM-SHA", answer.text)
    shown = admin.row("mail_account", account)["attributes"]
    assert shown["password"] == ""
    assert shown.get("password_md5", "") == ""
    assert not admin.row("credential", credential)["attributes"].get("content")
    assert not admin.row("certificate", certificate)["attributes"].get("private_key_pem")
    assert secret not in server.log
    for octets in stored(server):
        assert secret.encode() not in octets
        assert b"PRIVATE KEY" not in octets


@pytest.mark.mission("DAP-074")
def test_a_removed_account_is_gone_at_once(admin, server, alice, mine):
    id, address = mine
    server.send(address, mails.simple("too late"))
    client = server.imap(address)
    client.select("INBOX")
    box = alice.boxes(id)["INBOX"]
    (mail,) = alice.inbox(id).ids
    assert login(server, address) == 235
    assert admin.remove("mail_account", id).status == 200
    assert login(server, address) == 535
    with server.imap() as again, pytest.raises(imaplib.IMAP4.error):
        again.login(address, SECRET)
    for entity, each in (("mail_account", id), ("mail_box", box), ("mail", mail)):
        assert admin.get(f"/api/{entity}/{each}").status == 404
    assert admin.rows("mail_box", ("reference_id", "is", box)).data == []
    with server.smtp() as smtp:
        smtp.ehlo()
        smtp.mail("x@elsewhere.example")
        assert smtp.rcpt(address)[0] == 550
    client.shutdown()
    # The name is free again, and its mail is not its predecessor's.
    admin.make("mail_account", {"username": address, "password": SECRET})
    assert server.mails(address) == {}


# -- mailboxes ------------------------------------------------------------------------------


@pytest.mark.mission("DAP-068", "DAP-223")
def test_the_default_mailboxes_are_there_before_any_login(server, alice, mine):
    id, address = mine
    assert alice.boxes(id).keys() == DEFAULT_BOXES
    client = server.imap(address)
    assert client.select("INBOX") == ("OK", [b"0"])
    client.logout()
    assert alice.boxes(id).keys() == DEFAULT_BOXES
    assert alice.inbox(id).data == []


@pytest.mark.mission("DAP-066")
def test_a_mailbox_with_all_its_attributes(server, admin, alice, mine):
    id, address = mine
    given = {
        "name": "Projects",
        "subscribed": True,
        "uidvalidity": 1,
        "nextuid": 1,
        "attributes": "\\HasNoChildren",
        "flags": "\\Seen \\Answered \\Flagged \\Deleted \\Draft",
        "permanent_flags": "\\Seen \\Answered \\Flagged \\Deleted \\Draft \\*",
    }
    made = admin.make("mail_box", given, {"mail_account_id": ("mail_account", id)})["attributes"]
    for name in given.keys() - {"uidvalidity", "nextuid"}:
        assert made[name] == given[name], name
    client = server.imap(address)
    assert any(b"Projects" in line and b"HasNoChildren" in line for line in client.list()[1])
    assert any(b"Projects" in line for line in client.lsub()[1])
    assert client.select("Projects")[0] == "OK"
    assert int(client.response("UIDVALIDITY")[1][0]) == made["uidvalidity"]
    client.logout()


@pytest.mark.mission("DAP-067")
def test_a_mailbox_of_a_name_alone(server, admin, alice, mine):
    id, address = mine
    made = admin.make("mail_box", {"name": "Plain"}, {"mail_account_id": ("mail_account", id)})
    attributes = made["attributes"]
    for name in ("attributes", "flags", "permanent_flags"):
        assert isinstance(attributes[name], str), name
    assert attributes["subscribed"] is True
    assert attributes["nextuid"] == 1
    client = server.imap(address)
    assert client.select("Plain")[0] == "OK"
    client.logout()
    again = admin.create("mail_box", {"name": "Plain"}, {"mail_account_id": ("mail_account", id)})
    assert again.status == 409


def test_a_default_mailbox_that_is_made_again_is_the_one_there(admin, alice, mine):
    id, _ = mine
    before = alice.row("mail_box", alice.boxes(id)["INBOX"])["attributes"]
    given = {"name": "INBOX", "subscribed": False, "uidvalidity": 1, "nextuid": 77}
    answer = admin.create("mail_box", given, {"mail_account_id": ("mail_account", id)})
    assert answer.status == 201
    after = answer.data["attributes"]
    assert after["reference_id"] == before["reference_id"]
    assert after["subscribed"] is False
    for name in ("uidvalidity", "nextuid"):
        assert after[name] == before[name]


def test_a_mailbox_is_renamed_and_removed_for_imap_too(server, admin, alice, mine):
    id, address = mine
    box = admin.make("mail_box", {"name": "Old"}, {"mail_account_id": ("mail_account", id)})["id"]
    assert alice.change("mail_box", box, name="New")["attributes"]["name"] == "New"
    client = server.imap(address)
    assert client.select("New")[0] == "OK"
    assert client.select("Old")[0] == "NO"
    assert alice.remove("mail_box", box).status == 200
    assert client.select("New")[0] == "NO"
    client.logout()
    assert alice.remove("mail_box", alice.boxes(id)["INBOX"]).status in {400, 403, 409}
    assert "INBOX" in alice.boxes(id)


@pytest.mark.mission("DAP-071")
def test_nextuid_follows_deliveries(server, alice, mine):
    id, address = mine
    box = alice.boxes(id)["INBOX"]
    for n in range(2):
        assert alice.row("mail_box", box)["attributes"]["nextuid"] == n + 1
        server.send(address, mails.simple(f"number {n}"))
    assert alice.row("mail_box", box)["attributes"]["nextuid"] == 3
    client = server.imap(address)
    assert b"UIDNEXT 3" in client.status("INBOX", "(UIDNEXT)")[1][0]
    client.logout()


@pytest.mark.mission("DAP-072", "DAP-073", "DAP-234")
def test_the_status_action_says_what_status_says(server, admin, alice, mine):
    id, address = mine
    for n in range(3):
        server.send(address, mails.simple(f"status {n}"))
    first = alice.inbox(id).ids[0]
    alice.change("mail", first, seen=True)
    answer = alice.act("mail_box", "status", {"attributes": {"mail_account_id": id}})
    assert answer.status == 200
    ((kind, found),) = outcomes(answer)
    assert kind == "mail_box.status"
    assert found["pagination"]["total"] == len(found["data"]) == 6
    inbox = next(each for each in found["data"] if each["name"] == "INBOX")
    client = server.imap(address)
    status = client.status("INBOX", "(MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)")[1][0]
    client.logout()
    by_imap = dict(re.findall(r"([A-Z]+) (\d+)", status.decode()))
    assert {
        name.upper(): str(inbox[name])
        for name in ("messages", "recent", "uidnext", "uidvalidity", "unseen")
    } == by_imap
    assert inbox["mail_account_id"] == id
    assert inbox["latest_message"]["subject"] == "status 2"
    assert inbox["latest_message"]["uid"] == 3
    # Nobody else sees them, whether he asks for them or for all.
    bob = admin.user()
    for attributes in ({}, {"mail_account_id": id}, {"mail_box_id": inbox["mail_box_id"]}):
        refused = bob.act("mail_box", "status", {"attributes": attributes})
        if refused.status == 200:
            assert outcomes(refused)[0][1]["data"] == []
        else:
            assert refused.status in {403, 404}
    assert alice.guest.act("mail_box", "status", {}).status == 403


# -- mails ----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-069", "DAP-104")
def test_a_mail_as_a_row(server, alice, mine):
    id, address = mine
    queue_id = server.send(address, mails.mime(to=address))
    (row,) = alice.inbox(id).data
    found = row["attributes"]
    expected = {
        "subject": "Größe, naïve café — 漢字 and a rather long subject that has to be folded",
        "message_id": "<mime-test@elsewhere.example>",
        "recipient": address,
        "uid": 1,
        "seen": False,
        "recent": True,
        "deleted": False,
        "is_tls": False,
        "ip_addr": "127.0.0.1",
        "has_attachment": True,
        "return_path": "sender@elsewhere.example",
    }
    assert {name: found[name] for name in expected} == expected
    assert found["from_address"] == "sender@elsewhere.example"  # the reverse path
    assert address in found["to_address"]
    assert found["size"] > 20_000
    assert isinstance(found["spam_score"], int | float)
    assert queue_id in {found["mail_id"], found["hash"]}
    assert row["relationships"]["mail_box_id"]["data"]["id"] == alice.boxes(id)["INBOX"]
    assert not found.get("mail")  # only on demand


@pytest.mark.mission("DAP-070", "DAP-108")
def test_the_raw_message(server, alice, mine):
    id, address = mine
    letter = mails.mime(to=address, octets=300_000)
    server.send(address, letter)
    (mail,) = alice.inbox(id).ids
    row = alice.row("mail", mail, {"included_relations": "mail"})
    raw = base64.b64decode(row["attributes"]["mail"])
    assert raw.startswith((b"Return-Path:", b"Received:"))
    assert content_of(raw) == letter
    assert list(server.mails(address).values()) == [raw]
    assert row["attributes"]["size"] == len(raw)


@pytest.mark.mission("DAP-018")
def test_an_owner_flags_and_deletes_his_mail(server, alice, mine):
    id, address = mine
    server.send(address, mails.simple("to be flagged"))
    server.send(address, mails.simple("to be removed"))
    kept, removed = alice.inbox(id).ids
    changed = alice.change("mail", kept, seen=True)["attributes"]
    assert changed["seen"] is True
    assert "\\Seen" in changed["flags"]
    assert alice.remove("mail", removed).status == 200
    assert alice.inbox(id).ids == [kept]
    client = server.imap(address)
    client.select("INBOX", readonly=True)
    assert client.uid("FETCH", "1:*", "(FLAGS)")[1] == [b"1 (UID 1 FLAGS (\\Seen))"] or (
        b"\\Seen" in client.uid("FETCH", "1:*", "(FLAGS)")[1][0]
    )
    client.logout()
    assert alice.change("mail", kept, seen="false")["attributes"]["seen"] is False


@pytest.mark.mission("DAP-226", "DAP-231")
def test_what_imap_does_is_seen_in_the_rows(server, alice, mine):
    id, address = mine
    for n in range(3):
        server.send(address, mails.simple(f"seen {n}"))
    client = server.imap(address)
    client.select("INBOX")
    client.fetch("1", "(BODY.PEEK[])")
    assert alice.inbox(id).column("seen") == [False] * 3
    client.fetch("1", "(BODY[])")
    assert alice.inbox(id).column("seen") == [True, False, False]
    client.store("2", "+FLAGS", "(\\Flagged $Work)")
    assert "\\Flagged" in alice.inbox(id).column("flags")[1]
    ids = alice.inbox(id).ids
    client.store("2", "+FLAGS", "(\\Deleted)")
    assert alice.inbox(id).column("deleted") == [False, True, False]
    client.expunge()
    assert alice.inbox(id).ids == [ids[0], ids[2]]
    assert alice.get(f"/api/mail/{ids[1]}").status == 404
    # The id survives a move.
    client.uid("MOVE", "3", "Archive")
    moved = alice.row("mail", ids[2])
    assert moved["relationships"]["mail_box_id"]["data"]["id"] == alice.boxes(id)["Archive"]
    client.logout()


def test_an_idle_client_hears_what_rest_changes(server, alice, mine):
    id, address = mine
    server.send(address, mails.simple("first"))
    server.send(address, mails.simple("second"))
    one, two = alice.inbox(id).ids
    client = server.imap(address)
    client.select("INBOX")
    client.send(b"I1 IDLE\r\n")
    assert client.readline().startswith(b"+")
    start = time.monotonic()
    alice.change("mail", one, seen=True)
    heard = client.readline()
    assert b"1 FETCH" in heard
    assert b"\\Seen" in heard
    assert alice.remove("mail", two).status == 200
    assert client.readline() == b"* 2 EXPUNGE\r\n"
    assert time.monotonic() - start < 2
    client.send(b"DONE\r\n")
    while not client.readline().startswith(b"I1 OK"):
        pass
    client.shutdown()


def test_a_mail_is_added(server, admin, alice, mine):
    id, address = mine
    box = alice.boxes(id)["Draft"]
    raw = base64.b64encode(mails.simple("appended")).decode()
    made = admin.make("mail", {"mail": raw, "seen": True}, {"mail_box_id": ("mail_box", box)})
    assert made["attributes"]["subject"] == "appended"
    assert made["attributes"]["seen"] is True
    assert list(server.mails(address, "Draft").values()) == [mails.simple("appended")]


# -- whose mail it is -----------------------------------------------------------------------


@pytest.mark.mission("DAP-017")
def test_others_see_nothing_of_it(server, admin, alice, mine):
    id, address = mine
    bob = admin.user()
    bobs, bobs_address = bob.account()
    for n in range(3):
        server.send(address, mails.simple(f"for Alice {n}"))
    server.send(bobs_address, mails.simple("for Bob"))
    seen = bob.get("/api/mail", {"page[size]": 100})
    assert seen.column("subject") == ["for Bob"]
    assert seen.total == 1
    assert bob.get("/api/mail_account").ids == [bobs]
    assert bob.get("/api/mail_box").total == 6
    assert alice.get("/api/mail").total == 3
    (mail, *_), box = alice.inbox(id).ids, alice.boxes(id)["INBOX"]
    for entity, row in (("mail", mail), ("mail_box", box), ("mail_account", id)):
        for answer in (
            bob.get(f"/api/{entity}/{row}"),
            bob.patch(entity, row, {"seen": True, "name": "x"}),
            bob.remove(entity, row),
        ):
            assert answer.status in {403, 404}, (entity, answer)
            assert answer.error
    assert bob.rows("mail", ("mail_box_id", "is", box)).data == []
    assert bob.rows("mail", ("reference_id", "is", mail)).data == []
    # Nor can he put anything there.
    put = bob.create("mail_box", {"name": "Mine"}, {"mail_account_id": ("mail_account", id)})
    assert put.status in {400, 403, 404}
    assert "Mine" not in alice.boxes(id)
    taken = bob.patch("mail_account", bobs, {"user_account_id": alice.id})
    assert taken.status in {400, 403} or bob.get("/api/mail_account").ids == [bobs]


def test_a_group_shares_an_account(server, admin, alice, mine):
    id, address = mine
    server.send(address, mails.simple("shared"))
    bob = admin.user()
    assert bob.get("/api/mail").total == 0
    group = admin.make("usergroup", {"name": f"team of {address}"})["id"]
    linked = {"data": [{"type": "usergroup", "id": group}]}
    joined = admin.post(f"/api/user_account/{bob.id}/relationships/usergroup_id", linked)
    assert joined.status in {200, 204}
    shared = admin.post(f"/api/mail_account/{id}/relationships/usergroup_id", linked)
    assert shared.status in {200, 204}
    readable = 561441 | (2 << 14)
    admin.change("mail_account", id, permission=readable)
    assert id in bob.get("/api/mail_account").ids
    assert admin.remove("usergroup", group).status == 200
    assert id not in bob.get("/api/mail_account").ids


# -- the same over listeners that are rows ----------------------------------------------------


def test_starttls_and_a_login_of_a_rest_account(server, mine):
    _, address = mine
    with server.smtp("submission") as client:
        client.starttls(context=trusting())
        client.login(address, SECRET)
        client.sendmail(address, [address], mails.simple("to myself", to=address))
    assert until(lambda: server.mails(address))
