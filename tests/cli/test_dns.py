from __future__ import annotations

import pytest

from mailtwist.policy import keyring
from mailtwist.store import dkim_keys
from mailtwist.store.engine import Engine
from tests.cli.conftest import Mailtwist
from tests.support.dns import DnsServer

pytestmark = pytest.mark.usefixtures("ready")


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "RSA_BITS", 1024)
    monkeypatch.setenv("MAILTWIST_HOSTNAME", "mail.example.com")
    monkeypatch.setenv("MAILTWIST_DOMAINS", "example.com")


@pytest.fixture(autouse=True)
def dns(monkeypatch: pytest.MonkeyPatch):
    with DnsServer() as server:
        monkeypatch.setenv("MAILTWIST_OUTBOUND_RESOLVER", server.address)
        yield server


def test_dns_prints_each_record_with_its_reason(mailtwist: Mailtwist, store: Engine) -> None:
    ended = mailtwist("dns", "Example.COM", "--address", "192.0.2.1")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert "example.com. IN MX 10 mail.example.com." in lines
    assert "mail.example.com. IN A 192.0.2.1" in lines
    assert "1.2.0.192.in-addr.arpa. IN PTR mail.example.com." in lines
    assert all(len(line) < 100 for line in lines if line.startswith(";"))
    for n, line in enumerate(lines):
        if " IN " in line and not line.startswith(";"):
            assert lines[n - 1].startswith("; "), line
    with store.read() as connection:
        (key,) = dkim_keys.list(connection, "example.com")
    joined = ended.out.replace('" "', "")
    assert f'd1._domainkey.example.com. IN TXT "v=DKIM1; k=rsa; p={key.public_key}"' in joined


def test_dns_is_data_too_and_makes_its_key_once(mailtwist: Mailtwist) -> None:
    rows = mailtwist("dns", "example.com", "--json").json
    assert mailtwist("dns", "example.com", "--json").json == rows
    by_name = {(row["type"], row["name"]): row for row in rows}
    key = by_name["TXT", "d1._domainkey.example.com"]
    assert set(key) == {"type", "name", "value", "reason", "need", "zone"}
    assert key["value"].startswith("v=DKIM1; k=rsa; p=MI")
    listed = mailtwist("dkim", "list", "example.com", "--json").json
    assert [(row["selector"], row["state"], row["record"]) for row in listed] == [
        ("d1", "active", key["value"])
    ]


def test_dns_without_signing_makes_no_key(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILTWIST_DKIM_ENABLED", "no")
    assert "_domainkey" not in mailtwist("dns", "example.com").out
    assert mailtwist("dkim", "list", "--json").json == []


@pytest.mark.parametrize(
    "arguments, status, text",
    [
        (("dns", "no domain"), 1, "Invalid address"),
        (("dns", "example.com", "--address", "here"), 2, "here is no IP address"),
        (("dkim", "rotate", "example.com"), 1, "`mailtwist dns example.com` makes it"),
        (("dkim", "rotate", "example.com", "--selector", "a b"), 2, "a b is no selector"),
    ],
)
def test_what_cannot_be_done_is_told(
    mailtwist: Mailtwist, arguments: tuple[str, ...], status: int, text: str
) -> None:
    ended = mailtwist(*arguments)
    assert ended.status == status
    assert text in ended.err


def test_rotate_waits_for_the_record(mailtwist: Mailtwist, dns: DnsServer) -> None:
    mailtwist("dns", "example.com")
    first = mailtwist("dkim", "rotate", "example.com", "--json").json
    (row,) = first
    assert (row["name"], row["state"]) == ("d2._domainkey.example.com", "next")
    ended = mailtwist("dkim", "rotate", "example.com")
    assert ended.status == 0
    assert row["record"] in ended.out.replace('" "', "")
    dns.zone[row["name"]] = {"TXT": [f'"{row["record"]}"']}
    assert "d2._domainkey.example.com signs now" in mailtwist("dkim", "rotate", "example.com").out
    listed = mailtwist("dkim", "list", "--json").json
    assert [(each["selector"], each["state"]) for each in listed] == [
        ("d1", "retired"),
        ("d2", "active"),
    ]
    assert listed[0]["retired_at"]
    assert "keep it until" in mailtwist("dns", "example.com").out


def test_rotate_leaves_an_algorithm_without_key_alone(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailtwist("dns", "example.com")
    monkeypatch.setenv("MAILTWIST_DKIM_ED25519", "yes")
    rotate = ("dkim", "rotate", "example.com", "--json")
    assert [row["selector"] for row in mailtwist(*rotate).json] == ["d2"]
    assert "d1-ed25519._domainkey" in mailtwist("dns", "example.com").out
    assert [row["selector"] for row in mailtwist(*rotate).json] == ["d2", "d2-ed25519"]


def test_rotate_at_once(mailtwist: Mailtwist, dns: DnsServer) -> None:
    mailtwist("dns", "example.com")
    (row,) = mailtwist("dkim", "rotate", "example.com", "--selector", "may", "--now", "--json").json
    assert (row["selector"], row["state"]) == ("may", "active")
    assert dns.questions == []


def test_a_key_of_an_earlier_setting_is_idle(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailtwist("dns", "example.com")
    monkeypatch.setenv("MAILTWIST_DKIM_SELECTOR", "k2")
    assert "k2._domainkey.example.com" in mailtwist("dns", "example.com").out
    listed = mailtwist("dkim", "list", "--json").json
    assert [(row["selector"], row["state"]) for row in listed] == [("d1", "idle"), ("k2", "active")]
    assert "idle" in mailtwist("dkim", "list").out
