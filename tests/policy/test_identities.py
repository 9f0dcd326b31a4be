from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from mailtwist.mail.permissions import NOBODY, Bit, Scope
from mailtwist.policy import api_keys, passwords
from mailtwist.policy.identities import Identities, TooManyTries, Unauthorized
from mailtwist.store import administration, identities
from mailtwist.store.administration import BuiltIn, TableRights
from mailtwist.store.sql import Statement
from tests.support.now import now
from tests.support.values import Values

PASSWORD = "adminadmin"
HERE = "192.0.2.1"
START = 1_800_000_000

_ADD_USER = Statement(
    """
    INSERT INTO user_account (name, email, mobile, auth_version, reference_id, permission,
                              created_at, updated_at)
    VALUES (?, ?, '', 1, ?, 561441, 1, 1) RETURNING user_id
    """
)
_ADD_SECRET = Statement(
    """
    INSERT INTO user_secret (user_id, secret_id, kind, verifier, label, created_at)
    VALUES (?, ?, ?, ?, '', 1)
    """
)
_ADD_KEY = Statement(
    """
    INSERT INTO api_key (name, prefix, hash, scopes, is_test, expires_at, owner_user_id,
                         reference_id, permission, created_at, updated_at)
    VALUES ('', ?, ?, ?, ?, ?, ?, ?, 16256, 1, 1)
    """
)
_NEW_VERSION = Statement("UPDATE user_account SET auth_version = auth_version + 1")
_LAST_USED = Statement("SELECT last_used_at FROM api_key")


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(START)
    return clock


@pytest.fixture
def values():
    return Values()


def build(database, values, clock):
    return Identities(database, values=values, clock=clock, cost=4)


@pytest.fixture
def people(database, values, clock):
    return build(database, values, clock)


def add_user(engine, email="a@x.org", name="A"):
    reference = f"user-{email}"
    with engine.write() as connection:
        number = _ADD_USER(connection, (name, email, reference)).scalar()
        for n, each in enumerate(passwords.make_verifiers(PASSWORD, cost=4)[:1], 1):
            _ADD_SECRET(connection, (number, n, each.kind, each.verifier))
    return number


def add_key(engine, owner, *scopes, is_test=False, expires_at=None):
    key = api_keys.make(is_test=is_test)
    row = (key.prefix, key.digest, json.dumps(scopes), int(is_test), expires_at, owner, key.digest)
    with engine.write() as connection:
        _ADD_KEY(connection, row)
    return key.text


def sign_in(people, email="a@x.org", password=PASSWORD, peer=HERE):
    return now(people.sign_in(email, password, peer=peer))


# -- signing in -------------------------------------------------------------------------------


@pytest.mark.mission("DAP-007")
def test_a_sign_in_gives_a_token_that_tells_who_it_is(people, engine):
    number = add_user(engine)
    token = sign_in(people)
    assert token.count(".") == 2
    viewer = now(people.viewer(token))
    assert (viewer.user_id, viewer.email, viewer.reference_id) == (
        number,
        "a@x.org",
        "user-a@x.org",
    )
    assert not viewer.is_admin
    assert viewer.scopes is None


def test_no_token_is_a_guest(people):
    assert now(people.viewer("")) == NOBODY


@pytest.mark.mission("DAP-009")
def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(people, engine):
    add_user(engine)
    for email in ("a@x.org", "nobody@x.org", "no address", "", "a@x.org\0"):
        with pytest.raises(Unauthorized) as refused:
            sign_in(people, email, "wrong password", peer=f"peer of {email[:3]!r}")
        assert (refused.value.http_status, refused.value.text) == (
            401,
            "Invalid username or password",
        )


def test_the_address_is_taken_in_any_case(people, engine):
    add_user(engine)
    assert sign_in(people, " A@X.org ")


