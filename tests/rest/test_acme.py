"""Certificates of a real authority, ordered, served and renewed by a running server."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import text

from mailtwist.store import acme
from mailtwist.store.engine import open_engine
from mailtwist.store.ids import now_us
from mailtwist.tls import pem
from tests.e2e.relaying import until
from tests.e2e.server import Server, run, tool
from tests.support.dumps import dump
from tests.support.pebble import Pebble, running
from tests.support.rest import Rest, outcomes

pytestmark = [pytest.mark.real, pytest.mark.slow]

EMAIL = "admin@example.com"
ORDER = "generate_acme_certificate"


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with running(tmp_path_factory.mktemp("pebble"), reject=25) as found:
        yield found


def listeners(pebble: Pebble) -> list[dict[str, str]]:
    """The usual ones, that of HTTP where the authority looks for answers."""
    names = ["smtp", "submissions", "imaps"]
    usual = [{"protocol": each, "address": "127.0.0.1:0"} for each in names]
    return [*usual, {"protocol": "http", "address": f"127.0.0.1:{pebble.http_port}"}]


@pytest.fixture(scope="module")
def acme_server(
    module_url: str, pebble: Pebble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    settings: dict[str, Any] = {"acme": pebble.settings, "listeners": listeners(pebble)}
    if module_url:
        settings["database_url"] = module_url
    with Server(tmp_path_factory.mktemp("acme"), **settings) as found:
        yield found
    faults = [each for each in found.events if "unhandled" in str(each).lower()]
    assert faults == []
    found.check()


@pytest.fixture(scope="module")
def admin(acme_server: Server) -> Rest:
    return Rest(acme_server.ports["http"]).become_administrator()


def order(rest: Rest, row: str, email: str = EMAIL) -> Any:
    return rest.act("certificate", ORDER, {"attributes": {"email": email}, "certificate_id": row})


def attributes(rest: Rest, row: str) -> dict[str, Any]:
    found: dict[str, Any] = rest.row("certificate", row)["attributes"]
    return found


def served(port: int, name: str) -> pem.Bundle:
    """What a client that asks for a name is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        octets = secure.getpeercert(True)
    assert octets is not None
    return pem.Bundle((x509.load_der_x509_certificate(octets),))


def refused(answer: Any) -> str:
    ((kind, told),) = outcomes(answer)
    assert (kind, told["title"], told["type"]) == ("client.notify", "failed", "error")
    return str(told["message"])


@pytest.mark.mission("DAP-195", "DAP-197", "DAP-198")
def test_a_certificate_is_ordered_stored_whole_and_served_at_once(
    acme_server: Server, admin: Rest, pebble: Pebble, tmp_path: Path
) -> None:
    before = pebble.new_accounts
    row = admin.make("certificate", {"hostname": "mail.acme.example, imap.acme.example"})["id"]
    answer = order(admin, row, "somebody@elsewhere.example")
    assert (answer.status, answer.json) == (200, [])
    found = attributes(admin, row)
    assert found["issuer"] == "acme"
    assert found["last_error"] == ""
    assert found["names"].split() == ["mail.acme.example", "imap.acme.example"]
    assert found["certificate_pem"].count("BEGIN CERTIFICATE") == 1
    assert found["root_certificate"].count("BEGIN CERTIFICATE") == 1
    assert "private_key_pem" not in found
    serial = found["serial_number"]
    root = tmp_path / "root.pem"
    root.write_text(pebble.root())
    for name in ("mail.acme.example", "imap.acme.example"):
        for protocol in ("submissions", "imaps"):
            port = acme_server.ports[protocol]
            assert served(port, name).serial == serial
            # The whole chain is there: a client that trusts the root alone is content.
            context = ssl.create_default_context(cafile=str(root))
            with socket.create_connection(("127.0.0.1", port), 30) as plain:
                context.wrap_socket(plain, server_hostname=name).close()
    assert order(admin, row).status == 200
    assert attributes(admin, row)["serial_number"] != serial
    assert pebble.new_accounts == before + 1


def test_openssl_sees_the_whole_chain(acme_server: Server, admin: Rest) -> None:
    row = admin.make("certificate", {"hostname": "chain.acme.example"})["id"]
    assert order(admin, row).status == 200
    said = run(
        *(tool("openssl"), "s_client", "-showcerts", "-servername", "chain.acme.example"),
        *("-connect", f"127.0.0.1:{acme_server.ports['imaps']}"),
        input=b"a LOGOUT\r\n",
    ).stdout
    assert said.count(b"BEGIN CERTIFICATE") == 2
    assert b"CN = chain.acme.example" in said or b"chain.acme.example" in said


