"""``POST /send`` as a program uses it: what is taken, what is told, who may, and nothing twice."""

from __future__ import annotations

import email
import email.policy
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.relaying import FAR, going_to, until
from tests.e2e.server import Server
from tests.rest.test_api_keys import make_key
from tests.support.rest import Answer, Rest
from tests.support.sink import EXTENSIONS, Mail, Sink

pytestmark = [pytest.mark.real]

NEVER = "550 5.1.1 no such user"
LATER = "451 4.7.1 try later"
SITE = "https://site.example"
SENT = {"success": True, "message": "Email sent successfully"}
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    replies = {
        f"RCPT never@{FAR}": NEVER,
        f"RCPT never@other.{FAR}": NEVER,
        f"RCPT later@{FAR}": LATER,
    }
    with Sink(extensions=EXTENSIONS, replies=replies) as running:
        yield running
    assert running.faults == []


@pytest.fixture(scope="module")
def server(
    module_url: str, sink: Sink, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    settings: dict[str, Any] = {
        "outbound": going_to(sink),
        # Who is refused again and again is asked again.
        "queue": {"suppress_after": 0},
        "send": {
            "rate": 0,
            # No machine is so slow that a test would not hear of a refusal.
            "wait": "60s",
            "allowed_hosts": ["site.example"],
            "default_from": "noreply@example.com",
            "sender_domains": ["friend.example"],
        },
    }
    if module_url:
        settings["database_url"] = module_url
    with Server(tmp_path_factory.mktemp("send"), **settings) as running:
        yield running
    faults = [each for each in running.events if "unhandled" in str(each).lower()]
    assert faults == []
    running.check()


def send(
    rest: Rest, headers: dict[str, str] | None = None, *, sender: str = "", **given: Any
) -> Answer:
    body = {"from": sender, "to": f"bob@{FAR}", "subject": "Hello", "body": "Hi", **given}
    return rest.post("/send", body, headers={"Content-Type": "application/json", **(headers or {})})


def subject() -> str:
    """One that no other test has."""
    return f"Number {next(numbers)}"


def mails(sink: Sink, subject: str) -> list[Mail]:
    return [mail for mail in sink.taken if f"\r\nSubject: {subject}\r\n".encode() in mail.data]


def arrived(sink: Sink, subject: str) -> Mail:
    sink.wait(lambda: mails(sink, subject))
    (found,) = mails(sink, subject)
    return found


def fate(rest: Rest, answer: Answer) -> Any:
    found = rest.get(answer.headers["Location"])
    assert found.status == 200, found
    return found.json


def states(rest: Rest, answer: Answer) -> dict[str, str]:
    return {each["address"]: each["state"] for each in fate(rest, answer)["recipients"]}


# -- sent -------------------------------------------------------------------------------------


@pytest.mark.mission("DIN-01", "DIN-02", "DIN-26")
def test_what_the_handbook_shows(nobody, sink):
    name = subject()
    answer = send(nobody, subject=name)
    assert (answer.status, answer.json) == (200, SENT)
    mail = arrived(sink, name)
    assert mail.reverse_path == "noreply@example.com"
    assert mail.recipients == [f"bob@{FAR}"]
    message = email.message_from_bytes(mail.data, policy=email.policy.default)
    assert message["From"] == "noreply@example.com"
    assert message["Message-ID"]
    found = fate(nobody, answer)
    assert found["message_id"] == message["Message-ID"]
    assert found["from"] == "noreply@example.com"
    assert found["subject"] == name
    assert until(lambda: fate(nobody, answer)["state"] == "sent")
    (recipient,) = fate(nobody, answer)["recipients"]
    assert recipient["state"] == "delivered"
    assert recipient["attempts"] == 1
    assert recipient["reply"].startswith("250")


@pytest.mark.mission("DIN-27")
def test_everybody_gets_it_and_nobody_learns_of_bcc(nobody, sink, server):
    name, local = subject(), server.account()
    answer = send(
        nobody,
        subject=name,
        to=[f"bob@{FAR}", local],
        cc=f"carl@{FAR}",
        bcc=[{"email": f"secret@{FAR}"}],
    )
    assert answer.json == SENT
    mail = arrived(sink, name)
    assert sorted(mail.recipients) == [f"bob@{FAR}", f"carl@{FAR}", f"secret@{FAR}"]
    assert b"secret" not in mail.data
    (stored,) = server.mails(local).values()
    assert b"secret" not in stored
    assert set(states(nobody, answer)) == {
        f"bob@{FAR}", f"carl@{FAR}", f"secret@{FAR}", local,
    }  # fmt: skip


@pytest.mark.mission("DIN-03")
@pytest.mark.parametrize(
    ("sender", "status"),
    [
        ("Anna <anna@example.com>", 200),
        ("whoever@friend.example", 200),
        (f"anna@{FAR}", 403),
        ("anna@example.com.evil.example", 403),
    ],
)
def test_a_sender_is_of_a_domain_of_ours(nobody, server, sender, status):
    answer = send(nobody, to=server.account(), sender=sender)
    assert answer.status == status
    assert answer.json["success"] is (status == 200)


# -- refused by the next hop --------------------------------------------------------------------


@pytest.mark.mission("DIN-09")
@pytest.mark.parametrize(
    "to", [[f"never@{FAR}"], [f"never@{FAR}", f"never@other.{FAR}", "nobody@example.com"]]
)
def test_when_all_are_refused_the_answer_says_so_and_no_bounce_comes(nobody, server, to):
    sender = server.account()
    answer = send(nobody, to=to, sender=sender)
    assert answer.status == 500
    details = answer.json["details"]
    assert details == NEVER
    assert answer.json == {
        "success": False,
        "message": f"Failed to send email: {details}",
        "error": "Failed to send email",
        "details": details,
    }
    found = fate(nobody, answer)
    assert found["state"] == "failed"
    assert {each["next_attempt_at"] for each in found["recipients"]} == {None}
    assert server.mails(sender) == {}


def test_when_one_is_taken_the_refused_one_bounces(nobody, server, sink):
    sender, name = server.account(), subject()
    to = [f"never@{FAR}", f"bob@other.{FAR}"]
    answer = send(nobody, to=to, subject=name, sender=sender)
    assert answer.json == SENT
    (bounce,) = until(lambda: server.mails(sender)).values()
    assert f"never@{FAR}".encode() in bounce
    assert states(nobody, answer) == {f"never@{FAR}": "failed", f"bob@other.{FAR}": "delivered"}
    assert fate(nobody, answer)["state"] == "partly"


@pytest.mark.mission("DIN-24")
def test_what_must_wait_is_sent_all_the_same(nobody):
    answer = send(nobody, to=f"later@{FAR}")
    assert answer.json == SENT
    (recipient,) = until(
        lambda: [r for r in fate(nobody, answer)["recipients"] if r["state"] == "deferred"]
    )
    assert recipient["reply"] == LATER
    assert recipient["next_attempt_at"]
    assert fate(nobody, answer)["state"] == "queued"


def test_nobody_of_ours_of_that_name(nobody, server):
    answer = send(nobody, to="nobody@example.com")
    assert answer.status == 500
    assert answer.json["details"] == "550 5.1.1 User unknown"
    local = server.account()
    answer = send(nobody, to=["nobody@example.com", local])
    assert answer.json == SENT
    assert states(nobody, answer) == {"nobody@example.com": "refused", local: "delivered"}
    assert len(server.mails(local)) == 1


# -- once -------------------------------------------------------------------------------------


def test_one_key_sends_one_mail(nobody, sink):
    name = subject()
    key = {"Idempotency-Key": f"form-{name}"}
    first, second = (send(nobody, key, subject=name) for _ in range(2))
    assert second.status == first.status == 200
    assert second.body == first.body
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    other = send(nobody, key, subject="something else")
    assert other.status == 409
    assert other.json["success"] is False
    arrived(sink, name)


def test_two_at_once_send_one_mail(nobody, sink):
    name = subject()
    key = {"Idempotency-Key": name}
    start = threading.Barrier(8)

    def ask() -> Answer:
        start.wait()
        return send(nobody, key, subject=name)

    with ThreadPoolExecutor(8) as pool:
        answers = [each.result() for each in [pool.submit(ask) for _ in range(8)]]
    assert {each.status for each in answers} == {200}
    assert len({each.headers["Location"] for each in answers}) == 1
    assert sum("Idempotent-Replayed" not in each.headers for each in answers) == 1
    arrived(sink, name)


def test_a_failure_is_kept_and_a_refusal_is_not(nobody, server):
    key = {"Idempotency-Key": subject()}
    first, second = (send(nobody, key, to=f"never@{FAR}") for _ in range(2))
    assert first.status == second.status == 500
    assert second.body == first.body
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"
    key = {"Idempotency-Key": subject()}
    assert send(nobody, key, subject="").status == 400
    assert send(nobody, key, to=server.account()).status == 200


@pytest.mark.parametrize("key", ["x" * 256, "\x01"])
def test_a_key_that_is_none(nobody, key):
    answer = nobody.ask(
        "POST", "/send", {"to": "x"}, headers={"Idempotency-Key": key, "Content-Type": "text/plain"}
    )
    assert answer.status == 400
    assert "Idempotency-Key" in answer.json["message"]


# -- who --------------------------------------------------------------------------------------


@pytest.mark.mission("DIN-18")
def test_listed_pages_may_send_and_others_may_not(nobody, server):
    listed = send(nobody, {"Origin": SITE}, to=server.account())
    assert listed.status == 200
    assert listed.headers["Access-Control-Allow-Origin"] == SITE
    assert "Location" in listed.headers["Access-Control-Expose-Headers"]
    for origin in ("https://evil.example", "null", "http://site.example.evil.example"):
        other = send(nobody, {"Origin": origin}, to=server.account())
        assert other.status == 403, origin
        assert other.json["success"] is False
        assert "Access-Control-Allow-Origin" not in other.headers


def test_a_name_that_was_made_to_lead_here_is_not_ours(nobody, server):
    # A page of evil.example whose name leads to this machine has the browser send both.
    for host, status in (("evil.example", 403), ("localhost", 200), ("127.0.0.1", 200)):
        given = {"Host": f"{host}:{nobody.port}", "Origin": f"http://{host}:{nobody.port}"}
        assert send(nobody, given, to=server.account()).status == status, host


@pytest.mark.parametrize(("origin", "status"), [(SITE, 204), ("https://evil.example", 403)])
@pytest.mark.mission("DIN-18")
def test_a_browser_asks_before(nobody, origin, status):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = nobody.ask("OPTIONS", "/send", headers=asked)
    assert answer.status == status
    assert (answer.headers["Access-Control-Allow-Origin"] == origin) is (status == 204)
    if status == 204:
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]


