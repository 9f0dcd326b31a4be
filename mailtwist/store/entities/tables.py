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
    sqlite_autoincrement=True,
)

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
