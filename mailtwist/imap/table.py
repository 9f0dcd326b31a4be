"""What a row of the command table says about one command.

The rows themselves stand beside the functions they name, as ``ROWS`` in each
module of :mod:`mailtwist.imap.commands`, which puts them together. The loop
in :mod:`mailtwist.imap.session` reads everything it needs to know about a
command from its row; no command is special to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mailtwist.imap.grammar import Parser
    from mailtwist.imap.session import Session


class State(StrEnum):
    """Where a session stands (RFC 9051 §3); the values are twisted.mail's names."""

    NOT_AUTHENTICATED = "unauth"
    AUTHENTICATED = "auth"
    SELECTED = "select"
    LOGOUT = "logout"


ANY = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})
NOT_AUTHENTICATED = frozenset({State.NOT_AUTHENTICATED})
AUTHENTICATED = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED = frozenset({State.SELECTED})


class Sync(Enum):
    """What may be announced behind a command."""

    NONE = "nothing"
    NO_EXPUNGE = "new messages and flags; the numbering stays"
    FULL = "everything, EXPUNGE too"


@dataclass(frozen=True, slots=True)
class Completion:
    """The tagged OK: ``tag OK [code] text``."""

    text: str
    code: str = ""


class Continuation(Protocol):
    """What takes the bare lines that a command asked for with ``+`` (AUTHENTICATE, IDLE)."""

    async def line(self, session: Session, data: bytes) -> Completion | None:
        """Take one line without its CRLF; None when more are expected."""

    async def woken(self, session: Session) -> None:
        """The selected mailbox may have changed while the client is silent."""


class Receiver(Protocol):
    """What takes the octets of a message literal, block by block (APPEND)."""

    async def block(self, data: bytes) -> None:
        """Take the next octets; waiting here is back-pressure to the client."""

    async def finish(self) -> Completion:
        """Publish the message: on return it is committed; it cleans up what it can't publish."""

    async def abandon(self) -> None:
        """Forget what came: the connection is lost, or the command was refused half-way."""


Parse = Callable[["Parser"], Any]
Run = Callable[["Session", Any], Awaitable[Completion | None]]
# For commands whose last literal is streamed: (session, arguments, octets announced).
Stream = Callable[["Session", Any, int], Awaitable[Receiver]]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the command table.

    ``parse`` reads the arguments and the end of the command; it is called at
    the space behind the name, or at the end. ``run`` returns the text of the
    tagged OK, or None when it answers by itself or asked for a continuation.
    """

    name: str
    parse: Parse
    run: Run
    states: frozenset[State] = AUTHENTICATED
    sync: Sync = Sync.NONE
    # Sequence numbers stand in the arguments, so what they mean depends on what was
    # announced before (RFC 9051 §5.5).
    uses_sequence: bool = False
    # May announce EXPUNGE itself: the numbers of later commands differ.
    breaks_sequence: bool = False
    # The tagged OK is the last thing said in the clear.
    starts_tls: bool = False
    # For a command that ends in a message literal, in place of `run`; `parse` sees what
    # stands before the literal and the space.
    stream: Stream | None = None
