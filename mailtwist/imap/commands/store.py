"""STORE and UID STORE (RFC 9051 §6.4.6, §6.4.9)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from mailtwist.imap.commands.fetch import answer
from mailtwist.imap.fetch_grammar import FLAGS, UID
from mailtwist.imap.grammar import Parser
from mailtwist.imap.session import Session
from mailtwist.imap.table import SELECTED, Command, Completion, Sync
from mailtwist.mail.uidset import SequenceSet
from mailtwist.store.messages import store_flags

# Messages of one unit: some 10 ms. RFC 9051 §6.4.6 does not ask that all change together.
STEP: Final = 1000

_OPERATIONS: Final = {"FLAGS": "=", "+FLAGS": "+", "-FLAGS": "-"}


@dataclass(frozen=True, slots=True)
class Store:
    """The arguments of STORE: ``op`` is +, - or =."""

    numbers: SequenceSet
    op: str
    flags: int
    keywords: tuple[str, ...]
    silent: bool


def parse_store(parser: Parser) -> Store:
    """``set item flags`` to the end of the command."""
    numbers = parser.sequence_set()
    parser.space()
    name, _, suffix = parser.keyword().partition(".")
    op = _OPERATIONS.get(name)
    if op is None or suffix not in {"", "SILENT"}:
        raise parser.violation("FLAGS, +FLAGS or -FLAGS expected")
    parser.space()
    flags, keywords = parser.store_flags()
    parser.end()
    return Store(numbers, op, flags, keywords, silent=bool(suffix))


async def store(session: Session, arguments: Store) -> Completion:
    await _store(session, arguments, by_uid=False)
    return Completion("STORE completed")


async def uid_store(session: Session, arguments: Store) -> Completion:
    await _store(session, arguments, by_uid=True)
    return Completion("UID STORE completed")


async def _store(session: Session, arguments: Store, *, by_uid: bool) -> None:
    selected = session.writable()
    numbers, uids = selected.resolve(arguments.numbers, by_uid)
    for start in range(0, len(uids), STEP):
        some = uids[start : start + STEP]
        stored = await session.database.write(
            partial(
                store_flags,
                account_id=selected.account_id,
                mailbox_id=selected.mailbox_id,
                uids=some,
                op=arguments.op,
                flags=arguments.flags,
                keywords=arguments.keywords,
            ),
            accounts=(selected.account_id,),
        )
        selected.tell((uid, flags) for uid, flags, _ in stored.changed)
        if not arguments.silent:
            items = (UID, FLAGS) if by_uid else (FLAGS,)
            await answer(session, items, numbers[start : start + STEP], some)
            await session.drained()


ROWS = (
    Command("STORE", parse_store, store, SELECTED, Sync.NO_EXPUNGE, uses_sequence=True),
    Command("UID STORE", parse_store, uid_store, SELECTED, Sync.FULL, breaks_sequence=True),
)
