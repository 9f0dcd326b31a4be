"""A throw-away inbox as its documentation uses it: swaks sends, curl reads and clears."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.server import Server, run, tool

pytestmark = pytest.mark.real

KEY = "kXv0Jq8b4y2o8n2zv1H0cF0l1m9e3r7tqk0Z6a5s4dE="
ATTACHED = "%PDF-1.4 not much of one"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("inbox"))
    for known_by_environment in ("domains", "hostname"):
        del running.settings[known_by_environment]
    running.settings["listeners"] = [
        {"protocol": "smtp", "address": "127.0.0.1:0"},
        {"protocol": "http", "address": "127.0.0.1:0"},
    ]
    running.environment = {
        "DOMAIN": "inbox.example",
        "API_KEY": KEY,
        # Nobody is there: it works all the same.
        "REDIS_ADDR": "127.0.0.1:1",
        "GIN_MODE": "release",
    }
    with running:
        yield running


def send(server: Server, to: str, *options: str) -> str:
    """The line of the documentation, with the host and the port of this server."""
    line = [
        tool("swaks"), "--to", to, "--from", "test@external.com", "--server", "127.0.0.1",
        "--port", str(server.ports["smtp"]), "--tls", *options,
    ]  # fmt: skip
    return run(*line).stdout.decode()


def ask(server: Server, path: str, *options: str, key: str = KEY) -> Any:
    url = f"http://127.0.0.1:{server.ports['http']}{path}"
    done = run(tool("curl"), "-sS", "-H", f"X-API-KEY: {key}", *options, url)
    return json.loads(done.stdout)


@pytest.mark.mission("ADG-32", "ADG-01", "ADG-02", "ADG-05", "ADG-06", "GEN-06")
def test_what_swaks_sends_curl_reads_and_clears(server: Server) -> None:
    assert ask(server, "/emails/user") == []
    before = int(time.time())
    said = send(
        server, "user@inbox.example", "--header", "Subject: Test Email",
        "--body", "Plain text content", "--attach-name", "file.pdf",
        "--attach-type", "application/pdf", "--attach", ATTACHED,
    )  # fmt: skip
    assert "<~  250 2.0.0 " in said
    (found,) = ask(server, "/emails/user")
    assert set(found) == {
        "id", "from", "to", "subject", "body_text", "body_html", "attachments", "received_at",
    }  # fmt: skip
    assert found["id"].isdigit()
    assert found["from"] == "test@external.com"
    assert found["to"] == "user@inbox.example"
    assert found["subject"] == "Test Email"
    assert found["body_text"].strip() == "Plain text content"
    assert found["body_html"] == ""
    assert found["attachments"] == ["file.pdf"]
    assert before <= found["received_at"] <= time.time()
    assert isinstance(found["received_at"], int)
    cleared = ask(server, "/emails/user", "-X", "DELETE")
    assert cleared == {"message": "All messages for user have been cleared"}
    assert ask(server, "/emails/user") == []


@pytest.mark.mission("ADG-24", "ADG-07", "ADG-29")
def test_an_inbox_survives_a_restart_and_opens_with_its_key_alone(server: Server) -> None:
    send(server, "admin@inbox.example", "--header", "Subject: to stay")
    server.restart()
    assert [each["subject"] for each in ask(server, "/emails/admin")] == ["to stay"]
    assert ask(server, "/emails/admin", key="another") == {"error": "invalid API key"}
    assert [line for line in server.log.splitlines() if "Redis" in line], "one warning names it"
