"""IDLE: the server speaks first (RFC 2177; RFC 9051 §6.3.13)."""

from __future__ import annotations

from mailtwist.errors import ProtocolViolation
from mailtwist.imap.grammar import no_arguments
from mailtwist.imap.session import Session
from mailtwist.imap.table import AUTHENTICATED, Command, Completion, Sync


class Idling:
    """Waits for DONE; a change that is heard of meanwhile is told at once.

    It has no state: thousands of clients wait in one and the same.
    """

    async def line(self, session: Session, data: bytes) -> Completion | None:
        if data.upper() != b"DONE":
            raise ProtocolViolation("DONE expected")
        return Completion("IDLE completed")

    async def woken(self, session: Session) -> None:
        await session.announce()


IDLING = Idling()


async def idle(session: Session, arguments: None) -> None:
    session.ask(IDLING, b"idling")
    if session.selected is not None:
        session.selected.stale = True
    await session.announce()


ROWS = (Command("IDLE", no_arguments, idle, AUTHENTICATED, Sync.FULL, breaks_sequence=True),)
