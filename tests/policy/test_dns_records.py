from __future__ import annotations

from dataclasses import replace
from typing import Any

import dns.zone
import pytest

from mailtwist.config import Listener, Settings
from mailtwist.config.outgoing import Relay
from mailtwist.policy.dns_records import Record, mta_sts_policy, records, strings, zone_line
from mailtwist.store.dkim_keys import ACTIVE, ED25519, NEXT, RETIRED, RSA, Key

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000
KEY = Key("example.com", "d1", RSA, "d1", "sealed", "A" * 392, created_at=NOW)


def of(
    domain: str = "example.com",
    hostname: str = "mail.example.com",
    keys: tuple[Key, ...] = (KEY,),
    addresses: tuple[str, ...] = (),
    **options: Any,
) -> list[Record]:
    settings = Settings(**options)
    return records(
        domain, hostname=hostname, addresses=addresses, keys=keys, settings=settings, now=NOW
    )


def values(found: list[Record], kind: str, name: str) -> list[str]:
    return [record.value for record in found if (record.type, record.name) == (kind, name)]


@pytest.mark.parametrize(
    "kind, name, value",
    [
        ("MX", "example.com", "10 mail.example.com"),
        ("TXT", "example.com", "v=spf1 mx ~all"),
        ("TXT", "mail.example.com", "v=spf1 a -all"),
        ("TXT", "d1._domainkey.example.com", "v=DKIM1; k=rsa; p=" + "A" * 392),
        ("TXT", "_dmarc.example.com", "v=DMARC1; p=none; rua=mailto:postmaster@example.com"),
        ("TXT", "_smtp._tls.example.com", "v=TLSRPTv1; rua=mailto:postmaster@example.com"),
        ("CNAME", "mta-sts.example.com", "mail.example.com"),
        ("CNAME", "autoconfig.example.com", "mail.example.com"),
        ("CNAME", "autodiscover.example.com", "mail.example.com"),
        ("SRV", "_submissions._tcp.example.com", "0 1 465 mail.example.com"),
        ("SRV", "_submission._tcp.example.com", "0 1 587 mail.example.com"),
        ("SRV", "_imaps._tcp.example.com", "0 1 993 mail.example.com"),
        ("SRV", "_imap._tcp.example.com", "0 0 0 ."),
        ("PTR", "", "mail.example.com"),
    ],
)
def test_what_a_domain_needs(kind: str, name: str, value: str) -> None:
    assert values(of(), kind, name) == [value]


def test_every_record_has_its_reason_and_its_need() -> None:
    for record in of(addresses=("192.0.2.1",)):
        assert len(record.reason) > 10
        assert record.need in {"must", "should", "may"}
        assert record.reason.isprintable()


def test_known_addresses_give_a_name_and_the_way_back() -> None:
    found = of(addresses=("192.0.2.1", "2001:db8::1"))
    assert values(found, "A", "mail.example.com") == ["192.0.2.1"]
    assert values(found, "AAAA", "mail.example.com") == ["2001:db8::1"]
    assert values(found, "PTR", "1.2.0.192.in-addr.arpa") == ["mail.example.com"]
    assert sum(record.type == "PTR" for record in found) == 2


def test_the_host_of_another_domain_is_that_domains_business() -> None:
    found = of("example.org", addresses=("192.0.2.1",))
    assert values(found, "MX", "example.org") == ["10 mail.example.com"]
    assert values(found, "A", "mail.example.com") == []
    assert values(found, "TXT", "mail.example.com") == []
    assert values(of("ample.com"), "TXT", "mail.example.com") == []


@pytest.mark.parametrize(
    "host, term",
    [
        ("smtp.example.net", "a:smtp.example.net"),
        ("192.0.2.7", "ip4:192.0.2.7"),
        ("2001:db8::7", "ip6:2001:db8::7"),
    ],
)
def test_spf_lets_the_smart_host_send(host: str, term: str) -> None:
    found = of(relay=Relay(host=host))
    assert values(found, "TXT", "example.com") == [f"v=spf1 mx {term} ~all"]
    (reason,) = [record.reason for record in found if record.value.startswith("v=spf1 mx")]
    assert "include" in reason


def test_ports_are_those_of_listeners_that_others_reach() -> None:
    found = of(
        listeners=(
            Listener("a", "imaps", "127.0.0.1", 2993),
            Listener("b", "imaps", "", 1993),
            Listener("c", "submission", "127.0.0.1", 2587),
        )
    )
    assert values(found, "SRV", "_imaps._tcp.example.com") == ["0 1 1993 mail.example.com"]
    assert values(found, "SRV", "_submission._tcp.example.com") == ["0 1 587 mail.example.com"]


def test_keys_of_each_state() -> None:
    week = 7 * DAY
    keys = (
        replace(KEY, selector="old", state=RETIRED, retired_at=NOW - week),
        replace(KEY, selector="gone", state=RETIRED, retired_at=NOW - week + DAY),
        KEY,
        replace(KEY, selector="d2", state=NEXT),
        replace(KEY, selector="k1", configured="k1", state=ACTIVE),
        replace(KEY, selector="d1-ed25519", algorithm=ED25519, public_key="BBBB"),
    )
    found = {
        record.name.partition(".")[0]: record
        for record in of(keys=keys)
        if "_domainkey" in record.name
    }
    assert list(found) == ["gone", "d1", "d2", "k1", "d1-ed25519"]
    assert "2023-11-15" in found["gone"].reason
    assert "next" in found["d2"].reason
    assert "earlier" in found["k1"].reason
    assert found["d1-ed25519"].value == "v=DKIM1; k=ed25519; p=BBBB"
    assert [found[name].need for name in ("gone", "d1", "d2")] == ["should", "must", "must"]


def test_the_id_of_the_mta_sts_policy_follows_its_text() -> None:
    def number(found: list[Record]) -> str:
        (value,) = values(found, "TXT", "_mta-sts.example.com")
        assert value.startswith("v=STSv1; id=")
        return value.removeprefix("v=STSv1; id=")

    assert number(of()) == number(of())
    assert number(of()) != number(of(hostname="mx.example.com"))
    assert number(of()).isalnum()
    assert len(number(of())) <= 32  # RFC 8461 §3.1
    assert "mx: mail.example.com\r\n" in mta_sts_policy("mail.example.com")


def test_a_zone_file_reads_what_is_printed() -> None:
    """dnspython, a parser of zone files that is not ours, finds the same values."""
    found = [record for record in of(addresses=("192.0.2.1",)) if record.type != "PTR"]
    lines = [zone_line(record) for record in found]
    text = "$ORIGIN example.com.\n$TTL 60\n@ IN SOA ns root 1 2 3 4 5\n@ IN NS ns\n"
    zone = dns.zone.from_text(text + "\n".join(lines) + "\n", relativize=False)
    for record in found:
        rdataset = zone.get_rdataset(record.name + ".", record.type)
        assert rdataset is not None, record
        if record.type == "TXT":
            read = {b"".join(each.strings).decode() for each in rdataset}
        else:
            read = {each.to_text().removesuffix(".") for each in rdataset}
        assert record.value.removesuffix(".") in read


def test_long_texts_are_parted_and_quotes_are_escaped() -> None:
    assert [len(part) for part in strings("x" * 600)] == [255, 255, 90]
    assert strings("") == [""]
    record = Record("TXT", "a.example", 'say "x\\y"', "")
    assert zone_line(record) == 'a.example. IN TXT "say \\"x\\\\y\\""'
    assert zone_line(Record("PTR", "", "mail.example.com", "")) == "; PTR -> mail.example.com."
