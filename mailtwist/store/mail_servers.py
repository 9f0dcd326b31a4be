"""The ``mail_server`` rows as listeners and addresses see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, inspect, text

from mailtwist.store.sql import Statement

KIND: Final = "mail_server"

_COLUMNS = (
    "reference_id, hostname, is_enabled, listen_interface, max_size, max_clients, xclient_on,"
    " always_on_tls, authentication_required"
)
_ALL = text(f"SELECT {_COLUMNS} FROM mail_server ORDER BY created_at, hostname")
_FIRST = text("SELECT hostname FROM mail_server ORDER BY created_at, mail_server_id LIMIT 1")
_CHANGED = text("SELECT reference_id, updated_at FROM mail_server")
_HOSTNAME = Statement("SELECT 1 FROM mail_server WHERE hostname = ?")


@dataclass(frozen=True, slots=True)
class MailServer:
    reference_id: str
    hostname: str  # A-labels in lower case
    is_enabled: bool
    listen_interface: str  # "host:port"
    max_size: int  # octets
    max_clients: int
    xclient_on: bool
    always_on_tls: bool  # begins with TLS
    authentication_required: bool


def is_there(connection: Connection) -> bool:
    """Whether the database has the table: an old or a new one may lack it."""
    return inspect(connection).has_table("mail_server")


def every(connection: Connection) -> list[MailServer]:
    """All rows, the oldest first."""
    return [
        MailServer(
            reference,
            hostname,
            bool(enabled),
            interface,
            int(size),
            int(clients),
            bool(xclient),
            bool(tls),
            bool(required),
        )
        for reference, hostname, enabled, interface, size, clients, xclient, tls, required in (
            connection.execute(_ALL)
        )
    ]


def changed_at(connection: Connection) -> dict[str, int]:
    """When each row was changed last, by its reference id; microseconds."""
    return {reference: int(changed) for reference, changed in connection.execute(_CHANGED)}


def first_hostname(connection: Connection) -> str:
    """The name of the oldest row; "" when there is none."""
    return str(connection.execute(_FIRST).scalar() or "")


def is_hostname(connection: Connection, name: str) -> bool:
    """Whether a row, enabled or not, has the name: mail for it as a domain is ours."""
    return _HOSTNAME(connection, (name,)).first() is not None
