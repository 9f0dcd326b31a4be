"""SELECT EXAMINE CLOSE UNSELECT (RFC 9051 §6.3.2, §6.3.3, §6.4.1, §6.4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mailtwist.errors import TemporaryFailure
from mailtwist.imap.commands.mailboxes import parse_name
from mailtwist.imap.grammar import no_arguments
from mailtwist.imap.selected import Selected
from mailtwist.imap.session import Session
from mailtwist.imap.sync import flags_lines
from mailtwist.imap.table import SELECTED, Command, Completion
from mailtwist.store import expunge, mailboxes
from mailtwist.store.mailboxes import Mailbox
from mailtwist.store.snapshot import Snapshot, Snapshots

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Messages that one unit of CLOSE removes.
_STEP = 1000


@dataclass(frozen=True, slots=True)
class Opening:
    """What one read finds."""

    mailbox: Mailbox
    view: Snapshot
    unseen: int | None


def _open(connection: Connection, snapshots: Snapshots, account_id: int, name: str) -> Opening:
    mailbox = mailboxes.get(connection, account_id, name)
    view = snapshots.read(connection, account_id, mailbox.mailbox_id)
    unseen = mailboxes.first_unseen(connection, account_id, mailbox.mailbox_id)
    return Opening(mailbox, view, unseen)


async def select(session: Session, name: str) -> Completion:
    return await _select(session, name, read_only=False)


async def examine(session: Session, name: str) -> Completion:
    return await _select(session, name, read_only=True)


async def _select(session: Session, name: str, *, read_only: bool) -> Completion:
    if session.selected is not None:
        # RFC 9051 §6.3.2: what was selected is left, even if the new one can't be opened.
        await session.deselect()
        session.untagged(b"OK [CLOSED] The previous mailbox is closed")
    account_id = session.account_id
    # Heard from before the state is read: nothing falls between.
    session.heard = False
    unsubscribe = session.database.changes.subscribe(account_id, session.changed)
    try:
        opening = await session.database.read(
            partial(_open, snapshots=session.snapshots, account_id=account_id, name=name),
            account_id=account_id,
        )
        recent_from = await _claim(session, opening.view, read_only=read_only)
    except BaseException:
        unsubscribe()
        raise
    selected = Selected(
        opening.view,
        read_only=read_only,
        recent_from=recent_from,
        unsubscribe=unsubscribe,
    )
    selected.stale = session.heard
    session.select(selected)
    _describe(session, selected, opening.unseen)
    if read_only:
        return Completion("EXAMINE completed", code="READ-ONLY")
    return Completion("SELECT completed", code="READ-WRITE")


async def _claim(session: Session, view: Snapshot, *, read_only: bool) -> int:
    r"""Take \Recent for this session, if there is any; tells the uid that it begins at."""
    if read_only or view.recent_from >= view.uidnext:
        return view.recent_from
    try:
        return await session.database.write(
            partial(mailboxes.claim_recent, account_id=view.account_id, mailbox_id=view.mailbox_id),
            accounts=(view.account_id,),
        )
    except TemporaryFailure:
        # Mail can be read although the store can't be written.
        return view.recent_from


def _describe(session: Session, selected: Selected, unseen: int | None) -> None:
    view = selected.view
    session.write(flags_lines(view.keywords, read_only=selected.read_only))
    session.untagged(b"%d EXISTS" % selected.exists)
    session.untagged(b"%d RECENT" % selected.recent)
    first_unseen = selected.view.seq_of(unseen) if unseen is not None else 0
    if first_unseen:
        session.untagged(b"OK [UNSEEN %d] First unseen" % first_unseen)
    session.untagged(b"OK [UIDVALIDITY %d] UIDs are valid" % view.uidvalidity)
    session.untagged(b"OK [UIDNEXT %d] Predicted next UID" % view.uidnext)


async def unselect(session: Session, arguments: None) -> Completion:
    await session.deselect()
    return Completion("UNSELECT completed")


async def close(session: Session, arguments: None) -> Completion:
    r"""Remove what is marked \Deleted, without a word about it, and leave."""
    selected = session.mailbox()
    if not selected.read_only:
        work = partial(
            expunge.expunge,
            account_id=selected.account_id,
            mailbox_id=selected.mailbox_id,
            limit=_STEP,
        )
        accounts = (selected.account_id,)
        while len((await session.database.write(work, accounts=accounts)).uids) == _STEP:
            pass
    await session.deselect()
    return Completion("CLOSE completed")


ROWS = (
    Command("SELECT", parse_name, select),
    Command("EXAMINE", parse_name, examine),
    Command("UNSELECT", no_arguments, unselect, SELECTED),
    Command("CLOSE", no_arguments, close, SELECTED),
)
