"""Requests to web servers, over real sockets: what is called, what is not, and how long."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet._sslverify import optionsForClientTLS
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailtwist.errors import ProtocolViolation
from mailtwist.net.dns import NoSuchName
from mailtwist.net.web import MAX_OCTETS, Web, WebError
from tests.support.authority import Authority
from tests.support.receiver import Receiver

LOOPBACK = ("127.0.0.0/8",)


class Names:
    """Knows names by a table, and counts what is asked."""

    def __init__(self, **names: tuple[str, ...]) -> None:
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked: list[str] = []

    async def addresses(self, name: str) -> tuple[str, ...]:
        self.asked.append(name)
        if name not in self.names:
            if name[0].isdigit() or ":" in name:
                return (name,)
            raise NoSuchName(name)
        return self.names[name]


class WebTests(TestCase):
    timeout = 60

    def receiver(self, answer: Any = lambda posted: 200, **options: Any) -> Receiver:
        made = Receiver(answer, **options)
        self.addCleanup(lambda: deferToThread(made.close))
        return made

    def web(self, *, allow: tuple[str, ...] = LOOPBACK, **names: tuple[str, ...]) -> Web:
        return Web(reactor, Names(**names), allow=allow)

    async def fails(self, awaitable: Any, text: str = "") -> None:
        with pytest.raises((WebError, ProtocolViolation)) as raised:
            await awaitable
        assert text in raised.value.text

    async def test_a_request_is_posted_and_answered(self) -> None:
        receiver = self.receiver(lambda posted: (201, {"X-A": "b"}, b"made"))
        answer = await self.web().request(
            "POST", receiver.url("/x?y=z"), headers={"X-Mine": "1"}, body=b"octets"
        )
        assert (answer.status, answer.body, answer.headers["x-a"]) == (201, b"made", "b")
        (posted,) = receiver.posted
        assert (posted.method, posted.path, posted.body) == ("POST", "/x?y=z", b"octets")
        assert posted.headers["x-mine"] == "1"
        assert posted.headers["host"] == f"127.0.0.1:{receiver.port}"

    async def test_the_address_that_was_checked_is_the_one_that_is_called(self) -> None:
        receiver = self.receiver()
        names = Names(hook_example=("127.0.0.1",))
        web = Web(reactor, names, allow=LOOPBACK)
        answer = await web.request("POST", receiver.url(host="hook.example"), body=b"x")
        assert answer.status == 200
        assert names.asked == ["hook.example"]
        assert receiver.posted[0].headers["host"] == f"hook.example:{receiver.port}"

    async def test_what_is_not_public_is_not_called(self) -> None:
        receiver = self.receiver()
        web = self.web(
            allow=(),
            inward_example=("127.0.0.1",),
            mapped_example=("::ffff:127.0.0.1",),
            local_example=("10.1.2.3", "fe80::1"),
        )
        for host in (
            "127.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "inward.example",
            "mapped.example",
            "local.example",
        ):
            await self.fails(web.request("POST", receiver.url(host=host)), "http_client.allow")
        assert receiver.posted == []

    async def test_of_several_addresses_only_the_public_ones_are_called(self) -> None:
        receiver = self.receiver()
        web = self.web(allow=("127.0.0.1/32",), both_example=("127.0.0.2", "10.0.0.1", "127.0.0.1"))
        answer = await web.request("GET", receiver.url(host="both.example"))
        assert answer.status == 200

    async def test_a_name_without_address_is_an_error(self) -> None:
        await self.fails(self.web().request("GET", "http://nowhere.example/"), "no address")

    async def test_nobody_listening_is_an_error(self) -> None:
        receiver = Receiver()
        await deferToThread(receiver.close)
        await self.fails(self.web().request("GET", receiver.url()), "takes no connection")

    async def test_the_next_address_is_called_when_one_is_down(self) -> None:
        receiver = self.receiver()
        web = self.web(two_example=("127.0.0.9", "127.0.0.1"))
        # Nothing listens on 127.0.0.9 at this port.
        answer = await web.request("GET", receiver.url(host="two.example"))
        assert answer.status == 200

    async def test_a_server_that_hangs_is_given_up(self) -> None:
        receiver = self.receiver()
        receiver.answer = receiver.hang
        request = self.web().request("POST", receiver.url(), body=b"x", timeout_s=0.3)
        await self.fails(request, "No answer within 0.3 s")

    async def test_a_body_is_cut_at_its_bound(self) -> None:
        receiver = self.receiver(lambda posted: (200, {}, b"x" * 1_000_000))
        answer = await self.web().request("GET", receiver.url(), max_body=65_536)
        assert len(answer.body) == 65536

    async def test_a_header_without_end_is_cut_off(self) -> None:
        receiver = self.receiver(
            lambda posted: (
                200,
                {f"X-{n}": "y" * 8000 for n in range(MAX_OCTETS // 8000 + 10)},
                b"",
            )
        )
        await self.fails(self.web().request("GET", receiver.url()), "broke the connection off")

    async def test_a_redirect_is_not_followed_unless_asked(self) -> None:
        receiver = self.receiver(lambda posted: (302, {"Location": "/other"}, b""))
        answer = await self.web().request("GET", receiver.url())
        assert (answer.status, answer.headers["location"]) == (302, "/other")
        assert len(receiver.posted) == 1

    async def test_each_redirect_is_checked(self) -> None:
        inner = self.receiver()
        receiver = self.receiver(
            lambda posted: (302, {"Location": inner.url(host="inner.example")}, b"")
        )
        web = self.web(
            allow=("127.0.0.1/32",),
            outer_example=("127.0.0.1",),
            inner_example=("127.0.0.2",),
        )
        request = web.request("GET", receiver.url(host="outer.example"), max_redirects=3)
        await self.fails(request, "inner.example is not called")
        assert inner.posted == []

    async def test_redirects_end(self) -> None:
        receiver = self.receiver(lambda posted: (302, {"Location": "/again"}, b""))
        answer = await self.web().request("GET", receiver.url(), max_redirects=3)
        assert answer.status == 302
        assert len(receiver.posted) == 4

    async def test_a_redirect_to_a_file_is_refused(self) -> None:
        receiver = self.receiver(lambda posted: (302, {"Location": "file:///etc/passwd"}, b""))
        await self.fails(
            self.web().request("GET", receiver.url(), max_redirects=3), "begins with https"
        )

    async def test_what_is_no_http_is_an_error(self) -> None:
        receiver = self.receiver(lambda posted: (200, {"Transfer-Encoding": "chunked"}, b"zz\r\n"))
        await self.fails(self.web().request("GET", receiver.url()))

    async def test_tls_is_verified_for_the_name(self) -> None:
        authority = Authority(Path(mkdtemp()))
        roots = trustRootFromCertificates([Certificate.loadPEM(authority.file.read_bytes())])

        def trust(host: str) -> Any:
            return optionsForClientTLS(host, trustRoot=roots)

        receiver = self.receiver(pem=authority.issue("hook.example"))
        names = Names(hook_example=("127.0.0.1",), other_example=("127.0.0.1",))
        ours = Web(reactor, names, allow=LOOPBACK, trust=trust)
        answer = await ours.request("POST", receiver.url(host="hook.example"), body=b"x")
        assert answer.status == 200
        for web, host in (
            (ours, "other.example"),
            (Web(reactor, names, allow=LOOPBACK), "hook.example"),
        ):
            await self.fails(web.request("GET", receiver.url(host=host)), "certificate")
        assert len(receiver.posted) == 1

    async def test_an_outer_cancel_is_no_answer(self) -> None:
        from twisted.internet.defer import CancelledError, Deferred

        receiver = self.receiver()
        came = threading.Event()

        def hang(posted: Any) -> int:
            came.set()
            return receiver.hang(posted)

        receiver.answer = hang
        request = Deferred.fromCoroutine(self.web().request("GET", receiver.url()))
        await deferToThread(came.wait, 10)
        request.cancel()
        with pytest.raises(CancelledError):
            await request


def test_the_client_is_not_loaded_before_it_is_needed() -> None:
    code = "import mailtwist.net.web, sys; assert 'twisted.web.client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
