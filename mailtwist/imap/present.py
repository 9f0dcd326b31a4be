"""The selected mailbox with its flags as they are now, in the numbering that the client knows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mailtwist.imap.selected import Selected

if TYPE_CHECKING:
    from mailtwist.imap.session import Session
    from mailtwist.store.snapshot import Snapshot


async def present(session: Session) -> Snapshot:
    """Return the newest state, cut down to what the session was told of.

    Messages expunged meanwhile are missing, so an index here is a sequence
    number less one only while the length is that of the view.
    """
    selected = session.mailbox()
    current = await session.snapshots.current(selected.account_id, selected.mailbox_id)
    view = selected.view
    known = bisect_right(current.uids, view.uids[-1]) if view.uids else 0
    if known == len(current.uids):
        return current
    return replace(current, uids=current.uids[:known], flags=current.flags[:known])


def numbers_of(selected: Selected, uids: Iterable[int]) -> Sequence[int]:
    """Return the sequence numbers of ascending uids that the view has."""
    known = selected.view.uids
    numbers, low = [], 0
    for uid in uids:
        low = bisect_left(known, uid, low)
        numbers.append(low + 1)
    return numbers
