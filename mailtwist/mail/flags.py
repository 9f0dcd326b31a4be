r"""The bits of a message's flags (RFC 9051 §2.3.2).

Bits 0 to 7 are the system flags, bits 8 to 62 the keywords of the account, so
that a copy inside one account needs no translation and the number stays a
positive 64-bit integer. ``\Recent`` is no bit: it follows from the uid.
"""

from __future__ import annotations

from typing import Final

SEEN: Final = 1
ANSWERED: Final = 2
FLAGGED: Final = 4
DELETED: Final = 8
DRAFT: Final = 16

SYSTEM: Final[dict[str, int]] = {
    "\\Seen": SEEN,
    "\\Answered": ANSWERED,
    "\\Flagged": FLAGGED,
    "\\Deleted": DELETED,
    "\\Draft": DRAFT,
}

FIRST_KEYWORD_BIT: Final = 8
LAST_KEYWORD_BIT: Final = 62
