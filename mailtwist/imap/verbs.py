"""The command table: the ROWS of each module of :mod:`mailtwist.imap.commands`, put together.

A new command is a row in one of them, or a module and a line here.
"""

from __future__ import annotations

from typing import Final

from mailtwist.imap.commands import (
    append,
    auth,
    common,
    copy,
    expunge,
    fetch,
    idle,
    mailboxes,
    search,
    select,
    status,
    store,
)
from mailtwist.imap.commands import list as listing
from mailtwist.imap.table import Command

_MODULES: Final = (
    common,
    auth,
    mailboxes,
    listing,
    status,
    select,
    idle,
    append,
    expunge,
    fetch,
    store,
    search,
    copy,
)

COMMANDS: Final[dict[str, Command]] = {row.name: row for module in _MODULES for row in module.ROWS}
