from __future__ import annotations

import pytest
from sqlalchemy import text

from mailtwist.config import load
from mailtwist.config.kinds import MASK
from mailtwist.errors import Conflict, NotFound, ProtocolViolation
from mailtwist.store import config_values
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.secrets import Secrets
from tests.support.now import now

SECRETS = Secrets(bytes(range(32)))


def make(database, *, secrets=SECRETS, **environ):
    settings = load(None, {"MAILTWIST_DATA_DIR": "/nowhere", **environ})
    values = ConfigValues(database, settings, secrets, now=lambda: 7)
    now(values.load())
    return values


def stored(database, name):
    with database.engine.read() as connection:
        return connection.execute(
            text("SELECT value, is_sealed FROM config_value WHERE name = :name"), {"name": name}
        ).first()


def test_a_value_is_in_use_when_it_is_stored(database):
    values = make(database)
    now(values.put("mail.dkim_selector", "k2"))
    assert values.get("mail.dkim_selector") == "k2"
    assert values.settings.dkim.selector == "k2"
    assert make(database).settings.dkim.selector == "k2"  # also after the next start


def test_a_value_that_is_removed_leaves_the_default(database):
    values = make(database)
    now(values.put("imps.enabled", "true"))
    assert values.get("imap.enabled") == "true"
    now(values.remove("imap.enabled"))
    assert values.get("imap.enabled") == "false"
    with pytest.raises(NotFound):
        values.shown("imap.enabled")
    with pytest.raises(NotFound):
        now(values.remove("imap.enabled"))


def test_a_second_value_replaces_the_first(database):
    values = make(database)
    now(values.put("hostname", "a.example"))
    now(values.put("hostname", "b.example"))
    assert values.settings.hostname == "b.example"


def test_another_process_hears_of_it(database):
    values, other = make(database), make(database)
    heard = []
    other.watch(lambda: heard.append(other.settings.hostname))
    now(values.put("hostname", "mx.example.com"))
    assert heard == ["mx.example.com"]
    now(values.put("hostname", "mx.example.com"))
    assert len(heard) == 1, "nothing has changed"


def test_what_a_source_has_given_is_refused_and_the_source_named(database):
    values = make(database, MAILTWIST_HOSTNAME="mx.example.com")
    with pytest.raises(Conflict, match="environment MAILTWIST_HOSTNAME"):
        now(values.put("hostname", "other.example"))
    with pytest.raises(Conflict, match="environment MAILTWIST_HOSTNAME"):
        now(values.remove("hostname"))
    assert values.get("hostname") == values.shown("hostname") == "mx.example.com"
    assert stored(database, "hostname") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("imap.enabled", "perhaps"), ("a b", "x"), ("", "x"), ("x" * 500, "x"), ("a", "x" * 70_000)],
)
def test_bad_input_changes_nothing(database, name, value):
    values = make(database)
    with pytest.raises(ProtocolViolation):
        now(values.put(name, value))
    with database.engine.read() as connection:
        assert config_values.rows(connection) == []


def test_there_is_an_end_to_keys_that_nobody_knows(database, monkeypatch):
    monkeypatch.setattr(config_values, "MAX_KEYS", 2)
    values = make(database)
    now(values.put("a", "1"))
    now(values.put("b", "1"))
    with pytest.raises(Conflict):
        now(values.put("c", "1"))
    now(values.put("b", "2"))
    assert values.get("b") == "2"


def test_secrets_are_sealed_in_their_row_and_masked_in_answers(database):
    values = make(database)
    secret = "a very secret text, long enough to sign with"
    for name in ("jwt.secret", "encryption.secret", "encryption.private_key.a@example.com"):
        now(values.put(name, secret))
        assert values.get(name) == secret
        assert values.shown(name) == MASK
        value, is_sealed = stored(database, name)
        assert is_sealed
        assert secret not in value
    assert secret not in values.all_shown().values()
    assert values.all_shown()["jwt.secret"] == MASK


def test_the_mask_is_no_value(database):
    values = make(database)
    now(values.put("jwt.secret", "s" * 32))
    with pytest.raises(ProtocolViolation, match="mask"):
        now(values.put("jwt.secret", MASK))
    assert values.get("jwt.secret") == "s" * 32


def test_all_values_in_use_are_shown(database):
    values = make(database, MAILTWIST_HOSTNAME="mx.example.com")
    now(values.put("somebody.elses", "x"))
    shown = values.all_shown()
    assert shown["hostname"] == "mx.example.com"
    assert shown["imap.enabled"] == "false"
    assert shown["somebody.elses"] == "x"
    assert shown["jwt.secret"] == ""


def test_a_secret_is_made_once_for_all_processes(database):
    one, other = make(database), make(database)
    made = now(one.establish("jwt.secret", lambda: "first"))
    assert now(other.establish("jwt.secret", lambda: "second")) == made == "first"


def test_two_that_make_it_at_the_same_time_use_the_same(database):
    values = make(database)

    def make_while_another_does():
        now(make(database).establish("jwt.secret", lambda: "theirs"))
        return "ours"

    assert now(values.establish("jwt.secret", make_while_another_does)) == "theirs"


def test_a_secret_that_cannot_be_opened_is_made_anew(database, caplog):
    now(make(database).establish("jwt.secret", lambda: "lost"))
    other = make(database, secrets=Secrets(bytes(32)))
    assert other.get("jwt.secret") == ""
    assert now(other.establish("jwt.secret", lambda: "new")) == "new"
    assert other.get("jwt.secret") == "new"
