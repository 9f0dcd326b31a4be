"""Users of a real LDAP server, asked by the real reactor in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from mailtwist.config.ldap import Ldap as Settings
from mailtwist.errors import ConfigError
from mailtwist.policy.backends.ldap import Ldap, escaped, filter_for
from tests.e2e.server import ROOT
from tests.support.authority import Authority
from tests.support.slapd import ADMIN, ADMIN_PASSWORD, BASE, PASSWORD, Slapd, is_installed

pytestmark = pytest.mark.real

# Answers a line on its standard input with a line: "true", "false" or the error to each of its
# [username, password].
ASKER = """
import gc, json, sys
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from mailtwist.config.ldap import Ldap as Settings
from mailtwist.errors import MailError
from mailtwist.policy.backends.ldap import Ldap

async def answers(settings, logins):
    backend = Ldap(Settings(**settings), reactor=reactor)
    found = []
    for username, password in logins:
        try:
            found.append(await backend.ask(username, password))
        except MailError as error:
            found.append([error.code, error.status, error.text, error.detail])
    return found

async def main():
    while line := await deferToThread(sys.stdin.readline):
        found = await answers(**json.loads(line))
        gc.collect()  # what nobody handled is said now
        print(json.dumps(found), flush=True)

react(lambda reactor: ensureDeferred(main()))
"""


class Asker:
    """A process with a reactor, for all questions of this file: it takes a while to start."""

    def __init__(self, complaints):
        self._complaints = complaints
        with complaints.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", ASKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def __call__(self, settings, *logins):
        """What the back-end says, login by login."""
        names = [name for name in Settings.__dataclass_fields__]
        given = {name: getattr(settings, name) for name in names}
        self._process.stdin.write(json.dumps({"settings": given, "logins": logins}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert "Unhandled" not in self.complaints, self.complaints
        assert line, self.complaints
        return json.loads(line)

    @property
    def complaints(self):
        return self._complaints.read_text()

    def end(self):
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0, self.complaints
        assert "Unhandled" not in self.complaints, self.complaints


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    asker = Asker(tmp_path_factory.mktemp("asker") / "complaints")
    try:
        yield asker
    finally:
        asker.end()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def slapd(tmp_path_factory, authority):
    if not is_installed():
        pytest.skip("slapd is not installed")
    pem = authority.issue("127.0.0.1", "ldap.example.com").read_bytes()
    folder = tmp_path_factory.mktemp("slapd")
    # Nothing is answered in the clear, save on the socket that the tests change things by.
    security = "localSSF 256\nsecurity ssf=1"
    with Slapd(folder / "slapd", pem, pem, security=security) as running:
        yield running


@pytest.fixture
def settings(slapd, authority):
    return Settings(
        url=f"ldap://127.0.0.1:{slapd.port}",
        bind_dn=ADMIN,
        password=ADMIN_PASSWORD,
        base_dn=BASE,
        ca_file=str(authority.file),
    )


def test_the_right_password_alone_is_right(ask, settings):
    answers = ask(
        settings,
        ("alice@example.com", PASSWORD),
        ("alice@example.com", "wrong"),
        ("alice@example.com", PASSWORD.upper()),
        ("nobody@example.com", PASSWORD),
        ("none@example.com", PASSWORD),
        ("alice@example.com", PASSWORD),
    )
    assert answers == [True, False, False, False, False, True]


def test_ldaps_too(ask, settings, slapd):
    settings = replace(settings, url=f"ldaps://127.0.0.1:{slapd.tls_port}", starttls=False)
    assert ask(settings, ("alice@example.com", PASSWORD), ("alice@example.com", "x")) == [
        True,
        False,
    ]


def test_what_means_something_in_a_filter_means_itself_here(ask, settings):
    logins = [
        "*", "a*", "*@example.com", "alice@example.com)(uid=*", "*)(|(mail=*",
        "\\2a", "st*r@example.com", "star@example.com", "\0", "ü" * 100, "(",
    ]  # fmt: skip
    answers = ask(settings, *((login, PASSWORD) for login in logins))
    assert answers == [login == "st*r@example.com" for login in logins]


def test_a_filter_of_ones_own(ask, settings):
    settings = replace(settings, filter="(&(objectClass=inetOrgPerson)(uid=%n)(!(sn=%d)))")
    assert ask(settings, ("alice@example.com", PASSWORD), ("alice@a", PASSWORD)) == [True, False]


def test_a_name_that_two_entries_have_is_nobodys(ask, settings):
    assert ask(settings, ("twin@example.com", PASSWORD)) == [False]


def test_a_password_changed_there_counts_at_once(ask, settings, slapd):
    def replaced(password):
        slapd.change(
            f"dn: cn=Alice A,{BASE}\nchangetype: modify\nreplace: userPassword\n"
            f"userPassword: {password}\n"
        )

    replaced("another")
    try:
        answers = ask(settings, ("alice@example.com", PASSWORD), ("alice@example.com", "another"))
    finally:
        replaced(PASSWORD)
    assert answers == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"password": "wrong"},
        {"bind_dn": "nonsense"},
        {"base_dn": "dc=elsewhere"},
        {"starttls": False},
        {"ca_file": ""},
        {"url": "ldap://127.0.0.1:1"},
    ],
    ids=["password", "bind_dn", "base_dn", "no-tls", "untrusted", "nobody-listens"],
)
def test_a_server_that_can_not_be_asked_refuses_nobody_for_good(ask, settings, change):
    ((code, status, text, detail),) = ask(
        replace(settings, **change), ("alice@example.com", PASSWORD)
    )
    assert (code, status, text) == (454, "4.7.0", "Temporary authentication failure")
    assert PASSWORD not in detail
    assert ADMIN_PASSWORD not in detail


def test_a_certificate_for_another_name_is_not_believed(ask, settings):
    # Nothing is sent to it: the port is right, the name in the certificate is not.
    settings = replace(settings, url=settings.url.replace("127.0.0.1", "localhost"))
    ((code, *_),) = ask(settings, ("alice@example.com", PASSWORD))
    assert code == 454


# -- servers that are none --------------------------------------------------------------------


class Fake:
    """Says some octets to whoever connects, once he has said something."""

    def __init__(self, answer: bytes, *, hangs_up: bool = False) -> None:
        self.answer, self.hangs_up = answer, hangs_up
        self.heard = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(20)
            try:
                self.heard += connection.recv(65536)
                connection.sendall(self.answer)
                while not self.hangs_up and (data := connection.recv(65536)):
                    self.heard += data
            except OSError:
                pass

    def close(self) -> None:
        self.socket.close()
        self.thread.join(30)


# The LDAP answer to STARTTLS, as message 1 and what could be slipped in behind it.
_OK = bytes.fromhex("300c02010178070a010004000400")


@pytest.mark.parametrize(
    ("answer", "hangs_up"),
    [
        (b"", False),
        (b"", True),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"\x30\x84\x7f\xff\xff\xff" + b"x" * 300_000, False),
        (b"\x30\x80" * 2000, False),
        (bytes.fromhex("300c02017f61070a010004000400"), False),
        (_OK + bytes.fromhex("300c02010261070a010004000400"), False),
    ],
    ids=["silent", "gone", "http", "endless", "nested", "unasked", "behind-starttls"],
)
def test_a_server_that_talks_nonsense_is_left_soon_and_hears_no_password(ask, answer, hangs_up):
    fake = Fake(answer, hangs_up=hangs_up)
    settings = Settings(
        url=f"ldap://127.0.0.1:{fake.port}",
        bind_dn=ADMIN,
        password=ADMIN_PASSWORD,
        base_dn=BASE,
        timeout=1.0,
    )
    began = time.monotonic()
    try:
        ((code, *_),) = ask(settings, ("alice@example.com", PASSWORD))
    finally:
        fake.close()
    assert code == 454
    assert time.monotonic() - began < 20
    assert ADMIN_PASSWORD.encode() not in fake.heard


# -- without a server ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("a", "a"),
        ("*", "\\2a"),
        ("()\\\0", "\\28\\29\\5c\\00"),
        ("ü&|!=", "ü&|!="),
    ],
)
def test_values_in_a_filter_are_escaped(given, written):
    assert escaped(given) == written


@pytest.mark.parametrize(
    ("pattern", "username", "written"),
    [
        ("(mail=%u)", "a@b", "(mail=a@b)"),
        ("(&(uid=%n)(d=%d))", "a@b", "(&(uid=a)(d=b))"),
        ("(uid=%n)", "a", "(uid=a)"),
        ("(x=%%u)", "a@b", "(x=%u)"),
        ("(mail=%u)", "%d@b", "(mail=%d@b)"),
    ],
)
def test_a_filter_is_filled_in_once(pattern, username, written):
    assert filter_for(pattern, username) == written


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"filter": "(mail=%u"}, "ldap.filter"),
        ({"url": "ldap://127.0.0.1:99999"}, "ldap.url"),
        ({"ca_file": "/nowhere/ca.pem"}, "ldap.ca_file"),
        ({"ca_file": __file__}, "ldap.ca_file"),
    ],
)
def test_settings_that_can_not_be_used_are_named(change, key):
    settings = replace(Settings(url="ldap://127.0.0.1", base_dn=BASE), **change)
    with pytest.raises(ConfigError) as caught:
        Ldap(settings, reactor=Clock())
    assert caught.value.text.startswith(key)
