"""Makes new password hashes cheap in servers of tests: what a login costs is measured elsewhere.

Python imports this by itself in a process whose ``PYTHONPATH`` begins with its folder.
"""

from __future__ import annotations

import bcrypt

COST = 4  # the least that there is; a server's own settings begin at 10

_salt = bcrypt.gensalt


def gensalt(rounds: int = COST, prefix: bytes = b"2b") -> bytes:
    return _salt(COST, prefix)


bcrypt.gensalt = gensalt
