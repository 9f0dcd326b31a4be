r"""The selected mailbox as one session sees it.

``view`` is an immutable snapshot that many sessions share; its order is the
numbering that this session was told. It moves only through
:mod:`mailtwist.imap.sync`, behind commands that may announce it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.uidset import SequenceSet
from mailtwist.store.snapshot import Snapshot


class Selected:
    """What SELECT or EXAMINE opened."""

    __slots__ = (
        "announced",
        "claimed",
        "ghosts_of",
        "read_only",
        "recent_from",
        "stale",
        "unsubscribe",
        "view",
    )

    def __init__(
        self,
        view: Snapshot,
        *,
        read_only: bool,
        recent_from: int,
        unsubscribe: Callable[[], None],
    ) -> None:
        self.view = view
        self.read_only = read_only
        # \Recent in this session: every uid from here on, those that come later too.
        self.recent_from = recent_from
        # The uidnext up to which the store knows that \Recent was given to a session.
        self.claimed = view.uidnext
        # A hint came since the view was last compared with the store.
        self.stale = False
        # The state that the view stands for but for messages whose EXPUNGE is still to be said.
        self.ghosts_of: Snapshot | None = None
        # What commands of this session told last by themselves, where the view may have other
        # flags: uid -> flags. The next synchronisation doesn't say it again, but says it when
        # it is true no more, even if the flags are back at what the view has.
        self.announced: dict[int, int] = {}
        self.unsubscribe = unsubscribe

    @property
    def mailbox_id(self) -> int:
        return self.view.mailbox_id

    @property
    def account_id(self) -> int:
        return self.view.account_id

    @property
    def uidvalidity(self) -> int:
        return self.view.uidvalidity

    @property
    def modseq(self) -> int:
        """Changes up to here are announced."""
        return self.view.modseq

    @property
    def exists(self) -> int:
        return len(self.view.uids)

    @property
    def recent(self) -> int:
        r"""How many messages are \Recent in this session."""
        return self.exists - bisect_left(self.view.uids, self.recent_from)

    def tell(self, changed: Iterable[tuple[int, int]]) -> None:
        """Note (uid, flags) that the session's own command changed and has told, or may hide."""
        self.announced.update(changed)
        self.stale = True

    def news(
        self, numbers: Sequence[int], uids: Sequence[int], flags: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Those (uid, flags) of an answer that the view doesn't have, or told otherwise."""
        known: Sequence[int]
        if isinstance(numbers, range):
            known = self.view.flags[numbers.start - 1 : numbers.stop - 1]
            if not self.announced and known == flags:
                return []  # nearly always, and quick to tell for arrays
        else:
            known = [self.view.flags[number - 1] for number in numbers]
        return [
            (uid, now)
            for uid, now, before in zip(uids, flags, known, strict=True)
            if now != before or uid in self.announced
        ]

    def resolve(self, numbers: SequenceSet, by_uid: bool) -> tuple[Sequence[int], Sequence[int]]:
        """The messages that ``numbers`` names: their sequence numbers and uids, ascending.

        Raises: ProtocolViolation for a sequence number above EXISTS (RFC 9051
        §9, seq-number). UIDs that don't exist are passed over (§6.4.9).
        """
        uids = self.view.uids
        if by_uid:
            spans = numbers.spans(uids, uids[-1] if uids else 0)
        else:
            highest = numbers.highest
            # `*` and `1:*` of an empty mailbox name nothing: clients ask so before they know.
            if highest > max(len(uids), 1) or (numbers.closed and not uids):
                raise ProtocolViolation(f"There is no message {highest}")
            spans = [(low - 1, high) for low, high in numbers.ranges(len(uids))] if uids else []
        if not spans:
            return (), ()
        if len(spans) == 1:
            start, end = spans[0]
            is_whole = start == 0 and end == len(uids)
            return range(start + 1, end + 1), uids if is_whole else uids[start:end]
        found_numbers = array("I")
        found_uids = array(uids.typecode)
        for start, end in spans:
            found_numbers.extend(range(start + 1, end + 1))
            found_uids.extend(uids[start:end])
        return found_numbers, found_uids
