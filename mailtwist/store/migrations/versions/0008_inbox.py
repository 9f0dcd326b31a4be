"""Inboxes whose mail is read over HTTP and kept for a while, and developers' projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_inbox"
down_revision = "0007_rates"
# A process of the version before may go on using the database: what it expunges or moves
# leaves rows behind that name no message; they are listed nowhere and swept in their time.
EXPANDS = True


def upgrade() -> None:
    op.create_table(
        "inbox_message",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("local_part", sa.Text(), nullable=False),
        sa.Column("queue_id", sa.BigInteger(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "account_id", "local_part", "queue_id", "domain", name=op.f("pk_inbox_message")
        ),
        sqlite_with_rowid=False,
    )
    for columns in (["account_id", "entry_id"], ["account_id", "queue_id"], ["received_at"]):
        name = op.f(f"ix_inbox_message_{'_'.join(columns)}")
        op.create_index(name, "inbox_message", columns)
    op.create_table(
        "project",
        sa.Column(
            "project_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("owner_user_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("permission", sa.BigInteger(), server_default=sa.text("16256"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
        sa.UniqueConstraint("account_id", name=op.f("uq_project_account_id")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_project_reference_id")),
    )
    op.create_index(op.f("ix_project_owner_user_id"), "project", ["owner_user_id"])
