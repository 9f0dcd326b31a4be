"""The settings of the parts around the mailboxes: queue, relay, DKIM, mail over HTTP."""

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
from mailtwist.config.names import Domain, Host, HostPort, Mailbox, Network, Url

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Queue:
    max_workers: int = setting(
        Whole(1, 10_000),
        50,
        "Connections at once to all hosts, those that wait for the next message counted.",
        unit="connections",
    )
    max_retries: int = setting(
        Whole(0, 10_000),
        60,
        "Attempts after the first; then the message is returned.",
        unit="attempts",
    )
    max_queue_time: float = setting(
        Duration(1, 60 * DAY),
        5 * DAY,
        "When a message that could not be delivered is returned.",
        unit="seconds",
    )
    retry_schedule: tuple[float, ...] = setting(
        ListOf(Duration(0, 30 * DAY)),
        (120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 14400.0),
        "The waits between attempts; the last one repeats.",
        unit="seconds",
    )
    delay_warning: float = setting(
        Duration(0, 60 * DAY),
        14400.0,
        "When the sender is told, once, that his message still waits; 0: never.",
        unit="seconds",
    )
    suppress_after: int = setting(
        Whole(0, 1_000_000),
        3,
        "Bounces for good after which an address is refused at once; 0: never. "
        "`mailtwist queue suppressed` lists them.",
        unit="bounces",
    )
    keep_delivered_messages: bool = setting(
        Flag(),
        False,
        "Whether the text of a delivered message is kept as long as its row, 7 days; "
        "else it goes after an hour.",
    )


@dataclass(frozen=True, slots=True)
class Outbound:
    port: int = setting(Whole(1, 65535), 25, "The port of MX hosts.")
    resolver: str = setting(
        HostPort(default_port=53, is_remote=True),
        "",
        "The DNS server to ask; empty: the system's.",
        example="127.0.0.1:5353",
    )
    mx_override: Mapping[str, str] = setting(
        MapOf(Domain(), HostPort(default_port=25, is_remote=True)),
        {},
        "A domain, or `*`, to the host that takes its mail in place of its MX hosts; for closed "
        "networks and tests.",
        example={"partner.example": "10.0.0.7:25"},
    )
    tls: str = setting(
        Choice(("none", "opportunistic", "verify")),
        "opportunistic",
        "Whether mail leaves under TLS: never, where offered, only to a verified host.",
    )
    per_domain: int = setting(
        Whole(1, 1000),
        20,
        "Connections at once to one domain, or to the smart host.",
        unit="connections",
        aliases=(
            "max_connections_per_domain",
            "queue.max_connections_per_domain",
            "outbound.max_connections_per_domain",
        ),
    )
    rate: int = setting(
        Whole(0, 1_000_000),
        0,
        "Messages to one domain, or to the smart host; 0: no limit.",
        unit="a minute",
    )
    connect_timeout: float = setting(
        Duration(0.1, 600), 30.0, "How long a host may take to answer a call.", unit="seconds"
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    mode: str = setting(
        Choice(("local", "lmtp")),
        "local",
        "Where local mail goes: into our mailboxes, or to an LMTP server.",
    )
    host: str = setting(Host(), "", "The LMTP server.", example="127.0.0.1")
    port: int = setting(Whole(1, 65535), 24, "Its port.")
    sent_copy: bool = setting(
        Flag(), False, "Whether a submission files a copy in the sender's Sent mailbox."
    )


@dataclass(frozen=True, slots=True)
class Relay:
    host: str = setting(
        Host(),
        "",
        "The smart host that takes all outgoing mail; empty: straight to the MX hosts.",
        variables=("SMTP_RELAY_HOST", "RELAY_HOST"),
        example="smtp.example.net",
    )
    port: int = setting(
        Whole(1, 65535),
        587,
        "Its port; 465 begins with TLS.",
        variables=("SMTP_RELAY_PORT", "RELAY_PORT"),
    )
    username: str = setting(
        Text(),
        "",
        "The login there; empty: none.",
        variables=("SMTP_RELAY_USERNAME", "RELAY_USERNAME"),
    )
    password: str = setting(
        Text(),
        "",
        "The password there; spaces in it are left out.",
        secret=True,
        variables=("SMTP_RELAY_PASSWORD", "RELAY_PASSWORD"),
    )
    tls: bool = setting(Flag(), True, "Whether TLS is insisted on.", variables=("USE_TLS",))
    verify: bool = setting(
        Flag(), True, "Whether its certificate must hold.", variables=("TLS_VERIFY",)
    )
    ca_file: str = setting(
        Path(), "", "The authorities it is checked against; empty: the system's."
    )


@dataclass(frozen=True, slots=True)
class Dkim:
    selector: str = setting(Domain(), "d1", "The selector of new keys.")
    enabled: bool = setting(Flag(), True, "Whether outgoing mail is signed.")
    ed25519: bool = setting(
        Flag(), False, "Whether it is signed with Ed25519 too, beside RSA (RFC 8463)."
    )
    verify: bool = setting(
        Flag(), True, "Whether the signatures of arriving mail are checked; read at the start."
    )


@dataclass(frozen=True, slots=True)
class Inbox:
    domain: str = setting(
        Domain(),
        "",
        "The catch-all domain whose mail is read over HTTP; empty: none. Every name in it is an "
        "inbox, with or without an account.",
        variables=("DOMAIN",),
        example="inbox.example",
    )
    api_keys: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "The keys that open `/emails`, as `X-API-KEY`; none: no key does.",
        secret=True,
        variables=("API_KEY",),
    )
    retention: float = setting(
        Duration(60, 3650 * DAY),
        DAY,
        "How long each of its messages is kept, and of all other captured mail.",
        unit="seconds",
    )
    smtp_rate: int = setting(
        Whole(0, 1_000_000),
        50,
        "Messages of one MAIL FROM address, where `domain` is set; 0: no limit.",
        unit="a minute",
    )
    api_rate: int = setting(
        Whole(0, 1_000_000),
        100,
        "Requests to `/emails` from one address, and wrong keys besides; 0: no limit.",
        unit="a minute",
    )


