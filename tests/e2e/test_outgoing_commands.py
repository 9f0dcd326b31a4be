"""``mailtwist queue`` and ``send-test`` beside a running server, and without one."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.relaying import (
    FAR,
    ask,
    command,
    going_to,
    letter,
    submit,
    tried,
    until,
)
from tests.support.sink import Sink

pytestmark = pytest.mark.real


# -- commands beside a running server ---------------------------------------------------------


@pytest.mark.mission("ELE-53")
def test_the_commands_work_on_a_running_server(make_server):
    with Sink(replies={"RCPT": "451 4.7.1 not yet"}) as sink:
        server = make_server(
            outbound=going_to(sink), queue={"retry_schedule": ["1h"], "max_retries": 5}
        ).start()
        alice, message = letter(server, "looked at")
        ids = [submit(server, alice, f"bob{n}@{FAR}", message) for n in range(3)]
        for each in ids:
            tried(server, each)
        listed = ask(server, "queue", "list")
        assert [(row["id"], row["state"], row["sender"]) for row in listed] == [
            (each, "deferred", alice) for each in reversed(ids)
        ]
        assert ask(server, "queue", "stats")["deferred"] == 3
        assert (
            command(server, "queue", "content", ids[0])
            .replace("\r\n", "\n")
            .endswith(message.decode().replace("\r\n", "\n"))
        )
        command(server, "queue", "delete", ids[2])
        command(server, "queue", "hold", ids[1])
        assert ask(server, "queue", "stats")["held"] == 1
        sink.script({"RCPT": "250 2.1.5 ok"})
        start = time.monotonic()
        command(server, "queue", "flush")
        sink.wait_for_mails(1)
        assert time.monotonic() - start < 10  # 2 s for the server, the rest for the command
        until(lambda: [row["id"] for row in ask(server, "queue", "list")] == [ids[1]])
        command(server, "queue", "release", ids[1])
        sink.wait_for_mails(2)
        until(lambda: ask(server, "queue", "list") == [])
        assert [mail.recipients for mail in sink.taken] == [[f"bob0@{FAR}"], [f"bob1@{FAR}"]]
        assert "mailtwist: " in command(server, "queue", "view", "12345", status=1)


def test_a_flush_starts_within_two_seconds(make_server):
    with Sink(replies={"RCPT": ["451 4.7.1 not yet"]}) as sink:
        server = make_server(outbound=going_to(sink), queue={"retry_schedule": ["1h"]}).start()
        alice, message = letter(server, "flushed")
        tried(server, submit(server, alice, f"bob@{FAR}", message))
        command(server, "queue", "flush")
        ended = time.monotonic()
        (mail,) = sink.wait_for_mails(1)
        assert mail.at - ended < 2


def test_send_test_says_how_it_went(make_server):
    replies = {"RCPT nobody@far.example": "550 5.1.1 nobody of that name"}
    with Sink(replies=replies) as sink:
        server = make_server(outbound=going_to(sink)).start()
        said = json.loads(command(server, "send-test", f"bob@{FAR}", "--json"))
        assert said["accepted"] is True
        assert len(sink.taken) == 1
        refused = command(server, "send-test", f"nobody@{FAR}", status=1)
        assert "nobody of that name" in refused


def test_send_test_needs_no_running_server(make_server):
    replies = {"RCPT nobody@far.example": "550 5.1.1 nobody of that name"}
    with Sink(replies=replies) as sink:
        server = make_server(outbound=going_to(sink)).start()
        server.stop()
        said = json.loads(command(server, "send-test", f"bob@{FAR}", "--json"))
        assert said["accepted"] is True
        assert b"Subject: A test message" in sink.taken[0].data
        refused = command(server, "send-test", f"nobody@{FAR}", status=1)
        assert "nobody of that name" in refused
