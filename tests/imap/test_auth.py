"""Logins over IMAP that are no plain yes or no: users without a mailbox, logins that end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailtwist.policy.auth import Login
from tests.support.imap import USER, Server

LOGIN = b'a LOGIN %b "se\\"cr\\\\et"' % USER.encode()


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    made = Server(sqlite_url, protocol="imaps")
    yield made
    made.close()


def test_a_user_without_a_mailbox_is_told_so_and_is_not_let_in(server):
    server.logins._login = Login(0, USER, frozenset({USER}))
    peer = server.connect()
    assert b"a NO [AUTHORIZATIONFAILED] No mailbox belongs to this user" in peer.ask(LOGIN)
    assert b"b BAD" in peer.ask(b"b SELECT INBOX")


def test_a_login_that_ends_says_so_at_once_to_the_idle(server):
    peer = server.login(b"0 SELECT INBOX")
    assert b"+ " in peer.ask(b"a IDLE")
    server.logins.gone()
    assert peer.received() == b"* BYE The login is no longer valid\r\n"
    assert peer.closed


def test_a_login_that_ends_lets_a_message_end_first(server):
    peer = server.login()
    peer.send(b"a APPEND INBOX {14}\r\n")
    assert b"+ " in peer.received()
    peer.send(b"Subject: a")
    server.logins.gone()
    assert peer.received() == b""
    peer.send(b"\r\n\r\n\r\n")
    said = peer.received()
    assert b"a OK" in said
    assert said.endswith(b"* BYE The login is no longer valid\r\n")


def test_a_server_without_methods_that_show_a_password_has_no_login(sqlite_url):
    server = Server(sqlite_url, protocol="imaps", methods=("scram-sha-256",))
    peer = server.connect()
    assert b"LOGINDISABLED" in peer.ask(b"a CAPABILITY")
    assert b"b NO [CANNOT]" in peer.ask(b"b" + LOGIN[1:])
    assert server.logins.attempts == []
    server.close()
