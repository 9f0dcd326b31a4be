"""Python's own client, as a desktop client would use it."""

from __future__ import annotations

import imaplib
import socket
from email.message import EmailMessage
from typing import Any

import pytest

from tests.support.bridge import talk
from tests.support.imap import PASSWORD, USER, Server


class Client(imaplib.IMAP4):
    """imaplib over a socket that is there already."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        super().__init__("memory")

    def _create_socket(self, timeout: float | None = None) -> socket.socket:
        return self._connected


def mail(subject: str) -> bytes:
    message = EmailMessage()
    message["From"] = "bob@example.net"
    message["To"] = USER
    message["Subject"] = subject
    message.set_content("hello\n")
    return message.as_bytes().replace(b"\n", b"\r\n")


def uids(answer: tuple[str, Any]) -> list[bytes]:
    status, data = answer
    assert status == "OK"
    found: list[bytes] = data[0].split()
    return found


def session(connected: socket.socket) -> None:
    client = Client(connected)
    assert "IDLE" in client.capabilities
    client.login(USER, PASSWORD)
    assert client.namespace() == ("OK", [b'(("" "/")) NIL NIL'])
    listed: list[Any] = client.list()[1]
    names = [line.rsplit(b" ", 1)[1] for line in listed]
    assert names == [b"INBOX", b"Archive", b"Draft", b"Sent", b"Spam", b"Trash"]
    assert len(client.lsub()[1]) == 6
    assert client.status("INBOX", "(MESSAGES UNSEEN)") == ("OK", [b"INBOX (MESSAGES 0 UNSEEN 0)"])
    for subject in ("one", "two", "thr€€"):
        data: Any
        status, data = client.append("INBOX", "", "", mail(subject))
        assert (status, data[0][:11]) == ("OK", b"[APPENDUID ")
    assert client.select("INBOX") == ("OK", [b"3"])
    assert uids(client.uid("SEARCH", "UNSEEN")) == [b"1", b"2", b"3"]
    assert uids(client.uid("SEARCH", "SUBJECT", '"two"')) == [b"2"]
    status, data = client.uid("FETCH", "2", "(FLAGS BODY.PEEK[])")
    assert data[0][1] == mail("two")
    status, data = client.uid("FETCH", "1:*", "(UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE)")
    assert len(data) == 3
    client.uid("STORE", "2", "+FLAGS", "(\\Seen $Label1)")
    assert uids(client.uid("SEARCH", "KEYWORD", "$Label1")) == [b"2"]
    client.uid("COPY", "2", "Trash")
    client.uid("STORE", "2", "+FLAGS.SILENT", "(\\Deleted)")
    assert client.uid("EXPUNGE", "2")[0] == "OK"
    assert client.noop()[0] == "OK"
    status, data = client.fetch("2", "(UID)")
    assert data == [b"2 (UID 3)"]
    client.create('"Projects/2026"')
    client.subscribe('"Projects/2026"')
    client.rename('"Projects/2026"', "Old")
    assert client.select("Trash", readonly=True) == ("OK", [b"1"])
    assert client.store("1", "+FLAGS", "(\\Seen)")[0] == "NO"
    client.select("INBOX")
    client.close()
    assert client.delete("Old")[0] == "OK"
    assert client.logout()[0] == "BYE"


@pytest.mark.mission("DAP-239")
def test_a_desktop_clients_session(sqlite_url: str) -> None:
    server = Server(sqlite_url, allow_plaintext=True)
    talk(server.connect(), session)
    server.close()
