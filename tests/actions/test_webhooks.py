"""Events are posted to those who want them: signed, once, again when they fail."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text
from twisted.internet.defer import Deferred

from mailtwist.actions.webhooks import AT_ONCE, AT_ONCE_EACH, LEASE, Webhooks, signature
from mailtwist.errors import Conflict, ProtocolViolation, StoreFull
from mailtwist.mail.permissions import SYSTEM
from mailtwist.net.web import WebAnswer, WebError
from mailtwist.store import events, lease, webhooks
from mailtwist.store.entities.model import AccessDenied, Ref
from mailtwist.store.entities.webhooks import MAX_OF_USER
from tests.store.making import another_node
from tests.support.now import now

SECRET = "a secret of a hook"
HOOK = {"url": "https://hook.example/x", "secret": SECRET}


class Web:
    """Notes what is posted; ``answers`` by URL: a status, an error, or a Deferred of one."""

    def __init__(self):
        self.posted = []
        self.answers = {}

    async def request(self, method, url, *, headers, body, timeout_s, max_body):
        self.posted.append((url, headers, body))
        answer = self.answers.get(url, 200)
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return WebAnswer(answer, b"", {})

    @property
    def urls(self):
        return Counter(url for url, _, _ in self.posted)


@pytest.fixture
def web():
    return Web()


@pytest.fixture
def hooks(server, web):
    made = Webhooks(server.database, web, server.secrets, clock=server.clock)
    made.start()
    yield made
    now(made.stop())
    assert server.clock.getDelayedCalls() == []


@pytest.fixture
def people(server):
    """A user with an account, another without, an administrator, and the account's number."""
    anna, bert = server.user("anna@x.org"), server.user("bert@x.org")
    admin = server.administrator()
    owner = Ref("user_account", anna.reference_id)
    given = {"username": "box@x.org", "password": "correct horse"}
    server.create("mail_account", given, admin, user_account_id=owner)
    number = now(
        server.database.read(
            lambda c: c.execute(
                text("SELECT account_id FROM account WHERE username = 'box@x.org'")
            ).scalar()
        )
    )
    return anna, bert, admin, number


def tell(server, *numbers, kind="received"):
    """Write events about accounts."""
    told = [(number, kind, {"subject": "hi", "n": 0}) for number in numbers]
    now(server.database.write(lambda connection: events.write(connection, told)))


def run(server, seconds):
    server.clock.pump([0.1] * int(seconds * 10))


def row(server, item):
    return server.get(item).attributes


def deliveries(server, viewer=SYSTEM):
    return [each.attributes for each in server.rows("webhook_delivery", viewer, size=100)]


# -- who is told ----------------------------------------------------------------------------


def test_an_event_is_posted_signed(server, hooks, web, people):
    anna, _, _, box = people
    hook = server.create("webhook", HOOK, anna)
    run(server, 1)
    tell(server, box)
    run(server, 1)
    ((url, headers, body),) = web.posted
    assert url == HOOK["url"]
    document = json.loads(body)
    assert (document["kind"], document["data"]) == ("received", {"subject": "hi"})
    assert headers["Content-Type"] == "application/json"
    assert headers["Mailtwist-Event"] == "received"
    (delivery,) = deliveries(server)
    assert headers["Mailtwist-Delivery"] == delivery["reference_id"]
    stamp, mac = (part.partition("=")[2] for part in headers["Mailtwist-Signature"].split(","))
    assert abs(int(stamp) - server.clock.seconds()) < 5
    signed = stamp.encode() + b"." + body
    assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert (delivery["state"], delivery["attempts"], delivery["code"]) == ("sent", 1, 200)
    assert row(server, hook)["last_sent_at"]
    run(server, 100)
    assert len(web.posted) == 1


def test_a_signature_is_that_of_a_known_example():
    assert signature("key", 1, b"{}") == (
        "t=1,v1=" + hmac.new(b"key", b"1.{}", hashlib.sha256).hexdigest()
    )


def test_only_whose_account_it_is_and_administrators_are_told(server, hooks, web, people):
    anna, bert, admin, box = people
    for number, viewer in enumerate((anna, bert, admin)):
        server.create("webhook", HOOK | {"url": f"https://{number}.example/"}, viewer)
    tell(server, box, 0)
    run(server, 2)
    assert web.urls == {"https://0.example/": 1, "https://2.example/": 2}
    assert len(deliveries(server, anna)) == 1
    assert deliveries(server, bert) == []


