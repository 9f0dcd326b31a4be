"""Users of a file: its forms, its edits, and that it hides who is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mailtwist.errors import MailError
from mailtwist.policy import passwords
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.backends import file as files
from mailtwist.policy.backends.file import File, Unreadable, parse
from mailtwist.store import accounts
from tests.support.now import now

ALICE = "alice@example.com"
PASSWORD = "correct horse"
HERE = "192.0.2.1"


def bcrypted(password=PASSWORD, prefix=b"$2b$"):
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4))
    return (prefix + hashed[4:]).decode()


def salted(scheme, name, password=PASSWORD, salt=b"12345678"):
    digest = hashlib.new(name, password.encode() + salt).digest()
    return f"{{{scheme}}}{base64.b64encode(digest + salt).decode()}"


SCRAM = passwords.Scram.derive(PASSWORD.encode(), b"salt", 4096).text()


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "users"


@pytest.fixture
def authenticator(path, database, clock):
    backend = File(str(path), domain=lambda: made.default_domain)
    made = Authenticator(
        database, clock=clock, cost=4, default_domain="example.com", backend=backend
    )
    return made


def write(path, text, *, ago=60):
    """Put a file there whole, as editors do; it seems older than a clock's tick."""
    temporary = path.with_name("new")
    temporary.write_bytes(text if isinstance(text, bytes) else text.encode())
    stamp = temporary.stat().st_mtime - ago
    os.utime(temporary, (stamp, stamp))
    temporary.replace(path)


def login(authenticator, username=ALICE, password=PASSWORD, peer=HERE):
    return now(authenticator.login(username, password, peer=peer, service="t"))


def code(authenticator, username=ALICE, password=PASSWORD, peer=HERE):
    try:
        login(authenticator, username, password, peer)
    except MailError as error:
        return error.code
    return 235


# -- the forms --------------------------------------------------------------------------------

SECRETS = {
    "2b": bcrypted(),
    "2a": bcrypted(prefix=b"$2a$"),
    "2y": bcrypted(prefix=b"$2y$"),
    "blf-crypt": "{BLF-CRYPT}" + bcrypted(prefix=b"$2y$"),
    "ssha": salted("SSHA", "sha1"),
    "ssha256": salted("SSHA256", "sha256"),
    "ssha512": salted("SSHA512", "sha512"),
    "scram": SCRAM,
    "plain": PASSWORD,
    "plain-named": "{PLAIN}" + PASSWORD,
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=list(SECRETS))
@pytest.mark.parametrize(
    "form",
    [
        lambda name, secret: f"# users\n\n{name}:{secret}\n",
        lambda name, secret: f"{name}:{secret}",
        lambda name, secret: json.dumps({"users": [{"username": name, "password": secret}]}),
        lambda name, secret: json.dumps([{"email": name, "password_hash": secret}]),
        lambda name, secret: json.dumps({name: secret}, indent=2),
        lambda name, secret: "\ufeff" + json.dumps({"users": {name: secret}}),
    ],
    ids=["lines", "line", "users", "list", "map", "users-map"],
)
def test_every_hash_in_every_form(secret, form):
    users = parse(form("Alice@Example.com", secret).encode())
    assert users.problems == ()
    (verifier,) = users.verifiers.values()
    assert list(users.verifiers) == [ALICE]
    assert passwords.check([verifier], PASSWORD)
    assert not passwords.check([verifier], PASSWORD + "x")
    assert not passwords.check([verifier], "")
    # What was read is no password, unless it is one.
    assert passwords.check([verifier], secret) is (secret == PASSWORD)


@pytest.mark.parametrize(
    "secret",
    [
        "$6$salt$hash", "$argon2id$v=19$m=1$a$b", "$2b$31$" + "a" * 53, "$2b$03$" + "a" * 53,
        "$2b$10$short", "{MD5}abc", "{SSHA}!!!", "{SSHA}AAAA", "{PLAIN}", "", "SCRAM-SHA-256$x",
    ],
)  # fmt: skip
def test_a_hash_that_is_not_known_is_no_password_and_shuts_out_him_alone(secret):
    users = parse(f"alice@example.com:{secret}\nbob@example.com:x\n".encode())
    assert list(users.verifiers) == ["bob@example.com"]
    assert len(users.problems) == 1
    assert "line 1" in users.problems[0]
    assert not secret or secret not in users.problems[0]


@pytest.mark.parametrize(
    "content",
    [
        b"no colon here", b"a:b\nnonsense\n", b"{", b"[1]", b'{"users": [{"username": "a"}]}',
        b'{"a": 5}', b'{"users": [5]}', b"\xff\xfe", b"[" * 100_000, b"a:" + b"b" * 5000,
        b'[{"username": 5, "password": "x"}]', b'{"a": null}',
    ],
)  # fmt: skip
def test_what_is_no_file_of_users_is_refused(content):
    with pytest.raises(Unreadable):
        parse(content)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nothing_else_is_raised(content):
    try:
        users = parse(content)
    except Unreadable:
        return
    assert all(name == name.strip() for name in users.verifiers)


def test_a_file_has_bounds(monkeypatch):
    monkeypatch.setattr(files, "MAX_USERS", 3)
    parse(b"a:x\nb:x\nc:x\n")
    with pytest.raises(Unreadable):
        parse(b"a:x\nb:x\nc:x\nd:x\n")
    with pytest.raises(Unreadable):
        parse(b"#" * (files.MAX_OCTETS + 1))


# -- logins -----------------------------------------------------------------------------------