@pytest.mark.mission("DAP-198")
def test_an_order_needs_an_address_until_there_is_an_account(admin: Rest) -> None:
    row = admin.make("certificate", {"hostname": "nobody.acme.example"})["id"]
    answer = order(admin, row, "nobody")
    assert (answer.status, refused(answer)) == (400, "invalid email")
    # There is an account by now, and the authority knows whom to write to.
    assert order(admin, row).status == 200
    assert order(admin, row, "").status == 200


@pytest.mark.mission("DAP-196", "DAP-198")
def test_a_first_order_needs_an_address_and_an_authority_that_is_trusted(
    pebble: Pebble, make_server: Callable[..., Server]
) -> None:
    server = make_server(acme={"directory_url": pebble.directory_url}).start()
    admin = Rest(server.ports["http"]).become_administrator()
    row = admin.make("certificate", {"hostname": "first.acme.example"})["id"]
    before = pebble.log
    answer = admin.act("certificate", ORDER, {"certificate_id": row})
    assert (answer.status, refused(answer)) == (400, "email or mobile missing")
    answer = order(admin, row)
    assert answer.status == 502
    assert "own certificate does not hold" in refused(answer)
    assert pebble.directory_url in refused(answer)
    assert attributes(admin, row)["certificate_pem"] == ""
    # It was told no secret: the handshake ended before anything was said.
    assert pebble.log.replace(before, "").count("calling handler") == 0


def test_whoever_may_not_change_the_row_orders_nothing(
    acme_server: Server, admin: Rest, pebble: Pebble
) -> None:
    row = admin.make("certificate", {"hostname": "private.acme.example"})["id"]
    before = pebble.log.count("POST /order-plz")
    assert order(admin.guest, row).status in {401, 403}
    assert order(admin.user(), row).status == 403
    assert order(admin, "no-such-row").status == 404
    assert admin.act("certificate", ORDER, {"attributes": {"email": EMAIL}}).status == 400
    assert pebble.log.count("POST /order-plz") == before


def test_a_failed_challenge_is_told_and_the_old_certificate_stays(
    acme_server: Server, admin: Rest, pebble: Pebble
) -> None:
    row = admin.make("certificate", {"hostname": "moved.acme.example"})["id"]
    assert order(admin, row).status == 200
    pebble.tell("add-a", host="moved.acme.example", addresses=["127.0.0.77"])
    # Once in some hundred runs the authority still found us where we had been.
    for _ in range(3):
        before = attributes(admin, row)
        answer = order(admin, row)
        if answer.status != 200:
            break
    assert answer.status == 502
    assert "moved.acme.example: http-01: connection" in refused(answer)
    after = attributes(admin, row)
    assert "http-01: connection" in after["last_error"]
    same = ("issuer", "certificate_pem", "root_certificate", "serial_number", "generated_at")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    found = served(acme_server.ports["imaps"], "moved.acme.example")
    assert found.serial == before["serial_number"]
    pebble.tell("clear-a", host="moved.acme.example")
    assert order(admin, row).status == 200
    assert attributes(admin, row)["last_error"] == ""


@pytest.mark.mission("DAP-202")
def test_a_dump_of_the_database_holds_no_key(acme_server: Server, admin: Rest) -> None:
    row = admin.make("certificate", {"hostname": "dumped.acme.example"})["id"]
    assert order(admin, row).status == 200
    engine = open_engine(acme_server.url)
    try:
        said = str(dump(engine))
    finally:
        engine.dispose()
    assert "BEGIN CERTIFICATE" in said
    assert "PRIVATE KEY" not in said
    assert "PRIVATE KEY" not in acme_server.log


def test_a_certificate_that_a_person_puts_there_is_not_renewed_by_what_was_known(
    admin: Rest,
) -> None:
    row = admin.make("certificate", {"hostname": "replaced.acme.example"})["id"]
    assert order(admin, row).status == 200
    assert attributes(admin, row)["renew_at"]
    generate = {"attributes": {"certificate_id": row}}
    assert admin.act("certificate", "generate_self_certificate", generate).status == 200
    found = attributes(admin, row)
    assert (found["issuer"], found["renew_at"]) == ("self", None)


@pytest.mark.mission("DAP-195")
@pytest.mark.parametrize("protocol", ["http", "http-redirect"])
def test_every_listener_answers_the_authority_as_text(
    protocol: str, make_server: Callable[..., Server]
) -> None:
    server = make_server(listeners=[{"protocol": protocol, "address": "127.0.0.1:0"}]).start()
    until_us = now_us() + 60_000_000
    engine = open_engine(server.url)
    try:
        with engine.write() as connection:
            acme.put_challenges(
                connection, [("token-1", "token-1.thumb")], now=now_us(), until=until_us
            )
            acme.put_challenges(connection, [("old", "old.thumb")], now=now_us(), until=now_us())
    finally:
        engine.dispose()
    rest = Rest(server.ports[protocol])
    answer = rest.get("/.well-known/acme-challenge/token-1")
    assert (answer.status, answer.body) == (200, b"token-1.thumb")
    assert answer.headers["Content-Type"].startswith("text/plain")
    for unknown in ("old", "token-2", "..%2Ftoken-1", "x" * 300):
        assert rest.get(f"/.well-known/acme-challenge/{unknown}").status == 404


