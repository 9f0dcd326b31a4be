"""The tables of users, groups, permissions and what only the REST interface knows.

Low-volume: each row carries a UUIDv7 ``reference_id``, its ``permission`` and its owner's
number, 0 for nobody.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, SmallInteger, Table, Text, UniqueConstraint, text

from mailtwist.store.schema import Rowid, key, metadata, number


def _reference() -> Column[str]:
    return Column("reference_id", Text, nullable=False, unique=True)


def _text(name: str, default: str | None = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=default)


def _flag(name: str, default: int = 0) -> Column[int]:
    return Column(name, SmallInteger, nullable=False, server_default=text(str(default)))


# -- who asks -------------------------------------------------------------------------------

user_account = Table(
    "user_account",
    metadata,
    Column("user_id", Rowid, primary_key=True),
    _text("name", None),
    Column("email", Text, nullable=False, unique=True),  # folded
    _text("mobile"),
    number("auth_version", 1),  # raised with each password change
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    sqlite_autoincrement=True,  # the number of a removed user never comes back
)

user_secret = Table(
    "user_secret",
    metadata,
    key("user_id"),
    Column("secret_id", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # bcrypt
    Column("verifier", Text, nullable=False),
    _text("label"),
    number("created_at"),
    sqlite_with_rowid=False,
)

usergroup = Table(
    "usergroup",
    metadata,
    Column("group_id", Rowid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    sqlite_autoincrement=True,
)

user_group = Table(
    "user_group",
    metadata,
    key("user_id"),
    key("group_id"),
    sqlite_with_rowid=False,
)
Index("ix_user_group_group_id", user_group.c.group_id)

# The rows of any entity that are shared with a group.
row_group = Table(
    "row_group",
    metadata,
    Column("entity", Text, primary_key=True),
    key("row_id"),
    key("group_id"),
    sqlite_with_rowid=False,
)
Index("ix_row_group_group_id", row_group.c.group_id)

# One row for each entity: who may do what with its table, and what new rows begin with.
world = Table(
    "world",
    metadata,
    Column("world_id", Rowid, primary_key=True),
    Column("table_name", Text, nullable=False, unique=True),
    number("default_permission"),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
)

action = Table(
    "action",
    metadata,
    Column("action_id", Rowid, primary_key=True),
    _text("action_name", None),
    number("world_id"),
    _text("label"),
    _flag("instance_optional"),
    _text("action_schema", None),  # JSON; "" when the operation is built in
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    UniqueConstraint("world_id", "action_name"),
)

task = Table(
    "task",
    metadata,
    Column("task_id", Rowid, primary_key=True),
    _text("name"),
    _text("action_name", None),
    _text("entity_name", None),
    _text("schedule", None),  # of cron, or @every 5m
    _flag("active", 1),
    _text("attributes", "{}"),  # JSON
    _text("job_type"),
    number("as_user_id", 0),
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    number("last_run_at", nullable=True),
    number("next_run_at", nullable=True),  # null: a node that runs tasks says when
    _text("last_error"),
)

# What was sent to somebody who must prove that he reads it. One for each purpose and subject.
one_time_code = Table(
    "one_time_code",
    metadata,
    Column("purpose", Text, primary_key=True),  # reset-password
    Column("subject", Text, primary_key=True),  # whom it is for, such as a user's reference_id
    _text("verifier", None),  # of the code
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # wrong ones so far
    number("expires_at"),
    number("created_at"),
    sqlite_with_rowid=False,
)

# -- who is told what happened --------------------------------------------------------------

webhook = Table(
    "webhook",
    metadata,
    Column("webhook_id", Rowid, primary_key=True),
    _text("url", None),
    _text("kinds", "[]"),  # a JSON list; empty: all
    _text("secret"),  # sealed
    _flag("active", 1),
    number("position", 0),  # of the event table: up to there all is in webhook_delivery
    number("failing_since", nullable=True),
    number("last_sent_at", nullable=True),
    _text("last_error"),
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    sqlite_autoincrement=True,
)

# One row for each event and webhook, with all that is sent: events may be swept before.
webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("delivery_id", Rowid, primary_key=True),
    number("webhook_id"),
    number("event_id"),
    _text("kind", None),
    _text("body", None),  # what is posted
    _text("state", None),  # waiting | sent | failed
    number("due_at"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("code", Integer, nullable=False, server_default=text("0")),  # 0: nobody answered
    _text("error"),
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    UniqueConstraint("webhook_id", "event_id"),
)
_unsent = text("state = 'waiting'")
Index(
    "ix_webhook_delivery_waiting",
    webhook_delivery.c.webhook_id,
    webhook_delivery.c.due_at,
    sqlite_where=_unsent,
    postgresql_where=_unsent,
)
_ended = text("state <> 'waiting'")
Index(
    "ix_webhook_delivery_ended",
    webhook_delivery.c.updated_at,
    sqlite_where=_ended,
    postgresql_where=_ended,
)

# -- what the server runs -------------------------------------------------------------------

mail_server = Table(
    "mail_server",
    metadata,
    Column("mail_server_id", Rowid, primary_key=True),
    Column("hostname", Text, nullable=False, unique=True),  # folded
    _flag("is_enabled"),
    _text("listen_interface", None),
    number("max_size"),
    number("max_clients"),
    _flag("xclient_on"),
    _flag("always_on_tls"),
    _flag("authentication_required"),
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    sqlite_autoincrement=True,
)

certificate = Table(
    "certificate",
    metadata,
    Column("certificate_id", Rowid, primary_key=True),
    Column("hostname", Text, nullable=False, unique=True),  # folded
    _text("issuer"),
    number("generated_at", nullable=True),
    _text("certificate_pem"),
    _text("root_certificate"),
    _text("private_key_pem"),  # sealed
    _text("public_key_pem"),
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    _text("last_error"),  # of the last order, "" when it succeeded
    number("renew_at", nullable=True),  # null: nobody looked yet
    number("ask_at", 0),  # when the authority is asked again for renew_at
    number("retry_at", 0),  # nothing is ordered by itself before
    number("held_until", 0),  # the authority takes no order before
    number("failures", 0),  # of orders, in a row
    sqlite_autoincrement=True,
)

# Our account at each certificate authority.
acme_account = Table(
    "acme_account",
    metadata,
    Column("directory_url", Text, primary_key=True),
    _text("account_url"),  # "": not registered yet
    _text("email"),
    _text("private_key", None),  # sealed
    number("created_at"),
    sqlite_with_rowid=False,
)

# What authorities may ask for by HTTP while an order is under way; every node answers.
acme_challenge = Table(
    "acme_challenge",
    metadata,
    Column("token", Text, primary_key=True),
    _text("key_authorization", None),
    number("expires_at"),
    sqlite_with_rowid=False,
)

# What is in a certificate row, so that nobody need read the PEM text of all of them.
certificate_state = Table(
    "certificate_state",
    metadata,
    key("certificate_id"),
    _text("names"),  # of the certificate, in lower case, a blank between; "" unless it is known
    number("not_before", 0),
    number("not_after", 0),
    _text("serial"),  # in hexadecimal
    _flag("is_usable"),  # there are a certificate and its key
    number("changed_at", 0),
    sqlite_with_rowid=False,
)
Index("ix_certificate_state_changed_at", certificate_state.c.changed_at)
Index("ix_certificate_state_not_after", certificate_state.c.not_after)

credential = Table(
    "credential",
    metadata,
    Column("credential_id", Rowid, primary_key=True),
    _text("name", None),
    _text("content"),  # sealed
    number("owner_user_id", 0),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    sqlite_autoincrement=True,
)
Index("ix_credential_name", credential.c.name)

api_key = Table(
    "api_key",
    metadata,
    Column("api_key_id", Rowid, primary_key=True),
    _text("name"),
    _text("prefix", None),  # what the key begins with, to tell keys apart
    Column("hash", Text, nullable=False, unique=True),
    _text("scopes", None),  # a JSON list
    _flag("is_test"),
    number("expires_at", nullable=True),
    number("last_used_at", nullable=True),
    number("owner_user_id"),
    _reference(),
    number("permission"),
    number("created_at"),
    number("updated_at"),
    sqlite_autoincrement=True,
)
Index("ix_api_key_owner_user_id", api_key.c.owner_user_id)

# What is configured at run time; the files and the command line come first.
config_value = Table(
    "config_value",
    metadata,
    Column("name", Text, primary_key=True),
    _text("value", None),  # sealed, when is_sealed
    _flag("is_sealed"),
    number("updated_at"),
    sqlite_with_rowid=False,
)

# What each node listens on: a row for each bound address, or for what could not be bound.
listener_state = Table(
    "listener_state",
    metadata,
    key("node_id"),
    Column("name", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    _text("protocol", None),
    _text("state", None),  # listening | failed
    _text("error"),
    number("generation", 0),
    number("updated_at"),
    sqlite_with_rowid=False,
)
