"""What changes the list of mailboxes: CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE (RFC 9051 §6.3).

Large work goes in steps; the answer comes when the last one is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mailtwist.errors import Conflict, Refusal
from mailtwist.imap.grammar import Parser, no_arguments
from mailtwist.imap.session import Session
from mailtwist.imap.table import Command, Completion, Sync
from mailtwist.store import mailboxes, steps
from mailtwist.store.names import DELIMITER, INBOX

# RFC 6154 §2. \All and \Flagged would be views of other mailboxes, which we have none of.
SPECIAL_USES = {
    use.upper(): use for use in ("\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash")
}


def parse_name(parser: Parser) -> str:
    name = parser.mailbox()
    parser.end()
    return name


# -- CREATE ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Creation:
    name: str
    special_uses: tuple[str, ...] = ()


def parse_create(parser: Parser) -> Creation:
    name = parser.mailbox()
    uses: list[str] = []
    if parser.accept(b" "):  # RFC 6154 §3: CREATE name (USE (\Sent))
        parser.expect(b"(")
        if parser.keyword() != "USE":
            raise parser.violation("USE expected")
        parser.space()
        uses = parser.items(lambda: _special_use(parser), empty=True)
        parser.expect(b")")
    parser.end()
    return Creation(name, tuple(uses))


def _special_use(parser: Parser) -> str:
    parser.expect(b"\\")
    return "\\" + parser.atom().decode("ascii")


async def create(session: Session, arguments: Creation) -> Completion:
    use = ""
    if arguments.special_uses:
        use = SPECIAL_USES.get(arguments.special_uses[0].upper(), "")
        if not use or len(arguments.special_uses) > 1:
            raise Refusal("No such special use here", imap_code="USEATTR")
    if any(character in arguments.name for character in "*%"):
        # Such a name could be listed but never asked for by itself.
        raise Refusal("Wildcards in a mailbox name", imap_code="CANNOT")
    if arguments.name.rstrip(DELIMITER) == INBOX:
        raise Conflict("INBOX exists already")
    work = partial(
        mailboxes.create, account_id=session.account_id, name=arguments.name, special_use=use
    )
    await session.database.write(work, accounts=(session.account_id,))
    return Completion("CREATE completed")


# -- DELETE ---------------------------------------------------------------------------------


async def delete(session: Session, name: str) -> Completion:
    mailbox_id = await steps.delete_mailbox(session.database, session.account_id, name)
    selected = session.selected
    # By its number: it may have been renamed since it was selected.
    if selected is not None and selected.mailbox_id == mailbox_id:
        await session.deselect()
        session.untagged(b"OK [CLOSED] The selected mailbox was deleted")
    return Completion("DELETE completed")


# -- RENAME ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Renaming:
    old: str
    new: str


def parse_rename(parser: Parser) -> Renaming:
    old = parser.mailbox()
    parser.space()
    new = parser.mailbox()
    parser.end()
    return Renaming(old, new)


async def rename(session: Session, arguments: Renaming) -> Completion:
    if any(character in arguments.new for character in "*%"):
        raise Refusal("Wildcards in a mailbox name", imap_code="CANNOT")
    await steps.rename_mailbox(session.database, session.account_id, arguments.old, arguments.new)
    return Completion("RENAME completed")


# -- subscriptions --------------------------------------------------------------------------


async def subscribe(session: Session, name: str) -> Completion:
    account_id = session.account_id
    await session.database.write(
        lambda connection: mailboxes.subscribe(connection, account_id, name),
        accounts=(account_id,),
    )
    return Completion("SUBSCRIBE completed")


async def unsubscribe(session: Session, name: str) -> Completion:
    account_id = session.account_id
    await session.database.write(
        lambda connection: mailboxes.unsubscribe(connection, account_id, name),
        accounts=(account_id,),
    )
    return Completion("UNSUBSCRIBE completed")


async def namespace(session: Session, arguments: None) -> Completion:
    """One personal namespace, nothing of others (RFC 2342 §5)."""
    session.untagged(b'NAMESPACE (("" "%b")) NIL NIL' % DELIMITER.encode())
    return Completion("NAMESPACE completed")


ROWS = (
    Command("CREATE", parse_create, create, sync=Sync.FULL, breaks_sequence=True),
    Command("DELETE", parse_name, delete, sync=Sync.FULL, breaks_sequence=True),
    Command("RENAME", parse_rename, rename, sync=Sync.FULL, breaks_sequence=True),
    Command("SUBSCRIBE", parse_name, subscribe, sync=Sync.FULL, breaks_sequence=True),
    Command("UNSUBSCRIBE", parse_name, unsubscribe, sync=Sync.FULL, breaks_sequence=True),
    Command("NAMESPACE", no_arguments, namespace, sync=Sync.FULL, breaks_sequence=True),
)
