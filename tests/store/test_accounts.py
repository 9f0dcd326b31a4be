from __future__ import annotations

import pytest

from mailtwist.errors import Conflict, MailError, NotFound, Refusal
from mailtwist.mail.address import parse_address
from mailtwist.store import accounts, domains, mailboxes
from mailtwist.store.accounts import Verifier
from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine
from mailtwist.store.messages import expunge, store_flags
from mailtwist.store.steps import remove_account, resume
from tests.store.making import NOW, account, put
from tests.support.now import now

SECRETS = [Verifier("bcrypt", "$2b$..."), Verifier("scram-sha-256", "4096$...")]


def test_an_account_has_its_domain_and_default_mailboxes_at_once(engine: Engine) -> None:
    with engine.write() as connection:
        made = accounts.add(connection, "Anna@Example.COM", SECRETS, quota_octets=7, now=NOW)
    with engine.read() as connection:
        assert accounts.find(connection, "ANNA@example.com") == made
        assert accounts.get(connection, made.account_id) == made
        assert made.username == "anna@example.com"
        assert made.quota_octets == 7
        assert made.is_active
        assert domains.is_local(connection, "EXAMPLE.com")
        listed = mailboxes.list(connection, made.account_id)
        assert {m.name: m.special_use for m in listed} == {
            "INBOX": "",
            "Sent": "\\Sent",
            "Draft": "\\Drafts",
            "Trash": "\\Trash",
            "Spam": "\\Junk",
            "Archive": "\\Archive",
        }
        subscribed = mailboxes.subscribed(connection, made.account_id)
        assert set(subscribed) == {m.name for m in listed}
        assert accounts.secrets(connection, made.account_id) == SECRETS


@pytest.mark.parametrize("name", ["anna", "", "a b@example.com", "anna@-bad-.example", "@x.org"])
def test_a_name_that_is_no_address_finds_and_makes_nothing(engine: Engine, name: str) -> None:
    with engine.write() as connection:
        assert accounts.find(connection, name) is None
        with pytest.raises(MailError) as caught:
            accounts.add(connection, name, [], now=NOW)
        assert caught.value.code // 100 == 5
        assert accounts.count(connection) == 0


def test_an_address_is_given_once(engine: Engine) -> None:
    with engine.write() as connection:
        account(connection)
        accounts.add_alias(connection, "info@example.com", ["anna@example.com"])
        for taken in ("anna@example.com", "ANNA@example.com", "info@example.com"):
            with pytest.raises(Conflict):
                accounts.add(connection, taken, [], now=NOW)
            with pytest.raises(Conflict):
                accounts.add_alias(connection, taken, ["x@example.com"])


def test_a_new_password_replaces_the_old_and_raises_auth_version(engine: Engine) -> None:
    with engine.write() as connection:
        made = accounts.add(connection, "anna@example.com", SECRETS, now=NOW)
        accounts.set_secrets(connection, made.account_id, [Verifier("bcrypt", "new")], now=NOW)
        assert accounts.secrets(connection, made.account_id) == [Verifier("bcrypt", "new")]
        again = accounts.get(connection, made.account_id)
        assert again.auth_version == made.auth_version + 1
        with pytest.raises(NotFound):
            accounts.set_secrets(connection, 99, SECRETS)


def test_a_disabled_account_stays_but_ends_its_logins(engine: Engine) -> None:
    with engine.write() as connection:
        made = accounts.add(connection, "anna@example.com", [], now=NOW)
        accounts.set_state(connection, made.account_id, "disabled")
        found = accounts.find(connection, "anna@example.com")
        assert found is not None
        assert not found.is_active
        assert found.auth_version > made.auth_version
        with pytest.raises(Refusal):
            accounts.set_state(connection, made.account_id, "removing")
        assert put(connection, made.account_id)


