"""Webhooks of a running server, and receivers that take, fail, hang and lead astray."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from tests.e2e.relaying import going_to, submit
from tests.e2e.server import Server
from tests.support.receiver import Receiver
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

PATIENCE_S = 30.0
SECRET = "a secret of a hook"


@pytest.fixture(scope="module")
def server(module_url, sink, tmp_path_factory):
    settings: dict[str, Any] = {
        "outbound": going_to(sink),
        "http_client": {"allow": ["127.0.0.1/32"]},
    }
    if module_url:
        settings["database_url"] = module_url
    with Server(tmp_path_factory.mktemp("webhooks"), **settings) as running:
        yield running
    assert [each for each in running.events if "unhandled" in str(each).lower()] == []
    running.check()


@pytest.fixture
def receiver():
    with Receiver() as running:
        yield running


@pytest.fixture
def anna(admin):
    return admin.user()


def hook_of(rest, receiver, **attributes):
    return rest.make("webhook", {"url": receiver.url(), "secret": SECRET, **attributes})


def settled(rest, hook, done):
    """The webhook's attributes as soon as they are as wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        attributes = rest.row("webhook", hook["id"])["attributes"]
        if done(attributes):
            return attributes
        assert time.monotonic() < deadline, attributes
        time.sleep(0.05)


def letter(subject="hello"):
    return f"Subject: {subject}\r\n\r\nhello\r\n".encode()


def test_what_is_received_is_posted_signed(server, anna, receiver):
    account, address = anna.account()
    hook = hook_of(anna, receiver)
    queue_id = server.send(address, letter("news"))
    (posted,) = receiver.wait(1)
    assert (posted.method, posted.path) == ("POST", "/hook")
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["mailtwist-event"] == "received"
    document = json.loads(posted.body)
    assert document["mail_account_id"] == account
    assert (document["data"]["subject"], document["data"]["queue_id"]) == ("news", queue_id)
    stamp, mac = (
        part.partition("=")[2] for part in posted.headers["mailtwist-signature"].split(",")
    )
    assert abs(int(stamp) - time.time()) < 30
    signed = stamp.encode() + b"." + posted.body
    assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    settled(anna, hook, lambda shown: shown["last_sent_at"])
    (delivery,) = anna.get(f"/api/webhook/{hook['id']}/webhook_delivery_id").data
    assert delivery["attributes"]["state"] == "sent"
    assert delivery["id"] == posted.headers["mailtwist-delivery"]


def test_what_came_of_sending_is_posted(server, sink, anna, receiver):
    _, address = anna.account()
    sink.script({"RCPT nobody@far.example": "550 5.1.1 no such user"})
    hook_of(anna, receiver, kinds=["bounced"])
    submit(server, address, "somebody@far.example", letter())
    submit(server, address, "nobody@far.example", letter())
    (posted,) = receiver.wait(1)
    data = json.loads(posted.body)["data"]
    assert (data["recipient"], data["code"]) == ("nobody@far.example", 550)


def test_others_are_told_nothing(server, admin, anna, receiver):
    bert = admin.user()
    _, address = anna.account()
    _, own = bert.account()
    hook_of(bert, receiver)
    server.send(address, letter("for anna"))
    server.send(own, letter("for bert"))
    (posted,) = receiver.wait(1)
    assert json.loads(posted.body)["data"]["subject"] == "for bert"


@pytest.mark.parametrize("answer", [500, 302, 404])
def test_a_receiver_that_fails_is_said_and_waited_for(server, anna, receiver, answer):
    _, address = anna.account()
    with Receiver() as inner:
        receiver.answer = lambda posted: (answer, {"Location": inner.url()}, b"no")
        hook = hook_of(anna, receiver)
        server.send(address, letter())
        shown = settled(anna, hook, lambda shown: shown["last_error"])
        assert shown["last_error"] == f"The answer was {answer}"
        assert shown["failing_since"]
        assert inner.posted == []
    (delivery,) = anna.get(f"/api/webhook/{hook['id']}/webhook_delivery_id").data
    waits = delivery["attributes"]
    assert (waits["state"], waits["attempts"], waits["code"]) == ("waiting", 1, answer)
    assert waits["due_at"] > waits["updated_at"]


def test_a_receiver_that_hangs_costs_the_others_nothing(server, admin, anna, receiver):
    _, address = anna.account()
    with Receiver() as stuck:
        stuck.answer = stuck.hang
        hooks = [hook_of(anna, stuck) for _ in range(3)]
        hook_of(anna, receiver)
        began = time.monotonic()
        for number in range(20):
            server.send(address, letter(str(number)))
        found = receiver.wait(20)
        assert time.monotonic() - began < 9
        told = {json.loads(posted.body)["data"]["subject"] for posted in found}
        assert told == {str(number) for number in range(20)}
        stuck.wait(3 * 4)
        assert len(stuck.posted) == 3 * 4
        shown = settled(anna, hooks[0], lambda shown: shown["last_error"])
        assert shown["last_error"] == "No answer within 10 s"


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "[::1]", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.2]"]
)
def test_our_own_network_is_not_called(server, anna, receiver, host):
    _, address = anna.account()
    hook = anna.make("webhook", {"url": receiver.url(host=host), "secret": SECRET})
    server.send(address, letter())
    shown = settled(anna, hook, lambda shown: shown["last_error"])
    assert "is not called" in shown["last_error"]
    assert receiver.posted == []


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://a:b@example.com/"}, "url"),
        ({"kinds": ["read"]}, "kinds"),
        ({"secret": ""}, "secret"),
    ],
)
def test_a_bad_row_is_refused(anna, receiver, attributes, named):
    answer = anna.create("webhook", {"url": receiver.url(), "secret": SECRET, **attributes})
    assert answer.status == 400
    assert named in answer.error


def test_guests_make_none_and_others_see_none(nobody, admin, anna, receiver):
    answer = nobody.create("webhook", {"url": receiver.url(), "secret": SECRET})
    assert answer.status == 403
    hook = hook_of(anna, receiver)
    assert SECRET not in anna.get(f"/api/webhook/{hook['id']}").text
    assert admin.user().get(f"/api/webhook/{hook['id']}").status == 403
    assert nobody.get(f"/api/webhook/{hook['id']}").status == 403


def test_what_waits_is_posted_after_a_restart(make_fresh, receiver):
    server = make_fresh(http_client={"allow": ["127.0.0.1"]}).start()
    admin = Rest(server.ports["http"]).become_administrator()
    _, address = admin.user().account()
    hook_of(admin, receiver)
    server.kill()
    server.start()
    server.send(address, letter("after"))
    # The lease of the process that was killed runs out first.
    deadline = time.monotonic() + 90
    while not receiver.posted:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (posted,) = receiver.posted
    assert json.loads(posted.body)["data"]["subject"] == "after"
