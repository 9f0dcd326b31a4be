"""APPEND (RFC 9051 §6.3.12; RFC 4315 §3): a message streamed from the client into a mailbox."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from mailtwist.errors import NotFound, ProtocolViolation, Refusal
from mailtwist.imap.grammar import Parser
from mailtwist.imap.session import Session
from mailtwist.imap.table import AUTHENTICATED, Command, Completion, Sync
from mailtwist.store import mailboxes
from mailtwist.store.content import Spool
from mailtwist.store.messages import Acceptance, Delivered, Entry, deliver

if TYPE_CHECKING:
    from mailtwist.store.engine import Connection

# From here on it is worth a look whether the mailbox exists before the message travels.
LARGE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Append:
    """The arguments of APPEND but for the message; ``internaldate`` in microseconds."""

    mailbox: str
    flags: int
    keywords: tuple[str, ...]
    internaldate: int | None


def parse_append(parser: Parser) -> Append:
    """``mailbox [flags] [date-time]``, up to the literal."""
    mailbox = parser.mailbox()
    flags = 0
    keywords: tuple[str, ...] = ()
    internaldate: int | None = None
    if parser.accept(b" "):
        if parser.peek() == b"(":
            flags, keywords = parser.flag_list()
            if parser.accept(b" "):
                internaldate = parser.date_time()
        else:
            internaldate = parser.date_time()
    parser.end()
    return Append(mailbox, flags, keywords, internaldate)


class Receiving:
    """The message of one APPEND while it comes."""

    def __init__(self, session: Session, arguments: Append) -> None:
        self._session = session
        self._arguments = arguments
        self._spool = Spool(session.database, limit=session.limits.message)

    async def block(self, data: bytes) -> None:
        await self._spool.write(data)

    async def finish(self) -> Completion:
        try:
            delivered = await self._publish()
        except BaseException:
            await self._spool.discard()
            raise
        selected = self._session.selected
        if selected is not None and selected.mailbox_id == delivered.mailbox_id:
            # RFC 9051 §6.3.12: announced at once where it is seen.
            selected.tell(())
        code = f"APPENDUID {delivered.uidvalidity} {delivered.uid}"
        return Completion("APPEND completed", code)

    async def _publish(self) -> Delivered:
        session, arguments = self._session, self._arguments
        spooled = await self._spool.finish()
        now = int(session.clock.seconds() * 1_000_000)
        date = now if arguments.internaldate is None else arguments.internaldate
        entry = Entry(
            session.account_id,
            arguments.mailbox,
            flags=arguments.flags,
            keywords=arguments.keywords,
            internaldate=date,
        )
        (delivered,) = await session.database.write_set(
            deliver,
            Acceptance(spooled, (entry,), None, now),
            accounts=(session.account_id,),
            octets=len(spooled.data or b""),
        )
        return delivered

    async def abandon(self) -> None:
        await self._spool.discard()


async def stream(session: Session, arguments: Append, octets: int) -> Receiving:
    """Begin to take a message. Raises Refusal for what is refused before it travels."""
    if octets > session.limits.message:
        raise Refusal("Message is too large", imap_code="TOOBIG")
    if octets == 0:
        raise Refusal("Message is empty")
    if octets > LARGE:
        find = partial(_exists, account_id=session.account_id, name=arguments.mailbox)
        if not await session.database.read(find):
            raise NotFound("No such mailbox", imap_code="TRYCREATE")
    return Receiving(session, arguments)


def _exists(connection: Connection, account_id: int, name: str) -> bool:
    return mailboxes.find(connection, account_id, name) is not None


async def append(session: Session, arguments: Append) -> Completion:
    """APPEND without a literal."""
    raise ProtocolViolation("A message literal is expected")


ROWS = (
    Command(
        "APPEND",
        parse_append,
        append,
        AUTHENTICATED,
        Sync.FULL,
        breaks_sequence=True,
        stream=stream,
    ),
)
