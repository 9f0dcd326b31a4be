"""The settings of the parts around the mailboxes: queue, relay, DKIM, mail over HTTP.

Most are declared ahead of the part that acts on them, so that a configuration
file written today stays right; ``inactive`` says so wherever the key is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailtwist.config.declare import setting
from mailtwist.config.kinds import (
    Choice,
    Duration,
    Flag,
    ListOf,
    MapOf,
    Path,
    Text,
    Whole,
)
from mailtwist.config.names import Domain, HostPort, Mailbox, Url

LATER = "accepted, not acted on yet"
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Queue:
    max_workers: int = setting(
        Whole(1, 10_000), 50, "Deliveries at once.", unit="connections", inactive=LATER
    )
    max_retries: int = setting(
        Whole(0, 10_000), 60, "Attempts after the first.", unit="attempts", inactive=LATER
    )
    max_queue_time: float = setting(
        Duration(1, 60 * DAY),
        5 * DAY,
        "When a message that could not be delivered is returned.",
        unit="seconds",
        inactive=LATER,
    )
    retry_schedule: tuple[float, ...] = setting(
        ListOf(Duration(0, 30 * DAY)),
        (120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 14400.0),
        "The waits between attempts; the last one repeats.",
        unit="seconds",
        inactive=LATER,
    )
    keep_delivered_messages: bool = setting(
        Flag(),
        False,
        "Key of older configuration files.",
        inactive="accepted for old files; delivered rows are kept for 7 days anyway",
    )


@dataclass(frozen=True, slots=True)
class Outbound:
    port: int = setting(Whole(1, 65535), 25, "The port of MX hosts.", inactive=LATER)
    resolver: str = setting(
        HostPort(default_port=53),
        "",
        "The DNS server to ask; empty: the system's.",
        inactive=LATER,
        example="127.0.0.1:5353",
    )
    mx_override: Mapping[str, str] = setting(
        MapOf(Domain(), HostPort(default_port=25)),
        {},
        "A domain, or `*`, to the host that takes its mail; for closed networks and tests.",
        inactive=LATER,
        example={"partner.example": "10.0.0.7:25"},
    )
    tls: str = setting(
        Choice(("none", "opportunistic", "verify")),
        "opportunistic",
        "Whether mail leaves under TLS: never, where offered, only to a verified host.",
        inactive=LATER,
    )
    per_domain: int = setting(
        Whole(1, 1000),
        20,
        "Connections at once to one domain.",
        unit="connections",
        inactive=LATER,
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    mode: str = setting(
        Choice(("local", "lmtp")),
        "local",
        "Where local mail goes: into our mailboxes, or to an LMTP server.",
        inactive=f"`local` alone acts; lmtp: {LATER}",
    )
    host: str = setting(Text(), "", "The LMTP server.", inactive=LATER)
    port: int = setting(Whole(1, 65535), 24, "Its port.", inactive=LATER)


@dataclass(frozen=True, slots=True)
class Relay:
    host: str = setting(
        Text(),
        "",
        "The smart host that takes all outgoing mail; empty: straight to the MX hosts.",
        variables=("SMTP_RELAY_HOST", "RELAY_HOST"),
        inactive=LATER,
        example="smtp.example.net",
    )
    port: int = setting(
        Whole(1, 65535),
        587,
        "Its port.",
        variables=("SMTP_RELAY_PORT", "RELAY_PORT"),
        inactive=LATER,
    )
    username: str = setting(
        Text(),
        "",
        "The login there.",
        variables=("SMTP_RELAY_USERNAME", "RELAY_USERNAME"),
        inactive=LATER,
    )
    password: str = setting(
        Text(),
        "",
        "The password there.",
        secret=True,
        variables=("SMTP_RELAY_PASSWORD", "RELAY_PASSWORD"),
        inactive=LATER,
    )
    tls: bool = setting(
        Flag(), True, "Whether TLS is insisted on.", variables=("USE_TLS",), inactive=LATER
    )
    verify: bool = setting(
        Flag(),
        True,
        "Whether its certificate must hold.",
        variables=("TLS_VERIFY",),
        inactive=LATER,
    )
    ca_file: str = setting(
        Path(), "", "The authorities it is checked against; empty: the system's.", inactive=LATER
    )


@dataclass(frozen=True, slots=True)
class Dkim:
    selector: str = setting(Domain(), "d1", "The selector of new keys.", inactive=LATER)
    enabled: bool = setting(Flag(), True, "Whether outgoing mail is signed.", inactive=LATER)


@dataclass(frozen=True, slots=True)
class Inbox:
    domain: str = setting(
        Domain(),
        "",
        "The catch-all domain whose mail is read over HTTP; empty: none.",
        variables=("DOMAIN",),
        inactive=LATER,
        example="inbox.example",
    )
    api_keys: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "The keys that open `/emails`.",
        secret=True,
        variables=("API_KEY",),
        inactive=LATER,
    )
    retention: float = setting(
        Duration(60, 3650 * DAY), DAY, "How long its mail is kept.", unit="seconds", inactive=LATER
    )
    smtp_rate: int = setting(
        Whole(0, 1_000_000),
        50,
        "Messages from one sender; 0: no limit.",
        unit="a minute",
        inactive=LATER,
    )
    api_rate: int = setting(
        Whole(0, 1_000_000),
        100,
        "Requests from one address; 0: no limit.",
        unit="a minute",
        inactive=LATER,
    )


@dataclass(frozen=True, slots=True)
class Send:
    default_from: str = setting(
        Mailbox(),
        "",
        "The sender of a `/send` that names none.",
        variables=("DEFAULT_FROM",),
        inactive=LATER,
        example="noreply@example.com",
    )
    allowed_hosts: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "Web origins that may call `/send`.",
        variables=("ALLOWED_HOSTS",),
        inactive=LATER,
    )
    api_key: str = setting(
        Text(),
        "",
        "The key that opens `/send`; empty: it is open to this machine and to allowed_hosts.",
        secret=True,
        aliases=("send.key",),
        inactive=LATER,
    )
    rate: int = setting(
        Whole(0, 1_000_000),
        60,
        "Requests from one address; 0: no limit.",
        unit="a minute",
        inactive=LATER,
    )
    wait: float = setting(
        Duration(0, 300),
        2.0,
        "How long `/send` waits for the first attempt.",
        unit="seconds",
        inactive=LATER,
    )


@dataclass(frozen=True, slots=True)
class Acme:
    directory_url: str = setting(
        Url(("https",)),
        "https://acme-v02.api.letsencrypt.org/directory",
        "The authority that issues certificates.",
        inactive=LATER,
    )
    email: str = setting(Mailbox(), "", "Whom it writes to.", inactive=LATER)
    ca_file: str = setting(
        Path(), "", "What its own certificate is checked against.", inactive=LATER
    )