@pytest.mark.mission("DAP-019")
def test_the_fifth_bad_sign_in_locks_the_user_and_a_restart_does_not_help(
    people, engine, database, values, clock
):
    add_user(engine)
    for n in range(5):
        with pytest.raises(Unauthorized):
            sign_in(people, password="wrong", peer=f"192.0.2.{n}")
    again = build(database, values, clock)
    for each in (people, again):
        with pytest.raises(TooManyTries) as refused:
            sign_in(each, peer="198.51.100.1")
        assert refused.value.http_status == 429
    clock.advance(301)
    assert sign_in(again, peer="198.51.100.1")


def test_a_mail_account_of_the_same_name_is_not_locked_with_the_user(people, engine, database):
    add_user(engine)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            sign_in(people, password="wrong")
    with engine.read() as connection:
        scopes = Statement("SELECT scope FROM login_failure WHERE locked_until > 0")(connection)
        assert [scope for (scope,) in scopes] == ["user"]


# -- tokens -----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-011")
@pytest.mark.parametrize("token", ["x.y.z", "nonsense", "é", "\0", "mt_live_", "mt_test_x" * 1000])
def test_a_token_that_is_none_is_refused(people, token):
    with pytest.raises(Unauthorized) as refused:
        now(people.viewer(token))
    assert refused.value.http_status == 401


def test_a_token_runs_out(people, engine, clock):
    add_user(engine)
    token = sign_in(people)
    clock.advance(72 * 3600 - 1)
    assert now(people.viewer(token)).user_id
    clock.advance(1)
    with pytest.raises(Unauthorized):
        now(people.viewer(token))


@pytest.mark.mission("DAP-012")
def test_a_token_dies_with_a_change_of_the_password(people, engine, database):
    add_user(engine)
    token = sign_in(people)
    now(people.viewer(token))

    def change(connection):
        _NEW_VERSION(connection)
        identities.changed(connection)

    now(database.write(change))
    with pytest.raises(Unauthorized):
        now(people.viewer(token))
    assert now(people.viewer(sign_in(people))).user_id


def test_no_token_is_given_for_a_password_that_is_changed_meanwhile(people, engine, database):
    add_user(engine)
    read = database.read

    async def changing(work, **options):
        # The user is read once more after his password was found right.
        if getattr(work, "func", None) is identities.user_of_number:
            await database.write(_NEW_VERSION)
        return await read(work, **options)

    database.read = changing
    with pytest.raises(Unauthorized):
        sign_in(people)


def test_a_token_of_a_removed_user_is_refused(people, engine, database):
    add_user(engine)
    token = sign_in(people)
    now(people.viewer(token))

    def remove(connection):
        for table in ("user_secret", "user_account"):
            Statement(f"DELETE FROM {table}")(connection)
        identities.changed(connection)

    now(database.write(remove))
    with pytest.raises(Unauthorized):
        now(people.viewer(token))


def test_a_viewer_is_read_once_until_something_changes(people, engine, database):
    add_user(engine)
    token = sign_in(people)
    reads = []
    read = database.read

    async def counted(work, **options):
        reads.append(work)
        return await read(work, **options)

    database.read = counted
    for _ in range(5):
        now(people.viewer(token))
    assert len(reads) == 1
    now(database.write(identities.changed))
    now(people.viewer(token))
    assert len(reads) == 2


def test_the_secret_is_made_once_and_outlives_a_restart(people, engine, database, values, clock):
    add_user(engine)
    token = sign_in(people)
    again = build(database, values, clock)
    assert now(again.viewer(token)).user_id
    assert values.made == 1
    assert len(values.values["jwt.secret"]) >= 43


def test_another_secret_or_issuer_ends_every_token(people, engine, values):
    add_user(engine)
    for name, value in (("jwt.secret", "n" * 64), ("jwt.token.issuer", "elsewhere")):
        token = sign_in(people)
        assert now(people.viewer(token)).user_id
        values.put(name, value)
        with pytest.raises(Unauthorized):
            now(people.viewer(token))


