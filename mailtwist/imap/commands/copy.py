"""COPY, MOVE and their UID forms (RFC 9051 §6.4.7, §6.4.8; RFC 4315 §3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mailtwist.errors import Refusal
from mailtwist.imap.grammar import Parser
from mailtwist.imap.selected import Selected
from mailtwist.imap.session import Session
from mailtwist.imap.table import SELECTED, Command, Completion, Sync
from mailtwist.mail.uidset import SequenceSet, compress
from mailtwist.store import mailboxes, messages
from mailtwist.store.messages import Copied

if TYPE_CHECKING:
    from mailtwist.store.engine import Connection


@dataclass(frozen=True, slots=True)
class Copy:
    """The arguments of COPY and MOVE."""

    numbers: SequenceSet
    mailbox: str


def parse_copy(parser: Parser) -> Copy:
    """``set mailbox`` to the end of the command."""
    numbers = parser.sequence_set()
    parser.space()
    mailbox = parser.mailbox()
    parser.end()
    return Copy(numbers, mailbox)


async def _copied(
    session: Session,
    selected: Selected,
    unit: Callable[..., Copied],
    arguments: Copy,
    *,
    by_uid: bool,
) -> str:
    """Run the unit, all messages in one; tells the COPYUID code, empty when none was there."""
    _, uids = selected.resolve(arguments.numbers, by_uid)
    work = partial(
        unit,
        account_id=selected.account_id,
        source_id=selected.mailbox_id,
        uids=uids,
        target_name=arguments.mailbox,
    )
    copied = await session.database.write(work, accounts=(selected.account_id,))
    # Into the selected mailbox itself: the new messages are announced behind it.
    selected.tell(())
    if not copied.uids:
        return ""
    sources, targets = zip(*copied.uids, strict=True)
    return f"COPYUID {copied.uidvalidity} {compress(sources)} {compress(targets)}"


async def _copy(session: Session, arguments: Copy, *, by_uid: bool) -> str:
    return await _copied(session, session.mailbox(), messages.copy, arguments, by_uid=by_uid)


async def copy(session: Session, arguments: Copy) -> Completion:
    return Completion("COPY completed", await _copy(session, arguments, by_uid=False))


async def uid_copy(session: Session, arguments: Copy) -> Completion:
    return Completion("UID COPY completed", await _copy(session, arguments, by_uid=True))


def _move_away(
    connection: Connection, account_id: int, source_id: int, uids: Sequence[int], target_name: str
) -> Copied:
    # By its number: it may have been renamed since it was selected.
    target = mailboxes.find(connection, account_id, target_name)
    if target is not None and target.mailbox_id == source_id:
        raise Refusal("The messages are there already", imap_code="CANNOT")
    return messages.move(connection, account_id, source_id, uids, target_name)


async def _move(session: Session, arguments: Copy, *, by_uid: bool) -> None:
    selected = session.writable()
    code = await _copied(session, selected, _move_away, arguments, by_uid=by_uid)
    if code:
        # RFC 6851 §4.3: before the EXPUNGE responses, which come with the synchronisation.
        session.untagged(f"OK [{code}] Moved".encode("ascii"))


async def move(session: Session, arguments: Copy) -> Completion:
    await _move(session, arguments, by_uid=False)
    return Completion("MOVE completed")


async def uid_move(session: Session, arguments: Copy) -> Completion:
    await _move(session, arguments, by_uid=True)
    return Completion("UID MOVE completed")


def _row(name: str, run: Callable[[Session, Copy], object], *, uses_sequence: bool) -> Command:
    return Command(
        name,
        parse_copy,
        run,  # type: ignore[arg-type]
        SELECTED,
        Sync.FULL,
        uses_sequence=uses_sequence,
        breaks_sequence=True,
    )


ROWS = (
    _row("COPY", copy, uses_sequence=True),
    _row("UID COPY", uid_copy, uses_sequence=False),
    _row("MOVE", move, uses_sequence=True),
    _row("UID MOVE", uid_move, uses_sequence=False),
)
