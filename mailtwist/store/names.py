"""Names of mailboxes: what is allowed, and how they nest.

The store keeps Unicode in NFC with ``/`` between the levels; IMAP's modified UTF-7 is a
matter of the front-end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from mailtwist.errors import Refusal

DELIMITER: Final = "/"
INBOX: Final = "INBOX"
# No allowed name begins like this: the mailbox is deleted and waits to be emptied.
HIDDEN: Final = "\x01"
MAX_OCTETS: Final = 1000
MAX_LEVEL_CHARACTERS: Final = 255
MAX_DEPTH: Final = 32

# Control characters, surrogates, line and paragraph separators. Unassigned code points are
# allowed: they are what a newer Unicode than ours has assigned.
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _refused(reason: str) -> Refusal:
    return Refusal(f"Invalid mailbox name: {reason}", imap_code="CANNOT")


def _has_controls(name: str) -> bool:
    # Most names are printable, which is quick to tell; joiners in emoji are not.
    return not name.isprintable() and any(
        unicodedata.category(character) in _REFUSED_CATEGORIES for character in name
    )


def folded_inbox(name: str) -> str:
    """Spell INBOX in capitals where it is the name or its first level. RFC 9051 §5.1."""
    head, delimiter, rest = name.partition(DELIMITER)
    return INBOX + delimiter + rest if head.upper() == INBOX else name


def canonical(name: str) -> str:
    """Bring a name to look up into the form that rows hold.

    What no row can hold becomes the empty name, which no mailbox has.
    """
    # The bound comes first: normalising can multiply the length of a hostile name.
    if len(name) > MAX_OCTETS or _has_controls(name):
        return ""
    return folded_inbox(name if name.isascii() else unicodedata.normalize("NFC", name))


def checked(name: str) -> str:
    """Check a name for a new mailbox and bring it into the form that rows hold.

    Raises Refusal with imap_code CANNOT.
    """
    if len(name) > MAX_OCTETS:
        raise _refused("too long")
    if _has_controls(name):
        raise _refused("control characters")
    # RFC 9051 §6.3.4: a trailing delimiter only tells that inferiors will follow.
    name = canonical(name.removesuffix(DELIMITER))
    levels = name.split(DELIMITER)
    if not all(levels):
        raise _refused("an empty level")
    if len(levels) > MAX_DEPTH:
        raise _refused(f"more than {MAX_DEPTH} levels")
    longest = max(len(level) for level in levels)
    if longest > MAX_LEVEL_CHARACTERS or len(name.encode()) > MAX_OCTETS:
        raise _refused("too long")
    return name


def superiors(name: str) -> list[str]:
    """List what a name lies in, outermost first: ``a/b/c`` gives ``a`` and ``a/b``."""
    levels = name.split(DELIMITER)
    return [DELIMITER.join(levels[:n]) for n in range(1, len(levels))]


def implied(names: Iterable[str]) -> list[str]:
    r"""List superiors that are no mailbox themselves: LIST shows them as \NonExistent."""
    known = set(names)
    return sorted({above for name in known for above in superiors(name)} - known)


def is_inferior(name: str, superior: str) -> bool:
    return name.startswith(superior + DELIMITER)