def test_a_key_sends_as_its_owner_and_no_further(admin, server):
    address = "boss@example.com"
    admin.make("mail_account", {"username": address, "password": "correct horse"})
    _, key = make_key(admin, "send:example.com")
    answer = send(key, to=server.account(), sender=address)
    assert answer.status == 200
    assert fate(key, answer)["state"] == "sent"
    refused = send(key, to=server.account(), sender="x@friend.example")
    assert refused.status == 403
    wrong = send(Rest(key.port, "mt_live_" + "x" * 43), to=server.account())
    assert wrong.status == 401
    assert wrong.json["success"] is False


def test_what_a_test_key_sends_is_captured(admin, sink, server):
    address = "tester@example.com"
    admin.make("mail_account", {"username": address, "password": "correct horse"})
    _, key = make_key(admin, "send:*", is_test=True)
    name, local = subject(), server.account()
    answer = send(key, subject=name, to=[f"bob@{FAR}", local], sender=address)
    assert answer.json == SENT
    assert fate(key, answer)["state"] == "captured"
    assert server.mails(local) == {}
    assert mails(sink, name) == []


def test_what_a_projects_key_sends_is_captured_in_the_project(admin, sink, server):
    project = admin.make("project", {"name": "shop", "password": "correct horse"})
    _, key = make_key(admin, f"project:{project['id']}")
    name, local = subject(), server.account()
    to = [local, f"bob@{FAR}", "nobody@example.com"]
    answer = send(key, subject=name, to=to, sender=f"anybody@{FAR}")
    assert answer.json == SENT
    assert set(states(key, answer).values()) == {"captured"}
    assert server.mails(local) == {}
    assert mails(sink, name) == []
    assert admin.row("project", project["id"])["attributes"]["messages"] == 1


