"""SEARCH and UID SEARCH (RFC 9051 §6.4.4, §6.4.9; RFC 4731)."""

from __future__ import annotations

from collections.abc import Sequence

from mailtwist.imap.present import numbers_of, present
from mailtwist.imap.search_grammar import Search, parse_search
from mailtwist.imap.session import Session
from mailtwist.imap.table import SELECTED, Command, Completion, Sync
from mailtwist.mail.uidset import compress
from mailtwist.store.masks import indexes
from mailtwist.store.search import Search as Evaluation


async def search(session: Session, arguments: Search) -> Completion:
    await _search(session, arguments, by_uid=False)
    return Completion("SEARCH completed")


async def uid_search(session: Session, arguments: Search) -> Completion:
    await _search(session, arguments, by_uid=True)
    return Completion("UID SEARCH completed")


async def _search(session: Session, arguments: Search, *, by_uid: bool) -> None:
    selected = session.mailbox()
    now = await present(session)
    evaluation = Evaluation(session.database, selected.view, now, selected.recent_from)
    places = indexes(await evaluation.matches(arguments.key))
    found: Sequence[int]
    if by_uid:
        found = [now.uids[place] for place in places]
    elif len(now.uids) == selected.exists:
        found = [place + 1 for place in places]
    else:
        found = numbers_of(selected, (now.uids[place] for place in places))
    if arguments.returns is None:
        session.untagged(" ".join(["SEARCH", *map(str, found)]).encode("ascii"))
    else:
        session.untagged(_extended(session.tag, found, arguments.returns, by_uid=by_uid))


def _extended(tag: bytes, found: Sequence[int], returns: frozenset[str], *, by_uid: bool) -> bytes:
    """The ESEARCH response: only what was asked for, numbers only where some were found."""
    pieces = [b'ESEARCH (TAG "%b")' % tag]
    if by_uid:
        pieces.append(b"UID")
    if found and "MIN" in returns:
        pieces.append(b"MIN %d" % found[0])
    if found and "MAX" in returns:
        pieces.append(b"MAX %d" % found[-1])
    if "COUNT" in returns:
        pieces.append(b"COUNT %d" % len(found))
    if found and "ALL" in returns:
        pieces.append(b"ALL " + compress(found).encode("ascii"))
    return b" ".join(pieces)


ROWS = (
    Command("SEARCH", parse_search, search, SELECTED, Sync.NO_EXPUNGE, uses_sequence=True),
    Command("UID SEARCH", parse_search, uid_search, SELECTED, Sync.FULL, breaks_sequence=True),
)
