r"""EXPUNGE and UID EXPUNGE (RFC 9051 §6.4.3; RFC 4315 §2.1), and what CLOSE does in silence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from mailtwist.imap.grammar import Parser, no_arguments
from mailtwist.imap.selected import Selected
from mailtwist.imap.session import Session
from mailtwist.imap.table import SELECTED, Command, Completion, Sync
from mailtwist.mail.uidset import SequenceSet
from mailtwist.store import messages

# Messages of one unit: some 20 ms.
STEP: Final = 1000


async def expunge_deleted(
    session: Session, selected: Selected, uids: Sequence[int] | None = None
) -> None:
    r"""Remove all messages marked \Deleted, or those of ``uids`` that are, without a word.

    The synchronisation behind the command announces what went.
    """
    parts: list[Sequence[int] | None] = [None]
    if uids is not None:
        parts = [uids[start : start + STEP] for start in range(0, len(uids), STEP)]
    for part in parts:
        work = partial(
            messages.expunge,
            account_id=selected.account_id,
            mailbox_id=selected.mailbox_id,
            uids=part,
            limit=STEP,
        )
        while True:
            gone = await session.database.write(work, accounts=(selected.account_id,))
            if len(gone.uids) < STEP:
                break
    selected.tell(())


async def expunge(session: Session, arguments: None) -> Completion:
    await expunge_deleted(session, session.writable())
    return Completion("EXPUNGE completed")


def parse_uid_expunge(parser: Parser) -> SequenceSet:
    numbers = parser.sequence_set()
    parser.end()
    return numbers


async def uid_expunge(session: Session, arguments: SequenceSet) -> Completion:
    selected = session.writable()
    _, uids = selected.resolve(arguments, by_uid=True)
    await expunge_deleted(session, selected, uids)
    return Completion("UID EXPUNGE completed")


ROWS = (
    Command("EXPUNGE", no_arguments, expunge, SELECTED, Sync.FULL, breaks_sequence=True),
    Command(
        "UID EXPUNGE", parse_uid_expunge, uid_expunge, SELECTED, Sync.FULL, breaks_sequence=True
    ),
)
