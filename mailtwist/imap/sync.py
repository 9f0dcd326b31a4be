"""How a session's view of its mailbox moves on, and what the client is told of it.

The view changes only here: behind a command, as far as the command allows.
Where EXPUNGE may not be said the messages that went keep their numbers (a
private view with the ghosts in it) until it may.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from mailtwist.errors import MailError
from mailtwist.imap.render import FlagTexts
from mailtwist.mail.flags import SYSTEM
from mailtwist.store import mailboxes
from mailtwist.store.keywords import Keywords
from mailtwist.store.snapshot import Snapshot, changes_between

if TYPE_CHECKING:
    from mailtwist.imap.selected import Selected
    from mailtwist.imap.session import Session
    from mailtwist.store.database import Database

# Lines between two looks at how fast the client reads.
_PAGE = 1000


async def synchronise(session: Session, selected: Selected, *, may_expunge: bool) -> None:
    """Move the view to the newest state and announce the difference.

    Raises: NotFound when the mailbox is gone.
    """
    # Before the read: a change that comes meanwhile sets it again.
    selected.stale = False
    old = selected.view
    current = await session.snapshots.current(selected.account_id, selected.mailbox_id)
    told, selected.announced = selected.announced, {}
    if current is old:
        return
    if current is selected.ghosts_of and not may_expunge:
        selected.stale = True
        return
    diff = changes_between(old, current)
    expunged: Iterable[int] = diff.expunged_seqs
    selected.ghosts_of = None
    newest = current
    if diff.expunged_seqs and not may_expunge:
        expunged, selected.stale = (), True
        selected.ghosts_of = current
        current = with_ghosts(old, current)
    selected.view = current
    # Numbers fall with each EXPUNGE (RFC 9051 §7.5.1); these come from the highest down.
    await _say(session, (b"* %d EXPUNGE\r\n" % number for number in expunged))
    if diff.added:
        session.write(b"* %d EXISTS\r\n* %d RECENT\r\n" % (selected.exists, selected.recent))
    if current.keywords.names != old.keywords.names:
        session.write(flags_lines(current.keywords, read_only=selected.read_only))
    changed = [(uid, flags) for uid, flags in diff.changed if told.pop(uid, None) != flags]
    changed += _outdated(told, newest)
    if changed:
        await _say(session, _flag_lines(selected, changed))


def _outdated(told: dict[int, int], newest: Snapshot) -> list[tuple[int, int]]:
    """What was told between two views that have the same flags, and was true only there."""
    found = [(uid, flags, newest.seq_of(uid)) for uid, flags in told.items()]
    now = [(uid, flags, newest.flags[number - 1]) for uid, flags, number in found if number]
    return [(uid, current) for uid, flags, current in now if current != flags]


def _flag_lines(selected: Selected, changed: Iterable[tuple[int, int]]) -> Iterable[bytes]:
    names = selected.view.keywords.names
    plain, recent = FlagTexts(names), FlagTexts(names, recent=True)
    for uid, flags in changed:
        number = selected.view.seq_of(uid)
        if number:
            texts = recent if uid >= selected.recent_from else plain
            yield b"* %d FETCH (UID %d FLAGS %b)\r\n" % (number, uid, texts[flags])


async def _say(session: Session, lines: Iterable[bytes]) -> None:
    """Write many lines, no faster than the client reads."""
    iterator = iter(lines)
    while page := list(islice(iterator, _PAGE)):
        session.write(b"".join(page))
        if len(page) == _PAGE:
            await session.drained()


def with_ghosts(old: Snapshot, new: Snapshot) -> Snapshot:
    """``new``, with the messages of ``old`` that it lacks in their places.

    Its modseq stays behind, so that it is never taken for the real state.
    """
    # What is new has higher uids than all that was there, so the order is right.
    flags = dict(zip(old.uids, old.flags, strict=True))
    flags.update(zip(new.uids, new.flags, strict=True))
    return replace(
        new,
        uids=array(old.uids.typecode, flags.keys()),
        flags=array(old.flags.typecode, flags.values()),
        modseq=old.modseq,
    )


def flags_lines(keywords: Keywords, *, read_only: bool) -> bytes:
    """FLAGS and PERMANENTFLAGS."""
    names = " ".join([*SYSTEM, *keywords.names.values()]).encode()
    if read_only:
        permanent = b"* OK [PERMANENTFLAGS ()] Read-only\r\n"
    else:
        more = b"" if keywords.is_full else b" \\*"
        permanent = b"* OK [PERMANENTFLAGS (%b%b)] Flags are kept\r\n" % (names, more)
    return b"* FLAGS (%b)\r\n%b" % (names, permanent)


async def leave(database: Database, selected: Selected) -> None:
    r"""Take \Recent off the messages that were announced here while nobody else could know.

    At SELECT it was claimed for those that were there; one write serves all
    that came since (RFC 3501 §2.3.2 leaves room for that).
    """
    if selected.read_only or selected.view.uidnext <= selected.claimed:
        return
    account_id, mailbox_id = selected.account_id, selected.mailbox_id
    try:
        await database.write(
            lambda connection: mailboxes.claim_recent(connection, account_id, mailbox_id),
            accounts=(account_id,),
        )
    except MailError:
        # The mailbox is gone, or the store can't be written: \Recent is shown once more.
        return
