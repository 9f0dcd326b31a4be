"""The id that names one connection in every log line that concerns it."""

from __future__ import annotations

import os
from contextvars import ContextVar

# Read by the log observer; the pump of a session runs its commands in a context where it is set.
session_id: ContextVar[str] = ContextVar("session_id", default="")


def new_session_id() -> str:
    """Make an id that no other connection of any node bears: 48 random bits, 12 hex digits."""
    return os.urandom(6).hex()
