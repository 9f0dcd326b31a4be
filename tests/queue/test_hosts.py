"""The addresses to try: RFC 5321 §5.1 and what hostile or broken DNS may say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import pytest

from mailtwist.config import load
from mailtwist.net.dns import Answer, LookupFailed, Mx, NoData, NoSuchName, Resolver, Stub
from mailtwist.queue import hosts, ourselves
from mailtwist.queue.hosts import Hosts
from mailtwist.queue.ourselves import Ourselves, is_local
from mailtwist.queue.values import Host, Route, Undeliverable
from mailtwist.store.queue.values import LOCAL
from tests.support.dns import DnsServer
from tests.support.now import now
from tests.support.pumped import PumpedReactor

Zone = Mapping[str, Any]


class FakeResolver:
    """Answers from a dict: values by type, or what is raised for the name."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[tuple[str, str]] = []

    async def query(self, name: str, kind: str) -> Answer:
        self.asked.append((name, kind))
        records = self.zone.get(name, NoSuchName)
        if isinstance(records, type):
            raise records(f"{name} {kind}: private detail")
        values = records.get(kind, ())
        if isinstance(values, type):
            raise values(name)
        if not values:
            raise NoData(name)
        return Answer(tuple(values), 300)

    async def addresses(self, name: str) -> tuple[str, ...]:
        return (await self.query(name, "A")).values


def mx(*pairs: tuple[int, str]) -> list[Mx]:
    return [Mx(*pair) for pair in pairs]


def a(*addresses: str) -> dict[str, list[str]]:
    return {
        "A": [each for each in addresses if ":" not in each],
        "AAAA": [each for each in addresses if ":" in each],
    }


OWN = Ourselves(
    {"mail.us.test"}, [("", 25), ("198.51.100.9", 26)], lambda address: address == "198.51.100.1"
)


def of(
    zone: Zone | FakeResolver,
    destination: str = "far.test",
    *,
    route: Route | None = None,
    may_loop_back: bool = False,
    seed: int = 1,
) -> list[Host]:
    resolver = zone if isinstance(zone, FakeResolver) else FakeResolver(zone)
    found = Hosts(resolver, own=OWN, random=Random(seed), may_loop_back=may_loop_back)
    return now(found.of(route or Route(destination), destination))


def addresses(found: Sequence[Host]) -> list[str]:
    return [each.address for each in found]


# -- the order ----------------------------------------------------------------------------------


def test_the_preferred_exchanger_comes_first() -> None:
    zone = {
        "far.test": {"MX": mx((20, "b.test"), (10, "a.test"), (30, "c.test"))},
        "a.test": a("192.0.2.1"),
        "b.test": a("192.0.2.2"),
        "c.test": a("192.0.2.3"),
    }
    found = of(zone)
    assert found == [
        Host("a.test", "192.0.2.1", 25),
        Host("b.test", "192.0.2.2", 25),
        Host("c.test", "192.0.2.3", 25),
    ]


def test_without_mx_the_domain_itself_is_called() -> None:
    found = of({"far.test": a("192.0.2.1", "2001:db8::1")}, route=Route("far.test", port=2525))
    assert found == [Host("far.test", "192.0.2.1", 2525), Host("far.test", "2001:db8::1", 2525)]


def test_equal_exchangers_share_the_load() -> None:
    names = [f"{n}.test" for n in range(5)]
    zone: dict[str, Any] = {name: a(f"192.0.2.{n}") for n, name in enumerate(names)}
    zone["far.test"] = {"MX": mx((5, "0.test"), *((10, name) for name in names[1:]))}
    orders = {tuple(addresses(of(zone, seed=seed))) for seed in range(20)}
    assert len(orders) > 5
    assert {order[0] for order in orders} == {"192.0.2.0"}


def test_both_families_take_turns_and_an_address_is_tried_once() -> None:
    zone = {
        "far.test": {"MX": mx((10, "a.test"), (20, "b.test"))},
        "a.test": a("192.0.2.1", "192.0.2.2", "2001:db8::1"),
        "b.test": a("192.0.2.1", "2001:db8::2"),
    }
    found = addresses(of(zone))
    assert [":" in each for each in found] == [False, True, False, True]
    assert found[3] == "2001:db8::2"
    assert len(set(found)) == 4


# -- what DNS says of a domain without hosts ------------------------------------------------------


