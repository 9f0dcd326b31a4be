"""What the parts of the queue tell each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum

from mailtwist.store.queue.values import Notify


class Tls(StrEnum):
    """How much TLS towards a host."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"  # where offered; any certificate; in clear when it fails
    REQUIRED = "required"  # never in clear, any certificate (relay.tls without relay.verify)
    VERIFY = "verify"  # never in clear, and the certificate holds for the host's name


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """``ca_file``: instead of the system's authorities. ``source``: the row that decided."""

    level: Tls
    implicit: bool = False  # TLS from the first octet (submissions, RFC 8314)
    ca_file: str = ""
    source: str = "outbound.tls"


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Route:
    """How mail for a destination leaves.

    ``key`` names what is shared: sessions are counted and reused, and failures back off, under
    it (the domain for MX delivery, ``smtp://relay.example.net:587`` for a smart host).
    ``host`` empty: ask DNS for the MX hosts of the destination. ``port``: of host or MX hosts.
    """

    key: str
    host: str = ""
    port: int = 25
    is_lmtp: bool = False
    login: Login | None = None
    tls: TlsPolicy = TlsPolicy(Tls.OPPORTUNISTIC)


@dataclass(frozen=True, slots=True)
class Host:
    """One address to try. ``name`` is what a certificate must be for."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """What the other side said, or what we say in its place (then ``is_ours``).

    ``code`` 2xx delivered, 4xx try again, 5xx for good. ``text`` is one line, printable,
    at most 500 characters. ``stage`` as in store.queue.values.Attempt.
    """

    code: int
    status: str
    text: str
    stage: str
    is_ours: bool = False

    def __str__(self) -> str:
        return " ".join(word for word in (str(self.code), self.status, self.text) if word)


class Undeliverable(Exception):
    """No host can be had: ``reply`` says why and (4xx, 5xx) whether to try again."""

    def __init__(self, reply: RemoteReply, *, host: Host | None = None, tls: str = "") -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.host = host
        self.tls = tls


@dataclass(frozen=True, slots=True)
class OutgoingRecipient:
    address: str
    orcpt: str = ""
    notify: Notify = Notify.UNSET


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for one session. ``blocks`` may be called once for each try; whole = CRLF text
    without dot-stuffing, ``octets`` long, its parts at most 1 MiB each.
    """

    reverse_path: str
    recipients: tuple[OutgoingRecipient, ...]
    octets: int
    blocks: Callable[[], AsyncIterator[bytes]]
    envid: str = ""
    ret: str = ""
    body: str = "7BIT"
    smtputf8: bool = False
    requiretls: bool = False
