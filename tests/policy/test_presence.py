"""Who is logged in leaves when his account does."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from mailtwist.errors import StoreUnavailable
from mailtwist.policy import presence
from mailtwist.policy.auth import Authenticator, Login
from mailtwist.store import accounts
from mailtwist.store.accounts import Verifier
from mailtwist.store.changes import Report
from tests.support.now import now

VERIFIERS = [Verifier("bcrypt", "x")]


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


@pytest.fixture
def authenticator(database, clock):
    return Authenticator(database, clock=clock)


@pytest.fixture
def enter(authenticator, database):
    """Make an account and let it be present; a list that grows when it has to go."""

    def make(name):
        account = now(database.write(lambda connection: accounts.add(connection, name, VERIFIERS)))
        ended = []
        login = Login(account.account_id, name, frozenset(), account.auth_version)
        leave = authenticator.watch(login, lambda: ended.append(name))
        return account.account_id, ended, leave

    return make


@pytest.mark.parametrize(
    "change",
    [
        accounts.remove_step,
        lambda c, number: accounts.set_state(c, number, "disabled"),
        lambda c, number: accounts.set_secrets(c, number, VERIFIERS),
    ],
    ids=["removed", "disabled", "password"],
)
def test_a_session_ends_with_what_it_stands_on(enter, database, clock, change):
    alice, alice_ended, _ = enter("alice@example.com")
    _, bob_ended, _ = enter("bob@example.com")
    clock.advance(60)
    now(database.write(lambda connection: change(connection, alice)))
    clock.advance(2)
    assert (alice_ended, bob_ended) == (["alice@example.com"], [])
    clock.advance(60)
    assert alice_ended == ["alice@example.com"], "told twice"


def test_other_changes_of_the_account_end_nothing(enter, database, clock):
    alice, ended, _ = enter("alice@example.com")
    now(database.write(lambda connection: accounts.set_quota(connection, alice, octets=5)))
    clock.advance(60)
    assert ended == []


def test_who_has_left_is_not_told(enter, database, clock):
    alice, ended, leave = enter("alice@example.com")
    leave()
    leave()
    now(database.write(lambda connection: accounts.set_state(connection, alice, "disabled")))
    clock.advance(60)
    assert ended == []


def test_a_change_during_the_login_is_not_missed(authenticator, database, clock):
    """The login was read, the account changed, and only then the session is entered."""
    account = now(database.write(lambda c: accounts.add(c, "alice@example.com", VERIFIERS)))
    now(database.write(lambda c: accounts.set_secrets(c, account.account_id, VERIFIERS)))
    clock.advance(5)
    ended = []
    login = Login(account.account_id, "alice@example.com", frozenset(), account.auth_version)
    authenticator.watch(login, lambda: ended.append(1))
    clock.advance(2)
    assert ended == [1]


def test_many_changes_are_one_look(enter, database, clock, monkeypatch):
    alice, _, _ = enter("alice@example.com")
    clock.advance(60)
    reads = []
    read = database.read

    async def counted(work):
        reads.append(work)
        return await read(work)

    monkeypatch.setattr(database, "read", counted)
    for _ in range(50):
        now(database.write(lambda connection: accounts.set_quota(connection, alice, octets=5)))
    clock.advance(2)
    assert len(reads) == 1


def test_more_sessions_than_one_read_takes(enter, database, clock, monkeypatch):
    monkeypatch.setattr(presence, "AT_ONCE", 2)
    everybody = [enter(f"u{n}@example.com") for n in range(5)]
    clock.advance(60)
    for number, _, _ in everybody:
        now(database.write(lambda c, n=number: accounts.set_state(c, n, "disabled")))
    clock.advance(2)
    assert all(ended for _, ended, _ in everybody)


def test_a_store_that_fails_is_asked_again(enter, database, clock, monkeypatch):
    alice, ended, _ = enter("alice@example.com")
    clock.advance(60)
    now(database.write(lambda connection: accounts.set_state(connection, alice, "disabled")))

    async def broken(work):
        raise StoreUnavailable()

    with monkeypatch.context() as patched:
        patched.setattr(database, "read", broken)
        clock.advance(1)
    assert ended == []
    clock.advance(presence.RETRY_S)
    assert ended == ["alice@example.com"]


def test_a_session_that_stumbles_does_not_keep_the_others(
    authenticator, enter, database, clock, capture_failures
):
    alice, ended, _ = enter("alice@example.com")
    login = Login(alice, "alice@example.com", frozenset(), 1)

    def stumble():
        raise RuntimeError("the session is broken")

    authenticator.watch(login, stumble)
    clock.advance(60)
    now(database.write(lambda connection: accounts.set_state(connection, alice, "disabled")))
    clock.advance(2)
    assert ended == ["alice@example.com"]
    assert capture_failures == ["a session could not be ended"]


@pytest.fixture
def capture_failures(monkeypatch):
    said = []

    class Recorder:
        def failure(self, text, *_args, **_fields):
            said.append(text)

        def info(self, *_args, **_fields):
            pass

    monkeypatch.setattr(presence, "log", Recorder())
    return said


def test_changes_of_another_process_are_heard(enter, database, clock):
    """They come as a hint without numbers."""
    alice, ended, _ = enter("alice@example.com")
    clock.advance(60)
    with database.engine.write() as connection:
        accounts.set_state(connection, alice, "disabled")
    clock.advance(60)
    assert ended == []
    database.changes.publish(Report(kinds={"account"}))
    clock.advance(2)
    assert ended == ["alice@example.com"]