@pytest.mark.parametrize(
    "zone, code, status, text",
    [
        ({}, 550, "5.1.2", "The domain far.test does not exist"),
        ({"far.test": LookupFailed}, 451, "4.4.3", "DNS cannot say who takes mail for far.test"),
        # An MX that can't be known is no reason to try the A record.
        ({"far.test": {"MX": LookupFailed, "A": ["192.0.2.1"]}}, 451, "4.4.3", "DNS cannot say"),
        # RFC 7505
        ({"far.test": {"MX": mx((0, "")), "A": ["192.0.2.1"]}}, 556, "5.1.10", "takes no mail"),
        ({"far.test": {}}, 550, "5.4.4", "No mail host of far.test has an address"),
        ({"far.test": {"A": LookupFailed}}, 451, "4.4.3", "where the mail hosts of far.test are"),
        ({"far.test": {"MX": mx((1, "gone.test"))}}, 550, "5.4.4", "has an address"),
        ({"far.test": {"MX": mx((1, "a.test"))}, "a.test": {}}, 550, "5.4.4", "has an address"),
        (
            {"far.test": {"MX": mx((1, "a.test"), (2, "gone.test"))}, "a.test": LookupFailed},
            451,
            "4.4.3",
            "where the mail hosts",
        ),
    ],
)
def test_a_domain_without_hosts(zone: Zone, code: int, status: str, text: str) -> None:
    with pytest.raises(Undeliverable, match=text) as caught:
        of(zone)
    reply = caught.value.reply
    assert (reply.code, reply.status, reply.stage, reply.is_ours) == (code, status, "dns", True)
    assert "private" not in reply.text


@pytest.mark.parametrize(
    "zone",
    [
        # One of several has no address, or none that can be known.
        {"far.test": {"MX": mx((1, "gone.test"), (2, "a.test"))}},
        {"far.test": {"MX": mx((1, "broken.test"), (2, "a.test"))}, "broken.test": LookupFailed},
        # One family can't be known.
        {"far.test": {"MX": mx((1, "half.test"))},
         "half.test": {"A": ["192.0.2.1"], "AAAA": LookupFailed}},
        {"far.test": {"MX": mx((1, "half.test"))},
         "half.test": {"A": LookupFailed, "AAAA": ["192.0.2.1"]}},
        # A null MX among others is none.
        {"far.test": {"MX": mx((0, ""), (2, "a.test"))}},
    ],
)  # fmt: skip
def test_what_can_be_known_is_used(zone: dict[str, Any]) -> None:
    assert addresses(of({"a.test": a("192.0.2.1"), **zone})) == ["192.0.2.1"]


# -- bounds -------------------------------------------------------------------------------------


def test_a_hundred_exchangers_cost_ten_look_ups() -> None:
    zone: dict[str, Any] = {f"{n}.test": a(f"192.0.2.{n}") for n in range(100)}
    zone["far.test"] = {"MX": mx(*((100 - n, f"{n}.test") for n in range(100)))}
    resolver = FakeResolver(zone)
    found = of(resolver)
    assert addresses(found) == [f"192.0.2.{n}" for n in range(99, 89, -1)]
    assert len(resolver.asked) == 1 + 2 * hosts.MAX_NAMES


def test_a_name_with_many_addresses_leaves_room_for_the_next() -> None:
    zone = {
        "far.test": {"MX": mx((1, "a.test"), (2, "b.test"))},
        "a.test": a(*(f"192.0.2.{n}" for n in range(100))),
        "b.test": a("203.0.113.1"),
    }
    found = of(zone)
    assert len(found) == hosts.ADDRESSES_OF_A_NAME + 1
    assert found[-1].name == "b.test"


def test_twenty_addresses_are_enough() -> None:
    zone: dict[str, Any] = {f"{n}.test": a(*(f"10.{n}.0.{k}" for k in range(9))) for n in range(9)}
    zone["far.test"] = {"MX": mx(*((n, f"{n}.test") for n in range(9)))}
    resolver = FakeResolver(zone)
    assert len(of(resolver)) == hosts.MAX_ADDRESSES
    assert ("4.test", "A") not in resolver.asked


def test_names_that_nobody_can_resolve_do_not_cost_ten_time_outs() -> None:
    zone: dict[str, Any] = {f"{n}.test": LookupFailed for n in range(10)}
    zone["far.test"] = {"MX": mx(*((n, f"{n}.test") for n in range(10)))}
    resolver = FakeResolver(zone)
    with pytest.raises(Undeliverable, match=r"4\.4\.3"):
        of(resolver)
    assert len(resolver.asked) == 1 + 2 * hosts.MAX_FAILED_LOOKUPS


# -- loops ----------------------------------------------------------------------------------------


LOOP_ZONE: dict[str, Any] = {
    "a.test": a("192.0.2.1"),
    "b.test": a("192.0.2.2"),
    "mail.us.test": a("198.51.100.1"),
    "other-name-of-us.test": a("198.51.100.1", "2001:db8::1"),
    "broken.test": LookupFailed,
}


