"""Appending, marking, moving and removing mails through their rows.

All of it goes the way that IMAP's commands go, so sessions hear of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from mailtwist.errors import Conflict, MailError, NotFound, ProtocolViolation, Refusal
from mailtwist.mail.flags import DELETED, SEEN, SYSTEM
from mailtwist.store import copies, expunge, flags, keywords
from mailtwist.store.content import Spooled
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.entities import ids
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.mail_columns import JUNK
from mailtwist.store.entities.model import Change
from mailtwist.store.ledger import Ledger
from mailtwist.store.sql import Statement

if TYPE_CHECKING:
    from mailtwist.store.entities.mail_asked import Narrow

MAX_FLAGS: Final = 100
_SYSTEM: Final = {name.lower(): bit for name, bit in SYSTEM.items()}
_FLAG: Final = re.compile(r"[^\s,]+")

_ENTRY_AT: Final = Statement(
    "SELECT entry_id FROM message WHERE account_id = ? AND mailbox_id = ? AND uid = ?"
)
_PLACE: Final = Statement(
    "SELECT mailbox_id, uid FROM message WHERE account_id = ? AND entry_id = ?"
)


# -- making ---------------------------------------------------------------------------------


def create(change: Change) -> str:
    """Append a message: ``mail`` is a Spooled (:mod:`mailtwist.store.entities.appending`).

    Raises: ProtocolViolation, NotFound, OverQuota.
    """
    box = change.relations["mail_box_id"].key
    spooled = change.values.get("mail")
    if not isinstance(spooled, Spooled):
        raise ProtocolViolation("mail: the whole message is needed, in base64")
    mask, words = _all_flags(change.values)
    when = change.values.get("internal_date")
    entry = Entry(
        box.account_id,
        box.name,
        flags=mask,
        keywords=tuple(words),
        internaldate=change.now if when is None else when,
    )
    (answer,) = deliver(change.connection, [Acceptance(spooled, (entry,), None, change.now)])
    if isinstance(answer, MailError):
        raise answer
    (made,) = answer
    place = (made.account_id, made.mailbox_id, made.uid)
    return ids.pack(Kind.MAIL, made.account_id, _ENTRY_AT(change.connection, place).scalar())


def _all_flags(values: Any) -> tuple[int, list[str]]:
    """All flags that a new mail gets, and its keywords."""
    mask, words = _spelled(values.get("flags") or "")
    for name, bit in _BITS.items():
        mask |= bit if values.get(name) else 0
    return mask, [*words, *JUNK[:1]] if values.get("spam") else words


_BITS: Final = {"seen": SEEN, "deleted": DELETED}


def _spelled(text: str) -> tuple[int, list[str]]:
    r"""The bits and keywords of a text as ``\Seen,\Flagged,todo``. Raises: ProtocolViolation."""
    mask, words = 0, []
    for word in _FLAG.findall(text)[: MAX_FLAGS + 1]:
        if word.lower() in _SYSTEM:
            mask |= _SYSTEM[word.lower()]
        elif word.startswith("\\"):
            if word.lower() != "\\recent":  # no flag to be given, but it stands among them
                raise ProtocolViolation(f"flags: {word[:100]} is none")
        elif not keywords.is_valid(word):
            raise ProtocolViolation(f"flags: {word[:100]} is no keyword")
        else:
            words.append(word)
    if len(words) > MAX_FLAGS:
        raise ProtocolViolation(f"flags: more than {MAX_FLAGS}")
    return mask, words


# -- changing -------------------------------------------------------------------------------


def change(change: Change) -> None:
    """Mark a mail, or move it. Raises: ProtocolViolation, Conflict, NotFound."""
    _refuse(change)
    row: Narrow = change.key
    mailbox_id, uid = _place(change.connection, row.account_id, row.entry_id)
    _mark(change, row.account_id, mailbox_id, uid)
    target = change.relations.get("mail_box_id")
    if target is not None and target.key.mailbox_id != mailbox_id:
        if target.key.account_id != row.account_id:
            raise Conflict("mail_box_id: a mail stays in its account")
        copies.move(
            change.connection, row.account_id, mailbox_id, [uid], target.key.name, now=change.now
        )


def _refuse(change: Change) -> None:
    """Refuse what a mail cannot have of its own."""
    assert change.row is not None
    if change.permission is not None and change.permission != change.row.permission:
        raise Conflict("permission: a mail has that of its mailbox")
    if change.owner is not None and change.owner != change.row.owner:
        raise Conflict("user_account_id: a mail belongs to the owner of its account")


def _place(connection: Connection, account_id: int, entry_id: int) -> tuple[int, int]:
    """Where a mail is, under the account's lock: IMAP may have moved it meanwhile."""
    Ledger.of(connection, account_id)
    found = _PLACE(connection, (account_id, entry_id)).first()
    if found is None:
        raise NotFound("No such mail")
    return int(found[0]), int(found[1])


def _mark(change: Change, account_id: int, mailbox_id: int, uid: int) -> None:
    """Set what is given; ``flags`` replaces all, and what is named apart wins."""
    values = change.values
    if "flags" in values:
        mask, words = _spelled(values["flags"] or "")
        _store(change, (account_id, mailbox_id, uid), "=", mask, words)
    for op, is_wanted in (("+", True), ("-", False)):
        mask = 0
        for name, bit in _BITS.items():
            if values.get(name) is not None and bool(values[name]) is is_wanted:
                mask |= bit
        words = []
        if values.get("spam") is not None and bool(values["spam"]) is is_wanted:
            words = list(JUNK[:1] if is_wanted else JUNK)
        if mask or words:
            _store(change, (account_id, mailbox_id, uid), op, mask, words)


def _store(
    change: Change, place: tuple[int, int, int], op: str, mask: int, words: list[str]
) -> None:
    account_id, mailbox_id, uid = place
    try:
        flags.store_flags(change.connection, account_id, mailbox_id, [uid], op, mask, words)
    except NotFound:
        raise
    except Refusal as refusal:  # no room for another keyword
        raise Conflict(f"flags: {refusal.text}") from refusal


# -- removing -------------------------------------------------------------------------------


def remove(change: Change) -> None:
    """Expunge one mail, whether it was marked or not. Raises: NotFound."""
    row: Narrow = change.key
    connection = change.connection
    mailbox_id, uid = _place(connection, row.account_id, row.entry_id)
    flags.store_flags(connection, row.account_id, mailbox_id, [uid], "+", DELETED)
    expunge.expunge(connection, row.account_id, mailbox_id, [uid], now=change.now)
