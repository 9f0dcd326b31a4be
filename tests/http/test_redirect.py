"""The listener on port 80, what an ACME authority finds there, and HSTS on the other one."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides

from mailtwist.config import load
from mailtwist.errors import ProtocolViolation, TemporaryFailure
from mailtwist.http.redirect import Redirect, location
from mailtwist.http.service import make_factory
from tests.http import asking

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
AUTHORIZATION = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"


class Known:
    """Challenges in a table; what is not there is asked of ``last``."""

    def __init__(self):
        self.asked = []
        self.last = None

    async def answer(self, token):
        self.asked.append(token)
        if token == TOKEN:
            return AUTHORIZATION
        if isinstance(self.last, Exception):
            raise self.last
        return await self.last if self.last is not None else None


class Redirecting(asking.Server):
    def __init__(self, known=None, *, clients=0):
        super().__init__()
        self.site = make_factory(
            Redirect(self.clock, known),
            reactor=self.clock,
            counters=self.counters,
            max_clients=clients,
        )
        self.site.doStart()


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def server(known):
    return Redirecting(known)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"])
def test_every_method_is_sent_to_https_with_path_and_query(server, method):
    answer = server.answer(method, "/emails/u?x=1&y=%20z", Host="host.example:8080")
    assert answer.status == 301
    assert answer.headers["location"] == "https://host.example/emails/u?x=1&y=%20z"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_a_body_is_taken_and_answered_all_the_same(server):
    answer = server.answer("POST", "/api/mail", {"a": 1}, Host="host.example")
    assert answer.headers["location"] == "https://host.example/api/mail"


@pytest.mark.parametrize(
    ("target", "host", "place"),
    [
        (b"/", b"host.example", "https://host.example/"),
        (b"/a", b"host.example:", "https://host.example/a"),
        (b"/a", b"[2001:db8::1]:80", "https://[2001:db8::1]/a"),
        (b"/a", b"192.0.2.1", "https://192.0.2.1/a"),
        (b"*", b"host.example", "https://host.example/"),
        (b"//evil.example/", b"host.example", "https://host.example//evil.example/"),
        (b"/\\evil.example", b"host.example", "https://host.example/%5Cevil.example"),
        (b'/"><b>', b"host.example", "https://host.example/%22%3E%3Cb%3E"),
        (b"/\xc3\xa4\x00\x7f", b"host.example", "https://host.example/%C3%A4%00%7F"),
        (b"/a#b", b"host.example", "https://host.example/a"),
        # RFC 9112 §3.2.2: this form names the host itself.
        (b"http://other.example:81/a?b", b"host.example", "https://other.example/a?b"),
        (b"HTTP://other.example", b"host.example", "https://other.example/"),
        (b"http://other.example?b=1", b"host.example", "https://other.example/?b=1"),
    ],
)
def test_where_a_target_is_sent_to(target, host, place):
    assert location(target, [host]) == place


@pytest.mark.parametrize(
    ("target", "hosts"),
    [
        (b"/", []),
        (b"/", [b""]),
        (b"/", [b"one.example", b"two.example"]),
        (b"/", [b"host.example@evil.example"]),
        (b"/", [b"host.example/evil"]),
        (b"/", [b"host.example\\evil"]),
        (b"/", [b"host.example:80@evil.example"]),
        (b"/", [b"host example"]),
        (b"/", [b"host..example"]),
        (b"/", [b"-"]),
        (b"/", [b"[::1"]),
        (b"/", [b"h\xc3\xb6st.example"]),
        (b"/", [b"a" * 300]),
        (b"@evil.example/", [b"host.example"]),
        (b".evil.example/", [b"host.example"]),
        (b":443/", [b"host.example"]),
        (b"host.example:443", [b"host.example"]),
        (b"http://user@evil.example/", [b"host.example"]),
        (b"http:///a", [b"host.example"]),
        (b"ftp://host.example/", [b"host.example"]),
    ],
)
def test_a_request_that_names_no_host_or_no_path_is_sent_nowhere(target, hosts):
    with pytest.raises(ProtocolViolation):
        location(target, hosts)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: a b\r\n",
        b"GET @evil.example/ HTTP/1.1\r\nHost: host.example\r\n",
        b"GET / HTTP/1.0\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n",
    ],
)
def test_what_is_wrong_is_answered_with_400_and_no_location(server, request_):
    transport = server.ask(request_ + b"Connection: close\r\n\r\n")
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"location" not in head.lower()
    assert b'"success":false' in body
    server.hang_up(transport)


# -- challenges -----------------------------------------------------------------------------


def test_a_challenge_is_answered_as_plain_text_and_not_redirected(server):
    answer = server.answer("GET", f"/.well-known/acme-challenge/{TOKEN}")
    assert (answer.status, answer.body) == (200, AUTHORIZATION.encode())
    assert answer.headers["content-type"] == "text/plain"


def test_the_api_answers_challenges_too(known):
    server = asking.Server(challenges=known)
    answer = server.answer("GET", f"/.well-known/acme-challenge/{TOKEN}")
    assert (answer.status, answer.body) == (200, AUTHORIZATION.encode())
    assert server.answer("GET", "/.well-known/acme-challenge/other").status == 404


@pytest.mark.parametrize("token", ["other", "", "a.b", "a/b", "%2e%2e", "x" * 129, "a?b=1"])
def test_an_unknown_challenge_is_not_found_and_never_redirected(server, known, token):
    answer = server.answer("GET", f"/.well-known/acme-challenge/{token}")
    assert answer.status == 404
    assert set(known.asked) <= {"other", "a"}  # no other shape gets that far


def test_without_an_authority_no_challenge_is_known():
    assert Redirecting().answer("GET", "/.well-known/acme-challenge/other").status == 404


def test_a_challenge_that_the_store_cannot_tell_now_is_asked_for_again(server, known):
    known.last = TemporaryFailure("Store unavailable")
    answer = server.answer("GET", "/.well-known/acme-challenge/other")
    assert answer.status == 503


def test_a_bug_is_answered_with_500_and_not_shown(server, known, monkeypatch):
    failures = []
    monkeypatch.setattr("mailtwist.http.redirect.log.failure", lambda *a: failures.append(a))
    known.last = RuntimeError("boom")
    answer = server.answer("GET", "/.well-known/acme-challenge/other")
    assert answer.status == 500
    assert b"boom" not in answer.body
    assert len(failures) == 1


def test_a_client_that_leaves_before_the_answer_ends_the_question(server, known):
    cancelled: list[object] = []
    waiting: Deferred[str] = Deferred(cancelled.append)
    known.last = waiting
    transport = server.ask(
        b"GET /.well-known/acme-challenge/other HTTP/1.1\r\nHost: host.example\r\n\r\n"
    )
    assert transport.value() == b""
    server.hang_up(transport)
    assert len(cancelled) == 1


def test_each_request_has_a_line_in_the_log(server, monkeypatch):
    lines = []
    monkeypatch.setattr("mailtwist.http.front.log.info", lambda text, **more: lines.append(more))
    server.answer("GET", "/a?token=secret", Host="host.example")
    (line,) = lines
    assert (line["path"], line["status"], line["client"]) == ("/a", 301, "192.0.2.1")


# -- HSTS -----------------------------------------------------------------------------------

HSTS = "strict-transport-security"


def settings(hsts="365d", proxies=""):
    environ = {"MAILTWIST_HTTP_HSTS": hsts, "MAILTWIST_HTTP_TRUSTED_PROXIES": proxies}
    return load(None, environ)


def headers_over(transport_class, monkeypatch, path="/ping", more="", **http):
    monkeypatch.setattr(asking, "Transport", transport_class)
    server = asking.Server(settings=settings(**http))
    return server.answer("GET", path, X_Forwarded_Proto=more).headers


class OverTls(asking.Transport):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        directlyProvides(self, ISSLTransport)

    def setTcpNoDelay(self, enabled):
        pass


@pytest.mark.parametrize("path", ["/ping", "/nothing"])
def test_over_tls_browsers_are_told_to_insist_on_it(path, monkeypatch):
    assert headers_over(OverTls, monkeypatch, path)[HSTS] == "max-age=31536000"


def test_without_tls_they_are_not(monkeypatch):
    assert HSTS not in headers_over(asking.Transport, monkeypatch)
    assert HSTS not in headers_over(asking.Transport, monkeypatch, more="https")


def test_a_trusted_proxy_may_say_that_it_was_tls(monkeypatch):
    told = headers_over(asking.Transport, monkeypatch, more="https", proxies="192.0.2.1")
    assert told[HSTS] == "max-age=31536000"


def test_by_default_nothing_is_said(monkeypatch):
    assert HSTS not in headers_over(OverTls, monkeypatch, hsts="0")
