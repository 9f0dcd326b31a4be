from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from mailtwist.config.load import load
from mailtwist.errors import Conflict, MailError, StoreUnavailable
from mailtwist.http.exchange import Answer, Route, json_answer, text_answer
from mailtwist.mail.permissions import Viewer
from tests.http.asking import Server

APP = "https://app.example.com"


class Unauthorized(MailError):
    http_status = 401
    default_text = "Unauthorized"


class Identities:
    def __init__(self):
        self.asked = []

    async def viewer(self, token):
        self.asked.append(token)
        if token != "good":
            raise Unauthorized
        return Viewer(user_id=1, reference_id="r", email="a@x.org")


async def who(exchange):
    viewer = await exchange.identify()
    assert await exchange.identify() is viewer
    return json_answer(
        {
            "email": viewer.email,
            "client": exchange.client,
            "origin": exchange.origin,
            "method": exchange.method,
        }
    )


async def echo(exchange, name="", rest=""):
    return json_answer({"body": exchange.json(), "name": name, "rest": rest})


async def large(exchange):
    return text_answer("a" * 5000)


async def small(exchange):
    return text_answer("a" * 100)


async def bug(exchange):
    raise RuntimeError("private")


async def conflict(exchange):
    raise Conflict("There is one")


async def unavailable(exchange):
    raise StoreUnavailable(detail="private")


async def unwritten(exchange, name=""):
    return Answer(headers=(("X-\u00e9", "no header has such a name"),))


async def nothing(exchange):
    return Answer(204)


ROUTES = [
    Route("/who", ("GET", "POST"), who),
    Route("/echo/<name>", ("POST",), echo),
    Route("/deep/<path:rest>", ("POST",), echo),
    Route("/large", ("GET",), large),
    Route("/small", ("GET",), small),
    Route("/bug", ("GET",), bug),
    Route("/unwritten", ("GET",), unwritten),
    Route("/unwritten/<name>", ("GET",), unwritten),
    Route("/conflict", ("GET",), conflict),
    Route("/unavailable", ("GET",), unavailable),
    Route("/nothing", ("DELETE",), nothing),
]


class Values(dict):
    def get(self, name):  # type: ignore[override]
        return super().get(name, "")


@pytest.fixture
def values():
    return Values()


@pytest.fixture
def identities():
    return Identities()


@pytest.fixture
def server(values, identities):
    server = Server(values=values, identities=identities, routes=ROUTES)
    yield server
    assert server.site._front._at_once._counts == {}


# -- routes and errors ----------------------------------------------------------------------


def test_a_route_gets_its_names_decoded(server):
    assert server.answer("POST", "/echo/a%20b%C3%A9").json["name"] == "a bé"
    assert server.answer("POST", "/deep/a/b/c").json["rest"] == "a/b/c"


@pytest.mark.parametrize(
    ("path", "status"), [("/conflict", 409), ("/unavailable", 503), ("/bug", 500), ("/no", 404)]
)
def test_errors_are_json_and_say_nothing_private(server, monkeypatch, path, status):
    failures = []
    monkeypatch.setattr("mailtwist.http.front.log.failure", lambda *a: failures.append(a))
    answer = server.answer("GET", path)
    assert answer.status == status
    assert answer.json["success"] is False
    assert answer.json["errors"][0]["status"] == str(status)
    assert b"private" not in answer.body
    assert len(failures) == (status == 500)


@pytest.mark.parametrize("path", ["/unwritten", "/unwritten/a"])
def test_an_answer_that_cannot_be_written_is_an_error_and_not_silence(server, monkeypatch, path):
    monkeypatch.setattr("mailtwist.http.front.log.failure", lambda *_: None)
    assert server.answer("GET", path).status == 500


def test_errors_below_api_are_those_of_json_api(server):
    assert server.answer("GET", "/api/a/b/c/d/e").error["status"] == "404"
    assert server.answer("PUT", "/api/mail_server").status in {404, 405}


@pytest.mark.parametrize("path", ["/%ff", "/echo/%ff", "/\u00ff"])
def test_a_path_that_is_not_utf_8_is_refused(server, path):
    assert 400 <= server.answer("GET", path).status < 500


@pytest.mark.parametrize("host", ["a b", "a/b", "\u00e9", "x" * 300, "a:b", "[::1"])
def test_a_host_that_is_none_is_refused(server, host):
    assert server.answer("GET", "/ping", Host=host).status == 400


def test_an_answer_without_content_has_none(server):
    answer = server.answer("DELETE", "/nothing")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-type" not in answer.headers


