"""Events, webhooks, codes that prove who reads a mail, and when tasks ran."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_events"
down_revision = "0003_rest"
# A process of the version before may go on using the database.
EXPANDS = True


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "one_time_code",
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("purpose", "subject", name=op.f("pk_one_time_code")),
        sqlite_with_rowid=False,
    )
    _make_webhooks()
    _make_deliveries()
    op.add_column("task", sa.Column("last_run_at", sa.BigInteger(), nullable=True))
    op.add_column("task", sa.Column("next_run_at", sa.BigInteger(), nullable=True))
    op.add_column("task", sa.Column("last_error", sa.Text(), server_default="", nullable=False))


def _make_webhooks() -> None:
    op.create_table(
        "webhook",
        sa.Column(
            "webhook_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("kinds", sa.Text(), server_default="[]", nullable=False),
        sa.Column("secret", sa.Text(), server_default="", nullable=False),
        sa.Column("active", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("position", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("last_sent_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhook")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_webhook_reference_id")),
        sqlite_autoincrement=True,
    )


def _make_deliveries() -> None:
    op.create_table(
        "webhook_delivery",
        sa.Column(
            "delivery_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("webhook_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("code", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("permission", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_webhook_delivery")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_webhook_delivery_reference_id")),
        sa.UniqueConstraint(
            "webhook_id", "event_id", name=op.f("uq_webhook_delivery_webhook_id_event_id")
        ),
    )
    op.create_index(
        "ix_webhook_delivery_waiting",
        "webhook_delivery",
        ["webhook_id", "due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_webhook_delivery_ended",
        "webhook_delivery",
        ["updated_at"],
        unique=False,
        sqlite_where=sa.text("state <> 'waiting'"),
        postgresql_where=sa.text("state <> 'waiting'"),
    )