@pytest.mark.mission("DAP-199")
def test_a_certificate_that_ends_soon_is_renewed_at_the_start_and_served(
    fresh_url: dict[str, str], make_server: Callable[..., Server], tmp_path: Path
) -> None:
    with running(tmp_path / "authority", life_s=20 * 86400) as pebble:
        server = make_server(acme=pebble.settings, listeners=listeners(pebble), **fresh_url)
        admin = Rest(server.start().ports["http"]).become_administrator()
        row = admin.make("certificate", {"hostname": "short.acme.example"})["id"]
        assert order(admin, row).status == 200
        first = attributes(admin, row)["serial_number"]
        # What it did alone it can't give back.
        server.kill()
        admin.port = server.start().ports["http"]
        until(lambda: attributes(admin, row)["serial_number"] != first)
        second = attributes(admin, row)["serial_number"]
        until(lambda: served(server.ports["imaps"], "short.acme.example").serial == second)
        assert pebble.new_accounts == 1
        # What is this young is not renewed again, whatever is left of it.
        server.restart()
        admin.port = server.ports["http"]
        until(lambda: next_look(server) > now_us())
        assert attributes(admin, row)["serial_number"] == second


def next_look(server: Server) -> int:
    engine = open_engine(server.url)
    try:
        with engine.read() as connection:
            found: int = connection.execute(text("SELECT ask_at FROM certificate")).scalar_one()
        return found
    finally:
        engine.dispose()


def test_the_command_line_orders_and_the_server_answers(acme_server: Server) -> None:
    program = str(Path(sys.executable).with_name("mailtwist"))
    serials = []
    # The first makes the row.
    for command in (("order", "--email", "admin@example.com"), ("renew",)):
        said = run(
            *(program, "--config", str(acme_server.config)),
            *("cert", *command, "command.acme.example", "--json"),
        ).stdout
        told = json.loads(said)
        assert told["chain_length"] == 2
        serials.append(told["serial_number"])
    first, second = serials
    assert second != first
    until(lambda: served(acme_server.ports["imaps"], "command.acme.example").serial == second)


def test_any_node_answers_for_an_order_of_another(
    pebble: Pebble,
    acme_server: Server,
    admin: Rest,
    make_server: Callable[..., Server],
) -> None:
    # It has no listener where the authority looks; the server of the file has one.
    other = make_server(acme=pebble.settings, database_url=acme_server.url)
    other.data_dir.mkdir(parents=True)
    key = other.data_dir / "secret.key"
    key.write_bytes((acme_server.data_dir / "secret.key").read_bytes())
    key.chmod(0o600)
    other.start()
    there = Rest(other.ports["http"], admin.token)
    row = there.make("certificate", {"hostname": "nodes.acme.example"})["id"]
    assert order(there, row).status == 200
    serial = attributes(there, row)["serial_number"]
    until(lambda: served(acme_server.ports["imaps"], "nodes.acme.example").serial == serial)


def test_an_order_goes_on_without_who_asked_and_ends_with_the_server(
    pebble: Pebble, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\necho "$1 $$" >> "$0.calls"\n[ "$1" = remove ] || exec sleep 600\n')
    hook.chmod(0o700)
    calls = tmp_path / "hook.calls"
    settings = {**pebble.settings, "challenge": "dns-01", "dns_hook": [str(hook)]}
    server = make_server(acme=settings).start()
    admin = Rest(server.ports["http"]).become_administrator()
    row = admin.make("certificate", {"hostname": "slow.acme.example"})["id"]
    body = json.dumps({"attributes": {"email": EMAIL}, "certificate_id": row})
    with socket.create_connection(("127.0.0.1", server.ports["http"]), 30) as asking:
        head = f"POST /action/certificate/{ORDER} HTTP/1.1\r\nHost: x\r\n"
        head += f"Authorization: Bearer {admin.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        asking.sendall((head + body).encode())
        until(calls.exists)
    answer = order(admin, row)
    assert answer.status == 409
    assert "An order for slow.acme.example is under way" in refused(answer)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15
    until(lambda: "remove" in calls.read_text())
    pid = int(calls.read_text().split()[1])
    assert not Path(f"/proc/{pid}").exists()
