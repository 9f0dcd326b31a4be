"""Projects over HTTP, SMTP and IMAP: what their logins and keys send stays here until released."""

from __future__ import annotations

import imaplib
import itertools
import smtplib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import mails
from tests.e2e.relaying import FAR, transact
from tests.e2e.server import Server, content_of
from tests.support.own_actions import once
from tests.support.rest import SECRET, Answer, Rest, User
from tests.support.sink import Sink

pytestmark = [pytest.mark.real]

numbers = itertools.count(1)


@dataclass
class Project:
    """A project of a user's, as its programs and its developers use it."""

    server: Server
    owner: User
    id: str
    name: str
    username: str

    def submit(self, recipients: Sequence[str], message: bytes, sender: str = "") -> str:
        """Send with the project's login; the queue id."""
        with self.server.smtp("submissions") as client:
            client.login(self.username, SECRET)
            return transact(client, sender or f"app@{FAR}", recipients, message)

    def mails(self) -> list[bytes]:
        """The INBOX by IMAP, with the project's login."""
        return list(self.server.mails(self.username).values())

    def key(self, *scopes: str, **more: Any) -> Rest:
        given = {"name": "a key", "scopes": [f"project:{self.id}", *scopes], **more}
        row = self.owner.make("api_key", given)
        return Rest(self.owner.port, **{"X-API-Key": row["attributes"]["key"]})


@pytest.fixture
def project(admin: Rest, server: Server) -> Project:
    return make_project(admin.user(), server)


def make_project(owner: User, server: Server) -> Project:
    name = f"shop{next(numbers)}"
    row = owner.make("project", {"name": name, "password": SECRET})
    return Project(server, owner, row["id"], name, row["attributes"]["username"])


def untaken(sink: Sink, text: str) -> bool:
    """Nothing with this text has left."""
    return not any(text.encode() in mail.data for mail in sink.taken)


def test_what_a_projects_login_sends_is_captured_for_everybody(project, server, sink):
    _, local = project.owner.account()
    text = f"captured for {project.name}"
    recipients = [f"bob@{FAR}", local, f"nobody@{FAR}"]
    queue_id = project.submit(recipients, mails.simple(text), sender="whoever@he.example")
    (stored,) = project.mails()
    assert content_of(stored) == mails.simple(text)
    key = project.key()
    (listed,) = key.get("/emails/bob").json
    assert set(listed) == {
        "id", "from", "to", "subject", "body_text", "body_html", "attachments", "received_at",
    }  # fmt: skip
    assert (listed["id"], listed["from"], listed["subject"]) == (
        queue_id, "whoever@he.example", text,
    )  # fmt: skip
    for name in (local.partition("@")[0], "nobody"):
        assert [each["id"] for each in key.get(f"/emails/{name}").json] == [queue_id]
    assert key.get("/emails/eve").json == []
    assert server.mails(local) == {}
    assert untaken(sink, text)


def test_nobody_else_reads_a_project(project, admin):
    text = f"private to {project.name}"
    project.submit([f"bob@{FAR}"], mails.simple(text))
    other = admin.user()
    path = f"/emails/bob?project={project.name}"
    assert [each["subject"] for each in project.owner.get(path).json] == [text]
    assert [each["subject"] for each in admin.get(path).json] == [text]
    for who in (other, make_project(other, project.server).key()):
        answer = who.get(path)
        assert answer.status in {403, 404}, answer
        assert text not in answer.text
    assert other.get("/emails/bob").status in {401, 403}
    assert admin.guest.get(path).status == 401


def test_a_projects_key_sends_into_it(project, sink):
    text = f"sent by a key of {project.name}"
    given = {"to": f"bob@{FAR}", "from": f"app@{FAR}", "subject": text, "body": "Hello."}
    for key in (project.key(), project.key("send:*"), project.key("admin")):
        answer = key.post("/send", given, headers={"Content-Type": "application/json"})
        assert answer.status == 200, answer
    listed = project.key().get("/emails/bob").json
    assert [each["subject"] for each in listed] == [text] * 3
    assert untaken(sink, text)


def test_who_sends_as_the_login_hears_that_it_was_captured(project, sink):
    text = f"as the login of {project.name}"
    given = {"to": f"bob@{FAR}", "from": project.username, "subject": text, "body": "Hello."}
    answer = project.owner.post("/send", given)
    assert answer.status == 200, answer
    fate = project.owner.get(answer.headers["Location"]).json
    assert (fate["state"], fate["recipients"][0]["state"]) == ("captured", "captured")
    (listed,) = project.key().get("/emails/bob").json
    assert listed["subject"] == text
    assert untaken(sink, text)


def test_the_operation_for_plain_letters_sends_into_it(project, sink):
    text = f"a plain letter of {project.name}"
    given = {"to": f"bob@{FAR}", "from": f"app@{FAR}", "subject": text, "body": "Hello."}
    key = project.key()
    answer = key.act("outbox", "send", {"attributes": given})
    assert answer.status == 200, answer
    (listed,) = key.get("/emails/bob").json
    assert (listed["from"], listed["subject"]) == (f"app@{FAR}", text)
    assert untaken(sink, text)


