"""Mail servers, and credentials for services elsewhere."""

from __future__ import annotations

import re
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain
from mailtwist.store import mail_servers
from mailtwist.store.entities import signing
from mailtwist.store.entities.certificates import CERTIFICATE
from mailtwist.store.entities.model import (
    PRIVATE_ROW,
    Change,
    Column,
    Entity,
    Relation,
    Type,
    by_name,
    relations,
)
from mailtwist.store.entities.tables import credential, mail_server
from mailtwist.store.entities.tabular import Tabular
from mailtwist.store.tables import account

MAX_HOSTNAME: Final = 255
MAX_NAME: Final = 200
_INTERFACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.*_-]{0,255}):[0-9]{1,5}")

_SERVERS: Final = Tabular(mail_server, "mail_server_id", kinds=(mail_servers.KIND,))
_CREDENTIALS: Final = Tabular(credential, "credential_id")


def _with_hostname(change: Change) -> Change:
    """The change with its host name as A-labels. Raises: ProtocolViolation."""
    if "hostname" not in change.values:
        return change
    try:
        hostname = fold_domain(change.values["hostname"].strip().removesuffix("."))
    except ProtocolViolation as error:
        raise ProtocolViolation("invalid value for hostname") from error
    return change.with_values({**change.values, "hostname": hostname})


# -- mail servers ---------------------------------------------------------------------------


def _checked(change: Change) -> Change:
    interface = change.values.get("listen_interface")
    if interface is not None and not _is_interface(interface):
        raise ProtocolViolation(
            "invalid value for listen_interface: address:port is expected, such as 0.0.0.0:465"
        )
    return _with_hostname(change)


def _is_interface(text: str) -> bool:
    return bool(_INTERFACE.fullmatch(text)) and int(text.rpartition(":")[2]) < 1 << 16


def _create_server(change: Change) -> str:
    return _SERVERS.create(_checked(change))


def _update_server(change: Change) -> None:
    _SERVERS.update(_checked(change))


def _delete_server(change: Change) -> None:
    """Delete it; its accounts work on every server anyhow."""
    own = account.c.mail_server_id == change.key
    change.connection.execute(account.update().where(own).values(mail_server_id=0))
    _SERVERS.delete(change)


MAIL_SERVER: Final = Entity(
    name="mail_server",
    doc="Where mail is accepted. The listeners follow with sync_mail_servers.",
    columns=by_name(
        Column(
            "hostname",
            is_required=True,
            is_unique=True,
            is_folded=True,
            max_length=MAX_HOSTNAME,
            doc="What it calls itself; mail for it as a domain is ours.",
        ),
        Column("is_enabled", Type.BOOLEAN, default=False),
        Column(
            "listen_interface",
            default="0.0.0.0:465",
            is_required=True,
            max_length=MAX_HOSTNAME + 6,
            doc="The address and port to listen on.",
        ),
        Column(
            "max_size",
            Type.INTEGER,
            default=10_485_760,
            lowest=1,
            highest=2**40,
            doc="Octets of the largest message.",
        ),
        Column(
            "max_clients",
            Type.INTEGER,
            default=20,
            lowest=1,
            highest=100_000,
            doc="Connections at a time.",
        ),
        Column("xclient_on", Type.BOOLEAN, default=False, doc="Whether a proxy may say who it is."),
        Column(
            "always_on_tls", Type.BOOLEAN, default=True, doc="Whether connections begin with TLS."
        ),
        Column(
            "authentication_required",
            Type.BOOLEAN,
            default=True,
            doc="Whether only those who logged in may send.",
        ),
        *signing.COLUMNS,
    ),
    relations=relations(
        Relation("mail_account_id", "mail_account", is_many=True, inverse="mail_server_id")
    ),
    source=_SERVERS,
    create=_create_server,
    update=_update_server,
    delete=_delete_server,
    complete=signing.complete,
    labels=("hostname",),
)


# -- credentials ----------------------------------------------------------------------------

CREDENTIAL: Final = Entity(
    name="credential",
    doc="What other services ask for. The content is never read back.",
    columns=by_name(
        Column("name", is_required=True, max_length=MAX_NAME),
        Column("content", Type.SECRET, is_writeonly=True, is_required=True),
    ),
    source=_CREDENTIALS,
    create=_CREDENTIALS.create,
    update=_CREDENTIALS.update,
    delete=_CREDENTIALS.delete,
    is_private=True,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    labels=("name",),
)

ENTITIES: Final = (MAIL_SERVER, CERTIFICATE, CREDENTIAL)