def test_a_user_needs_no_account_and_owns_his_address(authenticator, path, engine):
    write(path, f"{ALICE}:{bcrypted()}")
    found = login(authenticator)
    assert (found.account_id, found.username) == (0, ALICE)
    assert found.addresses == {ALICE}
    with engine.write() as connection:
        accounts.add_alias(connection, "sales@example.com", [ALICE])
    now(authenticator._database.write(lambda c: accounts.add_alias(c, "b@example.com", [ALICE])))
    assert login(authenticator).addresses == {ALICE, "sales@example.com", "b@example.com"}


def test_his_account_is_his_mailbox_and_its_password_counts_no_more(authenticator, path, engine):
    with engine.write() as connection:
        verifiers = passwords.make_verifiers("of the account", cost=4, has_scram=False)
        account = accounts.add(connection, ALICE, verifiers)
    write(path, f"{ALICE}:{bcrypted()}")
    assert login(authenticator).account_id == account.account_id
    assert code(authenticator, password="of the account") == 535


def test_an_account_that_is_disabled_here_stays_out(authenticator, path, engine):
    write(path, f"{ALICE}:{bcrypted()}")
    with engine.write() as connection:
        account = accounts.add(connection, ALICE, [])
        accounts.set_state(connection, account.account_id, "disabled")
    assert code(authenticator) == 535


@pytest.mark.parametrize("written", ["alice", "Alice", ALICE])
@pytest.mark.parametrize("typed", ["alice", "ALICE@example.com"])
def test_the_first_domain_may_be_left_out_on_either_side(authenticator, path, written, typed):
    write(path, f"{written}:{bcrypted()}")
    assert login(authenticator, typed).username == ALICE
    assert code(authenticator, "alice@elsewhere.example") == 535


def test_an_edit_counts_at_the_next_login(authenticator, path):
    assert code(authenticator) == 535, "there is no file yet"
    write(path, f"{ALICE}:{bcrypted()}")
    assert code(authenticator) == 235
    write(path, f"{ALICE}:{bcrypted('another')}")
    assert code(authenticator) == 535
    assert code(authenticator, password="another") == 235
    write(path, json.dumps({"bob@example.com": bcrypted()}))
    assert code(authenticator, password="another") == 535
    assert code(authenticator, "bob@example.com") == 235


def test_two_edits_within_one_tick_of_the_file_system_are_two(authenticator, path):
    write(path, f"{ALICE}:one", ago=0)
    assert code(authenticator, password="one") == 235
    before = path.stat()
    with path.open("r+b") as file:
        file.write(f"{ALICE}:two".encode())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # A later look at a file that was read too early reads it again.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))
    assert code(authenticator, password="two") == 235


@pytest.mark.parametrize("broken", [b"{", b"nonsense", b"\xff"])
def test_a_broken_edit_keeps_the_users_and_is_logged_once(authenticator, path, broken, monkeypatch):
    said = []

    class Recorder:
        def warn(self, text, **fields):
            said.append(text.format(**fields))

        def info(self, *_args, **_fields):
            pass

    monkeypatch.setattr(files, "log", Recorder())
    write(path, f"{ALICE}:{bcrypted()}")
    assert code(authenticator) == 235
    write(path, broken)
    assert [code(authenticator) for _ in range(3)] == [235] * 3
    assert len(said) == 1
    assert str(path) in said[0]


def test_a_file_that_is_gone_keeps_its_users(authenticator, path):
    write(path, f"{ALICE}:{bcrypted()}")
    assert code(authenticator) == 235
    path.unlink()
    assert code(authenticator) == 235


@pytest.mark.parametrize("username", [ALICE, "nobody@example.com"])
def test_bad_logins_lock_as_everywhere(authenticator, path, username):
    write(path, f"{ALICE}:{bcrypted()}")
    codes = [code(authenticator, username, "wrong", f"192.0.2.{n}") for n in range(6)]
    assert codes == [535] * 5 + [454]
    assert code(authenticator, username, peer="192.0.2.99") == 454


@pytest.mark.parametrize("secret", ["2b", "plain-named", "ssha"])
@pytest.mark.parametrize("username", [ALICE, "nobody@example.com"])
def test_every_wrong_login_derives_one_key_of_the_same_cost(
    authenticator, path, username, secret, monkeypatch
):
    """The time is that of bcrypt, whatever stands in the file for whom."""
    write(path, f"{ALICE}:{SECRETS[secret]}\nbob@example.com:{bcrypted()}")
    derived = []
    check = passwords._CHECKS[passwords.BARE_BCRYPT]

    def counted(verifier, octets):
        derived.append(verifier[:7])
        return check(verifier, octets)

    monkeypatch.setitem(passwords._CHECKS, passwords.BARE_BCRYPT, counted)
    assert code(authenticator, username, "wrong") == 535
    assert derived == ["$2b$04$"]


def test_a_password_of_more_than_72_octets_is_what_bcrypt_makes_of_it(authenticator, path):
    long = "x" * 80
    write(path, f"{ALICE}:{bcrypted(long)}")
    assert code(authenticator, password=long) == 235
    assert code(authenticator, password="x" * 71) == 535


def test_who_is_taken_out_of_the_file_has_to_go(authenticator, path, clock):
    write(path, f"{ALICE}:{bcrypted()}\nbob@example.com:{bcrypted()}")
    ended = []
    for name in (ALICE, "bob@example.com"):
        authenticator.watch(login(authenticator, name), lambda name=name: ended.append(name))
    write(path, f"bob@example.com:{bcrypted('another')}\ncarol@example.com:x")
    authenticator.recheck()
    clock.advance(2)
    assert sorted(ended) == [ALICE, "bob@example.com"]
