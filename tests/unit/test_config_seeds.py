"""Every environment variable of the programs that are replaced, and what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailtwist.config import InvalidConfiguration, Settings, load
from mailtwist.config.describe import value_of
from mailtwist.config.given import DECLARATIONS
from mailtwist.config.predecessors import (
    FILE_VARIABLES,
    PORT_VARIABLES,
    PREDECESSOR_VARIABLES,
    UNUSED_VARIABLES,
)

# Variable, value, setting, what it comes to.
MEANINGS: list[tuple[str, str, str, Any]] = [
    # The mail service of a home server.
    ("MAIL_DOMAIN", "yourdomain.com", "domains", ("yourdomain.com",)),
    ("MAIL_DOMAIN", "a.example, B.example", "domains", ("a.example", "b.example")),
    ("MAIL_HOSTNAME", "mail.yourdomain.com", "hostname", "mail.yourdomain.com"),
    ("DEFAULT_FROM", "noreply@yourdomain.com", "send.default_from", "noreply@yourdomain.com"),
    ("SMTP_RELAY_HOST", "smtp.gmail.com", "relay.host", "smtp.gmail.com"),
    ("SMTP_RELAY_HOST", "[smtp.gmail.com]", "relay.host", "smtp.gmail.com"),
    ("SMTP_RELAY_PORT", "465", "relay.port", 465),
    ("SMTP_RELAY_USERNAME", "me@gmail.com", "relay.username", "me@gmail.com"),
    ("SMTP_RELAY_PASSWORD", "abcd efgh ijkl mnop", "relay.password", "abcdefghijklmnop"),
    ("RELAY_HOST", "smtp.gmail.com", "relay.host", "smtp.gmail.com"),
    ("RELAY_PORT", "2525", "relay.port", 2525),
    ("RELAY_USERNAME", "me", "relay.username", "me"),
    ("RELAY_PASSWORD", "secret", "relay.password", "secret"),
    ("USE_TLS", "yes", "relay.tls", True),
    ("USE_TLS", "no", "relay.tls", False),
    ("USE_TLS", "perhaps", "relay.tls", None),
    ("TLS_VERIFY", "yes", "relay.verify", True),
    ("TLS_VERIFY", "no", "relay.verify", False),
    ("ALLOWED_HOSTS", "yourdomain.com", "send.allowed_hosts", ("yourdomain.com",)),
    (
        "ALLOWED_HOSTS",
        " yourdomain.com , api.yourdomain.com,,https://other.example:8443 ",
        "send.allowed_hosts",
        ("yourdomain.com", "api.yourdomain.com", "https://other.example:8443"),
    ),
    ("ALLOWED_HOSTS", "a.example b.example", "send.allowed_hosts", ("a.example", "b.example")),
    ("ENVIRONMENT", "development", "dev_mode", True),
    ("ENVIRONMENT", "development", "log_level", "debug"),
    ("ENVIRONMENT", "production", "dev_mode", False),
    ("ENVIRONMENT", "production", "log_level", "info"),
    ("FORWARD_EMAIL", "me@example.net", "aliases", {"*": "me@example.net"}),
    ("FORWARD_EMAIL", "nobody", "aliases", None),
    # The server of throw-away mailboxes.
    ("DOMAIN", "Example.COM", "inbox.domain", "example.com"),
    ("API_KEY", "s3cret", "inbox.api_keys", ("s3cret",)),
    ("API_KEY", "one,two", "inbox.api_keys", ("one", "two")),
    ("REDIS_ADDR", " ", "redis_url", ""),
    ("REDIS_ADDR", "localhost:6379", "redis_url", "redis://localhost:6379/0"),
    ("REDIS_ADDR", "rediss://user:pw@r.example:1/2", "redis_url", "rediss://user:pw@r.example:1/2"),
    ("GIN_MODE", "debug", "log_level", "debug"),
    ("GIN_MODE", "release", "log_level", "info"),
]


@pytest.mark.parametrize("name, text, key, value", MEANINGS)
def test_a_variable_means_a_setting(name: str, text: str, key: str, value: Any) -> None:
    if value is None:
        with pytest.raises(InvalidConfiguration, match=name):
            load(None, {name: text})
        return
    assert value_of(load(None, {name: text}), key) == value


def http_ports(settings: Settings) -> list[tuple[str, int]]:
    return [(each.host, each.port) for each in settings.listeners if each.protocol == "http"]


@pytest.mark.parametrize(
    "environ, ports",
    [
        ({"PORT": "20001", "MAIL_DOMAIN": "example.com"}, [("", 20001)]),
        ({"PORT": "20001", "DEFAULT_FROM": "a@example.com"}, [("", 20001)]),
        ({"PORT": "127.0.0.1:20001", "MAIL_DOMAIN": "example.com"}, [("127.0.0.1", 20001)]),
        # Any shell may have it.
        ({"PORT": "20001"}, [("127.0.0.1", 6336)]),
        ({"PORT": "http", "HOME": "/"}, [("127.0.0.1", 6336)]),
        ({"PORT": "1", "DAPTIN_PORT": ":2", "MAIL_DOMAIN": "a.example"}, [("", 2), ("", 1)]),
    ],
)
def test_port_opens_http_where_it_is_the_mail_services(
    environ: dict[str, str], ports: list[tuple[str, int]]
) -> None:
    assert http_ports(load(None, environ)) == ports


@pytest.mark.parametrize("name", sorted(UNUSED_VARIABLES))
def test_what_the_server_does_not_read_is_named_once_and_changes_nothing(name: str) -> None:
    ours = {"MAIL_DOMAIN": "example.com"}
    found = load(None, {**ours, name: "yes"})
    assert [text for text in found.warnings if name in text] == [
        f"{name}: not read by the server; see docs/environment.md"
    ]
    assert found == load(None, ours)
    # Nor are the variables of others anybody's business.
    assert load(None, {name: "yes"}).warnings == ()


def test_the_unread_variables_share_one_line() -> None:
    found = load(None, {"MAIL_DOMAIN": "a.example", "ENABLE_TLS": "true", "SMTP_HOST": "mail"})
    (warning,) = (text for text in found.warnings if "not read" in text)
    assert warning.startswith("ENABLE_TLS, SMTP_HOST: ")


def test_the_page_names_every_variable() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "environment.md").read_text()
    names = {name for each in DECLARATIONS.values() for name in each.variables}
    names |= {each.name for each in PREDECESSOR_VARIABLES} | {name for name, _ in PORT_VARIABLES}
    names |= {*UNUSED_VARIABLES, *FILE_VARIABLES}
    assert {name for name in names if f"`{name}`" not in page} == set()