def test_an_account_may_send_as_its_address_and_its_aliases(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        bert = account(connection, "bert@example.com")
        targets = ["anna@example.com", "bert@example.com"]
        accounts.add_alias(connection, "Team@example.org", targets)
        accounts.add_alias(connection, "info@example.com", ["Anna@Example.com"])
        assert accounts.addresses(connection, anna) == {
            "anna@example.com",
            "team@example.org",
            "info@example.com",
        }
        assert accounts.addresses(connection, bert) == {"bert@example.com", "team@example.org"}
        assert accounts.aliases(connection) == {
            "info@example.com": ("anna@example.com",),
            "team@example.org": ("anna@example.com", "bert@example.com"),
        }
        accounts.remove_alias(connection, "team@example.org")
        assert accounts.addresses(connection, bert) == {"bert@example.com"}
        for name in ("team@example.org", "anna@example.com", "x@nowhere.example"):
            with pytest.raises(NotFound):
                accounts.remove_alias(connection, name)


def test_an_alias_needs_a_target(engine: Engine) -> None:
    with engine.write() as connection:
        for targets in ([], [f"u{n}@example.com" for n in range(101)]):
            with pytest.raises(Refusal):
                accounts.add_alias(connection, "all@example.com", targets)


def test_accounts_are_listed_in_pages(engine: Engine) -> None:
    with engine.write() as connection:
        for n in range(5):
            account(connection, f"u{n}@example.com")
        page = accounts.list(connection, limit=2)
        rest = accounts.list(connection, after=page[-1].username)
        assert [a.username for a in (*page, *rest)] == [f"u{n}@example.com" for n in range(5)]
        assert accounts.count(connection) == 5


def test_a_domain_with_accounts_stays(engine: Engine) -> None:
    with engine.write() as connection:
        account(connection)
        with pytest.raises(Conflict):
            domains.remove(connection, "example.com")
        with pytest.raises(Conflict):
            domains.add(connection, "EXAMPLE.com")
        domains.add(connection, "m\u00fcnchen.example", catch_all="anna@example.com")
        accounts.add_alias(connection, "x@m\u00fcnchen.example", ["anna@example.com"])
        names = [d.name for d in domains.list(connection)]
        assert names == ["example.com", "xn--mnchen-3ya.example"]
        domains.remove(connection, "M\u00fcnchen.example")
        assert not domains.is_local(connection, "xn--mnchen-3ya.example")
        with pytest.raises(NotFound):
            domains.remove(connection, "m\u00fcnchen.example")


def test_a_relayed_domain_is_not_local(engine: Engine) -> None:
    with engine.write() as connection:
        assert not domains.add(connection, "example.net", "relay").is_local
        assert not domains.is_local(connection, "example.net")
        with pytest.raises(Refusal):
            domains.add(connection, "example.org", "nonsense")


def test_removal_frees_the_name_at_once_and_takes_all_in_steps(database: Inline) -> None:
    engine = database.engine
    with engine.write() as connection:
        anna = accounts.add(connection, "anna@example.com", SECRETS, now=NOW).account_id
        put(connection, anna, count=25, keywords=("$Work",))
        store_flags(connection, anna, 1, [1, 2], "+", 8)
        expunge(connection, anna, 1)
        assert accounts.remove_step(connection, anna, 10) is False
    with engine.write() as connection:
        assert accounts.find(connection, "anna@example.com") is None
        assert accounts.removing(connection) == [anna]
        with pytest.raises(NotFound):
            store_flags(connection, anna, 1, [3], "+", 1)
        assert account(connection, "anna@example.com") != anna
    steps = 0
    while True:
        with engine.write() as connection:
            steps += 1
            if accounts.remove_step(connection, anna, 10):
                break
    # 23 messages and their e-mails, ten at a time, one expunged row, and the rest.
    assert 6 <= steps <= 9
    with engine.read() as connection:
        left = connection.exec_driver_sql(
            "SELECT (SELECT count(*) FROM email) + (SELECT count(*) FROM email_detail),"
            " (SELECT count(*) FROM keyword),"
            " (SELECT count(*) FROM account), (SELECT count(*) FROM content_doubt)"
        ).one()
    assert tuple(left) == (0, 0, 1, 25)


def test_a_removal_cut_short_is_resumed(database: Inline) -> None:
    with database.engine.write() as connection:
        anna, bert = account(connection), account(connection, "bert@example.com")
        put(connection, anna, count=3)
        put(connection, bert, count=3)
        accounts.remove_step(connection, anna)
    now(resume(database))
    with database.engine.read() as connection:
        assert accounts.removing(connection) == []
        assert [a.account_id for a in accounts.list(connection)] == [bert]
    now(remove_account(database, bert))
    now(remove_account(database, bert))
    with database.engine.read() as connection:
        assert accounts.list(connection) == []


def test_an_account_is_named_by_a_value_too(engine: Engine) -> None:
    with engine.write() as connection:
        made = accounts.add(connection, parse_address('"Odd Name"@example.com'), [], now=NOW)
        found = accounts.find(connection, '"odd name"@EXAMPLE.com')
        assert found is not None
        assert found.account_id == made.account_id
