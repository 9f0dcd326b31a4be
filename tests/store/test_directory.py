from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import insert

from mailtwist.mail.address import Address, parse_address
from mailtwist.store import accounts, changes, directory, domains, inbox, mail_servers
from mailtwist.store.database import Inline
from mailtwist.store.directory import Directory, Foreign, Target
from mailtwist.store.engine import Connection
from mailtwist.store.entities.tables import mail_server
from tests.store.making import NOW, account
from tests.support.now import now

T = TypeVar("T")


@dataclass
class InboxSettings:
    domain: str = ""


@dataclass
class Settings:
    domains: tuple[str, ...] = ("Configured.example",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    inbox: InboxSettings = field(default_factory=InboxSettings)


ALIASES = {
    "postmaster": "anna@example.com",
    "abuse@example.com": "bert@example.com",
    "abuse": "anna@example.com",
    "unset": "",
    "off": "Some.One@foreign.example",
}


@pytest.fixture
def people(database: Inline) -> dict[str, int]:
    with database.engine.write() as connection:
        made = {
            name: account(connection, f"{name}@example.com") for name in ("anna", "bert", "carl")
        }
        account(connection, "dora@configured.example")
        domains.add(connection, "caught.example", catch_all="carl@example.com")
        domains.add(connection, "nested.example", catch_all="x@caught.example")
        domains.add(connection, "away.example", "relay", catch_all="carl@example.com")
        domains.add(connection, "dash.example", delimiter="-")
        accounts.add(connection, "eve@dash.example", [], now=NOW)
        accounts.add_alias(connection, "team@example.com", ["anna@example.com", "bert@example.com"])
        accounts.add_alias(
            connection, "all@example.com", ["team@example.com", "anna@example.com", "x@no.example"]
        )
        accounts.add_alias(connection, "loop1@example.com", ["loop2@example.com"])
        accounts.add_alias(
            connection, "loop2@example.com", ["loop1@example.com", "carl@example.com"]
        )
        accounts.add_alias(connection, "out@example.com", ["someone@foreign.example"])
    return made


# address, who gets it, by which address
RESOLUTIONS = [
    ("anna@example.com", {"anna": "anna@example.com"}),
    ("ANNA@Example.COM", {"anna": "anna@example.com"}),
    ("anna+tag@example.com", {"anna": "anna+tag@example.com"}),
    ("anna+a+b@example.com", {"anna": "anna+a+b@example.com"}),
    ("+tag@example.com", {}),
    ("nobody@example.com", {}),
    ("nobody+tag@example.com", {}),
    ("anna@foreign.example", {}),
    ("team@example.com", {"anna": "anna@example.com", "bert": "bert@example.com"}),
    ("team+x@example.com", {"anna": "anna@example.com", "bert": "bert@example.com"}),
    ("all@example.com", {"anna": "anna@example.com", "bert": "bert@example.com"}),
    ("loop1@example.com", {"carl": "carl@example.com"}),
    ("out@example.com", {}),
    ("anything@caught.example", {"carl": "carl@example.com"}),
    ("anything@nested.example", {"carl": "carl@example.com"}),
    ("carl@away.example", {}),
    ("postmaster@example.com", {"anna": "anna@example.com"}),
    ("PostMaster@caught.example", {"anna": "anna@example.com"}),
    ("postmaster@configured.example", {"anna": "anna@example.com"}),
    ("postmaster@foreign.example", {}),
    ("abuse@example.com", {"bert": "bert@example.com"}),
    ("abuse@caught.example", {"anna": "anna@example.com"}),
    ("unset@example.com", {}),
    ("off@example.com", {}),
]


@pytest.mark.mission("DIN-28", "ADG-15")
@pytest.mark.parametrize(("name", "expected"), RESOLUTIONS)
def test_addresses_resolve(
    database: Inline, people: dict[str, int], name: str, expected: dict[str, str]
) -> None:
    found = now(Directory(database, Settings(aliases=ALIASES)).resolve(parse_address(name)))
    assert {t.account_id: t.address for t in found if isinstance(t, Target)} == {
        people[who]: address for who, address in expected.items()
    }


OUT = Foreign("someone@foreign.example", "foreign.example", "out@example.com")
# address, what of it is elsewhere
ELSEWHERE = [
    ("out@example.com", [OUT]),
    ("OUT+x@example.com", [Foreign(OUT.address, OUT.destination, "out+x@example.com")]),
    (
        "off@example.com",
        [Foreign("Some.One@foreign.example", "foreign.example", "off@example.com")],
    ),
    ("all@example.com", [Foreign("x@no.example", "no.example", "all@example.com")]),
    ("both@example.com", [Foreign("y@[192.0.2.1]", "[192.0.2.1]", "both@example.com"), OUT]),
    ("odd@example.com", [Foreign('"a b"@foreign.example', "foreign.example", "odd@example.com")]),
    (
        "any@elsewhere.example",
        [Foreign("z@foreign.example", "foreign.example", "any@elsewhere.example")],
    ),
    ("away@example.com", [Foreign("a@away.example", "away.example", "away@example.com")]),
    ("anna@example.com", []),
    ("someone@foreign.example", []),
    ("loop1@example.com", []),
]


@pytest.mark.parametrize(("name", "expected"), ELSEWHERE)
def test_aliases_lead_elsewhere(
    database: Inline, people: dict[str, int], name: str, expected: list[Foreign]
) -> None:
    with database.engine.write() as connection:
        accounts.add_alias(connection, "both@example.com", ["out@example.com", "y@[192.0.2.1]"])
        accounts.add_alias(connection, "odd@example.com", ['"a b"@foreign.example'])
        accounts.add_alias(connection, "away@example.com", ["a@away.example"])
        domains.add(connection, "elsewhere.example", catch_all="z@foreign.example")
    found = now(Directory(database, Settings(aliases=ALIASES)).resolve(parse_address(name)))
    assert [target for target in found if isinstance(target, Foreign)] == expected


# address, who gets it while `*` names anna
CAUGHT = [
    ("nobody@example.com", "anna"),
    ("nobody+tag@configured.example", "anna"),
    ("bert@example.com", "bert"),
    ("anything@caught.example", "carl"),
    ("nobody@foreign.example", None),
]


@pytest.mark.parametrize(("name", "expected"), CAUGHT)
def test_the_star_gets_what_nobody_else_does(
    database: Inline, people: dict[str, int], name: str, expected: str | None
) -> None:
    found = Directory(database, Settings(aliases={"*": "anna@example.com"}))
    targets = now(found.resolve(parse_address(name)))
    found_ids = [target.account_id for target in targets if isinstance(target, Target)]
    assert found_ids == ([people[expected]] if expected else [])
    assert len(targets) == len(found_ids)


@pytest.mark.mission("DIN-34")
def test_the_star_may_lead_elsewhere(database: Inline, people: dict[str, int]) -> None:
    found = Directory(database, Settings(aliases={"*": "Me@home.example"}))
    (target,) = now(found.resolve(parse_address("nobody+tag@configured.example")))
    assert target == Foreign("Me@home.example", "home.example", "nobody+tag@configured.example")
    (known,) = now(found.resolve(parse_address("anna@example.com")))
    assert isinstance(known, Target)


def test_the_delimiter_is_the_domains(database: Inline, people: dict[str, int]) -> None:
    found = Directory(database, Settings())
    assert len(now(found.resolve(parse_address("eve-tag@dash.example")))) == 1
    assert now(found.resolve(parse_address("eve+tag@dash.example"))) == ()


def test_postmaster_needs_no_domain(database: Inline, people: dict[str, int]) -> None:
    found = Directory(database, Settings(aliases=ALIASES))
    (target,) = now(found.resolve(Address("Postmaster", "")))
    assert target == Target(people["anna"], "INBOX", "anna@example.com")
    assert now(Directory(database, Settings(domains=())).resolve(Address("Postmaster", ""))) == ()


# domain, whether it is ours
DOMAINS = [
    ("example.com", True),
    ("EXAMPLE.com", True),
    ("configured.example", True),
    ("caught.example", True),
    ("away.example", False),
    ("foreign.example", False),
    ("-not a domain-", False),
    ("", False),
]


@pytest.mark.parametrize(("name", "expected"), DOMAINS)
def test_domains_are_local_by_setting_or_by_row(
    database: Inline, people: dict[str, int], name: str, *, expected: bool
) -> None:
    assert now(Directory(database, Settings()).is_local(name)) is expected


class Counting:
    """A database that counts its reads."""

    def __init__(self, database: Inline) -> None:
        self._database = database
        self.changes = database.changes
        self.reads = 0
        self.meanwhile: Callable[[], object] = lambda: None

    async def read(self, work: Callable[[Connection], T]) -> T:
        self.reads += 1
        found = await self._database.read(work)
        self.meanwhile()
        return found


def test_answers_are_kept_until_an_address_changes(database: Inline) -> None:
    counting = Counting(database)
    found = Directory(counting, Settings())
    anna = parse_address("anna@example.com")
    for _ in range(3):
        assert now(found.resolve(anna)) == ()
        assert now(found.is_local("example.com")) is False
    assert counting.reads == 2
    now(database.write(account))
    for _ in range(3):
        assert len(now(found.resolve(anna))) == 1
        assert now(found.is_local("example.com")) is True
    assert counting.reads == 4
    (made,) = now(found.resolve(anna))
    assert isinstance(made, Target)
    now(database.write(lambda connection: accounts.remove_step(connection, made.account_id)))
    assert now(found.resolve(anna)) == ()


def test_all_addresses_of_a_foreign_domain_cost_one_look(database: Inline) -> None:
    counting = Counting(database)
    found = Directory(counting, Settings())
    for n in range(50):
        assert now(found.resolve(parse_address(f"u{n}@foreign.example"))) == ()
        assert now(found.is_local("foreign.example")) is False
    assert counting.reads == 2
    now(database.write(lambda connection: domains.add(connection, "foreign.example")))
    now(database.write(lambda connection: account(connection, "u1@foreign.example")))
    assert len(now(found.resolve(parse_address("u1@foreign.example")))) == 1


def test_an_answer_that_a_change_overtook_is_not_kept(database: Inline) -> None:
    counting = Counting(database)
    found = Directory(counting, Settings())
    anna = parse_address("anna@example.com")
    counting.meanwhile = found.clear
    assert now(found.resolve(anna)) == ()
    counting.meanwhile = lambda: None
    assert now(found.resolve(anna)) == ()
    assert counting.reads == 2


def test_what_is_kept_is_bounded(database: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CACHE_SIZE", 3)
    counting = Counting(database)
    found = Directory(counting, Settings())
    for n in (1, 2, 3, 1, 4, 1, 3, 2):
        now(found.resolve(parse_address(f"u{n}@example.com")))
    assert counting.reads == 5  # 1, 2, 3, 4 and 2 again


def test_wide_and_deep_aliases_are_bounded(database: Inline) -> None:
    with database.engine.write() as connection:
        names = [f"u{n}@example.com" for n in range(100)]
        for name in names[:60]:
            account(connection, name)
        for n in range(40):
            targets = [f"a{m}@example.com" for m in range(40) if m != n]
            accounts.add_alias(connection, f"a{n}@example.com", [*targets, *names[:60]])
        for n in range(12):
            accounts.add_alias(connection, f"d{n}@example.com", [f"d{n + 1}@example.com"])
        accounts.add_alias(connection, "d12@example.com", ["u0@example.com"])
    found = Directory(database, Settings())
    assert len(now(found.resolve(parse_address("a0@example.com")))) == 60
    assert len(now(found.resolve(parse_address("d3@example.com")))) == 1
    assert now(found.resolve(parse_address("d1@example.com"))) == ()


def _named(hostname: str) -> Callable[[Connection], None]:
    """Makes a mail_server row, as the REST interface does."""

    def write(connection: Connection) -> None:
        connection.execute(
            insert(mail_server).values(
                hostname=hostname,
                listen_interface="127.0.0.1:0",
                max_size=1,
                max_clients=1,
                reference_id=hostname,
                permission=0,
                created_at=NOW,
                updated_at=NOW,
            )
        )
        changes.bump(connection, mail_servers.KIND)

    return write


@pytest.mark.mission("DAP-084")
def test_the_name_of_a_mail_server_is_a_local_domain_from_its_commit_on(
    database: Inline,
) -> None:
    directory = Directory(database, Settings())
    assert not now(directory.is_local("Hosted.example"))
    assert now(directory.resolve(parse_address("x@hosted.example"))) == ()
    now(database.write(_named("hosted.example")))
    assert now(directory.is_local("Hosted.example"))
    assert not now(directory.is_local("sub.hosted.example"))
    assert now(directory.resolve(parse_address("x@hosted.example"))) == ()
    now(database.write(lambda connection: account(connection, "x@hosted.example")))
    (target,) = now(directory.resolve(parse_address("X@hosted.example")))
    assert isinstance(target, Target)


def test_the_settings_aliases_hold_in_a_mail_servers_domain(
    database: Inline, people: dict[str, int]
) -> None:
    directory = Directory(database, Settings(aliases=ALIASES))
    now(database.write(_named("hosted.example")))
    (target,) = now(directory.resolve(parse_address("postmaster@hosted.example")))
    assert target == Target(people["anna"], "INBOX", "anna@example.com")


def test_the_first_domain_is_that_of_names_without_one(database: Inline) -> None:
    def first() -> str:
        return now(database.read(domains.first))

    assert first() == ""
    now(database.write(_named("mx.hosted.example")))
    assert first() == "mx.hosted.example"
    for name, kind in (("b.example", "relay"), ("z.example", "local"), ("a.example", "local")):
        now(database.write(partial(domains.add, name=name, kind=kind)))
    assert first() == "z.example"


# -- inbox domains --------------------------------------------------------------------------


def inbox_of(name: str, account_id: int = 0) -> Target:
    return Target(account_id, "INBOX", name, is_captured=True, is_apart=True)


def test_every_name_of_an_inbox_domain_is_an_inbox(
    database: Inline, people: dict[str, int]
) -> None:
    aliases = ALIASES | {"*": "bert@example.com"}
    settings = Settings(aliases=aliases, inbox=InboxSettings("Inbox.Example"))
    found = Directory(database, settings)
    assert now(found.is_local("INBOX.example"))
    assert not now(found.is_local("sub.inbox.example"))
    for name in ("bob", "bob+tag", "anna"):
        address = f"{name}@inbox.example"
        assert now(found.resolve(parse_address(address))) == (inbox_of(address),)
    assert now(found.resolve(parse_address("Abuse@inbox.example"))) == (
        inbox_of("abuse@inbox.example"),
        Target(people["anna"], "INBOX", "anna@example.com"),
    )
    # The settings' first domain is that of names without one.
    assert found.completed(Address("Postmaster", "")).domain == "configured.example"
    alone = Directory(database, Settings(domains=(), inbox=InboxSettings("inbox.example")))
    assert alone.completed(Address("Postmaster", "")).domain == "inbox.example"


def test_an_inbox_domain_of_a_row_has_the_catch_all_that_it_names(
    database: Inline, people: dict[str, int]
) -> None:
    with database.engine.write() as connection:
        domains.add(connection, "caught-too.example", "inbox", catch_all="carl@example.com")
        account_id = inbox.ensure_account(connection)
        account(connection, "eve@caught-too.example")
    found = Directory(database, Settings())
    assert now(found.resolve(parse_address("x@caught-too.example"))) == (
        inbox_of("x@caught-too.example", account_id),
        Target(people["carl"], "INBOX", "carl@example.com"),
    )
    (own, mailbox) = now(found.resolve(parse_address("eve+1@caught-too.example")))
    assert own == inbox_of("eve+1@caught-too.example", account_id)
    assert isinstance(mailbox, Target)
    assert not mailbox.is_captured


def test_what_is_known_of_an_inbox_changes_when_its_account_is_made(database: Inline) -> None:
    found = Directory(database, Settings(inbox=InboxSettings("inbox.example")))
    (before,) = now(found.resolve(parse_address("x@inbox.example")))
    now(database.write(inbox.ensure_account))
    (after,) = now(found.resolve(parse_address("x@inbox.example")))
    assert isinstance(before, Target)
    assert isinstance(after, Target)
    assert before.account_id == 0 != after.account_id
