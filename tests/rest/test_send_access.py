"""Who may call ``/send``, how often, and what holds when the process dies meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.relaying import FAR, going_to, until
from tests.e2e.server import Server
from tests.rest.test_send import SENT, send
from tests.support.rest import Rest
from tests.support.sink import EXTENSIONS, Sink

pytestmark = [pytest.mark.real]

KEY = "a key that nobody guesses"
RATE = 5


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where nothing leaves and who sends needs a key; a proxy on 127.0.0.2 is trusted."""
    settings: dict[str, Any] = {
        "dev_mode": True,
        "send": {"api_key": KEY, "rate": RATE, "allowed_hosts": "site.example, other.example"},
        "http": {"trusted_proxies": ["127.0.0.2"]},
    }
    with Server(tmp_path_factory.mktemp("closed"), **settings) as running:
        yield running
    running.check()


def client(server: Server, address: str, **headers: str) -> Rest:
    """Who comes by the trusted proxy from an address: each has a rate of his own."""
    return Through(server.ports["http"], **{"X-Forwarded-For": address, **headers})


class Through(Rest):
    """Requests that leave from the address of the trusted proxy."""

    def ask(self, *given, **more):
        original = socket.create_connection

        def connect(address, timeout=None, source_address=None, **options):
            return original(address, timeout, ("127.0.0.2", 0), **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("http.client.socket.create_connection", connect)
            return super().ask(*given, **more)


@pytest.mark.mission("DIN-33")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-API-KEY": KEY}, 200),
        ({}, 401),
        ({"X-API-KEY": ""}, 401),
        ({"X-API-KEY": KEY[:-1]}, 401),
        ({"X-API-KEY": KEY + "x"}, 401),
        ({"X-API-KEY": "Schlüssel".encode().decode("latin-1")}, 401),
        ({"Authorization": f"Bearer {KEY}"}, 401),
        ({"Origin": "https://site.example"}, 401),
        ({"Origin": "https://site.example", "X-API-KEY": KEY}, 200),
        ({"Origin": "https://evil.example", "X-API-KEY": KEY}, 403),
    ],
)
def test_a_key_opens_it(closed, request, headers, status):
    # Each from an address of his own, so that no rate is in the way.
    number = sum(map(ord, request.node.name)) % 250
    answer = send(client(closed, f"198.51.100.{number}"), headers)
    assert answer.status == status
    assert answer.json["success"] is (status == 200)
    assert KEY not in answer.text


@pytest.mark.mission("DIN-19")
@pytest.mark.parametrize("host", ["site.example", "other.example"])
def test_hosts_may_be_given_as_one_text(closed, host):
    asked = {"Origin": f"https://{host}", "Access-Control-Request-Method": "POST"}
    assert Rest(closed.ports["http"]).ask("OPTIONS", "/send", headers=asked).status == 204


@pytest.mark.mission("DIN-32")
def test_a_form_that_is_abused_is_slowed_down(closed):
    abuser = client(closed, "203.0.113.7", **{"X-API-KEY": KEY})
    assert [send(abuser).status for _ in range(RATE + 2)] == [200] * RATE + [429] * 2
    answer = send(abuser)
    assert answer.json["success"] is False
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert send(client(closed, "203.0.113.8", **{"X-API-KEY": KEY})).status == 200


@pytest.mark.mission("DIN-32")
def test_who_says_that_he_is_another_is_counted_all_the_same(closed):
    # Not by the proxy: what he says of himself is his own word.
    answers = [
        send(Rest(closed.ports["http"], **{"X-API-KEY": KEY, "X-Forwarded-For": f"192.0.2.{n}"}))
        for n in range(RATE + 1)
    ]
    assert answers[-1].status == 429


def test_wrong_keys_are_counted_too(closed):
    guesser = client(closed, "203.0.113.99", **{"X-API-KEY": "wrong"})
    statuses = [send(guesser).status for _ in range(RATE + 1)]
    assert statuses == [401] * RATE + [429]


@pytest.mark.mission("DIN-30")
def test_in_dev_mode_all_of_it_is_captured(closed):
    sender = client(closed, "203.0.113.50", **{"X-API-KEY": KEY})
    answer = send(sender, to=[f"bob@{FAR}", "nobody@example.com"], subject="Seen by developers")
    assert answer.json == SENT
    found = sender.get(answer.headers["Location"]).json
    assert found["state"] == "captured"
    (event,) = [each for each in closed.events if each.get("subject") == "Seen by developers"]
    assert event["forward_paths"] == [f"bob@{FAR}", "nobody@example.com"]
    assert event["queue_id"] == found["id"]
    assert event["session"]
    assert sender.guest.get(answer.headers["Location"]).status == 401


@pytest.fixture
def without_key(tmp_path) -> Iterator[Server]:
    settings: dict[str, Any] = {"http": {"trusted_proxies": ["127.0.0.2"]}, "dev_mode": True}
    with Server(tmp_path / "open", **settings) as running:
        yield running
    running.check()


def test_without_a_key_it_is_open_to_this_machine_alone(without_key):
    port = without_key.ports["http"]
    assert send(Rest(port)).status == 200
    assert send(client(without_key, "127.0.0.9")).status == 200
    assert send(client(without_key, "::1")).status == 200
    for address in ("198.51.100.1", "::ffff:198.51.100.1", "2001:db8::1"):
        answer = send(client(without_key, address))
        assert answer.status == 403, address
        assert answer.json["success"] is False


@pytest.mark.mission("DIN-24")
def test_what_was_being_tried_when_the_process_died_is_tried_again(make_server):
    """The answer never came; the refusal of one of two was known and not yet written."""
    replies = {f"RCPT never@{FAR}": "550 5.1.1 no", f"RCPT slow@other.{FAR}": ["!hang"]}
    with Sink(extensions=EXTENSIONS, replies=replies) as sink:
        server = make_server(
            outbound=going_to(sink), send={"wait": "60s"}, queue={"suppress_after": 0}
        ).start()
        sender = server.account()
        to = [f"never@{FAR}", f"slow@other.{FAR}"]

        def ask() -> None:
            with pytest.raises(OSError):
                send(Rest(server.ports["http"]), to=to, subject="twice", sender=sender)

        asking = threading.Thread(target=ask)
        asking.start()
        sink.wait(lambda: sink.is_hanging and f"RCPT TO:<never@{FAR}>" in str(sink.commands))
        server.kill()
        asking.join()
        sink.hang_up()
        server.start()
        # One gets it now, and of the other the sender hears.
        (mail,) = sink.wait_for_mails()
        assert mail.recipients == [f"slow@other.{FAR}"]
        (bounce,) = until(lambda: server.mails(sender)).values()
        assert f"never@{FAR}".encode() in bounce
