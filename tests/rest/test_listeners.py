"""``/listeners`` and ``mailtwist listeners`` beside a running server."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from tests.e2e.relaying import until
from tests.e2e.server import Server, trusting
from tests.rest.test_listener_rows import answers, names
from tests.support.ports import free_address
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]


@pytest.fixture
def make_row(admin):
    """Makes an enabled row; the rows go with the test."""
    made: list[str] = []

    def make(hostname: str, address: str, **more) -> str:
        given = {"hostname": hostname, "is_enabled": True, "listen_interface": address}
        made.append(admin.make("mail_server", {**given, "always_on_tls": False, **more})["id"])
        return made[-1]

    yield make
    for id in made:
        if id in admin.rows("mail_server").ids:
            admin.remove("mail_server", id)
    assert apply(admin).status == 200


def apply(who: Rest):
    return who.post("/listeners/apply", {})


def report(answer) -> dict[str, str]:
    return {each["name"]: each["action"] for each in answer.json["report"]}


def cli(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
    command = [str(Path(sys.executable).with_name("mailtwist")), "--config", str(server.config)]
    return subprocess.run(
        [*command, "listeners", *arguments],
        cwd=server.folder,
        env=clean,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_plan_an_order_and_its_report(server, admin, make_row):
    address, other = free_address(), free_address()
    id = make_row("mx.plan.example", address)
    steps = {each["name"]: each for each in admin.get("/listeners/plan").json["steps"]}
    assert steps["mx.plan.example"] == {
        "action": "open",
        "name": "mx.plan.example",
        "source": f"row/{id}",
        "protocol": "smtp",
        "address": address,
        "changed": [],
        "reason": "",
    }
    assert not answers(address)
    answer = apply(admin)
    assert answer.status == 200
    assert report(answer)["mx.plan.example"] == "opened"
    assert set(report(answer).values()) == {"opened", "kept"}
    assert answers(address)
    admin.change("mail_server", id, max_clients=7, listen_interface=other)
    answer = apply(admin)
    (changed,) = [each for each in answer.json["report"] if each["action"] == "changed"]
    assert sorted(changed["changed"]) == ["address", "max_clients"]
    admin.change("mail_server", id, is_enabled=False)
    assert report(apply(admin))["mx.plan.example"] == "closed"
    assert set(report(apply(admin)).values()) == {"kept"}


def test_the_list_tells_of_every_listener(server, admin, make_row):
    address = free_address()
    id = make_row("mx.list.example", address)
    apply(admin)
    found = admin.get("/listeners").json
    (node,) = found["nodes"]
    assert node["generation"] == found["generation"]
    assert node["error"] == ""
    (row,) = [each for each in found["listeners"] if each["name"] == "mx.list.example"]
    assert row["source"] == f"row/{id}"
    assert f"{row['address']}:{row['port']}" == address
    assert (row["state"], row["protocol"], row["error"]) == ("listening", "smtp", "")
    ports = {each["port"] for each in found["listeners"]}
    assert set(server.ports.values()) <= ports


@pytest.mark.mission("DAP-085", "DAP-086")
def test_a_refused_order_names_names_and_addresses(server, admin, make_row):
    before = names(server)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        make_row("mx.busy.example", busy)
        make_row("mx.good.example", free_address())
        answer = apply(admin)
        assert answer.status == 409
        failed = {each["name"]: each for each in answer.json["report"]}
        assert failed["mx.busy.example"]["action"] == "failed"
        assert busy in failed["mx.busy.example"]["reason"]
        assert failed["mx.good.example"]["action"] == "failed"
        assert "mx.busy.example" in answer.error
        assert busy in answer.error
        assert names(server) == before
        (node,) = admin.get("/listeners").json["nodes"]
        assert busy in node["error"]
    apply(admin)
    (node,) = admin.get("/listeners").json["nodes"]
    assert node["error"] == ""


@pytest.mark.mission("DAP-085")
def test_two_rows_on_one_address_are_both_named(server, admin, make_row):
    before = names(server)
    address = free_address()
    make_row("mx.one.example", address)
    id = make_row("mx.two.example", address)
    (conflict,) = admin.get("/listeners/plan").json["conflicts"]
    answer = apply(admin)
    assert answer.status == 409
    for name in ("mx.one.example", "mx.two.example"):
        assert report(answer)[name] == "failed"
    for name in ("mx.one.example", "mx.two.example", address):
        assert name in conflict
    done = cli(server, "apply")
    assert done.returncode == 1
    assert "mx.one.example" in done.stderr
    assert cli(server, "plan").returncode == 1
    assert names(server) == before
    admin.remove("mail_server", id)


@pytest.mark.parametrize(
    "address", ["192.0.2.1:2525", "no-such-host.invalid:2525"], ids=["not-ours", "no-host"]
)
def test_a_bad_address_is_named(server, admin, make_row, address):
    before = names(server)
    make_row("mx.bad.example", address)
    answer = apply(admin)
    assert answer.status == 409
    assert "mx.bad.example" in answer.error
    assert address.partition(":")[0] in answer.error
    assert names(server) == before


def test_listeners_are_for_administrators(nobody, admin):
    for who in (nobody, admin.user()):
        assert who.get("/listeners").status == 403
        assert who.get("/listeners/plan").status == 403
        assert apply(who).status == 403


def test_the_description_has_the_routes(nobody):
    paths = nobody.get("/openapi.json").json["paths"]
    assert set(paths["/listeners"]) == {"get"}
    assert set(paths["/listeners/plan"]) == {"get"}
    assert {"200", "409"} <= set(paths["/listeners/apply"]["post"]["responses"])


def test_the_command_lists_plans_and_applies(server, admin, make_row):
    address = free_address()
    make_row("mx.command.example", address)
    planned = json.loads(cli(server, "plan", "--json").stdout)
    (plan,) = planned["plans"]
    actions = {each["name"]: each["action"] for each in plan["steps"]}
    assert actions.pop("mx.command.example") == "open"
    assert set(actions.values()) == {"keep"}
    assert plan["conflicts"] == []
    assert "mx.command.example" in cli(server, "plan").stdout
    done = cli(server, "apply", "--json")
    assert done.returncode == 0, done.stderr
    applied = json.loads(done.stdout)
    assert applied["late"] == []
    assert applied["generation"] == applied["ordered"]
    assert answers(address)
    listed = json.loads(cli(server, "list", "--json").stdout)
    assert listed["listeners"] == admin.get("/listeners").json["listeners"]
    assert address in cli(server, "list").stdout


def test_the_command_prints_why_a_node_could_not(server, admin, make_row):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        make_row("mx.busy.example", busy)
        done = cli(server, "apply")
        assert done.returncode == 1
        assert busy in done.stderr
        assert "mx.busy.example" in done.stderr
        assert busy in cli(server, "list").stderr
    assert cli(server, "apply").returncode == 0
    assert answers(busy)


def test_the_command_needs_no_http_and_no_server(make_fresh):
    server = make_fresh(listeners=[{"protocol": "smtp", "address": "127.0.0.1:0"}])
    server.start()
    assert cli(server, "apply").returncode == 0
    (row,) = json.loads(cli(server, "list", "--json").stdout)["listeners"]
    assert row["port"] == server.ports["smtp"]
    server.stop()
    assert "no server is running" in cli(server, "list").stdout
    assert json.loads(cli(server, "list", "--json").stdout)["nodes"] == []
    done = cli(server, "plan", "--json")
    assert done.returncode == 0
    ((step,),) = [each["steps"] for each in json.loads(done.stdout)["plans"]]
    assert (step["action"], step["protocol"]) == ("open", "smtp")
    done = cli(server, "apply")
    assert done.returncode == 1
    assert "no server is running" in done.stderr


def test_a_killed_server_is_no_running_one(make_server):
    server = make_server().start()
    server.kill()
    assert "no server is running" in cli(server, "list").stdout


# -- keys -----------------------------------------------------------------------------------


PLAIN = {"Content-Type": "text/plain"}


@pytest.fixture
def key(admin):
    """Sets `_config` keys; they go with the test."""
    given: list[str] = []

    def put(name: str, value: str) -> None:
        answer = admin.post(f"/_config/backend/{name}", value.encode(), headers=PLAIN)
        assert answer.status == 200, answer
        given.append(name)

    yield put
    for name in given:
        admin.delete(f"/_config/backend/{name}")
    assert apply(admin).status == 200


@pytest.mark.mission("DAP-217")
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_imap_begins_with_tls_on_any_port_when_the_key_says_so(server, admin, key, tls):
    address = free_address()
    for name, value in (
        ("imap.enabled", "true"),
        ("imap.listen_interface", address),
        ("imap.tls", tls),
    ):
        key(name, value)
    assert apply(admin).status == 200
    steps = {each["source"]: each for each in admin.get("/listeners/plan").json["steps"]}
    assert steps["config/imap"]["protocol"] == {"implicit": "imaps", "starttls": "imap"}[tls]
    host, _, number = address.rpartition(":")
    with socket.create_connection((host, int(number)), timeout=30) as plain:
        if tls == "starttls":
            assert plain.recv(4) == b"* OK"
        else:
            with trusting().wrap_socket(plain) as wrapped:
                assert wrapped.recv(4) == b"* OK"
    # The other way, in place.
    key("imap.tls", "auto" if tls == "implicit" else "implicit")
    (changed,) = [each for each in apply(admin).json["report"] if each["action"] == "changed"]
    assert changed["changed"] == ["protocol"]
    assert answers(address)


def test_a_key_takes_only_what_it_knows(admin):
    answer = admin.post("/_config/backend/imap.tls", b"sometimes", headers=PLAIN)
    assert answer.status == 400
    assert "imap.tls" in answer.error


@pytest.mark.mission("DAP-215", "DAP-216")
@pytest.mark.parametrize("given", ["", "imaps.keys.example"], ids=["default", "given"])
def test_imap_by_three_keys_and_a_restart(server, admin, key, given):
    address = free_address()
    key("imps.enabled", "true")
    key("imap.listen_interface", address)
    key("imap.tls", "implicit")
    if given:
        key("imap.hostname", given)
    answer = admin.act("world", "restart_daptin", {"attributes": {}})
    assert answer.status == 200
    until(lambda: address in names(server).values())
    host, _, number = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(number)))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    wanted = given or "imap.mx.example.com"
    assert wanted in found.value.get_values_for_type(x509.DNSName)