def test_head_is_get_without_the_body(server):
    answer = server.answer("HEAD", "/large")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == "5000"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"a": 1}', "application/vnd.api+json", 200),
        (b'{"a": 1}', None, 200),
        (None, None, 200),
        (b'{"a": 1}', "text/xml", 415),
        (b"{", "application/json", 400),
        (b"a=1", "application/x-www-form-urlencoded", 400),
        (b"--x\r\n", "multipart/form-data; boundary=x", 415),
        (b"x", "multipart/form-data", 415),
        (b"[" * 100_000, "application/json", 400),
        (b"1" * 10_000, "application/json", 400),
        (b'"\\ud800"', "application/json", 400),
    ],
)
def test_bodies(server, body, content_type, status):
    answer = server.answer("POST", "/echo/a", body, Content_Type=content_type)
    assert answer.status == status, answer
    if status == 200:
        assert answer.json["body"] == ({"a": 1} if body else {})


def test_a_body_in_many_pieces_is_one(server):
    body = json.dumps({"a": "b" * 300_000}).encode()
    transport = server.connect()
    head = f"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    data = head + body
    for at in range(0, len(data), 10_000):
        transport.protocol.dataReceived(data[at : at + 10_000])
    assert b" 200 OK" in transport.value()
    assert len(transport.value()) > 300_000
    server.hang_up(transport)


def test_a_client_that_goes_away_is_no_error(server, monkeypatch):
    failures = []
    monkeypatch.setattr("mailtwist.http.front.log.failure", lambda *a: failures.append(a))
    server.health = Deferred(lambda d: None)
    transport = server.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    server.hang_up(transport)
    assert failures == []


# -- who asks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"Authorization": "Bearer good"},
        {"X_API_Key": "good"},
        {"Cookie": "a=b; token=good"},
        {"path": "/who?token=good"},
    ],
)
def test_a_token_says_who_asks(server, identities, given):
    path = given.pop("path", "/who")
    assert server.answer("GET", path, **given).json["email"] == "a@x.org"
    assert identities.asked == ["good"]


def test_without_a_token_a_guest_asks(server, identities):
    assert server.answer("GET", "/who").json["email"] == ""
    assert identities.asked == []


def test_a_bad_token_is_refused(server):
    answer = server.answer("GET", "/who", Authorization="Bearer bad")
    assert answer.status == 401


def test_a_route_for_everybody_never_looks_at_the_token(server, identities):
    assert server.answer("GET", "/ping", Authorization="Bearer bad").status == 200
    assert identities.asked == []


def test_a_page_of_another_site_cannot_use_the_cookie(server):
    answer = server.answer("GET", "/who", Cookie="token=good", Origin="https://evil.net")
    assert answer.json["email"] == ""
    own = server.answer("GET", "/who", Cookie="token=good", Origin="http://mail.example.com")
    assert own.json["email"] == "a@x.org"


# -- proxies --------------------------------------------------------------------------------


def test_forwarded_addresses_are_not_believed_from_anybody(server):
    answer = server.answer("GET", "/who", X_Forwarded_For="203.0.113.9")
    assert answer.json["client"] == "192.0.2.1"


def test_forwarded_addresses_are_believed_from_trusted_proxies(values, identities):
    settings = load(None, {}, {"http.trusted_proxies": ["192.0.2.0/24"]})
    server = Server(routes=ROUTES, settings=settings)
    found = server.answer(
        "GET",
        "/who",
        X_Forwarded_For="198.51.100.1, 203.0.113.9",
        X_Forwarded_Proto="https",
        X_Request_Id="abc",
    )
    assert found.json["client"] == "203.0.113.9"
    assert found.json["origin"] == "https://mail.example.com"
    assert found.headers["x-request-id"] == "abc"


# -- request ids and the log ----------------------------------------------------------------


def test_each_request_has_an_id_of_ours(server):
    ids = {server.answer("GET", "/ping", X_Request_Id="forged").headers["x-request-id"]}
    ids.add(server.answer("GET", "/no").headers["x-request-id"])
    assert len(ids) == 2
    assert "forged" not in ids


def test_each_request_is_one_line_of_the_log_without_its_token(server, monkeypatch):
    lines = []
    monkeypatch.setattr("mailtwist.http.front.log.info", lambda text, **f: lines.append((text, f)))
    answer = server.answer("GET", "/who?token=good")
    server.answer("GET", "/no")
    (text, fields), (_, other) = lines
    assert text == "http request"
    assert fields["session"] == answer.headers["x-request-id"]
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/who", 200)
    assert (fields["client"], fields["user"]) == ("192.0.2.1", "a@x.org")
    assert fields["octets"] == len(answer.body)
    assert "good" not in str(fields)
    assert other["status"] == 404