def test_an_action_sends_into_the_project_of_its_key(project, admin, sink):
    text = f"sent by an action for {project.name}"
    given = {"to": f"bob@{FAR}", "from": f"app@{FAR}", "subject": text, "body": "Hello."}
    scopes = ["admin", f"project:{project.id}"]
    row = admin.make("api_key", {"name": "a key", "scopes": scopes})
    answer = once(admin, "mail.send", given, by=Rest(admin.port, row["attributes"]["key"]))
    assert answer.status == 200, answer
    (listed,) = project.key().get("/emails/bob").json
    assert listed["subject"] == text
    assert untaken(sink, text)


def test_a_new_password_ends_the_old_one(project, server):
    project.owner.change("project", project.id, password="another one")
    with server.smtp("submissions") as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login(project.username, SECRET)
    with server.smtp("submissions") as client:
        client.login(project.username, "another one")


def test_a_deleted_project_is_gone_everywhere(project, server):
    project.submit([f"bob@{FAR}"], mails.simple("to be forgotten"))
    key = project.key("admin")
    assert project.owner.remove("project", project.id).status == 200
    with server.smtp("submissions") as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login(project.username, SECRET)
    client = server.imap()
    with pytest.raises(imaplib.IMAP4.error):
        client.login(project.username, SECRET)
    client.shutdown()
    assert key.get("/emails/bob").status in {401, 403, 404}
    given = {"to": f"bob@{FAR}", "from": f"app@{FAR}", "subject": "x", "body": "Hello."}
    assert key.post("/send", given).status in {400, 401, 403}
    assert project.owner.get("/api/project").data == []


# -- release --------------------------------------------------------------------------------


def release(who: Rest, queue_id: str, project: Project, body: Any = None) -> Answer:
    path = f"/emails/bob/{queue_id}/release?project={project.name}"
    return who.post(path, body, headers={"Content-Type": "application/json"})


def own_letter(project: Project, **more: Any) -> tuple[str, str, bytes]:
    """An address of the owner's, and a message that says it is by him."""
    _, sender = project.owner.account()
    text = f"for real {next(numbers)}"
    message = mails.simple(text, **more).replace(b"sender@elsewhere.example", sender.encode(), 1)
    return sender, text, message


def test_a_captured_message_is_released_to_its_recipients(project, sink):
    # Longer than what is held in memory.
    sender, text, message = own_letter(project, octets=1_100_000)
    queue_id = project.submit([f"bob@{FAR}", f"eve@{FAR}"], message, sender=sender)
    assert untaken(sink, text)
    answer = release(project.owner, queue_id, project)
    assert answer.status == 202, answer
    assert answer.headers["Location"] == f"/send/{answer.json['id']}"
    assert answer.json["recipients"] == [
        {"address": f"{name}@{FAR}", "state": "queued", "reply": ""} for name in ("bob", "eve")
    ]
    fate = project.owner.get(answer.headers["Location"]).json
    assert (fate["id"], fate["from"], fate["subject"]) == (answer.json["id"], sender, text)
    sink.wait(lambda: not untaken(sink, text))
    (taken,) = [mail for mail in sink.taken if mail.reverse_path == sender]
    assert sorted(taken.recipients) == [f"bob@{FAR}", f"eve@{FAR}"]
    assert taken.data.endswith(message)
    assert b"projects.invalid" not in taken.data
    assert b"Delivered-To" not in taken.data
    assert [each["id"] for each in project.key().get("/emails/bob").json] == [queue_id]


def test_it_is_released_to_others_by_a_key_that_may_send(project, sink):
    sender, text, message = own_letter(project)
    queue_id = project.submit([f"bob@{FAR}"], message, sender=sender)
    body = {"to": [f"me@{FAR}"]}
    for key in (project.key(), project.key("send:*", is_test=True)):
        assert release(key, queue_id, project, body).status == 403
    assert untaken(sink, text)
    answer = release(project.key("send:example.com"), queue_id, project, body)
    assert answer.status == 202, answer
    sink.wait(lambda: not untaken(sink, text))
    (taken,) = [mail for mail in sink.taken if mail.reverse_path == sender]
    assert taken.recipients == [f"me@{FAR}"]


def test_what_is_no_release(project, admin, sink):
    text = f"of a foreign sender {next(numbers)}"
    foreign = project.submit([f"bob@{FAR}"], mails.simple(text))
    other = admin.user()
    table: list[tuple[Rest, str, Any, set[int]]] = [
        (project.owner, foreign, None, {403}),
        (project.owner, "1", None, {404}),
        (project.owner, "x", None, {404}),
        (project.owner, foreign, {"to": []}, {400}),
        (project.owner, foreign, {"to": "bob@far.example\r\nX: y"}, {400}),
        (project.owner, foreign, [], {400}),
        (other, foreign, None, {403, 404}),
        (other, foreign, {"to": f"bob@{FAR}"}, {403, 404}),
        (admin.guest, foreign, None, {401}),
    ]
    for who, queue_id, body, statuses in table:
        answer = release(who, queue_id, project, body)
        assert answer.status in statuses, (body, answer)
        assert answer.json["error"]
    assert untaken(sink, text)
    assert release(admin, foreign, project).status == 202
    sink.wait(lambda: not untaken(sink, text))