@pytest.mark.parametrize(
    "hours, seconds",
    [
        ("1", 3600),
        ("0.5", 1800),
        ("", 259200),
        ("0", 259200),
        ("-1", 259200),
        ("x", 259200),
        ("nan", 259200),
        ("inf", 315360000),
        ("1e9", 315360000),
    ],
)
def test_how_long_a_token_lives_is_configured(people, engine, values, clock, hours, seconds):
    add_user(engine)
    values.put("jwt.token.life.hours", hours)
    token = sign_in(people)
    clock.advance(seconds - 1)
    assert now(people.viewer(token)).user_id
    clock.advance(1)
    with pytest.raises(Unauthorized):
        now(people.viewer(token))


# -- the first administrator ------------------------------------------------------------------


def become(database, number):
    return now(
        database.write(
            lambda connection: administration.become_administrator(
                connection,
                number,
                tables={"world": TableRights(561441, 561441)},
                actions=[BuiltIn("world", "x", "X", permission=561441)],
                now=5,
            )
        )
    )


@pytest.mark.mission("DAP-013", "DAP-016")
def test_the_first_to_ask_becomes_administrator_and_his_old_token_tells_so(
    people, engine, database
):
    first, second = add_user(engine), add_user(engine, "b@x.org")
    token = sign_in(people)
    assert not now(people.viewer(token)).is_admin
    assert become(database, first)
    assert now(people.viewer(token)).is_admin
    assert not become(database, second)
    assert not become(database, first)
    assert not now(people.viewer(sign_in(people, "b@x.org"))).is_admin


# -- API keys ---------------------------------------------------------------------------------


def test_a_key_is_its_owner_within_its_scopes(people, engine):
    number = add_user(engine)
    text = add_key(engine, number, "send:x.org")
    assert text.startswith("mt_live_")
    viewer = now(people.viewer(text))
    assert (viewer.user_id, viewer.scopes, viewer.is_test) == (
        number,
        (Scope("send", "x.org"),),
        False,
    )
    assert not viewer.in_scope("mail", Bit.READ)


def test_a_test_key_says_so(people, engine):
    text = add_key(engine, add_user(engine), "admin", is_test=True)
    assert text.startswith("mt_test_")
    assert now(people.viewer(text)).is_test


def test_only_the_scope_admin_makes_a_key_an_administrator(people, engine, database):
    number = add_user(engine)
    narrow, wide = add_key(engine, number, "send:*"), add_key(engine, number, "admin")
    become(database, number)
    assert not now(people.viewer(narrow)).is_admin
    assert now(people.viewer(wide)).is_admin


def test_a_key_ends_when_it_should(people, engine, clock):
    text = add_key(engine, add_user(engine), "admin", expires_at=(START + 10) * 1_000_000)
    assert now(people.viewer(text)).user_id
    clock.advance(10)
    with pytest.raises(Unauthorized):
        now(people.viewer(text))


def test_a_key_whose_scopes_cannot_be_read_may_nothing(people, engine, database):
    text = add_key(engine, add_user(engine), "everything")
    viewer = now(people.viewer(text))
    assert viewer.scopes == ()
    assert not viewer.in_scope("mail", Bit.READ)


def test_a_key_that_differs_by_one_letter_is_refused(people, engine):
    text = add_key(engine, add_user(engine), "admin")
    for wrong in (text[:-1], text + "x", text.swapcase(), text.replace("live", "test")):
        with pytest.raises(Unauthorized):
            now(people.viewer(wrong))


def test_when_a_key_was_used_last_is_noted_now_and_then(people, engine, clock):
    text = add_key(engine, add_user(engine), "admin")

    def last_used():
        with engine.read() as connection:
            return _LAST_USED(connection).scalar()

    now(people.viewer(text))
    assert last_used() == START * 1_000_000
    clock.advance(299)
    now(people.viewer(text))
    assert last_used() == START * 1_000_000
    clock.advance(1)
    now(people.viewer(text))
    assert last_used() == (START + 300) * 1_000_000


def test_a_row_of_a_key_tells_nobody_the_key(engine):
    text = add_key(engine, add_user(engine), "admin")
    with engine.read() as connection:
        row = Statement("SELECT prefix, hash FROM api_key")(connection).first()
    assert text[:12] == row[0]
    assert text not in row
    assert len(text) - len(row[0]) > 30
