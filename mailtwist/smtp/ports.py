"""What a session is told, and what it needs of others: terms, and small Protocols."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mailtwist.mail.address import Address
from mailtwist.policy.passwords import Scram
from mailtwist.policy.scram import Proof
from mailtwist.queue.envelope import Envelope, Origin, Recipient
from mailtwist.smtp.chaos import Chaos

T = TypeVar("T")

LMTP = "lmtp"


class Networks(Protocol):
    def __contains__(self, address: str, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What a listener grants; one value for all its sessions, replaced when settings change."""

    hostname: str
    service: str = "smtp"  # smtp | submission | submissions | lmtp
    max_size: int = 26_214_400
    max_recipients: int = 100
    idle_timeout_s: float = 300.0
    session_timeout_s: float = 0.0  # 0: none
    implicit_tls: bool = False
    offers_tls: bool = False
    tls_required: bool = False
    login_required: bool = False
    mechanisms: tuple[str, ...] = ()  # of AUTH; empty: no AUTH
    plaintext_logins: bool = False  # from loopback, without TLS
    relays: Networks = ()  # clients that may relay without a login
    xclient_on: bool = False
    dev_mode: bool = False
    chaos: Chaos | None = None

    @property
    def is_lmtp(self) -> bool:
        return self.service == LMTP


class Identity(Protocol):
    """Who logged in."""

    @property
    def account_id(self) -> int: ...
    @property
    def username(self) -> str: ...
    @property
    def addresses(self) -> frozenset[str]: ...


class Incoming(Protocol):
    """One message on its way in."""

    async def write(self, block: bytes) -> None:
        """Take a block. Raises: MailError; nothing is written after that."""

    def accept(self) -> Coroutine[Any, Any, str]:
        """Commit the message to all its recipients; its queue id. Not to be cancelled.

        Raises: MailError, and has then forgotten the message.
        """

    async def discard(self) -> None:
        """Forget it. Never raises."""


class Mailboxes(Protocol):
    """Where mail goes: recipients are admitted, messages received."""

    async def admit(
        self,
        address: Address,
        *,
        size: int,
        may_relay: bool,
        is_sandbox: bool,
        is_bounce: bool,
        account_id: int,
    ) -> Recipient:
        """The recipient that an address names. Raises: MailError."""

    async def captures(self, account_id: int) -> bool:
        """Whether nothing that a login sends leaves its account, whatever sender it names."""

    def receive(self, envelope: Envelope, origin: Origin, *, limit: int) -> Incoming: ...


class Logins(Protocol):
    async def login(self, username: str, password: str, *, peer: str, service: str) -> Identity: ...
    async def scram_keys(self, username: str, *, peer: str) -> Scram: ...
    async def prove(self, username: str, proof: Proof, *, peer: str, service: str) -> Identity: ...


class Wire(Protocol):
    """The connection, as far as commands touch it."""

    def write(self, data: bytes) -> None: ...
    def start_exchange(self) -> None: ...
    def start_message(self) -> None: ...
    def start_chunk(self, size: int, *, is_first: bool) -> None: ...
    def start_tls(self) -> None: ...
    @property
    def can_bind(self) -> bool:
        """Whether a SASL exchange can be bound to the TLS connection."""

    def channel_bindings(self) -> Mapping[str, bytes]: ...
    async def pause(self, seconds: float) -> None: ...
    async def to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that the end of the connection does not stop."""

    def cut(self) -> None:
        """End the connection at once, without a word."""

    def close(self) -> None: ...