@pytest.mark.parametrize("us", ["mail.us.test", "other-name-of-us.test"])
@pytest.mark.parametrize(
    "exchangers, expected",
    [
        ([(10, "a.test"), (20, "us"), (30, "b.test")], ["192.0.2.1"]),
        ([(10, "a.test"), (20, "us"), (20, "b.test")], ["192.0.2.1"]),
        ([(10, "us"), (20, "b.test")], (554, "5.4.6")),
        ([(10, "us"), (10, "b.test")], (554, "5.4.6")),
        # The one before us may be the right one: wait.
        ([(10, "broken.test"), (20, "us")], (451, "4.4.3")),
    ],
)
def test_mail_goes_to_nobody_behind_us(
    us: str, exchangers: list[tuple[int, str]], expected: Any
) -> None:
    named = mx(*((n, us if name == "us" else name) for n, name in exchangers))
    zone = {**LOOP_ZONE, "far.test": {"MX": named}}
    for seed in range(5):
        if isinstance(expected, list):
            assert addresses(of(zone, seed=seed)) == expected
        else:
            with pytest.raises(Undeliverable) as caught:
                of(zone, seed=seed)
            assert (caught.value.reply.code, caught.value.reply.status) == expected


def test_our_address_with_another_port_is_somebody_else() -> None:
    zone = {"far.test": a("198.51.100.1")}
    assert addresses(of(zone, route=Route("far.test", port=2525))) == ["198.51.100.1"]


@pytest.mark.parametrize(
    "address, port, is_us",
    [
        ("198.51.100.1", 25, True),
        ("0.0.0.0", 25, True),
        ("192.0.2.1", 25, False),
        ("198.51.100.1", 26, False),
        ("198.51.100.9", 26, True),
    ],
)
def test_a_listener_is_ours_by_address_and_port(address: str, port: int, is_us: bool) -> None:
    assert OWN.has(address, port) is is_us


def test_ourselves_are_what_the_configuration_says() -> None:
    listeners = (
        '[{"protocol": "smtp", "address": "0.0.0.0:25"},'
        ' {"protocol": "smtp", "address": "127.0.0.1:0"},'
        ' {"protocol": "submission", "address": "127.0.0.1:587", "hostname": "sub.us.test"},'
        ' {"protocol": "imap", "address": ":143", "hostname": "imap.us.test"}]'
    )
    environ = {"MAIL_HOSTNAME": "mail.us.test", "MAILTWIST_LISTENERS": listeners}
    settings = load(None, environ)
    found = ourselves.of(settings.hostname, settings.listeners)
    assert set(found.names) == {"mail.us.test", "sub.us.test"}
    assert set(found.listening) == {("", 25), ("127.0.0.1", 587)}
    assert found.has("127.0.0.1", 25)
    assert not found.has("127.0.0.1", 143)


@pytest.mark.parametrize("address, expected", [("127.0.0.1", True), ("192.0.2.1", False)])
def test_the_machine_knows_its_addresses(address: str, expected: bool) -> None:
    assert is_local(address) is expected