def test_nobody_looks_at_the_requests_of_others(admin, server):
    admin.make("mail_account", {"username": "head@example.com", "password": "correct horse"})
    _, key = make_key(admin, "send:*")
    alice = admin.user()
    answer = send(key, to=server.account(), sender="head@example.com")
    assert answer.status == 200
    place = answer.headers["Location"]
    assert admin.get(place).status == 200
    for other in (alice, Rest(admin.port)):
        assert other.get(place).status == 404
    for place in ("/send/1", "/send/x", "/send/%31x", f"/send/{1 << 64}", "/send/-1"):
        found = admin.get(place)
        assert found.status == 404, place
        assert found.json["success"] is False


# -- wrong ------------------------------------------------------------------------------------


@pytest.mark.mission("DIN-07")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_only_post(nobody, method):
    answer = nobody.ask(method, "/send")
    assert answer.status == 405
    assert "POST" in answer.headers["Allow"]
    if method != "HEAD":
        assert answer.json["message"] == "Only POST method is allowed"


@pytest.mark.mission("DIN-08")
def test_a_body_that_is_too_large(nobody):
    answer = nobody.ask("POST", "/send", b"{" + b" " * (1 << 20) + b"}")
    assert answer.status in {400, 413}
    assert answer.json["success"] is False
    assert answer.json["message"].startswith("Invalid request format: ")


@pytest.mark.mission("DIN-05", "DIN-06", "DIN-25")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "Recipient (to) is required"),
        (b'{"to": "a@example.com"}', "Subject is required"),
        (b'{"to": "a@example.com", "subject": "x"}', "Email body is required"),
        (b"{", "Invalid request format: "),
        (b'{"to": 1, "subject": "x", "body": "x"}', "Invalid request format: to"),
        (b'{"to": "a@example.com", "subject": "a\\r\\nBcc: x@y.example", "body": "x"}',
         "Invalid request format: subject"),
    ],
)  # fmt: skip
def test_a_body_that_is_wrong(nobody, body, message):
    answer = nobody.ask("POST", "/send", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.json["message"].startswith(message)
    assert answer.headers["Content-Type"].startswith("application/json")


def test_paths_below_that_are_none(nobody):
    for path in ("/send/", "/send/1/2", "/send/../send"):
        answer = nobody.ask("POST", path, {})
        assert answer.status in {404, 405}, path
        assert answer.json["success"] is False


@pytest.mark.mission("DIN-10")
def test_health_speaks_as_the_handbook_says(nobody):
    answer = nobody.get("/health")
    assert answer.status == 200
    assert answer.json == {"success": True, "message": "Mail API service is running"}
