from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from mailtwist.errors import StoreUnavailable
from mailtwist.http import service
from tests.http.asking import Health, Server
from tests.support.now import now


@pytest.fixture
def server():
    server = Server()
    yield server
    server.site.doStop()
    assert not server.clock.getDelayedCalls() or server.site._channels


def get(server, path, method="GET", headers=""):
    transport = server.ask(
        f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n".encode()
    )
    head, _, body = transport.value().partition(b"\r\n\r\n")
    server.hang_up(transport)
    return int(head.split()[1]), head.lower(), body


def test_ping_answers_pong(server):
    status, head, body = get(server, "/ping")
    assert (status, body) == (200, b"pong")
    assert b"content-type: text/plain" in head


def test_health_is_good_while_the_store_takes_mail(server):
    status, head, body = get(server, "/health")
    assert status == 200
    assert json.loads(body) == {"success": True, "message": "Mail API service is running"}
    assert b"content-type: application/json" in head


def test_health_is_bad_when_the_store_takes_none(server):
    server.health = Health(is_good=False, detail="Store: Insufficient system storage")
    status, _, body = get(server, "/health")
    assert status == 503
    assert json.loads(body) == {"success": False, "message": "Store: Insufficient system storage"}


@pytest.mark.mission("ADG-26")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/here", 404),
        ("GET", "/ping/", 404),
        ("GET", "/%2e%2e/etc/passwd", 404),
        ("POST", "/ping", 405),
        ("DELETE", "/health", 405),
    ],
)
def test_other_routes_are_refused_in_json(server, method, path, status):
    got, head, body = get(server, path, method)
    assert got == status
    assert json.loads(body)["success"] is False
    assert (b"\r\nallow:" in head) is (status == 405)


def test_an_error_of_ours_becomes_its_status_and_a_bug_500(server, monkeypatch):
    failures = []
    monkeypatch.setattr("mailtwist.http.front.log.failure", lambda *a: failures.append(a))
    server.health = StoreUnavailable(detail="secret path")
    status, _, body = get(server, "/health")
    assert status == 503
    assert b"secret" not in body
    server.health = RuntimeError("boom")
    status, _, body = get(server, "/health")
    assert status == 500
    assert b"boom" not in body
    assert len(failures) == 1


@pytest.mark.parametrize("path", ["/ping", "/health", "/nothing"])
def test_no_answer_names_the_software(server, path):
    _, head, _ = get(server, path)
    assert b"\r\nserver:" not in head
    assert b"twisted" not in head


def test_requests_in_one_segment_are_answered_in_order(server):
    transport = server.ask(
        b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    codes = [
        line.split()[1]
        for line in transport.value().split(b"\r\n")
        if line.startswith((b"HTTP/1.1", b"pongHTTP")) or b"}HTTP/1.1" in line
    ]
    assert codes[0] == b"200"
    assert transport.value().count(b"pong") == 2
    assert transport.value().count(b" 404 ") == 1
    server.hang_up(transport)


# -- bounds ---------------------------------------------------------------------------------


def test_a_header_that_drips_is_cut_off_after_a_total_time(server):
    transport = server.connect()
    for octet in b"GET /ping HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaa":
        if transport.disconnecting:
            break
        transport.protocol.dataReceived(bytes([octet]))
        server.clock.advance(1)
    assert server.clock.seconds() == service.HEADER_S
    assert transport.value().startswith(b"HTTP/1.1 408 ")
    server.hang_up(transport)


def test_a_body_that_drips_is_cut_off_too(server):
    transport = server.ask(b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        if transport.disconnecting:
            break
        transport.protocol.dataReceived(b"x")
        server.clock.advance(1)
    assert server.clock.seconds() == service.BODY_S
    assert transport.value().startswith(b"HTTP/1.1 408 ")
    server.hang_up(transport)


def test_a_silent_connection_is_closed(server):
    transport = server.connect()
    server.clock.pump([10] * 7)
    assert transport.disconnecting
    server.hang_up(transport)


def test_a_slow_answer_is_no_fault_of_the_client(server):
    server.health = Deferred()
    transport = server.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    server.clock.pump([10] * 20)
    assert not transport.disconnecting
    server.health.callback(Health())
    assert b" 200 " in transport.value()
    server.hang_up(transport)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n" + b"x" * 100,
        b"POST /ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"10000\r\n%s\r\n" % (b"x" * 65536) * 20,
        b"POST /ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 200_000,
    ],
)
def test_a_body_that_is_too_large_is_refused(server, request_):
    transport = server.connect()
    for at in range(0, len(request_), 65536):
        transport.protocol.dataReceived(request_[at : at + 65536])
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in head
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in head
    assert json.loads(body)["errors"][0]["status"] == "413"
    # A client that sends on reads the answer before the connection ends.
    assert not transport.disconnecting
    transport.protocol.dataReceived(b"x" * 65536)
    server.clock.advance(service.LINGER_S)
    assert transport.disconnecting
    server.hang_up(transport)


