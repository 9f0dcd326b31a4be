"""What the runner needs of the parts around it; tests stand in for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mailtwist.queue.values import Host, Login, Outgoing, RemoteReply, Route, TlsPolicy
from mailtwist.store.deliver import Acceptance
from mailtwist.store.queue.values import Attempt, Message


class Session(Protocol):
    """A connection to a host that has been greeted and takes messages, one at a time."""

    @property
    def host(self) -> Host: ...
    @property
    def tls(self) -> str: ...
    @property
    def is_verified(self) -> bool: ...
    @property
    def capabilities(self) -> Mapping[str, str]: ...
    @property
    def is_open(self) -> bool: ...

    async def deliver(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        """One reply a recipient, in their order; raises nothing for what the peer does."""

    async def quit(self) -> None: ...
    def abort(self) -> None: ...


class Connector(Protocol):
    async def connect(
        self,
        host: Host,
        *,
        hostname: str,
        policy: TlsPolicy,
        login: Login | None,
        is_lmtp: bool,
    ) -> Session:
        """Raises: Undeliverable."""


class Router(Protocol):
    def route(self, destination: str) -> Route: ...


class Hosts(Protocol):
    async def of(self, route: Route, destination: str) -> list[Host]:
        """In the order in which they are to be tried. Raises: Undeliverable."""


class Reports(Protocol):
    async def of(
        self, message: Message, attempts: Sequence[Attempt], *, relayed_to_dsn: bool = False
    ) -> tuple[Acceptance, ...]:
        """What the sender is to be told of the attempts. Raises: MailError."""


class Rewrite(Protocol):
    def __call__(self, reverse_path: str, forwarded_by: str) -> str:
        """The reverse-path under which a forwarded message leaves (SRS)."""
