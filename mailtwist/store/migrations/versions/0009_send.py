"""What was sent over HTTP, and the keys under which nothing is sent twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_send"
down_revision = "0008_inbox"
# A process of the version before may go on using the database.
EXPANDS = True


def upgrade() -> None:
    queue_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "send_request",
        sa.Column("queue_id", queue_id, autoincrement=False, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("recipients", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", name="pk_send_request"),
    )
    op.create_index("ix_send_request_created_at", "send_request", ["created_at"])
    op.create_table(
        "send_key",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("queue_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_send_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_send_key_created_at", "send_key", ["created_at"])