# RFC 9112 §3.2 and §6.3
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Host: a\r\nHost: b\r\n", 400),
        (b"Host: a\r\nHost: a\r\n", 400),
        (b"", 400),
        (b"Host: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n", 400),
        (b"Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Host: a\r\n", 200),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_what_a_proxy_may_read_otherwise_is_refused(server, method, fields, status):
    transport = server.ask(
        b"%s /ping HTTP/1.1\r\n%sConnection: close\r\n\r\nabc" % (method, fields)
    )
    found = 405 if method == b"POST" and status == 200 else status
    assert transport.value().startswith(b"HTTP/1.1 %d " % found)
    # Nothing behind it was taken for a second request.
    assert transport.value().count(b"HTTP/1.1 ") == 1
    server.hang_up(transport)


def test_a_request_of_http_1_0_needs_no_host(server):
    transport = server.ask(b"GET /ping HTTP/1.0\r\n\r\n")
    assert b" 200 " in transport.value()
    server.hang_up(transport)


def test_who_sends_on_for_ever_is_cut_off(server):
    transport = server.connect()
    transport.protocol.dataReceived(
        b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    )
    block = b"x" * 65536
    for _ in range(service.LINGER_OCTETS // len(block)):
        assert not transport.disconnecting
        transport.protocol.dataReceived(block)
    assert transport.disconnecting
    server.hang_up(transport)


def test_endless_headers_are_refused(server):
    transport = server.connect()
    transport.protocol.dataReceived(b"GET /ping HTTP/1.1\r\n")
    for _ in range(1000):
        if transport.disconnecting:
            break
        transport.protocol.dataReceived(b"X-A: " + b"b" * 100 + b"\r\n")
    assert transport.disconnecting
    server.hang_up(transport)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /ping?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /ping?" + b"a" * 20_000, 414),
        (b"GET /ping HTTP/1.1\r\nX-A: " + b"a" * 20_000 + b"\r\nHost: x\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_in_json(server, request_, status):
    transport = server.ask(request_)
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["errors"][0]["status"] == str(status)
    assert transport.disconnecting
    server.hang_up(transport)


def test_eight_bit_header_values_are_no_error(server):
    assert get(server, "/ping", headers="X-Forwarded-For: \u00e9\r\n")[0] == 200


def test_connections_are_bounded_for_each_address_and_in_all():
    server = Server(limit=2, clients=3)
    first = [server.connect() for _ in range(3)]
    assert [bool(each.value()) for each in first] == [False, False, True]
    assert first[2].value().startswith(b"HTTP/1.1 503 ")
    other = [server.connect("198.51.100.7") for _ in range(2)]
    assert [bool(each.value()) for each in other] == [False, True]
    for each in [*first, *other]:
        server.hang_up(each)
    assert server.counters.total == 0
    assert not server.connect().value()


# -- the clean stop -------------------------------------------------------------------------


def test_a_stop_answers_what_was_asked_and_closes_the_rest():
    server = Server()
    idle = server.connect()
    server.health = Deferred()
    asking = server.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    stopping = Deferred.fromCoroutine(server.site.drain(10))
    assert idle.disconnecting
    assert not asking.disconnecting
    server.hang_up(idle)
    server.health.callback(Health())
    assert b" 200 " in asking.value()
    assert b"\r\nConnection: close\r\n" in asking.value()
    assert asking.disconnecting
    assert not stopping.called
    server.hang_up(asking)
    assert stopping.called
    late = server.connect()
    assert late.value().startswith(b"HTTP/1.1 503 ")


def test_who_retires_ends_a_connection_behind_the_answer_at_hand():
    server = Server()
    server.health = Deferred()
    asking = server.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    idle = server.connect()
    server.site.retire()
    assert not asking.disconnecting
    server.health.callback(Health())
    assert asking.value().count(b"\r\nConnection: close\r\n") == 1
    assert asking.disconnecting
    # It may have a request on its way.
    assert not idle.disconnecting
    for each in (asking, idle):
        server.hang_up(each)


def test_a_stop_does_not_wait_for_ever():
    server = Server()
    server.health = Deferred()
    asking = server.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    Deferred.fromCoroutine(server.site.drain(10))
    server.clock.advance(10)
    assert asking.aborted
    server.hang_up(asking)


def test_a_stop_without_connections_is_at_once():
    now(Server().site.drain(10))


def test_a_client_that_does_not_read_its_answer_is_cut_off(server):
    transport = server.ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    # The transport is full: what stands in it never leaves.
    server.clock.pump([1] * 59)
    assert not transport.disconnecting
    server.clock.pump([1] * 2)
    assert transport.disconnecting
    assert not transport.aborted
    server.clock.pump([1] * 15)
    assert transport.aborted
    server.hang_up(transport)


def test_a_client_that_does_not_read_is_not_asked_for_more(server):
    transport = server.ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    producer = transport.producer
    transport.clear()
    producer.pauseProducing()
    assert transport.producerState == "paused"
    producer.resumeProducing()
    assert transport.producerState == "producing"
    server.hang_up(transport)
