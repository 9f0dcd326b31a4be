"""Users, groups, permissions and what only the REST interface knows."""

from __future__ import annotations

import os
import time
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003_rest"
down_revision = "0002_queue"


def upgrade() -> None:
    _make_tables()
    _widen_tables()
    _name_aliases()


def _reference_id() -> str:
    """Make a UUIDv7. RFC 9562 §5.7."""
    chance = int.from_bytes(os.urandom(10), "big")
    high, low = chance >> 68, chance & (1 << 62) - 1
    moment = time.time_ns() // 1_000_000
    return str(uuid.UUID(int=moment << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))


def _name_aliases() -> None:
    connection = op.get_bind()
    address = sa.table(
        "address",
        *(sa.column(name) for name in ("domain_id", "local_part", "kind")),
        *(sa.column(name) for name in ("reference_id", "created_at", "updated_at")),
    )
    now = time.time_ns() // 1_000
    for row in connection.execute(sa.select(address).where(address.c.kind == "alias")).all():
        connection.execute(
            address.update()
            .where(address.c.domain_id == row.domain_id, address.c.local_part == row.local_part)
            .values(reference_id=_reference_id(), created_at=now, updated_at=now)
        )


def _make_tables() -> None:
    op.create_table(
        "action",
        sa.Column(
            "action_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("action_name", sa.Text(), nullable=False),
        sa.Column("world_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "instance_optional", sa.SmallInteger(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("action_schema", sa.Text(), nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("action_id", name=op.f("pk_action")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_action_reference_id")),
        sa.UniqueConstraint("world_id", "action_name", name=op.f("uq_action_world_id_action_name")),
    )
    op.create_table(
        "api_key",
        sa.Column(
            "api_key_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("is_test", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("owner_user_id", sa.BigInteger(), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("api_key_id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_key_hash")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_api_key_reference_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_key_owner_user_id", "api_key", ["owner_user_id"], unique=False)
    op.create_table(
        "certificate",
        sa.Column(
            "certificate_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), server_default="", nullable=False),
        sa.Column("generated_at", sa.BigInteger(), nullable=True),
        sa.Column("certificate_pem", sa.Text(), server_default="", nullable=False),
        sa.Column("root_certificate", sa.Text(), server_default="", nullable=False),
        sa.Column("private_key_pem", sa.Text(), server_default="", nullable=False),
        sa.Column("public_key_pem", sa.Text(), server_default="", nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("certificate_id", name=op.f("pk_certificate")),
        sa.UniqueConstraint("hostname", name=op.f("uq_certificate_hostname")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_certificate_reference_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "config_value",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("is_sealed", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_config_value")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "credential",
        sa.Column(
            "credential_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), server_default="", nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_credential")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_credential_reference_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_credential_name", "credential", ["name"], unique=False)
    op.create_table(
        "listener_state",
        sa.Column("node_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "node_id", "name", "address", "port", name=op.f("pk_listener_state")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mail_server",
        sa.Column(
            "mail_server_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("is_enabled", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("listen_interface", sa.Text(), nullable=False),
        sa.Column("max_size", sa.BigInteger(), nullable=False),
        sa.Column("max_clients", sa.BigInteger(), nullable=False),
        sa.Column("xclient_on", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("always_on_tls", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "authentication_required",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("mail_server_id", name=op.f("pk_mail_server")),
        sa.UniqueConstraint("hostname", name=op.f("uq_mail_server_hostname")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_mail_server_reference_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "row_group",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("row_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("group_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("entity", "row_id", "group_id", name=op.f("pk_row_group")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_row_group_group_id", "row_group", ["group_id"], unique=False)
    op.create_table(
        "task",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("action_name", sa.Text(), nullable=False),
        sa.Column("entity_name", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("active", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("attributes", sa.Text(), server_default="{}", nullable=False),
        sa.Column("job_type", sa.Text(), server_default="", nullable=False),
        sa.Column("as_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_task_reference_id")),
    )
    op.create_table(
        "user_account",
        sa.Column("user_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("mobile", sa.Text(), server_default="", nullable=False),
        sa.Column("auth_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_account")),
        sa.UniqueConstraint("email", name=op.f("uq_user_account_email")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_user_account_reference_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "user_group",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("group_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "group_id", name=op.f("pk_user_group")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_user_group_group_id", "user_group", ["group_id"], unique=False)
    op.create_table(
        "user_secret",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("secret_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "secret_id", name=op.f("pk_user_secret")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usergroup",
        sa.Column("group_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_usergroup")),
        sa.UniqueConstraint("name", name=op.f("uq_usergroup_name")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_usergroup_reference_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "world",
        sa.Column("world_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("default_permission", sa.BigInteger(), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("world_id", name=op.f("pk_world")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_world_reference_id")),
        sa.UniqueConstraint("table_name", name=op.f("uq_world_table_name")),
    )


def _widen_tables() -> None:
    op.add_column(
        "account",
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "account",
        sa.Column("mail_server_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "account",
        sa.Column("permission", sa.BigInteger(), server_default=sa.text("16256"), nullable=False),
    )
    op.create_index("ix_account_owner_user_id", "account", ["owner_user_id"], unique=False)
    op.add_column("address", sa.Column("reference_id", sa.Text(), nullable=True))
    op.add_column(
        "address",
        sa.Column("created_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "address",
        sa.Column("updated_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.create_index(
        "ix_address_reference_id",
        "address",
        ["reference_id"],
        unique=True,
        sqlite_where=sa.text("reference_id IS NOT NULL"),
        postgresql_where=sa.text("reference_id IS NOT NULL"),
    )
    op.add_column(
        "domain",
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "domain",
        sa.Column("permission", sa.BigInteger(), server_default=sa.text("561441"), nullable=False),
    )
    op.add_column("mailbox", sa.Column("attributes", sa.Text(), server_default="", nullable=False))
    op.add_column("mailbox", sa.Column("flags", sa.Text(), server_default="", nullable=False))
    op.add_column(
        "mailbox", sa.Column("permanent_flags", sa.Text(), server_default="", nullable=False)
    )
    op.add_column("mailbox", sa.Column("permission", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_queue_message_account_id",
        "queue_message",
        ["account_id", "queue_id"],
        unique=False,
        sqlite_where=sa.text("account_id <> 0"),
        postgresql_where=sa.text("account_id <> 0"),
    )
