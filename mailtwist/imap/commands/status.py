"""STATUS: the counters of one mailbox (RFC 9051 §6.3.11; RFC 8438)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mailtwist.imap.grammar import Parser, format_mailbox
from mailtwist.imap.session import Session
from mailtwist.imap.table import Command, Completion, Sync
from mailtwist.store import mailboxes
from mailtwist.store.mailboxes import MailboxState

if TYPE_CHECKING:
    from sqlalchemy import Connection

ITEMS: dict[str, Callable[[MailboxState], int]] = {
    "MESSAGES": lambda state: state.messages,
    "UIDNEXT": lambda state: state.uidnext,
    "UIDVALIDITY": lambda state: state.uidvalidity,
    "UNSEEN": lambda state: state.unseen,
    "DELETED": lambda state: state.deleted,
    "SIZE": lambda state: state.octets,
    "HIGHESTMODSEQ": lambda state: state.highestmodseq,
}
# Counted, not kept: it asks for a read of its own.
RECENT = "RECENT"


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    items: tuple[str, ...]


def parse_items(parser: Parser) -> tuple[str, ...]:
    """``(MESSAGES UNSEEN ...)``, each once."""
    names = parser.items(parser.keyword)
    for name in names:
        if name not in ITEMS and name != RECENT:
            raise parser.violation("unknown status item")
    return tuple(dict.fromkeys(names))


def parse_status(parser: Parser) -> Question:
    name = parser.mailbox()
    parser.space()
    items = parse_items(parser)
    parser.end()
    return Question(name, items)


def status_line(
    connection: Connection,
    mailbox: mailboxes.Mailbox,
    state: MailboxState,
    items: tuple[str, ...],
    *,
    utf8: bool,
) -> bytes:
    """One untagged STATUS."""
    values = [(item, _value(connection, mailbox, state, item)) for item in items]
    told = " ".join(f"{item} {value}" for item, value in values)
    return b"* STATUS %b (%b)\r\n" % (format_mailbox(mailbox.name, utf8=utf8), told.encode())


def _value(
    connection: Connection, mailbox: mailboxes.Mailbox, state: MailboxState, item: str
) -> int:
    if item != RECENT:
        return ITEMS[item](state)
    if state.recent_from >= state.uidnext:
        return 0
    return mailboxes.count_recent(connection, mailbox.account_id, mailbox.mailbox_id)


def _answer(connection: Connection, account_id: int, question: Question, *, utf8: bool) -> bytes:
    mailbox = mailboxes.get(connection, account_id, question.name)
    state = mailboxes.status(connection, account_id, mailbox.mailbox_id)
    return status_line(connection, mailbox, state, question.items, utf8=utf8)


async def status(session: Session, arguments: Question) -> Completion:
    work = partial(_answer, account_id=session.account_id, question=arguments, utf8=session.utf8)
    session.write(await session.database.read(work, account_id=session.account_id))
    return Completion("STATUS completed")


ROWS = (Command("STATUS", parse_status, status, sync=Sync.FULL, breaks_sequence=True),)
