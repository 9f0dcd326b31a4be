"""The metadata with every table, for comparing it with what the revisions make."""

from __future__ import annotations

import mailtwist.store.entities.tables
import mailtwist.store.queue.tables
import mailtwist.store.tables  # noqa: F401
from mailtwist.store.schema import metadata

__all__ = ["metadata"]
