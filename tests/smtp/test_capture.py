"""A project's login over SMTP: it plays anybody, to anybody, and nothing leaves."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest

from mailtwist.store import inbox, projects
from mailtwist.store.database import Inline
from tests.support.smtp_server import PASSWORDS, FakeLogin, FakeLogins, Server
from tests.support.transcript import Peer

NAME = "shop@projects.invalid"


class Logins(FakeLogins):
    """Knows the login of a project too."""

    account_id = 0

    async def login(self, username: str, password: str, *, peer: str, service: str) -> FakeLogin:
        if username != NAME:
            return await super().login(username, password, peer=peer, service=service)
        return FakeLogin(self.account_id, NAME, frozenset({NAME}))


@pytest.fixture
def logins() -> Logins:
    return Logins()


@pytest.fixture
def server(serve: Callable[..., Server], store: Inline, logins: Logins) -> Server:
    made = serve("plaintext", "loopback", authenticator=logins)
    with store.engine.write() as connection:
        logins.account_id = projects.add(connection, "shop", []).account_id
    return made


def logged_in(server: Server, name: str) -> Peer:
    peer = server.connect(host="127.0.0.1")
    peer.ask(b"EHLO c")
    response = b64encode(f"\0{name}\0{PASSWORDS.get(name, '')}".encode())
    assert peer.ask(b"AUTH PLAIN " + response).startswith(b"235 ")
    return peer


def test_whatever_a_project_sends_is_captured(
    server: Server, store: Inline, logins: Logins
) -> None:
    account_id = logins.account_id
    peer = logged_in(server, NAME)
    for line, code in [
        (b"MAIL FROM:<ceo@bank.test>", b"250 "),
        (b"RCPT TO:<Customer@far.test> NOTIFY=SUCCESS", b"250 "),
        (b"RCPT TO:<alice@example.com>", b"250 "),
        (b"RCPT TO:<nobody@example.com>", b"250 "),
        (b"DATA", b"354 "),
        (b"Subject: x\r\n\r\nbody\r\n.", b"250 "),
        (b"MAIL FROM:<>", b"250 "),
    ]:
        assert peer.ask(line).startswith(code), line
    with store.engine.read() as connection:
        (found,) = inbox.list(connection, account_id, "customer", since=0, limit=9)
        assert inbox.addresses(connection, account_id, found.entry_id) == [
            "alice@example.com", "Customer@far.test", "nobody@example.com",
        ]  # fmt: skip
    assert found.return_path == "ceo@bank.test"
    assert server.stored("alice@example.com") == []
    assert server.queued() == []


def test_other_logins_still_send_as_themselves(server: Server) -> None:
    peer = logged_in(server, "alice@example.com")
    assert peer.ask(b"MAIL FROM:<ceo@bank.test>").startswith(b"553 5.7.1 ")
    assert peer.ask(b"MAIL FROM:<shop@projects.invalid>").startswith(b"553 5.7.1 ")
    assert peer.ask(b"MAIL FROM:<alice@example.com>").startswith(b"250 ")
