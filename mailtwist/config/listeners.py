"""Listeners: what the configuration says of them, and the values the server binds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mailtwist.config.declare import setting
from mailtwist.config.kinds import Choice, Flag, ListOf, Octets, Whole
from mailtwist.config.names import Domain, HostPort, Network, join_host_port, split_host_port

MAIL_IN = frozenset({"smtp", "submission", "submissions"})
PROTOCOLS = (
    "smtp",
    "submission",
    "submissions",
    "imap",
    "imaps",
    "http",
    "https",
    "lmtp",
    "pop3",
    "pop3s",
    "http-redirect",
)
NOT_YET = frozenset({"pop3", "pop3s"})


@dataclass(frozen=True, slots=True)
class ListenerItem:
    """One item of ``listeners`` in the file."""

    protocol: str = setting(
        Choice(PROTOCOLS),
        "",
        "What is spoken: `smtp` is an MX, `submission` needs STARTTLS and a login, `lmtp` is for "
        "neighbours that bring mail for mailboxes here, `submissions`, `imaps` and `https` begin "
        "with TLS, `http-redirect` sends browsers to `https` and answers ACME challenges.",
    )
    address: str = setting(
        HostPort(),
        "",
        "Where to listen: `host:port`; without host on every interface; port 0 takes a free one.",
    )
    hostname: str = setting(
        Domain(), "", "The name this listener greets with; empty: the server's `hostname`."
    )
    max_clients: int = setting(
        Whole(0, 1_000_000), 0, "Connections at once; 0: no limit of its own.", unit="connections"
    )
    max_size: int = setting(
        Octets(0, 1 << 32),
        0,
        "The largest message taken here; 0: `max_message_size`.",
        unit="octets",
    )
    authentication_required: bool = setting(
        Flag(), False, "Whether MAIL needs a login; always so for submission and submissions."
    )
    xclient_on: bool = setting(
        Flag(), False, "Whether XCLIENT is believed, from 127.0.0.1 and ::1 only."
    )
    proxies: tuple[str, ...] = setting(
        ListOf(Network()),
        (),
        "Addresses and networks of load balancers that speak the PROXY protocol, version 1 or 2: "
        "its header is needed of them and believed of nobody else.",
        example=["192.0.2.10"],
    )


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener as the server is asked to run it."""

    name: str  # says where it comes from: "file/smtp-127.0.0.1:2525"
    protocol: str
    host: str  # "" binds every interface
    port: int  # 0 binds a free one
    hostname: str = ""
    max_clients: int = 0
    max_size: int = 0
    authentication_required: bool = False
    xclient_on: bool = False
    proxies: tuple[str, ...] = ()  # who must speak the PROXY protocol
    label: str = ""  # what people call it; "": its name
    optional_login: bool = False  # a login may be left out, also where submission needs one

    @property
    def title(self) -> str:
        return self.label or self.name


def listener(protocol: str, address: str, item: ListenerItem | None = None) -> Listener:
    host, port = split_host_port(address)
    given = item or ListenerItem()
    return Listener(
        name=f"file/{protocol}-{join_host_port(host, port)}",
        protocol=protocol,
        host=host,
        port=port,
        hostname=given.hostname,
        max_clients=given.max_clients,
        max_size=given.max_size,
        authentication_required=given.authentication_required,
        xclient_on=given.xclient_on,
        proxies=given.proxies,
    )


SANDBOX: tuple[Listener, ...] = (
    listener("smtp", "127.0.0.1:2525"),
    listener("submission", "127.0.0.1:2587"),
    listener("submissions", "127.0.0.1:2465"),
    listener("imap", "127.0.0.1:2143"),
    listener("imaps", "127.0.0.1:2993"),
    listener("http", "127.0.0.1:6336"),
)


def named_apart(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """The same listeners, numbered where two ask for any free port on one address."""
    seen: Counter[str] = Counter()
    result = []
    for each in listeners:
        seen[each.name] += 1
        n = seen[each.name]
        result.append(each if n == 1 else replace(each, name=f"{each.name}-{n}"))
    return tuple(result)


def problems_of(listeners: Iterable[Listener]) -> Iterator[tuple[int, str, str]]:
    """(position, key, what is wrong) for each listener that cannot be run."""
    taken: dict[tuple[str, int], int] = {}
    for n, each in enumerate(listeners):
        if each.protocol in NOT_YET:
            yield n, "protocol", f"{each.protocol} is not there yet in this version"
        place = (each.host, each.port)
        if each.port and place in taken:
            address = join_host_port(*place)
            yield n, "address", f"{address} is taken by listeners[{taken[place]}]"
        taken.setdefault(place, n)
