"""Give disk space back to the system, a little at a time; SQLite only.

PostgreSQL's autovacuum does its own. SQLite reuses free pages by itself, so only
a file with many of them is worth the work.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

# Below this share of the file, or this many pages, free pages will be needed again soon.
SHARE = 4
KEEP = 2_000
STEP = 500


def step(connection: Connection) -> bool:
    """Cut up to :data:`STEP` free pages off the file; True: there is nothing to gain."""
    if connection.dialect.name != "sqlite":
        return True
    free, pages = (
        connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        for name in ("freelist_count", "page_count")
    )
    if free < KEEP or free * SHARE < pages:
        return True
    # One page for each row that is fetched, and the rows have no columns: nothing for Core.
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA incremental_vacuum({STEP})").fetchall()
    return False
