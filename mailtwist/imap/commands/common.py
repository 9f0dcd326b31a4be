"""Commands of every state, and those that change nothing (RFC 9051 §6.1; RFC 2971; RFC 5161)."""

from __future__ import annotations

from mailtwist.imap.capabilities import announced
from mailtwist.imap.grammar import Parser, no_arguments, quote
from mailtwist.imap.session import Session
from mailtwist.imap.table import ANY, AUTHENTICATED, SELECTED, Command, Completion, State, Sync

# RFC 2971 §3.3: at most 30 pairs.
_ID_PAIRS = 30
_ID_OCTETS = 1024

# What ENABLE can switch on; empty until an extension needs it.
ENABLABLE: frozenset[str] = frozenset()


async def capability(session: Session, arguments: None) -> Completion:
    session.untagged(announced(session).encode())
    return Completion("CAPABILITY completed")


async def noop(session: Session, arguments: None) -> Completion:
    """Look at the store itself, not only at hints of it."""
    if session.selected is not None:
        session.selected.stale = True
    return Completion("NOOP completed")


async def check(session: Session, arguments: None) -> Completion:
    """Like NOOP: everything is on the disk already (RFC 3501 §6.4.1)."""
    session.mailbox().stale = True
    return Completion("CHECK completed")


async def logout(session: Session, arguments: None) -> Completion:
    session.untagged(b"BYE Logging out")
    session.state = State.LOGOUT
    return Completion("LOGOUT completed")


# -- ID -------------------------------------------------------------------------------------


def parse_id(parser: Parser) -> dict[str, str]:
    """``(name value ...)`` or NIL, bounded as RFC 2971 §3.3 bounds it."""
    if parser.nil():
        parser.end()
        return {}
    parser.expect(b"(")
    found: dict[str, str] = {}
    while not parser.accept(b")"):
        if found:
            parser.space()
        name = parser.decode(parser.string())
        parser.space()
        value = parser.nstring() or b""
        if len(found) >= _ID_PAIRS or len(name) > 30 or len(value) > _ID_OCTETS:
            raise parser.violation("too much identification")
        found[name] = parser.decode(value)
    parser.end()
    return found


async def identify(session: Session, arguments: dict[str, str]) -> Completion:
    session.wire.note("client", client=arguments)
    # No version: it is nobody's business before the login, and no client's behind it.
    session.untagged(b'ID ("name" %b)' % quote(b"mailtwist"))
    return Completion("ID completed")


# -- ENABLE ---------------------------------------------------------------------------------


def parse_enable(parser: Parser) -> list[str]:
    names = [parser.keyword()]
    while parser.accept(b" "):
        names.append(parser.keyword())
    parser.end()
    return names


async def enable(session: Session, arguments: list[str]) -> Completion:
    # RFC 5161 §3.1: what is unknown is passed over without a word.
    fresh = [name for name in dict.fromkeys(arguments) if name in ENABLABLE - session.enabled]
    session.enabled |= frozenset(fresh)
    session.untagged(" ".join(["ENABLED", *fresh]).encode())
    return Completion("ENABLE completed")


ROWS = (
    Command("CAPABILITY", no_arguments, capability, ANY),
    Command("NOOP", no_arguments, noop, ANY, Sync.FULL, breaks_sequence=True),
    Command("LOGOUT", no_arguments, logout, ANY),
    Command("ID", parse_id, identify, ANY),
    Command("ENABLE", parse_enable, enable, AUTHENTICATED),
    Command("CHECK", no_arguments, check, SELECTED, Sync.FULL, breaks_sequence=True),
)