def test_only_the_wanted_kinds_are_told(server, hooks, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK | {"kinds": ["bounced", "bounced", "deferred"]}, admin)
    for kind in events.KINDS:
        tell(server, box, kind=kind)
    run(server, 2)
    assert sorted(headers["Mailtwist-Event"] for _, headers, _ in web.posted) == [
        "bounced",
        "deferred",
    ]


def test_nobody_is_told_of_what_was_before(server, hooks, web, people):
    _, _, admin, box = people
    tell(server, box)
    hook = server.create("webhook", HOOK, admin)
    run(server, 1)
    server.update(hook, {"active": False})
    tell(server, box)
    run(server, 1)
    server.update(hook, {"active": True})
    run(server, 1)
    assert web.posted == []
    tell(server, box)
    run(server, 1)
    assert len(web.posted) == 1


def test_what_happened_while_nobody_was_up_is_told(server, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    for _ in range(3):
        tell(server, box)
        hooks = Webhooks(server.database, web, server.secrets, clock=server.clock)
        hooks.start()
        run(server, 1)
        now(hooks.stop())
    assert len(web.posted) == 3
    assert len({body for _, _, body in web.posted}) == 3


def test_many_are_told_and_none_twice(server, hooks, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    tell(server, *[box] * 700)
    run(server, 60)
    assert len(web.posted) == 700
    assert len({body for _, _, body in web.posted}) == 700


def test_what_is_read_again_is_told_nobody_twice(server, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    for _ in range(2):
        hooks = Webhooks(server.database, web, server.secrets, clock=server.clock)
        hooks.start()
        if not web.posted:
            tell(server, box, box)
        run(server, 1)
        now(hooks.stop())
        # As after a crash between two commits.
        now(server.database.write(lambda c: c.execute(text("UPDATE webhook SET position = 0"))))
    assert len(web.posted) == 2


def test_only_who_holds_the_lease_posts(server, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)

    def take(connection):
        another_node(connection, 700)
        moment = int(server.clock.seconds() * 1e6)
        return lease.take(connection, LEASE, 700, now=moment, seconds=40)

    assert now(server.database.write(take))
    hooks = Webhooks(server.database, web, server.secrets, clock=server.clock)
    hooks.start()
    tell(server, box)
    run(server, 35)
    assert web.posted == []
    run(server, 20)
    assert len(web.posted) == 1
    now(hooks.stop())


# -- what fails -----------------------------------------------------------------------------


def times(server, web, seconds):
    """When something was posted, in seconds from now."""
    found, begin = [], server.clock.seconds()
    for _ in range(int(seconds)):
        before = len(web.posted)
        server.clock.pump([0.25] * 4)
        found += [round(server.clock.seconds() - begin)] * (len(web.posted) - before)
    return found


def test_what_fails_is_posted_again_with_back_off(server, hooks, web, people):
    _, _, admin, box = people
    hook = server.create("webhook", HOOK, admin)
    run(server, 1)
    web.answers[HOOK["url"]] = 503
    tell(server, box)
    found = times(server, web, 1000)
    waits = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert [round(wait / 60) for wait in waits] == [1, 2, 4, 8]
    assert len({headers["Mailtwist-Delivery"] for _, headers, _ in web.posted}) == 1
    (delivery,) = deliveries(server)
    assert (delivery["state"], delivery["attempts"], delivery["code"]) == ("waiting", 5, 503)
    assert delivery["error"] == "The answer was 503"
    shown = row(server, hook)
    assert shown["failing_since"]
    assert shown["last_error"] == "The answer was 503"
    web.answers.clear()
    run(server, 1000)
    assert deliveries(server)[0]["state"] == "sent"
    shown = row(server, hook)
    assert (shown["failing_since"], shown["last_error"]) == (None, "")


@pytest.mark.parametrize("answer", [301, 404, 500, WebError("No answer within 10 s")], ids=str)
def test_only_2xx_counts(server, hooks, web, people, answer):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    web.answers[HOOK["url"]] = answer
    tell(server, box)
    run(server, 2)
    (delivery,) = deliveries(server)
    assert delivery["state"] == "waiting"
    assert delivery["error"]
    assert delivery["code"] == (answer if isinstance(answer, int) else 0)


def fail_for(server, web, seconds):
    """Let time pass in large steps: each look that is due is taken."""
    for _ in range(int(seconds // 120)):
        server.clock.advance(120)


def test_after_a_day_it_is_given_up(server, hooks, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    web.answers[HOOK["url"]] = 500
    tell(server, box)
    fail_for(server, web, 90_000)
    (delivery,) = deliveries(server)
    assert delivery["state"] == "failed"
    # 1, 2, 4, 8, 16, 32 minutes, and then each hour of the day.
    assert 22 <= delivery["attempts"] <= 31
    count = len(web.posted)
    fail_for(server, web, 10_000)
    assert len(web.posted) == count


def test_after_three_days_it_is_no_longer_active(server, web, people):
    _, _, admin, _ = people
    hook = server.create("webhook", HOOK, admin)
    delivery = webhooks.Delivery(1, 1, "", 1, "received", "{}", 0, 0)
    moment = 1_800_000_000_000_000
    for days, is_active in ((0, True), (2.9, True), (3.1, False)):
        at = moment + int(days * webhooks.DAY)
        now(
            server.database.write(
                lambda c, at=at: webhooks.failed(c, delivery, 500, "The answer was 500", at)
            )
        )
        assert row(server, hook)["active"] is is_active
    shown = row(server, hook)
    assert shown["last_error"].startswith("Not active any more")
    server.update(hook, {"active": True})
    shown = row(server, hook)
    assert (shown["failing_since"], shown["last_error"]) == (None, "")


def test_one_that_hangs_costs_the_others_nothing(server, hooks, web, people):
    _, _, admin, box = people
    for number in range(12):
        server.create("webhook", HOOK | {"url": f"https://{number}.example/"}, admin)
    stuck: Deferred[int] = Deferred()
    for number in range(6):
        web.answers[f"https://{number}.example/"] = stuck
    tell(server, *[box] * 30)
    run(server, 20)
    for number in range(6):
        assert web.urls[f"https://{number}.example/"] == AT_ONCE_EACH
    for number in range(6, 12):
        assert web.urls[f"https://{number}.example/"] == 30
    stuck.callback(500)


def test_those_that_fail_leave_turns_to_the_others(server, hooks, web, people):
    _, _, admin, box = people
    for number in range(AT_ONCE + 8):
        url = f"https://{number}.example/"
        web.answers[url] = 500
        server.create("webhook", HOOK | {"url": url}, admin)
    tell(server, box)
    run(server, 10)
    assert len(web.posted) == AT_ONCE + 8
    stuck: Deferred[int] = Deferred()
    web.answers = {url: stuck for url in web.answers}
    server.create("webhook", HOOK, admin)
    tell(server, box)
    run(server, 5)
    assert web.urls[HOOK["url"]] == 1
    stuck.callback(500)


def test_there_is_a_bound_to_what_waits(server, hooks, web, people, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_WAITING", 10)
    _, _, admin, box = people
    hook = server.create("webhook", HOOK, admin)
    other = HOOK | {"url": "https://other.example/"}
    server.create("webhook", other, admin)
    web.answers[HOOK["url"]] = 500
    for _ in range(25):
        tell(server, box)
        run(server, 0.5)
    assert web.urls[other["url"]] == 25
    mine = [each for each in deliveries(server) if each["state"] == "waiting"]
    assert len(mine) == 10
    assert row(server, hook)["last_error"] in {webhooks.PAUSED, "The answer was 500"}


def sweep(server):
    moment = int(server.clock.seconds() * 1e6)
    assert now(server.database.write(lambda connection: webhooks.sweep(connection, moment)))


def test_what_ended_is_swept(server, hooks, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    tell(server, box)
    run(server, 1)
    assert len(deliveries(server)) == 1
    server.clock.advance(webhooks.KEPT // 1_000_000 - 100)
    sweep(server)
    assert len(deliveries(server)) == 1
    server.clock.advance(200)
    sweep(server)
    assert deliveries(server) == []


def test_what_waits_for_one_that_is_not_active_is_given_up(server, hooks, web, people):
    _, _, admin, box = people
    hook = server.create("webhook", HOOK, admin)
    web.answers[HOOK["url"]] = 500
    tell(server, box)
    run(server, 1)
    server.update(hook, {"active": False})
    server.clock.advance(90_000)
    sweep(server)
    (delivery,) = deliveries(server)
    assert (delivery["state"], delivery["error"]) == ("failed", "The webhook is not active")


def test_a_secret_that_cannot_be_opened_is_said(server, hooks, web, people):
    _, _, admin, box = people
    hook = server.create("webhook", HOOK, admin)
    now(server.database.write(lambda c: c.execute(text("UPDATE webhook SET secret = 'v1:AAAA'"))))
    tell(server, box)
    run(server, 1)
    assert web.posted == []
    assert row(server, hook)["last_error"] == "A sealed secret cannot be opened"


def test_what_is_under_way_when_it_stops_is_posted_again(server, web, people):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    web.answers[HOOK["url"]] = Deferred()
    for _ in range(2):
        hooks = Webhooks(server.database, web, server.secrets, clock=server.clock)
        hooks.start()
        tell(server, box) if not web.posted else None
        run(server, 1)
        now(hooks.stop())
        web.answers.clear()
    assert len(web.posted) == 2
    assert len({headers["Mailtwist-Delivery"] for _, headers, _ in web.posted}) == 1
    assert deliveries(server)[0]["attempts"] == 1


def test_what_was_taken_is_not_posted_again_while_the_store_takes_no_notes(
    server, hooks, web, people, monkeypatch
):
    _, _, admin, box = people
    server.create("webhook", HOOK, admin)
    tell(server, box)
    taking: Deferred[Any] = Deferred()
    web.answers[HOOK["url"]] = taking
    run(server, 1)

    async def refused(*_, **__):
        raise StoreFull

    with monkeypatch.context() as patch:
        patch.setattr(server.database, "write", refused)
        taking.callback(200)
        run(server, 20)
    run(server, 20)
    assert len(web.posted) == 1
    (delivery,) = deliveries(server)
    assert (delivery["state"], delivery["attempts"]) == ("sent", 1)


# -- the rows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"url": "ftp://hook.example/"}, "url"),
        ({"url": "https://user:pass@hook.example/"}, "url"),
        ({"url": "x"}, "url"),
        ({"url": ""}, "url"),
        ({"kinds": ["opened"]}, "kinds"),
        ({"kinds": 7}, "kinds"),
        ({"secret": ""}, "secret"),
        ({"secret": "x" * 201}, "secret"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused(server, attributes, named):
    with pytest.raises(ProtocolViolation, match=named):
        server.create("webhook", HOOK | attributes)


def test_what_only_we_set_is_passed_over(server):
    given = {"failing_since": "2026-01-01T00:00:00Z", "last_error": "x", "last_sent_at": 1}
    hook = server.create("webhook", HOOK | given)
    shown = row(server, hook)
    assert [shown[name] for name in given] == [None, "", None]


def test_the_secret_is_sealed_and_never_read(server, people):
    hook = server.create("webhook", HOOK, people[2])
    assert SECRET not in json.dumps(dict(row(server, hook)))
    kept = now(
        server.database.read(lambda c: c.execute(text("SELECT secret FROM webhook")).scalar())
    )
    assert SECRET not in kept
    assert server.secrets.open(kept, "webhook.secret") == SECRET


def test_others_see_and_change_nothing_of_it(server, people):
    anna, bert, admin, _ = people
    hook = server.create("webhook", HOOK, anna)
    assert server.rows("webhook", bert) == ()
    with pytest.raises(AccessDenied):
        server.get(hook, bert)
    with pytest.raises(AccessDenied):
        server.update(hook, {"url": "https://mine.example/"}, bert)
    assert row(server, hook)["url"] == HOOK["url"]
    assert len(server.rows("webhook", admin)) == 1


def test_its_deliveries_go_with_it(server, hooks, web, people):
    _, _, admin, box = people
    hook = server.create("webhook", HOOK, admin)
    tell(server, box)
    run(server, 1)
    now(server.resources.delete(admin, "webhook", hook.id))
    assert deliveries(server) == []


def test_a_user_has_only_so_many(server, people):
    anna, _, admin, _ = people
    for _ in range(MAX_OF_USER):
        server.create("webhook", HOOK, anna)
    with pytest.raises(Conflict):
        server.create("webhook", HOOK, anna)
    server.create("webhook", HOOK, admin)


def test_nothing_is_written_where_there_are_no_webhooks(server, hooks, people):
    box, before = people[3], lease_of(server)
    tell(server, box)
    run(server, 60)
    assert before is None
    assert lease_of(server) is None


def lease_of(server):
    moment = int(server.clock.seconds() * 1e6)
    return now(server.database.read(lambda connection: lease.holder(connection, LEASE, moment)))
