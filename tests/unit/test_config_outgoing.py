"""The settings of outgoing mail: their names, their bounds, and what they never show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailtwist.config import InvalidConfiguration, describe, load
from mailtwist.config.given import DECLARATIONS
from mailtwist.config.transports import DomainPattern, Transport, TransportUrl


def loaded(tmp_path: Path, text: str, **environ: str) -> Any:
    path = tmp_path / "mailtwist.yaml"
    path.write_text(text)
    return load(path, environ)


@pytest.mark.parametrize(
    "key, default",
    [
        ("queue.max_workers", 50),
        ("queue.max_retries", 60),
        ("queue.max_queue_time", 432000.0),
        ("queue.delay_warning", 14400.0),
        ("queue.suppress_after", 3),
        ("queue.keep_delivered_messages", False),
        ("outbound.port", 25),
        ("outbound.resolver", ""),
        ("outbound.tls", "opportunistic"),
        ("outbound.per_domain", 20),
        ("outbound.rate", 0),
        ("outbound.connect_timeout", 30.0),
        ("delivery.mode", "local"),
        ("delivery.sent_copy", False),
        ("relay.host", ""),
        ("relay.tls", True),
        ("relay.verify", True),
        ("transports", {}),
        ("dkim.selector", "d1"),
        ("dkim.enabled", True),
        ("dkim.ed25519", False),
        ("allowed_relays", ("127.0.0.1", "::1")),
    ],
)
def test_outgoing_mail_has_its_settings_and_all_of_them_act(key: str, default: Any) -> None:
    assert describe.value_of(load(None, {}), key) == default
    assert DECLARATIONS[key].inactive == ""


@pytest.mark.parametrize(
    "text",
    [
        "outbound: {per_domain: 1}",
        "max_connections_per_domain: 1",
        "queue: {max_connections_per_domain: 1}",
        "outbound: {max_connections_per_domain: 1}",
    ],
)
def test_the_limit_for_one_domain_has_the_names_of_older_files(tmp_path: Path, text: str) -> None:
    found = loaded(tmp_path, text)
    assert found.outbound.per_domain == 1
    assert found.warnings == ()


def test_the_schedule_of_an_older_file_acts(tmp_path: Path) -> None:
    text = "queue: {max_workers: 2, max_retries: 5, max_queue_time: 432000, retry_schedule: [1, 2]}"
    found = loaded(tmp_path, text)
    assert found.warnings == ()
    assert (found.queue.max_workers, found.queue.max_retries) == (2, 5)
    assert found.queue.retry_schedule == (1.0, 2.0)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("queue: {retry_schedule: []}", "queue.retry_schedule: is empty"),
        ("delivery: {mode: lmtp}", "delivery.host: is missing"),
        ("relay: {host: 'a b'}", "relay.host: is no domain name"),
        ("relay: {host: 'smart.test:587'}", "relay.host: is no IP address"),
        ("outbound: {resolver: ':53'}", "outbound.resolver: must name a host and a port"),
        ("outbound: {resolver: '127.0.0.1:0'}", "outbound.resolver: must name a host and a port"),
        ("outbound: {mx_override: {far.test: ':25'}}", "far.test: must name a host and a port"),
    ],
)
def test_a_host_to_call_is_a_host(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=problem):
        loaded(tmp_path, text)


@pytest.mark.parametrize(
    "given, host",
    [
        ("Smart.Test.", "smart.test"),
        ("[smart.test]", "smart.test"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("localhost", "localhost"),
    ],
)
def test_a_smart_host_is_a_name_or_an_address(given: str, host: str) -> None:
    assert load(None, {"SMTP_RELAY_HOST": given}).relay.host == host


@pytest.mark.mission("DIN-17")
def test_the_older_relay_variables_count_less_than_the_newer(tmp_path: Path) -> None:
    both = loaded(tmp_path, "", RELAY_HOST="old.test", SMTP_RELAY_HOST="new.test")
    assert both.relay.host == "new.test"
    assert both.warnings == ()
    old = loaded(tmp_path, "", RELAY_HOST="old.test", RELAY_USERNAME="u", RELAY_PASSWORD="p")
    assert (old.relay.host, old.relay.username, old.relay.password) == ("old.test", "u", "p")
    assert "RELAY_HOST: is called SMTP_RELAY_HOST now" in old.warnings


# -- transports ---------------------------------------------------------------------------------

SECRET = "hunter2secret"


@pytest.mark.parametrize(
    "given, shown",
    [
        ("mx", "mx"),
        ("MX", "mx"),
        ("smtp://h", "smtp://h:25?tls=opportunistic"),
        ("smtp://[2001:db8::1]:26", "smtp://[2001:db8::1]:26?tls=opportunistic"),
        ("smtps://h?tls=verify", "smtps://h:465?tls=verify"),
        (f"smtp://me:{SECRET}@h", "smtp://me:********@h:25?tls=verify"),
        (f"smtp://me%40h:{SECRET}@h?tls=none", "smtp://me%40h:********@h:25?tls=none"),
        ("lmtp://h/", "lmtp://h:24?tls=opportunistic"),
    ],
)
def test_a_transport_is_shown_without_its_password(given: str, shown: str) -> None:
    kind = TransportUrl()
    assert kind.show(kind.parse(given)) == shown


@pytest.mark.parametrize(
    "given",
    [
        "",
        "h:25",
        "http://h",
        "smtp://",
        "smtp://:25",
        "smtp://h:70000",
        "smtp://h:x",
        "smtp://[::1",
        "smtp://h/path",
        "smtp://h#x",
        "smtp://h?tls=maybe",
        "smtp://h?verify=no",
        "smtps://h?tls=none",
        "smtps://h?tls=opportunistic",
        f"smtp://{SECRET}@h",
        f"smtp://:{SECRET}@h",
        f"smtp://me:{SECRET}%0d%0aMAIL@h",
        f"smtp://me:{SECRET}@h h",
        f"http://me:{SECRET}@h",
        f"smtp://me:{SECRET}@h:99999",
    ],
)
def test_a_wrong_transport_is_refused_and_not_repeated(tmp_path: Path, given: str) -> None:
    with pytest.raises(ValueError) as caught:
        TransportUrl().parse(given)
    assert SECRET not in str(caught.value)
    with pytest.raises(InvalidConfiguration, match=r"transports: far\.test: must") as refused:
        loaded(tmp_path, f"transports: {{far.test: {given!r}}}")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "given, pattern",
    [
        ("Far.Test", "far.test"),
        (".Far.Test", ".far.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        (".bücher.test", ".xn--bcher-kva.test"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_a_pattern_is_a_domain_or_its_subdomains(given: str, pattern: str) -> None:
    assert DomainPattern().parse(given) == pattern


@pytest.mark.parametrize("given", ["", ".", "..x", "*.far.test", "a b", "@far.test"])
def test_a_wrong_pattern_is_refused(given: str) -> None:
    with pytest.raises(ValueError):
        DomainPattern().parse(given)


def test_transports_come_from_the_file_and_from_a_variable(tmp_path: Path) -> None:
    text = 'transports: {"*": mx, .far.test: "smtp://h:26"}'
    expected = {
        "*": Transport(),
        ".far.test": Transport("smtp", "h", 26, tls="opportunistic"),
    }
    assert loaded(tmp_path, text).transports == expected
    variable = "*=mx, .far.test=smtp://h:26?tls=opportunistic"
    assert loaded(tmp_path, "", MAILTWIST_TRANSPORTS=variable).transports == expected


def test_no_password_of_a_transport_is_shown(tmp_path: Path) -> None:
    found = loaded(tmp_path, f'transports: {{far.test: "smtp://me:{SECRET}@h"}}')
    assert found.transports["far.test"].password == SECRET
    assert SECRET not in repr(found)
    assert SECRET not in repr(list(describe.values(found)))
    assert SECRET not in repr(describe.explanation(found, "transports"))
