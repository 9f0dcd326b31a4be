"""The keys that open HTTPS, and settings that a key changes while sessions run."""

from __future__ import annotations

import json
import smtplib
import urllib.request

import pytest

from tests.e2e.relaying import until
from tests.e2e.server import trusting
from tests.support.ports import free_address
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

PLAIN = {"Content-Type": "text/plain"}


def put(admin: Rest, name: str, value: str) -> None:
    answer = admin.post(f"/_config/backend/{name}", value.encode(), headers=PLAIN)
    assert answer.status == 200, answer


def test_https_opens_and_closes_by_its_keys(make_server):
    server = make_server().start()
    admin = Rest(server.ports["http"]).become_administrator()
    address = free_address()

    def is_open() -> bool:
        rows = json.loads((server.data_dir / "listeners.json").read_text())
        return any(row["protocol"] == "https" and row["tls"] for row in rows)

    put(admin, "https.listen_interface", address)
    put(admin, "enable_https", "true")
    assert not is_open()
    assert admin.act("mail_server", "sync_mail_servers").status == 200
    assert is_open()
    with urllib.request.urlopen(f"https://{address}/ping", context=trusting(), timeout=20) as ping:
        assert ping.read() == b"pong"
    put(admin, "enable_https", "false")
    assert admin.act("world", "restart_daptin").status == 200
    until(lambda: not is_open())


def test_a_new_host_name_greets_the_next_client_and_stays(make_server):
    server = make_server()
    del server.settings["hostname"]
    server.start()
    admin = Rest(server.ports["http"]).become_administrator()

    def greeting() -> str:
        with smtplib.SMTP(timeout=20) as smtp:
            return smtp.connect("127.0.0.1", server.ports["smtp"])[1].decode().split()[0]

    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=20) as before:
        before.ehlo()
        put(admin, "hostname", "mx.renamed.example")
        assert greeting() == "mx.renamed.example"
        assert before.noop()[0] == 250
    server.restart()
    assert greeting() == "mx.renamed.example"
