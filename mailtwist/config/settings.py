"""Every setting of the server, declared once.

Attributes carry the values in use; the metadata of each field says the rest
(:mod:`mailtwist.config.declare`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailtwist.config.chaos import ChaosItem
from mailtwist.config.declare import items, section, setting
from mailtwist.config.kinds import (
    Choice,
    Duration,
    Flag,
    ListOf,
    MapOf,
    Octets,
    Path,
    Text,
    Whole,
)
from mailtwist.config.ldap import Ldap
from mailtwist.config.listeners import Listener, ListenerItem
from mailtwist.config.names import Domain, HostPort, LocalPartOrMailbox, Mailbox, Network, Url
from mailtwist.config.outgoing import (
    DAY,
    Acme,
    Delivery,
    Dkim,
    Events,
    HttpClient,
    Inbox,
    Outbound,
    Queue,
    Relay,
    Send,
)
from mailtwist.config.rates import Rate, RateOf
from mailtwist.config.redis import RedisUrl
from mailtwist.config.transports import DomainPattern, Transport, TransportUrl


@dataclass(frozen=True, slots=True)
class Tls:
    cert_file: str = setting(
        Path(),
        "",
        "The certificate chain, PEM; empty: `certs/fullchain.pem` with `certs/privkey.pem` where "
        "they exist, in the working folder or in `data_dir`, else the row for the host name, else "
        "one signed by itself, kept in `data_dir`. Files are read again when they change.",
        example="/etc/mailtwist/fullchain.pem",
    )
    key_file: str = setting(
        Path(), "", "The private key, PEM.", example="/etc/mailtwist/privkey.pem"
    )
    self_signed: bool = setting(
        Flag(),
        False,
        "Whether a certificate signed by ourselves stands in while the files above are missing; "
        "else the server refuses to start.",
    )
    key_type: str = setting(
        Choice(("rsa", "ecdsa")),
        "rsa",
        "The key of certificates that are signed by ourselves into rows: RSA-2048 or P-256.",
    )
    required: bool = setting(
        Flag(),
        False,
        "Whether MAIL is refused before STARTTLS.",
        aliases=("require_tls", "tls.require_tls"),
    )
    enabled: bool = setting(Flag(), True, "Whether STARTTLS is offered.")
    min_version: str = setting(Choice(("1.2", "1.3")), "1.2", "The oldest TLS version spoken.")


@dataclass(frozen=True, slots=True)
class Auth:
    enabled: bool = setting(Flag(), True, "Whether SMTP offers AUTH.")
    required: bool = setting(
        Flag(),
        False,
        "Whether MAIL needs a login on `smtp` listeners too, not on submission alone.",
    )
    methods: tuple[str, ...] = setting(
        ListOf(Choice(("plain", "login", "scram-sha-256", "scram-sha-256-plus"))),
        ("plain", "login"),
        "The SASL mechanisms that are offered, in this order. IMAP's LOGIN goes with the first "
        "two. `scram-sha-256` and `-plus` need `backend: sql`.",
    )
    backend: str = setting(
        Choice(("sql", "file", "ldap")),
        "sql",
        "Who knows the users: the store, a file, or an LDAP server.",
    )
    file_path: str = setting(
        Path(), "", "The users of `backend: file`.", example="/etc/mailtwist/users"
    )
    allow_plaintext: bool = setting(
        Flag(), False, "Whether a password may cross a connection without TLS (for loopback)."
    )
    bcrypt_cost: int = setting(
        Whole(10, 16), 10, "The work factor of new password verifiers; one more doubles the time."
    )


@dataclass(frozen=True, slots=True)
class Limits:
    recipients: int = setting(
        Whole(1, 100_000),
        100,
        "Recipients of one message.",
        unit="recipients",
        aliases=("max_recipients",),
    )
    connections_per_address: int = setting(
        Whole(1, 1_000_000),
        100,
        "Connections at once from one IP address, those to all listeners counted.",
        unit="connections",
    )
    idle_timeout: float = setting(
        Duration(1, DAY), 300.0, "How long a silent SMTP client is kept.", unit="seconds"
    )
    session_timeout: float = setting(
        Duration(0, 7 * DAY),
        3600.0,
        "How long an SMTP session may last in all, and a message take to arrive; a message that "
        "is on its way when a session's time is over still ends; 0: no limit.",
        unit="seconds",
    )
    connection_rate: Rate = setting(
        RateOf(),
        Rate(),
        "SMTP connections from one IP address; 0: no limit. A number is one a minute; also "
        '`"100/m"`, `"2000/h"`, `"20000/d"`, `"30/10m"`.',
        unit="a minute",
        example=0,
    )
    message_rate: Rate = setting(
        RateOf(),
        Rate(),
        "Messages from one IP address without a login; 0: no limit.",
        unit="a minute",
        example=0,
    )
    recipient_rate: Rate = setting(
        RateOf(),
        Rate(),
        "Recipients of all messages from one IP address without a login; 0: no limit.",
        unit="a minute",
        example=0,
    )
    account_connection_rate: Rate = setting(
        RateOf(),
        Rate(),
        "SMTP connections on which one user logs in; 0: no limit.",
        unit="a minute",
        example=0,
    )
    account_message_rate: Rate = setting(
        RateOf(),
        Rate(),
        "Messages that one login sends; 0: no limit.",
        unit="a minute",
        example=0,
    )
    account_recipient_rate: Rate = setting(
        RateOf(),
        Rate(),
        "Recipients of all messages that one login sends; 0: no limit.",
        unit="a minute",
        example=0,
    )
    exempt: tuple[str, ...] = setting(
        ListOf(Network()),
        (),
        "Addresses and networks whose connections, messages and recipients have no rate.",
        example=["10.0.0.0/8"],
    )


@dataclass(frozen=True, slots=True)
class Http:
    trusted_proxies: tuple[str, ...] = setting(
        ListOf(Network()),
        (),
        "Addresses and networks of proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and "
        "`X-Request-Id` are believed.",
        example=["127.0.0.1"],
    )
    hsts: float = setting(
        Duration(0, 730 * DAY),
        0.0,
        "How long browsers that came by TLS once insist on it (Strict-Transport-Security); 0: "
        "they are not told to.",
        unit="seconds",
        example="365d",
    )


@dataclass(frozen=True, slots=True)
class Actions:
    schema_folder: str = setting(
        Path(),
        "",
        "The folder whose files `schema_*.yaml`, `.json` and `.toml` define actions; empty: the "
        "folder where the server is started, if nobody else may write there.",
        variables=("DAPTIN_SCHEMA_FOLDER",),
        example="/etc/mailtwist/schemas",
    )
    env: tuple[str, ...] = setting(
        ListOf(Text()),
        (),
        "Environment variables that expressions of actions see as `env`.",
        example=["SHOP_URL"],
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. The last fields are derived and never read from a file."""

    hostname: str = setting(
        Domain(),
        "",
        "The name the server greets with and puts into Received; empty: the machine's host name.",
        aliases=("server.hostname",),
        variables=("MAIL_HOSTNAME",),
        example="mail.example.com",
    )
    domains: tuple[str, ...] = setting(
        ListOf(Domain()),
        (),
        "Domains whose mail is ours from the start; more come as rows.",
        aliases=("local_domains", "server.local_domains"),
        variables=("MAIL_DOMAIN",),
        example=["example.com"],
    )
    data_dir: str = setting(
        Path(),
        "./var",
        "The folder of the SQLite database, the secret key and the certificate.",
        example="/var/lib/mailtwist",
    )
    database_url: str = setting(
        Url(("sqlite", "postgresql", "postgresql+psycopg", "postgres")),
        "",
        "The database; empty: `mailtwist.db` in `data_dir`. PostgreSQL: "
        "`postgresql+psycopg://user@host/name`.",
        secret=True,
    )
    listeners_given: tuple[ListenerItem, ...] = items(
        ListenerItem,
        "What the server listens on. Without `listeners` and `listen_addr`: the sandbox's ports "
        "on 127.0.0.1.",
        key="listeners",
    )
    listen_addr: str = setting(
        HostPort(default_port=25),
        "",
        "Short for one `smtp` listener.",
        aliases=("server.listen", "server.listen_addr"),
        example=":2525",
    )
    tls: Tls = section(Tls, "TLS towards clients.")
    auth: Auth = section(Auth, "Logins.")
    ldap: Ldap = section(Ldap, "The LDAP server of `auth.backend: ldap`.")
    allowed_relays: tuple[str, ...] = setting(
        ListOf(Network()),
        ("127.0.0.1", "::1"),
        "Addresses and networks that may send to foreign domains without a login.",
    )
    max_message_size: int = setting(
        Octets(1 << 10, 1 << 32),
        26_214_400,
        "The largest message taken.",
        unit="octets",
        aliases=("max_size", "server.max_size", "server.max_message_size"),
    )
    limits: Limits = section(Limits, "Bounds on what one client may ask for.")
    http: Http = section(Http, "What is served over HTTP.")
    actions: Actions = section(Actions, "Actions of one's own.")
    queue: Queue = section(Queue, "Mail that leaves.")
    outbound: Outbound = section(Outbound, "How it leaves.")
    delivery: Delivery = section(Delivery, "Where local mail ends up.")
    aliases: Mapping[str, str] = setting(
        MapOf(LocalPartOrMailbox(), Mailbox()),
        {"postmaster": ""},
        "Local part (in every local domain) or address, to the address that gets its mail; "
        "`*`: whoever has no mailbox of his own.",
        example={"postmaster": "alice@example.com"},
    )
    relay: Relay = section(Relay, "A smart host.")
    transports: Mapping[str, Transport] = setting(
        MapOf(DomainPattern(), TransportUrl()),
        {},
        "Where the mail of single domains goes: `example.net`, `.example.net` (its subdomains) or "
        "`*`, to `mx` (its MX hosts, in spite of a smart host), or to a host: "
        "`smtp://user:password@host:587?tls=verify`, `smtps://...`, `lmtp://host:24`. "
        "`?tls=`: none, opportunistic, required or verify.",
        example={"partner.example": "smtp://10.0.0.7:25"},
    )
    dkim: Dkim = section(Dkim, "DKIM signatures.")
    inbox: Inbox = section(Inbox, "Throw-away mailboxes read over HTTP.")
    send: Send = section(Send, "Mail sent by HTTP.")
    events: Events = section(Events, "What is told of mail.")
    http_client: HttpClient = section(HttpClient, "Requests to web servers elsewhere.")
    acme: Acme = section(Acme, "Certificates from an authority.")
    redis_url: str = setting(
        RedisUrl(),
        "",
        "A Redis that nodes share: counts of rates, and messages of `/emails` that are read "
        "again. `redis://user:password@host:6379/0`, `rediss://` with TLS, `unix:///path?db=0`. "
        "The server starts, and limits hold, without it too.",
        secret=True,
    )
    dev_mode: bool = setting(
        Flag(),
        False,
        "A sandbox: every recipient is taken, nothing leaves.",
        aliases=("server.dev_mode",),
    )
    drain_time: float = setting(
        Duration(0, 7 * DAY),
        600.0,
        "How long the sessions of a listener that was closed go on before they are sent away "
        "between two commands; 0: until they end by themselves.",
        unit="seconds",
    )
    chaos_given: tuple[ChaosItem, ...] = items(
        ChaosItem,
        "What goes wrong on purpose in `dev_mode`, and there alone: recipients that are refused, "
        "answered late or cut off.",
        key="chaos",
    )
    disable_smtp: bool = setting(Flag(), False, "Leaves out every SMTP and submission listener.")
    log_level: str = setting(
        Choice(("debug", "info", "warn", "error")), "info", "The least important line logged."
    )
    log_file: str = setting(Path(), "", "Where log lines go; empty: standard output.")
    log_format: str = setting(
        Choice(("json", "text")), "json", "One JSON object a line, or lines for people."
    )
    banner: str = setting(
        Text(),
        "",
        "Key of older configuration files.",
        inactive="accepted for old files; the greeting is fixed",
    )
    queue_dir: str = setting(
        Path(),
        "",
        "Key of older configuration files.",
        aliases=("queue.dir", "server.queue_dir"),
        inactive="accepted for old files; the queue is in the database",
    )

    # Derived by mailtwist.config.load.
    listeners: tuple[Listener, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    warnings: tuple[str, ...] = field(default=(), repr=False, compare=False)