def test_what_the_code_logs_bears_the_id_of_the_request():
    from mailtwist.net.session_id import session_id

    seen = []

    async def see(exchange):
        seen.append((session_id.get(), exchange.request_id))
        return json_answer({})

    server = Server(routes=[Route("/see", ("GET",), see)])
    server.answer("GET", "/see")
    server.answer("GET", "/see")
    assert all(found == expected for found, expected in seen)
    assert len(set(seen)) == 2
    assert session_id.get() == ""


def test_statistics_count_answers(server):
    server.answer("GET", "/ping")
    server.answer("GET", "/no")
    found = server.answer("GET", "/statistics").json
    assert found["requests"] == {"total": 2, "by_status": {"200": 1, "404": 1}}


def test_the_root_names_where_to_begin(server):
    for path in server.answer("GET", "/").json["links"].values():
        assert path.startswith("/")


# -- CORS -----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-240")
def test_cors_is_closed_until_an_origin_is_allowed(server, values):
    closed = server.answer("GET", "/ping", Origin=APP)
    assert closed.status == 200
    assert "access-control-allow-origin" not in closed.headers
    preflight = {"Access_Control_Request_Method": "POST"}
    assert server.answer("OPTIONS", "/who", Origin=APP, **preflight).status == 403

    values["cors.config"] = json.dumps({"allowed_origins": [APP], "allow_credentials": True})
    opened = server.answer("GET", "/ping", Origin=APP)
    assert opened.headers["access-control-allow-origin"] == APP
    assert server.answer("GET", "/no", Origin=APP).headers["access-control-allow-origin"] == APP
    asked = server.answer("OPTIONS", "/who", Origin=APP, **preflight)
    assert (asked.status, asked.body) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == APP
    other = server.answer("OPTIONS", "/who", Origin="https://evil.net", **preflight)
    assert other.status == 403
    assert "access-control-allow-origin" not in other.headers
    other = server.answer("GET", "/ping", Origin="https://evil.net")
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "Origin"


def test_options_without_a_preflight_is_no_method_of_a_route(server):
    assert server.answer("OPTIONS", "/ping").status == 405


# -- limits ---------------------------------------------------------------------------------


@pytest.mark.mission("DAP-241")
def test_the_rate_of_a_path_is_limited_for_each_client(server, values):
    values["limit.rate"] = '{"/ping":2}'
    answers = [server.answer("GET", f"/ping?x={n}") for n in range(3)]
    assert [each.status for each in answers] == [200, 200, 429]
    last = answers[-1]
    assert last.json == {
        "errors": [
            {
                "status": "429",
                "title": "Rate limit exceeded",
                "detail": "Too many requests. Please retry after the current one-second window.",
            }
        ]
    }
    assert last.headers["retry-after"] == "1"
    assert last.headers["x-ratelimit-limit"] == "2"
    assert last.headers["x-ratelimit-remaining"] == "0"
    assert int(last.headers["x-ratelimit-reset"]) > 0
    assert [each.headers["x-ratelimit-remaining"] for each in answers[:2]] == ["1", "0"]
    assert server.answer("GET", "/ping", host="192.0.2.2").status == 200
    assert server.answer("GET", "/health").status == 200
    server.clock.advance(1)
    assert server.answer("GET", "/ping").status == 200


def test_requests_at_once_are_limited_for_each_client(server, values):
    values["limit.max_connections"] = "2"
    server.health = Deferred()
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    waiting = [server.ask(request) for _ in range(2)]
    refused = server.answer("GET", "/ping")
    assert refused.status == 429
    assert refused.error["title"] == "Too many connections"
    assert refused.headers["retry-after"] == "1"
    assert server.answer("GET", "/ping", host="192.0.2.2").status == 200
    server.hang_up(waiting[0])
    assert server.answer("GET", "/ping").status == 200
    server.hang_up(waiting[1])


# -- gzip -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "accept", "enabled", "is_packed"),
    [
        ("/large", "gzip", "", True),
        ("/large", "gzip", "true", True),
        ("/large", "gzip", "false", False),
        ("/large", "", "", False),
        ("/large", "gzip;q=0", "", False),
        ("/small", "gzip", "", False),
    ],
)
def test_a_long_answer_is_packed_for_who_takes_it(server, values, path, accept, enabled, is_packed):
    values["gzip.enable"] = enabled
    answer = server.answer("GET", path, Accept_Encoding=accept)
    assert ("content-encoding" in answer.headers) is is_packed
    assert answer.body == b"a" * (5000 if path == "/large" else 100)
    assert ("vary" in answer.headers) is (path == "/large" and enabled != "false")
    if is_packed:
        assert int(answer.headers["content-length"]) < 200


def test_an_answer_that_varies_in_two_ways_says_both(server, values):
    values["cors.config"] = json.dumps({"allowed_origins": [APP]})
    answer = server.answer("GET", "/large", Origin=APP, Accept_Encoding="gzip")
    assert answer.headers["vary"] == "Origin, Accept-Encoding"