@dataclass(frozen=True, slots=True)
class Send:
    default_from: str = setting(
        Mailbox(),
        "",
        "The sender of letters of the server itself, such as codes for forgotten passwords; "
        "empty: `postmaster` of the first local domain.",
        variables=("DEFAULT_FROM",),
        example="noreply@example.com",
    )
    allowed_hosts: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "Web pages that may call `/send`: a host (`example.com`, `*.example.com`, `*` for any), "
        "one with its port (`localhost:3000`) or a whole origin (`https://example.com`).",
        variables=("ALLOWED_HOSTS",),
        example="example.com, *.example.com, http://localhost:3000",
    )
    api_key: str = setting(
        Text(),
        "",
        "The key that opens `/send`; empty: it is open to this machine and to allowed_hosts.",
        secret=True,
        aliases=("send.key",),
    )
    rate: int = setting(
        Whole(0, 1_000_000),
        60,
        "Requests to `/send` from one address; 0: no limit.",
        unit="a minute",
    )
    wait: float = setting(
        Duration(0, 300),
        2.0,
        "How long `/send` waits for the first attempt; 0: not at all.",
        unit="seconds",
    )
    sender_domains: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "Domains that `/send` takes in `from`, beside those that are local here; `*`: any.",
        example="example.net",
    )


@dataclass(frozen=True, slots=True)
class Acme:
    directory_url: str = setting(
        Url(("https",)),
        "https://acme-v02.api.letsencrypt.org/directory",
        "The authority that issues certificates.",
    )
    email: str = setting(
        Mailbox(),
        "",
        "Whom it writes to; empty: whoever asks for a certificate names an address.",
        example="postmaster@example.com",
    )
    ca_file: str = setting(
        Path(),
        "",
        "The authorities that its own certificate is checked against; empty: the system's.",
    )
    challenge: str = setting(
        Choice(("http-01", "dns-01")),
        "http-01",
        "How it sees that a name is ours: it asks port 80 of that name, or it looks for a record "
        "in DNS. A wildcard needs dns-01.",
    )
    key_type: str = setting(
        Choice(("ecdsa", "rsa")), "ecdsa", "The key of its certificates: P-256 or RSA-2048."
    )
    eab_key_id: str = setting(
        Text(), "", "The key identifier of an authority that binds accounts to customers."
    )
    eab_hmac_key: str = setting(Text(), "", "Its key, as the authority shows it.", secret=True)
    dns_server: str = setting(
        HostPort(default_port=53, is_remote=True),
        "",
        "The primary DNS server that takes the record of dns-01 as a dynamic update (RFC 2136).",
        example="127.0.0.1:53",
    )
    dns_zone: str = setting(
        Domain(), "", "The zone that is updated; empty: `dns_server` is asked which it is."
    )
    dns_key_name: str = setting(
        Text(), "", "The name of the TSIG key that signs updates; empty: they are not signed."
    )
    dns_key_secret: str = setting(Text(), "", "The TSIG key, base64.", secret=True)
    dns_key_algorithm: str = setting(
        Choice(("hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1")),
        "hmac-sha256",
        "The algorithm of the TSIG key.",
    )
    dns_hook: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "A program that makes the record in place of `dns_server`: it is called with "
        "`add NAME VALUE`, and with `remove NAME VALUE` in the end.",
        example=["/usr/local/bin/acme-dns"],
    )
    dns_wait: float = setting(
        Duration(0, 3600),
        10.0,
        "How long the record is left to spread before the authority is told to look.",
        unit="seconds",
    )


@dataclass(frozen=True, slots=True)
class Events:
    retention: float = setting(
        Duration(0, 30 * DAY),
        DAY,
        "How long it is kept what happened to messages, for `/events` and webhooks; 0: nothing "
        "is kept, and nobody told.",
        unit="seconds",
    )


@dataclass(frozen=True, slots=True)
class HttpClient:
    allow: tuple[str, ...] = setting(
        ListOf(Network()),
        (),
        "Private addresses and networks that webhooks may name; all public ones may be named.",
        example=["10.1.2.0/24"],
    )
