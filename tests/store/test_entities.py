"""Rows of entities: made, read, changed, deleted, and by whom."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select

from mailtwist.errors import Conflict, NotFound, ProtocolViolation
from mailtwist.mail.permissions import (
    LOCKED,
    NOBODY,
    OPEN,
    OWN_MAIL,
    OWNED,
    SYSTEM,
    Bit,
    Scope,
    Viewer,
)
from mailtwist.store import accounts, changes, dkim_keys, entities, identities
from mailtwist.store.engine import Engine
from mailtwist.store.entities import engine as rest
from mailtwist.store.entities.model import (
    AccessDenied,
    Facts,
    ListRequest,
    MethodNotAllowed,
    Prepared,
    Ref,
)
from mailtwist.store.entities.tables import (
    api_key,
    certificate,
    credential,
    user_account,
    user_secret,
)
from tests.store import making
from tests.store.making import NOW
from tests.store.people import (
    PASSWORD,
    administrator,
    change,
    listed,
    locked,
    make,
    named,
    remove,
    rows,
    seeded,
    user,
    viewer,
)

SEALED = Prepared("v1:sealed")
UNKNOWN = "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"

SERVER = {
    "hostname": "mail.example.com",
    "is_enabled": True,
    "listen_interface": "0.0.0.0:465",
    "always_on_tls": True,
    "max_size": 10485760,
    "max_clients": 100,
}
OLD_SERVER = {
    "always_on_tls": True,
    "authentication_required": True,
    "hostname": "mail.example.com",
    "is_enabled": True,
    "listen_interface": "0.0.0.0:465",
    "max_clients": "20",
    "max_size": "10000",
    "permission": 0,
    "xclient_on": False,
}


# -- making and reading ---------------------------------------------------------------------


@pytest.mark.mission("DAP-031")
@pytest.mark.parametrize("given", [SERVER, OLD_SERVER])
def test_a_row_reads_back_as_it_was_given(engine: Engine, given: dict[str, Any]) -> None:
    with engine.write() as connection:
        locked(connection)
        admin = administrator(connection)
        item = make(connection, admin, "mail_server", given)
        assert rest.get_row(connection, admin, "mail_server", item.id) == item
        expected = dict(given) | {"max_clients": int(given["max_clients"])}
        expected |= {"max_size": int(given["max_size"]), "permission": LOCKED}
        assert {name: item.attributes[name] for name in expected} == expected
        assert item.attributes["__type"] == "mail_server"
        assert item.attributes["reference_id"] == item.id
        assert item.attributes["user_account_id"] == admin.reference_id
        assert item.relations["user_account_id"] == Ref("user_account", admin.reference_id)
        assert item.attributes["created_at"] == "2027-01-15T08:00:00Z"


@pytest.mark.mission("DAP-033")
def test_a_mail_server_has_defaults(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        item = make(connection, SYSTEM, "mail_server", {"hostname": "MAIL.Example.com."})
        expected = {
            "hostname": "mail.example.com",
            "is_enabled": False,
            "listen_interface": "0.0.0.0:465",
            "always_on_tls": True,
            "authentication_required": True,
            "xclient_on": False,
            "max_clients": 20,
        }
        assert {name: item.attributes[name] for name in expected} == expected


@pytest.mark.mission("DAP-034")
@pytest.mark.parametrize("given", [True, 1, "1", "true", "yes", "on", "TRUE", 1.0])
def test_a_boolean_is_read_in_every_spelling(engine: Engine, given: object) -> None:
    with engine.write() as connection:
        seeded(connection)
        item = make(connection, SYSTEM, "mail_server", {"hostname": "a.b", "is_enabled": given})
        assert item.attributes["is_enabled"] is True
        assert change(connection, SYSTEM, item, {"is_enabled": "off"}).attributes["is_enabled"] is (
            False
        )


# entity, attributes, what the error names
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("mail_server", {}, "hostname cannot be blank"),
    ("mail_server", {"hostname": ""}, "hostname"),
    ("mail_server", {"hostname": None}, "hostname"),
    ("mail_server", {"hostname": 5}, "hostname: a text"),
    ("mail_server", {"hostname": ["a.b"]}, "hostname: a text"),
    ("mail_server", {"hostname": "a b"}, "hostname"),
    ("mail_server", {"hostname": "a\0b"}, "hostname"),
    ("mail_server", {"hostname": "\ud800.b"}, "hostname"),
    ("mail_server", {"hostname": "a." * 200}, "hostname"),
    ("mail_server", {"hostname": "a.b", "max_size": "many"}, "max_size: a whole number"),
    ("mail_server", {"hostname": "a.b", "max_size": {}}, "max_size"),
    ("mail_server", {"hostname": "a.b", "max_size": True}, "max_size"),
    ("mail_server", {"hostname": "a.b", "max_size": 1.5}, "max_size"),
    ("mail_server", {"hostname": "a.b", "max_size": -1}, "max_size"),
    ("mail_server", {"hostname": "a.b", "max_size": 10**400}, "max_size"),
    ("mail_server", {"hostname": "a.b", "max_size": "9" * 10_000}, "max_size"),
    ("mail_server", {"hostname": "a.b", "max_size": float("inf")}, "max_size"),
    ("mail_server", {"hostname": "a.b", "is_enabled": "maybe"}, "is_enabled"),
    ("mail_server", {"hostname": "a.b", "is_enabled": 2}, "is_enabled"),
    ("mail_server", {"hostname": "a.b", "is_enabled": []}, "is_enabled"),
    ("mail_server", {"hostname": "a.b", "listen_interface": "nowhere"}, "listen_interface"),
    ("mail_server", {"hostname": "a.b", "listen_interface": "a:99999"}, "listen_interface"),
    ("mail_server", {"hostname": "a.b", "owner_user_id": 1}, "no column owner_user_id"),
    ("mail_server", {"hostname": "a.b", "mail_server_id": 1}, "no column mail_server_id"),
    ("mail_server", {"hostname": "a.b", "permission": "all"}, "permission"),
    ("mail_server", {"hostname": "a.b", "permission": -1}, "permission"),
    ("mail_server", {"hostname": "a.b", "permission": 1 << 22}, "permission"),
    ("mail_server", {"hostname": "a.b", "user_account_id": "x"}, "user_account_id"),
    ("mail_server", {"hostname": "a.b", "user_account_id": UNKNOWN}, UNKNOWN),
    ("mail_server", {"hostname": "a.b", "user_account_id": 5}, "user_account_id"),
    ("mail_server", {"hostname": "a.b", "mail_account_id": [UNKNOWN]}, "mail_account"),
    ("credential", {"name": "x"}, "content cannot be blank"),
    ("certificate", {"hostname": "a.b", "generated_at": "soon"}, "generated_at"),
    ("certificate", {"hostname": "a.b", "generated_at": 10**300}, "generated_at"),
    ("certificate", {"hostname": "a.b", "generated_at": "9999999999999999999"}, "generated_at"),
    ("user_account", {"name": "a", "email": "a@b.c"}, "password cannot be blank"),
    ("user_account", {"name": "a", "email": "bad", "password": PASSWORD}, "email"),
    ("user_account", {"name": "a", "email": "a@b", "password": PASSWORD}, "email"),
    ("user_account", {"name": "a", "email": "a@b.c d", "password": PASSWORD}, "email"),
    ("action", {"action_name": "a"}, "world_id cannot be blank"),
    ("task", {"action_name": "a", "entity_name": "b"}, "schedule"),
    ("domain", {"name": "a b"}, "name"),
    ("domain", {"name": "a.b", "kind": "odd"}, "kind: one of local, inbox, relay"),
    ("domain", {"name": "a.b", "catch_all": "nobody"}, "catch_all"),
    ("alias", {"address": "a@b.c", "targets": []}, "targets"),
    ("alias", {"address": "a@b.c", "targets": [1]}, "targets"),
    ("alias", {"address": "a@b.c", "targets": {"a": 1}}, "targets"),
    ("alias", {"address": "a@b.c", "targets": "[" * 1000}, "targets"),
    ("alias", {"address": "nobody", "targets": ["a@b.c"]}, "address"),
    ("api_key", {"prefix": Prepared("a"), "hash": Prepared("b"), "scopes": ["all"]}, "scopes"),
    ("api_key", {"scopes": ["admin"], "prefix": "mt_live_x", "hash": "h"}, "prefix"),
]


def test_bad_values_are_refused_by_name_and_nothing_is_made(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        for entity, attributes, named_so in BAD:
            before = listed(connection, SYSTEM, entity).total
            with pytest.raises(ProtocolViolation) as caught:
                make(connection, SYSTEM, entity, attributes)
            assert named_so in str(caught.value), attributes
            assert listed(connection, SYSTEM, entity).total == before


def test_a_password_that_nobody_prepared_never_becomes_a_row(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        with pytest.raises(AssertionError):
            make(connection, SYSTEM, "credential", {"name": "a", "content": "clear"})
        attributes = {"name": "a", "email": "a@b.c", "password": "clear"}
        with pytest.raises(AssertionError):
            make(connection, SYSTEM, "user_account", attributes)


def test_what_only_the_server_sets_is_passed_over(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        ours = {"reference_id": UNKNOWN, "id": 1, "version": 7, "created_at": "x", "__type": "y"}
        item = make(connection, SYSTEM, "mail_server", {"hostname": "a.b", **ours})
        assert item.id != UNKNOWN
        given = {"prefix": Prepared("mt_live_a"), "hash": Prepared("h"), "scopes": ["admin"]}
        admin = administrator(connection)
        key = make(connection, admin, "api_key", given | {"last_used_at": 5})
        assert key.attributes["last_used_at"] is None
        changed = change(connection, admin, key, {"prefix": "x", "is_test": True})
        assert (changed.attributes["prefix"], changed.attributes["is_test"]) == ("mt_live_a", False)
        assert connection.execute(select(api_key.c.hash)).scalar_one() == "h"


@pytest.mark.mission("DAP-035")
def test_what_must_be_unique_is_a_conflict_in_any_case(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        make(connection, SYSTEM, "mail_server", {"hostname": "a.b"})
        other = make(connection, SYSTEM, "mail_server", {"hostname": "c.d"})
        with pytest.raises(Conflict, match="hostname"):
            make(connection, SYSTEM, "mail_server", {"hostname": "A.B"})
        with pytest.raises(Conflict, match="hostname"):
            change(connection, SYSTEM, other, {"hostname": "a.b"})
        assert change(connection, SYSTEM, other, {"hostname": "c.d"}).id == other.id
        assert listed(connection, SYSTEM, "mail_server").total == 2
        user(connection, "a@example.com")
        with pytest.raises(Conflict, match="email"):
            user(connection, "A@Example.com")


@pytest.mark.mission("DAP-048")
def test_a_change_gives_the_whole_row_and_may_be_the_whole_row(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        admin = administrator(connection)
        item = make(connection, admin, "mail_server", SERVER)
        changed = change(connection, admin, item, {"max_size": "5000"})
        assert changed.attributes == dict(item.attributes) | {
            "max_size": 5000,
            "updated_at": "2027-01-15T08:00:00.000001Z",
        }
        again = change(connection, admin, changed, dict(changed.attributes), **changed.relations)
        assert again == changed


@pytest.mark.mission("DAP-047", "DAP-049", "DAP-050")
def test_what_is_not_there_is_not_found(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        item = make(connection, SYSTEM, "mail_server", {"hostname": "a.b"})
        remove(connection, SYSTEM, item)
        for id_ in (item.id, UNKNOWN, "", "5", "x" * 36, item.id.replace("-", ""), "\0" * 36):
            with pytest.raises(NotFound):
                rest.get_row(connection, SYSTEM, "mail_server", id_)
            with pytest.raises(NotFound):
                rest.delete_row(connection, SYSTEM, "mail_server", id_, now=NOW)
        for entity in ("nope", "", "mail_server; DROP TABLE account"):
            with pytest.raises(NotFound):
                listed(connection, SYSTEM, entity)


def test_a_uuid_in_capitals_is_the_same(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        item = make(connection, SYSTEM, "mail_server", {"hostname": "a.b"})
        assert rest.get_row(connection, SYSTEM, "mail_server", item.id.upper()) == item


@pytest.mark.mission("DAP-062")
def test_secrets_are_kept_and_never_leave(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        admin = administrator(connection)
        given = {"name": "aws", "content": SEALED}
        item = make(connection, admin, "credential", given)
        pem = {"hostname": "a.b", "private_key_pem": Prepared("v1:key")}
        cert = make(connection, admin, "certificate", pem)
        for found in (item, cert, *rows(connection, admin, "user_account")):
            assert not {"content", "private_key_pem"} & found.attributes.keys()
            assert "v1:" not in str(found)
            assert "$2b$" not in str(found)
            assert found.attributes.get("password", "") == ""
        changed = change(connection, admin, item, {"name": "ses", "content": ""})
        assert named(changed) == "ses"
        assert connection.execute(select(credential.c.content)).scalar_one() == "v1:sealed"
        assert connection.execute(select(certificate.c.private_key_pem)).scalar_one() == "v1:key"
        asked = frozenset({"content", "name"})
        only = rest.get_row(connection, admin, "credential", item.id, columns=asked)
        assert "content" not in only.attributes


SECRET_COLUMNS = [
    ("user_account", "password"),
    ("credential", "content"),
    ("certificate", "private_key_pem"),
    ("api_key", "hash"),
]


@pytest.mark.parametrize("entity, column", SECRET_COLUMNS)
def test_a_secret_cannot_be_guessed_by_filter_or_order(
    engine: Engine, entity: str, column: str
) -> None:
    from mailtwist.mail.filters import Comparison, Operator

    with engine.write() as connection:
        seeded(connection)
        with pytest.raises(ProtocolViolation, match=column):
            listed(connection, SYSTEM, entity, filter=Comparison(column, Operator.LIKE, "v1%"))
        with pytest.raises(ProtocolViolation, match=column):
            listed(connection, SYSTEM, entity, sort=((column, False),))


# -- who may --------------------------------------------------------------------------------


@pytest.mark.mission("DAP-014")
def test_an_administered_server_is_shut(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        admin, bert = administrator(connection), user(connection, "bert@example.com")
        item = make(connection, admin, "mail_server", SERVER)
        for who in (NOBODY, bert):
            for entity in ("mail_server", "certificate", "credential", "user_account", "domain"):
                with pytest.raises(AccessDenied) as caught:
                    make(connection, who, entity, {"hostname": "x.y", "name": "z"})
                assert caught.value.title == "TableAccessPermissionChecker"
            with pytest.raises(AccessDenied):
                change(connection, who, item, {"max_size": 1})
            with pytest.raises(AccessDenied):
                remove(connection, who, item)
            assert listed(connection, who, "mail_server").total == 0
            with pytest.raises(AccessDenied) as caught:
                rest.get_row(connection, who, "mail_server", item.id)
            assert caught.value.title == "ObjectAccessPermissionChecker"
            assert caught.value.http_status == 403
        assert listed(connection, admin, "mail_server").total == 1


@pytest.mark.mission("DAP-024")
@pytest.mark.parametrize("prepare", [seeded, locked])
def test_guests_never_see_what_is_private(engine: Engine, prepare: Any) -> None:
    with engine.write() as connection:
        prepare(connection)
        admin = administrator(connection)
        made = [
            make(connection, admin, "credential", {"name": "a", "content": SEALED}),
            make(connection, admin, "certificate", {"hostname": "a.b", "permission": OPEN}),
        ]
        for item in made:
            assert listed(connection, NOBODY, item.entity).total == 0
            with pytest.raises(AccessDenied):
                rest.get_row(connection, NOBODY, item.entity, item.id)
        assert made[1].attributes["permission"] == OPEN & ~127
        assert listed(connection, NOBODY, "user_account").total == 0
        for entity in ("mail", "mail_box", "mail_account", "outbox", "api_key"):
            assert listed(connection, NOBODY, entity).total == 0


def test_a_new_row_is_its_makers_as_long_as_nobody_administers(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        item = make(connection, anna, "mail_server", OLD_SERVER)
        assert item.attributes["permission"] == OWNED
        assert change(connection, anna, item, {"max_clients": 3}).attributes["max_clients"] == 3
        for who in (bert, NOBODY):
            with pytest.raises(AccessDenied) as caught:
                change(connection, who, item, {"max_clients": 4})
            assert caught.value.title == "ObjectAccessPermissionChecker"
            with pytest.raises(AccessDenied):
                remove(connection, who, item)
        assert [row.id for row in rows(connection, anna, "mail_server")] == [item.id]
        assert rows(connection, bert, "mail_server") == ()
        remove(connection, anna, item)


def test_only_administrators_give_rows_away(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        admin = administrator(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        with pytest.raises(AccessDenied):
            make(
                connection,
                anna,
                "mail_server",
                {"hostname": "a.b"},
                user_account_id=bert.reference_id,
            )
        item = make(
            connection,
            anna,
            "mail_server",
            {"hostname": "a.b", "user_account_id": anna.reference_id},
        )
        with pytest.raises(AccessDenied):
            change(connection, anna, item, {"user_account_id": bert.reference_id})
        with pytest.raises(AccessDenied):
            change(connection, anna, item, {"user_account_id": None})
        given = change(
            connection, admin, item, {}, user_account_id=Ref("user_account", bert.reference_id)
        )
        assert given.attributes["user_account_id"] == bert.reference_id
        assert [row.id for row in rows(connection, bert, "mail_server")] == [item.id]
        assert rows(connection, anna, "mail_server") == ()
        nobodys = change(connection, admin, item, {"user_account_id": None})
        assert nobodys.attributes["user_account_id"] is None
        made = make(
            connection, admin, "mail_server", {"hostname": "c.d"}, user_account_id=bert.reference_id
        )
        assert made.attributes["user_account_id"] == bert.reference_id


def test_the_permission_of_a_row_is_its_owners_to_set(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        item = make(connection, anna, "mail_server", {"hostname": "a.b"})
        opened = change(connection, anna, item, {"permission": str(OPEN)})
        assert opened.attributes["permission"] == OPEN
        assert change(connection, bert, opened, {"max_clients": 7}).attributes["max_clients"] == 7
        with pytest.raises(AccessDenied):
            change(connection, bert, opened, {"permission": OWN_MAIL})
        assert (
            change(connection, bert, opened, {"permission": OPEN}).attributes["permission"] == OPEN
        )


@pytest.mark.mission("DAP-015")
def test_an_administrator_opens_a_table_without_a_restart(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        admin, anna = administrator(connection), user(connection, "anna@example.com")
        (row,) = (
            item
            for item in rows(connection, admin, "world")
            if item.attributes["table_name"] == "mail_server"
        )
        assert row.attributes["permission"] == LOCKED
        opened = {"permission": LOCKED | Bit.CREATE << 7, "default_permission": OWN_MAIL}
        change(connection, admin, row, opened)
        item = make(connection, anna, "mail_server", {"hostname": "a.b"})
        assert item.attributes["permission"] == OWN_MAIL
        for act in (
            lambda: remove(connection, admin, row),
            lambda: make(connection, admin, "world", {}),
        ):
            with pytest.raises(MethodNotAllowed):
                act()
        with pytest.raises(AccessDenied):
            change(connection, anna, row, {"permission": OPEN})


def test_strangers_plant_nothing_before_there_is_an_administrator(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        (row, *_) = rows(connection, SYSTEM, "world")
        with pytest.raises(AccessDenied):
            change(connection, NOBODY, row, {"permission": 0})
        attributes = {"action_name": "a", "action_schema": "{}"}
        with pytest.raises(AccessDenied):
            make(connection, NOBODY, "action", attributes, world_id=row.id)


def test_a_user_always_sees_and_changes_himself_and_nobody_else(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        assert [item.id for item in rows(connection, anna, "user_account")] == [anna.reference_id]
        own = rest.get_row(connection, anna, "user_account", anna.reference_id)
        version = select(user_account.c.auth_version).where(user_account.c.user_id == anna.user_id)
        changed = change(connection, anna, own, {"name": "Anna", "password": PASSWORD})
        assert named(changed) == "Anna"
        assert connection.execute(version).scalar_one() == 2
        change(connection, anna, own, {"mobile": "1"})
        assert connection.execute(version).scalar_one() == 2
        other = rest.get_row(connection, SYSTEM, "user_account", bert.reference_id)
        with pytest.raises(AccessDenied):
            change(connection, anna, other, {"password": PASSWORD})
        with pytest.raises(AccessDenied):
            remove(connection, anna, own)


def test_api_keys_are_the_users_own(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        given = {"prefix": Prepared("mt_live_a"), "hash": Prepared("h"), "scopes": ["send:a.b"]}
        key = make(connection, anna, "api_key", given | {"expires_at": "2027-02-01"})
        assert key.attributes["scopes"] == ["send:a.b"]
        assert key.attributes["expires_at"] == "2027-02-01T00:00:00Z"
        assert "hash" not in key.attributes
        assert listed(connection, bert, "api_key").total == 0
        with pytest.raises(AccessDenied):
            remove(connection, bert, key)
        narrow = Viewer(anna.user_id, anna.reference_id, scopes=(Scope("send", "a.b"),))
        with pytest.raises(AccessDenied):
            change(connection, narrow, key, {"scopes": ["admin"]})
        with pytest.raises(AccessDenied):
            listed(connection, narrow, "api_key")
        own = rest.get_row(connection, anna, "user_account", anna.reference_id)
        with pytest.raises(AccessDenied):
            change(connection, narrow, own, {"password": PASSWORD})
        remove(connection, anna, key)


# -- groups ---------------------------------------------------------------------------------


def test_rows_are_shared_with_groups(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna = user(connection, "anna@example.com")
        group = make(connection, anna, "usergroup", {"name": "staff"})
        bert = user(connection, "bert@example.com", "staff")
        clara = user(connection, "clara@example.com")
        anna = viewer(connection, anna.reference_id)
        item = make(connection, anna, "mail_server", {"hostname": "a.b"})
        assert listed(connection, bert, "mail_server").total == 0
        shared = change(connection, anna, item, {}, usergroup_id=[group.id])
        assert shared.relations["usergroup_id"] == (Ref("usergroup", group.id),)
        for who, count in ((bert, 1), (clara, 0), (NOBODY, 0)):
            page = listed(connection, who, "mail_server")
            assert (page.total, len(page.items)) == (count, count)
        assert rest.get_row(connection, bert, "mail_server", item.id).id == item.id
        with pytest.raises(AccessDenied):
            change(connection, bert, item, {"max_clients": 4})
        whole = rest.get_row(connection, anna, "mail_server", item.id)
        assert change(connection, anna, item, {}, **whole.relations).relations == whole.relations
        change(connection, anna, item, {"permission": OWNED | Bit.UPDATE << 14})
        change(connection, bert, item, {"max_clients": 4})
        rest.change_related(
            connection, anna, "mail_server", item.id, "usergroup_id", [group.id], "remove", now=NOW
        )
        assert listed(connection, bert, "mail_server").total == 0


def test_sharing_with_a_group_needs_leave_to_refer_to_it(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        group = make(connection, bert, "usergroup", {"name": "others", "permission": OWN_MAIL})
        item = make(connection, anna, "mail_server", {"hostname": "a.b"})
        with pytest.raises(AccessDenied, match="refer object not allowed"):
            make(connection, anna, "mail_server", {"hostname": "c.d"}, usergroup_id=group.id)
        assert listed(connection, anna, "mail_server").total == 1
        with pytest.raises(AccessDenied, match="refer object not allowed"):
            change(connection, anna, item, {}, usergroup_id=group.id)
        # What an administrator set may be sent back, and taken away.
        shared = change(connection, SYSTEM, item, {}, usergroup_id=group.id)
        assert change(connection, anna, item, {}, **shared.relations).relations == shared.relations
        gone = rest.change_related(
            connection, anna, "mail_server", item.id, "usergroup_id", [group.id], "remove", now=NOW
        )
        assert gone.relations["usergroup_id"] == ()
        with pytest.raises(ProtocolViolation, match="usergroup_id"):
            change(connection, anna, item, {}, usergroup_id=UNKNOWN)


def test_rows_go_to_the_groups_given_when_they_are_made(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        admin, bert = administrator(connection), user(connection, "bert@example.com", "users")
        (users,) = (g for g in rows(connection, admin, "usergroup") if named(g) == "users")
        item = make(connection, admin, "mail_server", {"hostname": "a.b"}, usergroup_id=users.id)
        assert item.relations["usergroup_id"] == (Ref("usergroup", users.id),)
        assert [row.id for row in rows(connection, bert, "mail_server")] == [item.id]
        refs = rest.related_refs(connection, admin, "mail_server", item.id, "usergroup_id")
        assert refs == (Ref("usergroup", users.id),)
        page = rest.related_rows(
            connection, admin, "mail_server", item.id, "usergroup_id", ListRequest()
        )
        assert [named(group) for group in page.items] == ["users"]
        remove(connection, admin, item)


def test_nobody_joins_a_group_that_is_not_his(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        admin, anna = administrator(connection), user(connection, "anna@example.com")
        groups = {named(g): g for g in rows(connection, admin, "usergroup")}
        own = rest.get_row(connection, anna, "user_account", anna.reference_id)
        for group in groups.values():
            for who in (anna, NOBODY):
                with pytest.raises(AccessDenied):
                    change(connection, who, own, {}, usergroup_id=[group.id])
                with pytest.raises(AccessDenied):
                    rest.change_related(
                        connection, who, "usergroup", group.id, "member_id",
                        [anna.reference_id], "add", now=NOW,
                    )  # fmt: skip
        attributes = {"name": "x", "email": "x@example.com", "password": PASSWORD}
        with pytest.raises(AccessDenied):
            make(connection, NOBODY, "user_account", attributes, usergroup_id=groups["users"].id)
        assert not viewer(connection, anna.reference_id).is_admin
        joined = change(connection, admin, own, {}, usergroup_id=[groups["administrators"].id])
        assert joined.relations["usergroup_id"] == (Ref("usergroup", groups["administrators"].id),)
        (group,) = (g for g in rows(connection, admin, "usergroup") if named(g) == "administrators")
        assert Ref("user_account", anna.reference_id) in _many(group.relations["member_id"])
        assert viewer(connection, anna.reference_id).is_admin
        rest.change_related(
            connection, admin, "usergroup", groups["administrators"].id, "member_id",
            [anna.reference_id], "remove", now=NOW,
        )  # fmt: skip
        assert not viewer(connection, anna.reference_id).is_admin


def _many(refs: object) -> tuple[Ref, ...]:
    assert isinstance(refs, tuple)
    return refs


def test_a_server_never_loses_its_last_administrator(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        admin = administrator(connection)
        own = rest.get_row(connection, admin, "user_account", admin.reference_id)
        groups = {named(g): g for g in rows(connection, admin, "usergroup")}
        with pytest.raises(Conflict, match="last administrator"), connection.begin_nested():
            change(connection, admin, own, {}, usergroup_id=[])
        with pytest.raises(Conflict, match="last administrator"), connection.begin_nested():
            remove(connection, admin, own)
        for name in ("administrators", "users", "guests"):
            with pytest.raises(Conflict):
                change(connection, admin, groups[name], {"name": "others"})
            with pytest.raises(Conflict):
                remove(connection, admin, groups[name])
        with pytest.raises(Conflict):
            make(connection, admin, "usergroup", {"name": "Administrators"})
        other = administrator(connection, "other@example.com")
        remove(connection, other, own)


def test_what_is_known_of_users_is_announced(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna = user(connection, "anna@example.com")
        group = make(connection, SYSTEM, "usergroup", {"name": "staff"})
        own = rest.get_row(connection, SYSTEM, "user_account", anna.reference_id)
        for act in (
            lambda: change(connection, anna, own, {"password": PASSWORD}),
            lambda: change(connection, SYSTEM, own, {}, usergroup_id=[group.id]),
            lambda: change(connection, SYSTEM, own, {}, usergroup_id=[]),
            lambda: remove(connection, SYSTEM, own),
        ):
            changes.forget(connection)
            act()
            assert identities.KIND in changes.pending(connection).kinds


def test_a_deleted_user_leaves_his_rows_to_administrators(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna = user(connection, "anna@example.com", "users")
        item = make(connection, anna, "mail_server", {"hostname": "a.b"})
        given = {"prefix": Prepared("a"), "hash": Prepared("h"), "scopes": ["admin"]}
        make(connection, anna, "api_key", given)
        remove(
            connection, SYSTEM, rest.get_row(connection, SYSTEM, "user_account", anna.reference_id)
        )
        left = rest.get_row(connection, SYSTEM, "mail_server", item.id)
        assert left.attributes["user_account_id"] is None
        assert listed(connection, SYSTEM, "api_key").total == 0
        assert connection.execute(select(func.count()).select_from(user_secret)).scalar_one() == 0


# -- relations ------------------------------------------------------------------------------


@pytest.mark.mission("DAP-051", "DAP-052")
def test_a_relation_is_given_in_either_form(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        (table, *others) = rows(connection, SYSTEM, "world")
        given = {"action_name": "a", "action_schema": {"Name": "a"}, "label": "A"}
        as_attribute = make(connection, SYSTEM, "action", given | {"world_id": table.id})
        as_relation = make(
            connection,
            SYSTEM,
            "action",
            given | {"action_name": "b"},
            world_id=Ref("world", table.id),
        )
        assert as_attribute.relations["world_id"] == as_relation.relations["world_id"]
        assert as_attribute.attributes["world_id"] == table.id
        assert "action_schema" not in as_attribute.attributes
        page = rest.find_row(
            connection, SYSTEM, "action", as_relation.id, includes=("world", "action_schema")
        )
        assert page.items[0].attributes["action_schema"] == '{"Name": "a"}'
        assert page.included == (table,)
        for bad in (
            UNKNOWN,
            "x",
            "' OR 1=1",
            Ref("mail_server", table.id),
            [table.id, others[0].id],
        ):
            with pytest.raises(ProtocolViolation, match="world_id"):
                make(connection, SYSTEM, "action", given | {"action_name": "c"}, world_id=bad)
        with pytest.raises(ProtocolViolation, match="no relation nope"):
            make(connection, SYSTEM, "action", given, nope=table.id)
        with pytest.raises(Conflict, match="a exists"):
            make(connection, SYSTEM, "action", given, world_id=table.id)
        with pytest.raises(Conflict, match="a exists"):
            change(connection, SYSTEM, as_relation, {"action_name": "a"})
        moved = change(connection, SYSTEM, as_relation, {}, world_id=others[0].id)
        assert (
            change(connection, SYSTEM, moved, {"action_name": "a"}).attributes["action_name"] == "a"
        )
        with pytest.raises(Conflict):
            change(connection, SYSTEM, moved, {}, world_id=table.id)
        with pytest.raises(ProtocolViolation, match="world_id"):
            change(connection, SYSTEM, moved, {"world_id": None})
        assert listed(connection, SYSTEM, "action").total == 2


@pytest.mark.parametrize("schema", ["{", "[]", "5", "{" * 100_000, '"a"'])
def test_a_schema_that_is_none_is_refused(engine: Engine, schema: str) -> None:
    with engine.write() as connection:
        seeded(connection)
        (table, *_) = rows(connection, SYSTEM, "world")
        with pytest.raises(ProtocolViolation, match="action_schema"):
            make(
                connection, SYSTEM, "action",
                {"action_name": "a", "action_schema": schema}, world_id=table.id,
            )  # fmt: skip


def test_a_relation_needs_leave_to_refer(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        with pytest.raises(AccessDenied, match="refer object not allowed"):
            make(
                connection, bert, "task",
                {"action_name": "a", "entity_name": "b", "schedule": "@every 5m"},
                as_user_id=anna.reference_id,
            )  # fmt: skip


def test_relations_lead_to_rows_and_back(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        admin = administrator(connection)
        item = make(connection, admin, "mail_server", {"hostname": "a.b"})
        number = making.account(connection)
        account = rows(connection, admin, "mail_account")[0]
        changed = change(connection, admin, account, {}, mail_server_id=item.id)
        assert changed.relations["mail_server_id"] == Ref("mail_server", item.id)
        one = rest.related_rows(
            connection, admin, "mail_account", account.id, "mail_server_id", ListRequest()
        )
        assert [row.id for row in one.items] == [item.id]
        many = rest.related_rows(
            connection, admin, "mail_server", item.id, "mail_account_id", ListRequest()
        )
        assert [row.id for row in many.items] == [account.id]
        refs = rest.related_refs(connection, admin, "mail_server", item.id, "mail_account_id")
        assert refs == (Ref("mail_account", account.id),)
        both_ways = rest.find_row(
            connection,
            admin,
            "mail_server",
            item.id,
            includes=("mail_account_id", "user_account_id"),
        )
        assert {row.entity for row in both_ways.included} == {"mail_account", "user_account"}
        with pytest.raises(NotFound):
            rest.related_rows(connection, admin, "mail_server", item.id, "nope", ListRequest())
        for mode in ("add", "remove"):
            with pytest.raises(MethodNotAllowed):
                rest.change_related(
                    connection, admin, "mail_account", account.id, "mail_server_id",
                    [item.id], mode, now=NOW,
                )  # fmt: skip
        rest.change_related(
            connection, admin, "mail_account", account.id, "mail_server_id", [], "replace", now=NOW
        )
        assert rest.related_refs(
            connection, admin, "mail_account", account.id, "mail_server_id"
        ) is (None)
        change(connection, admin, account, {}, mail_server_id=item.id)
        remove(connection, admin, item)
        assert accounts.get(connection, number).is_active


def test_rows_that_are_included_pass_the_gates_too(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna, bert = user(connection, "anna@example.com"), user(connection, "bert@example.com")
        item = make(connection, anna, "mail_server", {"hostname": "a.b", "permission": OPEN})
        asked = {"includes": ("user_account_id",)}
        assert [row.id for row in listed(connection, anna, "mail_server", **asked).included] == [
            anna.reference_id
        ]
        page = listed(connection, bert, "mail_server", **asked)
        assert [row.id for row in page.items] == [item.id]
        assert page.included == ()
        with pytest.raises(ProtocolViolation, match="nope"):
            listed(connection, anna, "mail_server", includes=("nope",))


# -- domains, aliases, keys -----------------------------------------------------------------


def test_a_domain_is_the_stores_own(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        item = make(connection, SYSTEM, "domain", {"name": "Bücher.example", "is_enabled": "no"})
        assert named(item) == "xn--bcher-kva.example"
        assert item.attributes["is_enabled"] is False
        changed = change(
            connection, SYSTEM, item,
            {"kind": "inbox", "catch_all": "All@Example.com", "is_enabled": 1, "name": "other"},
        )  # fmt: skip
        assert named(changed) == "xn--bcher-kva.example"
        assert changed.attributes["catch_all"] == "all@example.com"
        assert changed.attributes["is_enabled"] is True
        with pytest.raises(Conflict):
            make(connection, SYSTEM, "domain", {"name": "bücher.example"})
        making.account(connection, "a@example.com")
        (held,) = (row for row in rows(connection, SYSTEM, "domain") if named(row) == "example.com")
        with pytest.raises(Conflict, match="still has accounts"):
            remove(connection, SYSTEM, held)
        remove(connection, SYSTEM, item)
        assert listed(connection, SYSTEM, "domain").total == 1


def test_an_alias_is_the_stores_own(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        item = make(
            connection, SYSTEM, "alias",
            {"address": "Info@Example.com", "targets": ["B@example.org", "a@example.org"]},
        )  # fmt: skip
        assert item.attributes["address"] == "info@example.com"
        assert item.attributes["targets"] == ["b@example.org", "a@example.org"]
        assert accounts.aliases(connection) == {
            "info@example.com": ("b@example.org", "a@example.org")
        }
        accounts.add_alias(connection, "sales@example.com", ["a@example.org"], now=NOW + 5)
        assert [row.attributes["address"] for row in rows(connection, SYSTEM, "alias")] == [
            "sales@example.com",
            "info@example.com",
        ]
        changed = change(connection, SYSTEM, item, {"targets": '["c@example.org"]'})
        assert changed.attributes["targets"] == ["c@example.org"]
        with pytest.raises(ProtocolViolation, match="targets"):
            change(connection, SYSTEM, item, {"targets": []})
        with pytest.raises(Conflict):
            make(connection, SYSTEM, "alias", {"address": "info@example.com", "targets": ["a@b.c"]})
        changes.forget(connection)
        remove(connection, SYSTEM, item)
        assert "address" in changes.pending(connection).kinds
        assert accounts.aliases(connection) == {"sales@example.com": ("a@example.org",)}


# host name, local domains of the settings, whose key
SIGNED = [
    ("mx.example.com", (), "example.com"),
    ("mx.example.org", (), "mx.example.org"),
    ("mx.eu.example.net", ("example.net",), "example.net"),
    ("example.com", (), "example.com"),
]


@pytest.mark.mission("DAP-124")
@pytest.mark.parametrize("hostname, local, name", SIGNED)
def test_a_mail_server_tells_the_key_of_its_domain(
    engine: Engine, hostname: str, local: tuple[str, ...], name: str
) -> None:
    with engine.write() as connection:
        seeded(connection)
        making.account(connection, "a@example.com")
        item = make(connection, SYSTEM, "mail_server", {"hostname": hostname})
        assert item.attributes["dkim_public_key"] == ""
        key = dkim_keys.Key(name, "d1", dkim_keys.RSA, "d1", "v1:x", "QUJD", created_at=NOW)
        dkim_keys.establish(connection, key)
        found = rest.get_row(
            connection, SYSTEM, "mail_server", item.id, facts=Facts(local_domains=local)
        )
        assert found.attributes["dkim_selector"] == "d1"
        assert found.attributes["dkim_public_key"] == "QUJD"
        record = str(found.attributes["dkim_dns_record"])
        assert f"d1._domainkey.{name}" in record
        assert "v=DKIM1; k=rsa; p=QUJD" in record
        with pytest.raises(ProtocolViolation, match="dkim_public_key"):
            listed(connection, SYSTEM, "mail_server", sort=(("dkim_public_key", False),))


# -- costs ----------------------------------------------------------------------------------


def test_a_list_costs_the_same_statements_whatever_its_rows(engine: Engine) -> None:
    with engine.write() as connection:
        locked(connection)
        anna = user(connection, "anna@example.com", "users")
        group = next(iter(anna.groups))
        includes = ("user_account_id", "usergroup_id", "mail_account_id")
        counted: list[int] = []
        for count in (2, 40):
            for n in range(count):
                item = make(
                    connection, SYSTEM, "mail_server", {"hostname": f"m{n}.{count}.example"},
                    user_account_id=anna.reference_id,
                )  # fmt: skip
                if n % 2:
                    _share(connection, item.id, group)
            statements: list[str] = []
            watch = _watch(connection, statements)
            page = listed(connection, anna, "mail_server", size=100, includes=includes)
            event.remove(connection, "before_cursor_execute", watch)
            assert page.total >= count
            counted.append(len(statements))
        assert counted[0] == counted[1] <= 14


def _share(connection: Connection, id_: str, group: int) -> None:
    from mailtwist.store.entities.tables import mail_server, row_group

    key = connection.execute(
        select(mail_server.c.mail_server_id).where(mail_server.c.reference_id == id_)
    ).scalar_one()
    connection.execute(row_group.insert().values(entity="mail_server", row_id=key, group_id=group))


def _watch(connection: Connection, statements: list[str]) -> Any:
    def before(conn: Any, cursor: Any, statement: str, *rest_: Any) -> None:
        statements.append(statement)

    event.listen(connection, "before_cursor_execute", before)
    return before


def test_every_entity_can_be_listed_by_each_of_its_columns(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        for entity in entities.ENTITIES.values():
            for name, column in entity.columns.items():
                if column.is_queryable:
                    listed(connection, SYSTEM, entity.name, sort=((name, True),))
                    listed(connection, NOBODY, entity.name, sort=((name, False),))
            for relation in entity.relations.values():
                assert relation.entity in entities.ENTITIES
                if relation.inverse:
                    back = entities.ENTITIES[relation.entity].relations[relation.inverse]
                    assert back.entity == entity.name
            assert entity.doc


def test_seeding_twice_changes_nothing(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        before = rows(connection, SYSTEM, "world")
        change(connection, SYSTEM, before[0], {"permission": 5})
        seeded(connection)
        after = rows(connection, SYSTEM, "world")
        assert len(after) == len(before) == len(entities.ENTITIES)
        assert after[0].attributes["permission"] == 5


def test_a_table_that_a_later_version_brings_is_shut_where_somebody_administers(
    engine: Engine,
) -> None:
    from mailtwist.store.entities.tables import world

    with engine.write() as connection:
        seeded(connection)
        administrator(connection)
        connection.execute(world.delete().where(world.c.table_name == "mail_server"))
        seeded(connection)
        permission = select(world.c.permission).where(world.c.table_name == "mail_server")
        assert connection.execute(permission).scalar_one() == LOCKED