# -- addresses that lead inward --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, address",
    [
        ("a.test", "127.0.0.1"),
        ("a.test", "127.1.2.3"),
        ("a.test", "0.0.0.0"),
        ("a.test", "::1"),
        ("a.test", "::"),
        ("a.test", "::ffff:127.0.0.1"),
        ("a.test", "169.254.169.254"),
        ("a.test", "224.0.0.1"),
        ("localhost", "192.0.2.1"),
        ("mx.localhost", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_dns_does_not_lead_inward_unless_it_is_ours(name: str, address: str) -> None:
    zone = {"far.test": {"MX": mx((1, name))}, name: a(address)}
    with pytest.raises(Undeliverable, match=r"550 5\.4\.4"):
        of(zone)
    if address not in {"0.0.0.0", "::"}:
        assert addresses(of(zone, may_loop_back=True)) == [address]


@pytest.mark.parametrize("name", ["bad name.test", "x\\000y.test", "-\u00e9.test", "a..test"])
def test_an_exchanger_that_is_no_host_name_is_not_looked_up(name: str) -> None:
    resolver = FakeResolver({"far.test": {"MX": mx((1, name))}})
    with pytest.raises(Undeliverable, match=r"5\.4\.4"):
        of(resolver)
    assert resolver.asked == [("far.test", "MX")]


@pytest.mark.parametrize(
    "environ, may",
    [
        ({}, False),
        ({"MAILTWIST_OUTBOUND_RESOLVER": "127.0.0.1:5353"}, True),
        ({"MAILTWIST_OUTBOUND_MX_OVERRIDE": "far.test=127.0.0.1:2525"}, True),
    ],
)
def test_closed_networks_may_use_loopback(environ: dict[str, str], may: bool) -> None:
    found = hosts.from_settings(load(None, environ), FakeResolver({}), Random(1))
    if may:
        assert now(found.of(Route("[127.0.0.1]", port=26), "[127.0.0.1]"))
    else:
        with pytest.raises(Undeliverable):
            now(found.of(Route("[127.0.0.1]", port=26), "[127.0.0.1]"))


# -- literals and hosts of the configuration ------------------------------------------------------


@pytest.mark.parametrize(
    "literal, expected",
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("[198.51.100.1]", (554, "5.4.6")),
        ("[127.0.0.1]", (550, "5.4.4")),
        ("[nonsense]", (550, "5.1.2")),
    ],
)
def test_a_literal_is_its_own_host(literal: str, expected: Any) -> None:
    resolver = FakeResolver({})
    if isinstance(expected, str):
        assert of(resolver, literal) == [Host(expected, expected, 25)]
    else:
        with pytest.raises(Undeliverable) as caught:
            of(resolver, literal)
        assert (caught.value.reply.code, caught.value.reply.status) == expected
    assert resolver.asked == []


SMART = Route("smtp://smart.test:587", "smart.test", 587)


def test_a_host_of_the_configuration_needs_no_mx() -> None:
    resolver = FakeResolver({"smart.test": a("10.0.0.7", "10.0.0.8")})
    assert of(resolver, route=SMART) == [
        Host("smart.test", "10.0.0.7", 587),
        Host("smart.test", "10.0.0.8", 587),
    ]
    assert all(kind != "MX" for _, kind in resolver.asked)


@pytest.mark.parametrize(
    "zone, status",
    [({}, "4.4.4"), ({"smart.test": {}}, "4.4.4"), ({"smart.test": LookupFailed}, "4.4.3")],
)
def test_a_fault_of_the_smart_host_returns_no_mail(zone: Zone, status: str) -> None:
    with pytest.raises(Undeliverable) as caught:
        of(zone, route=SMART)
    assert (caught.value.reply.code, caught.value.reply.status) == (451, status)


def test_a_smart_host_that_is_this_server_is_not_called() -> None:
    zone = {"smart.test": a("198.51.100.1")}
    with pytest.raises(Undeliverable, match=r"451 4\.4\.6"):
        of(zone, route=Route("smtp://smart.test:25", "smart.test", 25))
    found = of(zone, route=Route("lmtp://smart.test:25", "smart.test", 25, is_lmtp=True))
    assert addresses(found) == ["198.51.100.1"]


def test_local_mail_waits_while_there_is_no_lmtp_server() -> None:
    with pytest.raises(Undeliverable, match=r"451 4\.3\.5"):
        of({}, LOCAL, route=Route(LOCAL, is_lmtp=True))


# -- with a real DNS server -----------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[DnsServer]:
    zone = {
        "far.test": {"MX": ["20 b.far.test.", "10 a.far.test."]},
        "a.far.test": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
        "b.far.test": {"CNAME": ["a.far.test."]},
        "alias.test": {"CNAME": ["far.test."]},
        "null.test": {"MX": ["0 ."]},
        "loop.test": {"CNAME": ["loop.test."]},
        "many.test": {"MX": [f"{n} a.far.test." for n in range(100)]},
    }
    with DnsServer(zone) as running:
        running.servfail.add("broken.test")
        running.silent.add("mute.test")
        yield running


@pytest.fixture
def asked_for(server: DnsServer) -> Iterator[Callable[[str], list[Host]]]:
    reactor = PumpedReactor()
    resolver = Resolver(server.address, reactor=reactor, stub=Stub(server.address, try_s=0.2))
    found = Hosts(resolver, own=OWN, random=Random(1), may_loop_back=True)
    yield lambda domain: reactor.until(found.of(Route(domain, port=2525), domain))
    reactor.until(resolver.close())


@pytest.mark.parametrize("domain", ["far.test", "alias.test", "many.test"])
def test_hosts_come_from_real_dns(asked_for: Callable[[str], list[Host]], domain: str) -> None:
    assert asked_for(domain) == [
        Host("a.far.test", "127.0.0.1", 2525),
        Host("a.far.test", "::1", 2525),
    ]


@pytest.mark.parametrize(
    "domain, code, status",
    [
        ("gone.test", 550, "5.1.2"),
        ("null.test", 556, "5.1.10"),
        ("broken.test", 451, "4.4.3"),
        ("mute.test", 451, "4.4.3"),
        ("loop.test", 451, "4.4.3"),
    ],
)
def test_faults_of_real_dns_are_told_apart(
    asked_for: Callable[[str], list[Host]], domain: str, code: int, status: str
) -> None:
    with pytest.raises(Undeliverable) as caught:
        asked_for(domain)
    assert (caught.value.reply.code, caught.value.reply.status) == (code, status)
