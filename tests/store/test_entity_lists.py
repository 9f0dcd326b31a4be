"""Lists of entities: filters, orders, pages, and that nobody sees what is not his."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import Tree, parse_query
from mailtwist.mail.permissions import (
    GROUP,
    NOBODY,
    OPEN,
    OWN_MAIL,
    OWNED,
    SYSTEM,
    Bit,
    Viewer,
    allows,
)
from mailtwist.store.engine import Engine
from mailtwist.store.entities import engine as rest
from mailtwist.store.entities.model import AccessDenied, Item
from tests.store.making import NOW
from tests.store.people import change, listed, make, remove, rows, seeded, user, viewer

DAY = 86_400_000_000

# host name, is_enabled, max_clients
SERVERS = [
    ("alpha.example", True, 10),
    ("beta.example", False, 20),
    ("gamma.test", True, 30),
    ("a_b.test", False, 40),
    ("100x.test", True, 50),
]


def query(*items: tuple[Any, ...]) -> Tree | None:
    """Column, operator, value, and a logical group or none."""
    names = ("column", "operator", "value", "logical_group")
    return parse_query(json.dumps([dict(zip(names, item, strict=False)) for item in items]))


def servers(connection: Connection) -> None:
    for n, (hostname, is_enabled, clients) in enumerate(SERVERS):
        attributes = {"hostname": hostname, "is_enabled": is_enabled, "max_clients": clients}
        rest.create_row(connection, SYSTEM, "mail_server", attributes, {}, now=NOW + n * DAY)


def names(connection: Connection, **request: Any) -> list[str]:
    found = rows(connection, SYSTEM, "mail_server", **request)
    return [item.attributes["hostname"].partition(".")[0] for item in found]


# items of a query, the names found, in the order of names
OPERATORS: list[tuple[list[tuple[Any, ...]], str]] = [
    ([("hostname", "is", "alpha.example")], "alpha"),
    ([("hostname", "eq", "ALPHA.example")], "alpha"),
    ([("hostname", "is not", "alpha.example")], "100x a_b beta gamma"),
    ([("hostname", "neq", "alpha.example")], "100x a_b beta gamma"),
    ([("hostname", "in", ["beta.example", "gamma.test", "x"])], "beta gamma"),
    ([("hostname", "any of", ["beta.example"])], "beta"),
    ([("hostname", "any of", [])], ""),
    ([("hostname", "none of", ["beta.example", "gamma.test"])], "100x a_b alpha"),
    ([("hostname", "none of", [])], "100x a_b alpha beta gamma"),
    ([("hostname", "contains", "%a.e%")], "alpha beta"),
    ([("hostname", "contains", "a.e")], ""),
    ([("hostname", "like", "%EXAMPLE")], "alpha beta"),
    ([("hostname", "ilike", "ALPHA%")], "alpha"),
    ([("hostname", "like", "a_b%")], "a_b"),
    ([("hostname", "like", "_a%")], "gamma"),
    ([("hostname", "like", "100\\x%")], ""),
    ([("hostname", "begins with", "a%")], "a_b alpha"),
    ([("hostname", "ends with", "%.test")], "100x a_b gamma"),
    ([("hostname", "not contains", "%test%")], "alpha beta"),
    ([("hostname", "not like", "%e%")], ""),
    ([("hostname", "is empty", None)], ""),
    ([("hostname", "is not empty", None)], "100x a_b alpha beta gamma"),
    ([("hostname", "fuzzy", "mma test")], "gamma"),
    ([("hostname", "fuzzy", "test mma")], ""),
    ([("hostname", "fuzzy_any", "alp bet")], "alpha beta"),
    ([("hostname", "fuzzy_any", "_")], "a_b"),
    ([("hostname", "fuzzy_all", "test mma")], "gamma"),
    ([("hostname", "more than", "b")], "beta gamma"),
    ([("hostname", "before", "a")], "100x"),
    ([("max_clients", "more than", 30)], "100x a_b"),
    ([("max_clients", "less than", "30")], "alpha beta"),
    ([("max_clients", "gte", 30)], "100x a_b gamma"),
    ([("max_clients", "lte", 20)], "alpha beta"),
    ([("max_clients", "is", "30")], "gamma"),
    ([("max_clients", "like", "1%")], "alpha"),
    ([("max_clients", "in", [10, "20"])], "alpha beta"),
    ([("max_clients", "is empty", None)], ""),
    ([("is_enabled", "is true", None)], "100x alpha gamma"),
    ([("is_enabled", "is false", None)], "a_b beta"),
    ([("is_enabled", "is", "1")], "100x alpha gamma"),
    ([("is_enabled", "is", False)], "a_b beta"),
    ([("is_enabled", "is not", True)], "a_b beta"),
    ([("created_at", "after", "2027-01-17T08:00:00Z")], "100x a_b"),
    ([("created_at", "before", "2027-01-17T08:00:00Z")], "alpha beta"),
    ([("created_at", "is", "2027-01-17T08:00:00Z")], "gamma"),
    ([("created_at", "before", 1_800_000_001)], "alpha"),
    ([("user_account_id", "is empty", None)], "100x a_b alpha beta gamma"),
    ([("user_account_id", "is", "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee")], ""),
    ([("permission", "is", OWNED)], "100x a_b alpha beta gamma"),
    # all of them, or one of a group
    ([("is_enabled", "is", 1), ("max_clients", "lt", 40)], "alpha gamma"),
    (
        [("max_clients", "is", 10, "g"), ("max_clients", "is", 20, "g")],
        "alpha beta",
    ),
    (
        [
            ("max_clients", "is", 10, "g"),
            ("max_clients", "is", 20, "g"),
            ("is_enabled", "is true", None),
        ],
        "alpha",
    ),
    (
        [
            ("max_clients", "is", 10, "g"),
            ("max_clients", "is", 20, "g"),
            ("hostname", "like", "a%", "h"),
            ("hostname", "like", "g%", "h"),
        ],
        "alpha",
    ),
    # what looks like SQL is only a text
    ([("hostname", "is", "x' OR 1=1 --")], ""),
    ([("hostname", "like", "x' OR '1' LIKE '%")], ""),
    ([("hostname", "in", ["x') OR 1=1 --"])], ""),
]


@pytest.mark.mission("DAP-039", "DAP-040", "DAP-041", "DAP-054")
def test_operators_find_what_they_say(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        for items, expected in OPERATORS:
            page = listed(
                connection, SYSTEM, "mail_server", filter=query(*items), sort=(("hostname", False),)
            )
            found = [item.attributes["hostname"].partition(".")[0] for item in page.items]
            assert " ".join(found) == expected, items
            assert page.total == len(found)
        assert names(connection, text="_b.t") == ["a_b"]
        assert names(connection, text="ALPHA") == ["alpha"]
        assert names(connection, text="%") == []


def test_an_operator_and_its_opposite_part_the_rows(engine: Engine) -> None:
    """Also where a column is empty: what has no moment is neither before nor after it."""
    with engine.write() as connection:
        seeded(connection)
        for n, moment in enumerate((None, "2027-01-01", "2027-01-02")):
            attributes = {"hostname": f"{n}.x", "generated_at": moment}
            make(connection, SYSTEM, "certificate", attributes)
        pairs = [("is", "is not"), ("in", "none of")]
        for one, other in pairs:
            for value in ("2027-01-01", "2028-01-01"):
                counts = [
                    listed(
                        connection, SYSTEM, "certificate",
                        filter=query(("generated_at", operator, value)),
                    ).total
                    for operator in (one, other)
                ]  # fmt: skip
                assert sum(counts) == 3
        empty = listed(
            connection, SYSTEM, "certificate", filter=query(("generated_at", "is", None))
        )
        assert empty.total == 1


# items of a query, what the refusal names
BAD: list[tuple[list[tuple[Any, ...]], str | None]] = [
    ([("foo", "is", 1)], "foo"),
    ([("owner_user_id", "is", 1)], "owner_user_id"),
    ([("mail_server.hostname", "is", 1)], "mail_server.hostname"),
    ([("1=1; DROP TABLE account", "is", 1)], "DROP TABLE"),
    ([("mail_account_id", "is", "x")], "mail_account_id"),
    ([("usergroup_id", "is", "x")], "usergroup_id"),
    ([("max_clients", "is", "many")], "max_clients"),
    ([("max_clients", "is", 10**30)], "max_clients"),
    ([("max_clients", "is", 1.5)], "max_clients"),
    ([("max_clients", "is true", None)], None),
    ([("hostname", "is true", None)], "hostname"),
    ([("hostname", "is", "a\0")], "hostname"),
    ([("hostname", "like", "\ud800")], "hostname"),
    ([("is_enabled", "is", "maybe")], "is_enabled"),
    ([("is_enabled", "more than", 1)], "is_enabled"),
    ([("is_enabled", "like", "%")], "is_enabled"),
    ([("created_at", "after", "yesterday")], "created_at"),
    ([("created_at", "like", "2027%")], "created_at"),
    ([("hostname", "fuzzy", "a " * 30)], "words"),
]


@pytest.mark.mission("DAP-042", "DAP-054")
def test_bad_queries_are_refused_by_name(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        for items, named in BAD:
            if named is None:
                listed(connection, SYSTEM, "mail_server", filter=query(*items))
                continue
            with pytest.raises(ProtocolViolation, match=named):
                listed(connection, SYSTEM, "mail_server", filter=query(*items))
        for request, named in (
            ({"sort": (("foo", True),)}, "foo"),
            ({"sort": (("name;drop table mail", True),)}, "name;drop table mail"),
            ({"sort": (("hostname", True),) * 11}, "sort"),
            ({"columns": frozenset({"foo"})}, "foo"),
            ({"includes": ("foo",)}, "foo"),
            ({"includes": ("user_account_id",) * 30}, "include"),
            ({"after": "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"}, "after"),
            ({"before": "' OR 1=1"}, "before"),
        ):
            with pytest.raises(ProtocolViolation, match=named):
                listed(connection, SYSTEM, "mail_server", **request)
        assert listed(connection, SYSTEM, "mail_server").total == len(SERVERS)


def test_a_long_query_is_answered(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        many = [("hostname", "in", [f"x{n}" for n in range(20)]) for _ in range(100)]
        assert listed(connection, SYSTEM, "mail_server", filter=query(*many)).total == 0
        grouped = [("max_clients", "is", n, "g") for n in range(100)]
        assert listed(connection, SYSTEM, "mail_server", filter=query(*grouped)).total == 5


SORTS: list[tuple[tuple[tuple[str, bool], ...], str]] = [
    ((), "100x a_b gamma beta alpha"),
    ((("hostname", False),), "100x a_b alpha beta gamma"),
    ((("hostname", True),), "gamma beta alpha a_b 100x"),
    ((("is_enabled", True), ("hostname", False)), "100x alpha gamma a_b beta"),
    ((("is_enabled", False), ("created_at", True)), "a_b beta 100x gamma alpha"),
    ((("permission", False), ("max_clients", False)), "alpha beta gamma a_b 100x"),
    ((("user_account_id", False), ("max_clients", True)), "100x a_b gamma beta alpha"),
]


@pytest.mark.mission("DAP-043")
def test_rows_come_in_the_order_asked_for(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        for sort, expected in SORTS:
            assert " ".join(names(connection, sort=sort)) == expected


@pytest.mark.mission("DAP-036", "DAP-037")
def test_pages_part_the_rows(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        everything = names(connection)
        for size in (1, 2, 3, 5, 6):
            pages = [
                names(connection, size=size, number=number) for number in range(1, 5 // size + 2)
            ]
            assert [name for page in pages for name in page] == everything
        page = listed(connection, SYSTEM, "mail_server", size=2, number=2)
        assert (len(page.items), page.total) == (2, 5)
        assert len(listed(connection, SYSTEM, "mail_server", size=0).items) == 1
        assert len(listed(connection, SYSTEM, "mail_server", size=-5, number=-5).items) == 1
        assert len(listed(connection, SYSTEM, "mail_server", size=10**20).items) == 5
        assert listed(connection, SYSTEM, "mail_server", size=1000, number=10**30).items == ()
        assert len(listed(connection, SYSTEM, "world").items) == 10


@pytest.mark.mission("DAP-046")
def test_a_cursor_leads_away_from_its_row(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        ids = {
            item.attributes["hostname"]: item.id for item in rows(connection, SYSTEM, "mail_server")
        }
        middle = ids["gamma.test"]
        assert names(connection, after=middle) == ["a_b", "100x"]
        assert names(connection, before=middle) == ["beta", "alpha"]
        assert names(connection, after=middle, size=1) == ["a_b"]
        assert names(connection, before=middle, size=1) == ["beta"]
        assert names(connection, after=middle, sort=(("hostname", False),)) == ["100x", "a_b"]
        assert names(connection, after=ids["100x.test"]) == []
        between = names(connection, after=ids["alpha.example"], before=ids["a_b.test"])
        assert between == ["beta", "gamma"]
        assert listed(connection, SYSTEM, "mail_server", after=middle).total == 5


@pytest.mark.mission("DAP-044")
def test_only_the_columns_asked_for_are_given(engine: Engine) -> None:
    system = {"__type", "reference_id", "permission", "created_at", "updated_at"}
    with engine.write() as connection:
        seeded(connection)
        servers(connection)
        for asked in ({"hostname"}, {"hostname", "user_account_id"}, {"dkim_selector"}, set()):
            page = listed(connection, SYSTEM, "mail_server", columns=frozenset(asked))
            for item in page.items:
                assert set(item.attributes) == system | asked


@pytest.mark.mission("DAP-045")
def test_included_rows_come_once(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        anna = user(connection, "anna@example.com")
        for n in range(3):
            make(connection, anna, "mail_server", {"hostname": f"{n}.x"})
        page = listed(connection, anna, "mail_server", includes=("user_account_id",))
        assert [(item.entity, item.id) for item in page.included] == [
            ("user_account", anna.reference_id)
        ]
        again = listed(connection, anna, "mail_server", includes=("user_account",))
        assert again.included == page.included


# -- what nobody else's rows tell -----------------------------------------------------------


class World:
    """Users, groups and rows with random permissions, and a plain idea of who sees which."""

    def __init__(self, connection: Connection, chance: random.Random) -> None:
        self.connection, self.chance = connection, chance
        self.groups = [
            make(connection, SYSTEM, "usergroup", {"name": f"g{n}"}).id for n in range(3)
        ]
        self.viewers = [self._user(n) for n in range(4)]
        self.rows: dict[str, tuple[Viewer, int, set[str]]] = {}
        self.members = {
            viewer.reference_id: set(self._groups_of(viewer)) for viewer in self.viewers
        }

    def _user(self, n: int) -> Viewer:
        made = user(self.connection, f"user{n}@example.com")
        own = rest.get_row(self.connection, SYSTEM, "user_account", made.reference_id)
        mine = [group for group in self.groups if self.chance.random() < 0.5]
        change(self.connection, SYSTEM, own, {}, usergroup_id=mine)
        return viewer(self.connection, made.reference_id)

    def _groups_of(self, who: Viewer) -> tuple[str, ...]:
        refs = rest.related_refs(
            self.connection, SYSTEM, "user_account", who.reference_id, "usergroup_id"
        )
        assert isinstance(refs, tuple)
        return tuple(ref.id for ref in refs)

    def make_row(self, entity: str, attributes: dict[str, Any]) -> None:
        owner = self.chance.choice(self.viewers)
        permission = self.chance.choice(
            [
                OPEN,
                OWNED,
                OWN_MAIL,
                Bit.READ << GROUP,
                Bit.READ,
                768,
                self.chance.randrange(1, OPEN),
            ]
        )
        shared = [group for group in self.groups if self.chance.random() < 0.3]
        item = make(
            self.connection, SYSTEM, entity, attributes | {"permission": int(permission)},
            user_account_id=owner.reference_id, usergroup_id=shared,
        )  # fmt: skip
        self.rows[item.id] = (owner, item.attributes["permission"], set(shared))

    def sees(self, who: Viewer, id_: str, *, is_private: bool) -> bool:
        owner, permission, shared = self.rows[id_]
        return allows(
            permission & ~127 if is_private else permission,
            Bit.READ,
            is_user=who.user_id == owner.user_id,
            in_group=bool(shared & self.members.get(who.reference_id, set())),
        )


FACTORIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "mail_server": lambda n: {"hostname": f"{n}.x"},
    "certificate": lambda n: {"hostname": f"{n}.y"},
}


@pytest.mark.mission("DAP-017")
@pytest.mark.parametrize("seed", range(3))
def test_everybody_sees_exactly_what_the_bits_say(engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    with engine.write() as connection:
        seeded(connection)
        model = World(connection, chance)
        for entity, attributes in FACTORIES.items():
            model.rows.clear()
            for n in range(40):
                model.make_row(entity, attributes(n))
            for who in (*model.viewers, NOBODY):
                _check(connection, model, who, entity, is_private=entity == "certificate")
            for item in rows(connection, SYSTEM, entity):
                remove(connection, SYSTEM, item)


def _check(
    connection: Connection, model: World, who: Viewer, entity: str, *, is_private: bool
) -> None:
    expected = {id_ for id_ in model.rows if model.sees(who, id_, is_private=is_private)}
    page = listed(connection, who, entity, size=1000)
    assert {item.id for item in page.items} == expected
    assert page.total == len(expected)
    pages: list[Item] = []
    for number in range(1, len(expected) // 7 + 2):
        pages += listed(connection, who, entity, size=7, number=number).items
    assert [item.id for item in pages] == [item.id for item in page.items]
    for id_ in model.rows:
        if id_ in expected:
            assert rest.get_row(connection, who, entity, id_).id == id_
        else:
            with pytest.raises(AccessDenied):
                rest.get_row(connection, who, entity, id_)
