"""What a session does when its login ends."""

from __future__ import annotations

import pytest

from tests.support.smtp_server import Server

# \0alice@example.com\0secret
PLAIN = b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA=="
GONE = b"421 4.7.0 The login is no longer valid\r\n"


@pytest.fixture
def server(database):
    return Server(database, ("loopback", "plaintext"))


@pytest.fixture
def peer(server):
    peer = server.connect()
    peer.ask(b"EHLO client")
    assert b"235" in peer.ask(PLAIN)
    return peer


def test_a_silent_session_is_told_at_once(server, peer):
    server.logins.gone()
    assert peer.received() == GONE
    assert peer.closed


def test_a_message_on_its_way_is_still_taken(server, peer):
    peer.ask(b"MAIL FROM:<alice@example.com>")
    peer.ask(b"RCPT TO:<bob@example.com>")
    assert b"354" in peer.ask(b"DATA")
    server.logins.gone()
    assert peer.received() == b""
    said = peer.ask(b"Subject: a\r\n\r\nb\r\n.")
    assert said.startswith(b"250 ")
    assert said.endswith(GONE)
    assert len(server.stored("bob@example.com")) == 1


def test_a_second_end_changes_nothing(server, peer):
    server.logins.gone()
    server.logins.gone()
    assert peer.received() == GONE
