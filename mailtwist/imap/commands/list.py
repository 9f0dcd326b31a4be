"""LIST and LSUB (RFC 9051 §6.3.9; RFC 5258; RFC 5819; RFC 6154; RFC 3501 §6.3.9).

The answer is put together beside the database, in its thread: an account may
have thousands of mailboxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from mailtwist.imap.commands.status import parse_items, status_line
from mailtwist.imap.grammar import Parser, format_mailbox
from mailtwist.imap.session import Session
from mailtwist.imap.table import Command, Completion, Sync
from mailtwist.imap.wildcard import Wildcard
from mailtwist.store import mailboxes
from mailtwist.store.mailboxes import Mailbox
from mailtwist.store.names import DELIMITER, superiors

if TYPE_CHECKING:
    from sqlalchemy import Connection

# RFC 5258 §3. REMOTE asks for more than there is here, so it changes nothing.
SELECTION = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
RETURN = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"})
# What RECURSIVEMATCH may look for among the inferiors.
_RECURSIVE = ("SUBSCRIBED", "SPECIAL-USE")
_DELIMITER = b'"%b"' % DELIMITER.encode()


@dataclass(frozen=True, slots=True)
class Listing:
    """What a LIST or LSUB asks for."""

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    is_extended: bool = False

    @property
    def wildcards(self) -> list[Wildcard]:
        """The patterns, each behind the reference it is relative to."""
        return [
            Wildcard(pattern if pattern.startswith(DELIMITER) else self.reference + pattern)
            for pattern in self.patterns
        ]


# -- grammar --------------------------------------------------------------------------------


def parse_list(parser: Parser) -> Listing:
    selection: frozenset[str] = frozenset()
    is_extended = parser.peek() == b"("
    if is_extended:
        selection = _options(parser, parser.items(parser.keyword, empty=True), SELECTION)
        if "RECURSIVEMATCH" in selection and not selection & set(_RECURSIVE):
            raise parser.violation("RECURSIVEMATCH needs something to match")  # RFC 5258 §3.1
        parser.space()
    reference = parser.mailbox()
    parser.space()
    is_extended = is_extended or parser.peek() == b"("
    patterns = parser.patterns()
    returns: frozenset[str] = frozenset()
    status: list[tuple[str, ...]] = []
    if parser.accept(b" "):
        is_extended = True
        if parser.keyword() != "RETURN":
            raise parser.violation("RETURN expected")
        parser.space()
        names = parser.items(lambda: _return_option(parser, status), empty=True)
        returns = _options(parser, names, RETURN)
    parser.end()
    items = status[-1] if status else ()
    return Listing(reference, tuple(patterns), selection, returns, items, is_extended)


def _return_option(parser: Parser, status: list[tuple[str, ...]]) -> str:
    name = parser.keyword()
    if name == "STATUS":  # RFC 5819 §2
        parser.space()
        status.append(parse_items(parser))
    return name


def _options(parser: Parser, names: Iterable[str], known: frozenset[str]) -> frozenset[str]:
    options = frozenset(names)
    if not options <= known:
        raise parser.violation("unknown option")
    return options


def parse_lsub(parser: Parser) -> Listing:
    reference = parser.mailbox()
    parser.space()
    pattern = parser.pattern()
    parser.end()
    return Listing(reference, (pattern,))


# -- LIST -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tree:
    """The names of an account, and what is known of each."""

    boxes: dict[str, Mailbox]
    subscribed: frozenset[str]
    # Superiors of existing mailboxes, and of subscribed and of special ones.
    above_existing: frozenset[str] = field(init=False)
    above: dict[str, frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        special = (name for name, box in self.boxes.items() if box.special_use)
        self.above_existing = _superiors(self.boxes)
        self.above = {
            "SUBSCRIBED": _superiors(self.subscribed),
            "SPECIAL-USE": _superiors(special),
        }

    @classmethod
    def read(cls, connection: Connection, account_id: int) -> Tree:
        boxes = {box.name: box for box in mailboxes.list(connection, account_id)}
        return cls(boxes, frozenset(mailboxes.subscribed(connection, account_id)))

    def names(self, listing: Listing) -> list[str]:
        """All that could be listed: mailboxes, implied superiors, subscribed names."""
        found = dict.fromkeys(self.boxes)
        found.update(dict.fromkeys(sorted(self.above_existing)))
        if "SUBSCRIBED" in listing.selection:
            found.update(dict.fromkeys(sorted(self.subscribed)))
            found.update(dict.fromkeys(sorted(self.above["SUBSCRIBED"])))
        return list(found)

    def has(self, name: str, option: str) -> bool:
        if option == "SUBSCRIBED":
            return name in self.subscribed
        return name in self.boxes and self.boxes[name].special_use != ""


def _superiors(names: Iterable[str]) -> frozenset[str]:
    return frozenset(above for name in names for above in superiors(name))


def _list(connection: Connection, account_id: int, listing: Listing, *, utf8: bool) -> list[bytes]:
    tree = Tree.read(connection, account_id)
    states = mailboxes.statuses(connection, account_id) if listing.status else {}
    wildcards = listing.wildcards
    criteria = [option for option in _RECURSIVE if option in listing.selection]
    lines: list[bytes] = []
    for name in tree.names(listing):
        if not any(wildcard.matches(name) for wildcard in wildcards):
            continue
        info: list[str] = []
        if "RECURSIVEMATCH" in listing.selection:
            info = [option for option in criteria if name in tree.above[option]]
        if not info and not all(tree.has(name, option) for option in criteria):
            continue
        attributes = " ".join(_attributes(tree, name, listing)).encode()
        extended = b""
        if info:  # RFC 5258 §4
            quoted = " ".join(f'"{option}"' for option in info)
            extended = f' ("CHILDINFO" ({quoted}))'.encode()
        lines.append(
            b"* LIST (%b) %b %b%b\r\n"
            % (attributes, _DELIMITER, format_mailbox(name, utf8=utf8), extended)
        )
        box = tree.boxes.get(name)
        if box is not None and box.mailbox_id in states:
            lines.append(
                status_line(connection, box, states[box.mailbox_id], listing.status, utf8=utf8)
            )
    return lines


def _attributes(tree: Tree, name: str, listing: Listing) -> Iterator[str]:
    box = tree.boxes.get(name)
    if box is None:
        # A client that knows nothing of RFC 5258 knows only the older word.
        yield "\\NonExistent" if listing.is_extended else "\\Noselect"
    if (listing.selection | listing.returns) & {"SUBSCRIBED"} and name in tree.subscribed:
        yield "\\Subscribed"
    if name in tree.above_existing:
        yield "\\HasChildren"
    elif box is not None:
        yield "\\HasNoChildren"
    if box is not None and box.special_use:
        yield box.special_use


async def list_mailboxes(session: Session, arguments: Listing) -> Completion:
    if not arguments.is_extended and arguments.patterns == ("",):
        # RFC 9051 §6.3.9: asks for the delimiter and the root of the reference.
        session.write(b'* LIST (\\Noselect) %b ""\r\n' % _DELIMITER)
        return Completion("LIST completed")
    work = partial(_list, account_id=session.account_id, listing=arguments, utf8=session.utf8)
    await _say(session, await session.database.read(work, account_id=session.account_id))
    return Completion("LIST completed")


# -- LSUB -----------------------------------------------------------------------------------


def _lsub(connection: Connection, account_id: int, listing: Listing, *, utf8: bool) -> list[bytes]:
    boxes = {box.name for box in mailboxes.list(connection, account_id)}
    wildcard = listing.wildcards[0]
    found: dict[str, bytes] = {}
    for name in mailboxes.subscribed(connection, account_id):
        if wildcard.matches(name):
            found[name] = b"" if name in boxes else b"\\Noselect"
        elif "%" in listing.patterns[0]:
            # RFC 3501 §6.3.9: `%` shows that something below is subscribed.
            for above in superiors(name):
                if wildcard.matches(above):
                    found.setdefault(above, b"\\Noselect")
    return [
        b"* LSUB (%b) %b %b\r\n" % (attributes, _DELIMITER, format_mailbox(name, utf8=utf8))
        for name, attributes in sorted(found.items())
    ]


async def lsub(session: Session, arguments: Listing) -> Completion:
    work = partial(_lsub, account_id=session.account_id, listing=arguments, utf8=session.utf8)
    await _say(session, await session.database.read(work, account_id=session.account_id))
    return Completion("LSUB completed")


async def _say(session: Session, lines: list[bytes]) -> None:
    session.write(b"".join(lines))
    await session.drained()


ROWS = (
    Command("LIST", parse_list, list_mailboxes, sync=Sync.FULL, breaks_sequence=True),
    Command("LSUB", parse_lsub, lsub, sync=Sync.FULL, breaks_sequence=True),
)
