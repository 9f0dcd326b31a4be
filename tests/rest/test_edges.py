"""What surrounds every request: origins, rates, compression, proxies, sizes, other starts."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.e2e.server import Server
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

PLAIN = {"Content-Type": "text/plain"}
OURS, OTHERS = "https://desk.example", "https://evil.example"
CORS = {
    "version": 1,
    "allowed_origins": [OURS],
    "allowed_methods": ["GET", "POST", "PATCH", "DELETE"],
    "allowed_headers": ["Authorization", "Content-Type"],
    "exposed_headers": ["Location"],
    "allow_credentials": True,
    "max_age": 600,
}


def preflight(rest: Rest, origin: str, path: str = "/api/mail_server"):
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return rest.ask("OPTIONS", path, headers=headers)


@pytest.mark.mission("DAP-240")
def test_origins_are_listed(admin):
    nobody = admin.guest
    for path in ("/ping", "/api/mail_server", "/action/user_account/signin"):
        answer = nobody.get(path, headers={"Origin": OURS})
        assert answer.headers["Access-Control-Allow-Origin"] is None
        assert preflight(nobody, OURS, path).headers["Access-Control-Allow-Origin"] is None
    key = "/_config/backend/cors.config"
    assert admin.post(key, json.dumps(CORS).encode(), headers=PLAIN).status == 200
    try:
        answer = preflight(nobody, OURS)
        assert answer.status == 204
        shown = answer.headers
        assert shown["Access-Control-Allow-Origin"] == OURS
        assert shown["Access-Control-Allow-Credentials"] == "true"
        assert shown["Access-Control-Max-Age"] == "600"
        assert "PATCH" in shown["Access-Control-Allow-Methods"]
        assert "authorization" in shown["Access-Control-Allow-Headers"].lower()
        assert "origin" in shown["Vary"].lower()
        refused = preflight(nobody, OTHERS)
        assert refused.status == 403
        assert refused.headers["Access-Control-Allow-Origin"] is None
        for path in ("/ping", "/api/mail_server", "/api/nope"):
            answer = admin.get(path, headers={"Origin": OURS})
            assert answer.headers["Access-Control-Allow-Origin"] == OURS, path
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]
            other = admin.get(path, headers={"Origin": OTHERS})
            assert other.headers["Access-Control-Allow-Origin"] is None, path
        for odd in ("null", OURS + ".evil.example", OURS.upper() + "x", "http://desk.example"):
            assert preflight(nobody, odd).status == 403, odd
    finally:
        assert admin.delete(key).status == 200
    assert nobody.get("/ping", headers={"Origin": OURS}).headers["Vary"] != OURS
    assert preflight(nobody, OURS).headers["Access-Control-Allow-Origin"] is None


@pytest.mark.mission("DAP-241")
def test_a_rate_of_requests(admin):
    key = "/_config/backend/limit.rate"
    assert admin.post(key, b'{"/ping": 2}', headers=PLAIN).status == 200
    try:
        # The clock may turn once between them.
        answers = [admin.get("/ping") for _ in range(6)]
        assert sum(each.status == 200 for each in answers) <= 4
        refused = next(each for each in answers if each.status == 429)
        assert refused.json == {
            "errors": [
                {
                    "status": "429",
                    "title": "Rate limit exceeded",
                    "detail": "Too many requests. Please retry after the current one-second "
                    "window.",
                }
            ]
        }
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["X-RateLimit-Limit"] == "2"
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert refused.headers["X-RateLimit-Reset"]
        assert admin.get("/api/mail_server").status == 200
    finally:
        assert admin.delete(key).status == 200
    assert {admin.get("/ping").status for _ in range(10)} == {200}


def test_a_forwarded_address_is_believed_from_trusted_proxies_alone(admin, server):
    key = "/_config/backend/limit.rate"
    assert admin.post(key, b'{"/ping": 2}', headers=PLAIN).status == 200
    try:
        seen = [
            admin.get("/ping", headers={"X-Forwarded-For": f"192.0.2.{n}"}).status for n in range(8)
        ]
        assert 429 in seen
    finally:
        assert admin.delete(key).status == 200


def test_answers_are_compressed_for_those_who_ask(admin):
    for n in range(20):
        admin.make("mail_server", {"hostname": f"zip{n}.example.com"})
    plain = admin.get("/api/mail_server", {"page[size]": 50})
    packed = admin.get("/api/mail_server", {"page[size]": 50}, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.body) / 2
    assert packed.data == plain.data
    assert plain.headers["Content-Encoding"] is None


def test_each_request_has_an_id_and_a_line_in_the_log(admin, server):
    answer = admin.get("/ping", {"token": admin.token})
    id = answer.headers["X-Request-ID"]
    assert id
    assert id != admin.get("/ping").headers["X-Request-ID"]
    deadline = time.monotonic() + 10
    while not (lines := [each for each in server.events if id in each.values()]):
        assert time.monotonic() < deadline, "not logged"
        time.sleep(0.05)
    (line,) = lines
    assert line["status"] == 200
    assert line["path"] == "/ping"
    # No token ever gets into the log.
    assert admin.token not in server.log
    odd = admin.get("/ping", headers={"X-Request-ID": "a\tb" * 100})
    assert "\t" not in odd.headers["X-Request-ID"]


def test_bodies_are_bounded_and_slow_clients_do_not_matter(admin, server):
    big = admin.ask("POST", "/api/credential", None, headers={"Content-Length": str(1 << 30)})
    assert big.status == 413
    slow = socket.create_connection(("127.0.0.1", server.ports["http"]))
    slow.sendall(b"POST /api/mail_server HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert admin.get("/ping").status == 200
    slow.close()


@pytest.mark.mission("DAP-242")
def test_a_start_by_the_variables_of_daptin(tmp_path, postgresql_url):
    for name, variables in {
        "sqlite": {
            "DAPTIN_DB_TYPE": "sqlite3",
            "DAPTIN_DB_CONNECTION_STRING": str(tmp_path / "daptin.db"),
        },
        "postgres": {
            "DAPTIN_DB_TYPE": "postgres",
            "DAPTIN_DB_CONNECTION_STRING": postgresql_url.replace("+psycopg", ""),
        },
    }.items():
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = Server(tmp_path / name, listeners=[{"protocol": "smtp", "address": "127.0.0.1:0"}])
        server.environment = {"DAPTIN_PORT": f"127.0.0.1:{port}", **variables}
        with server:
            rest = Rest(port)
            assert rest.get("/ping").text == "pong"
            rest.become_administrator()
        assert name != "sqlite" or (tmp_path / "daptin.db").exists()
