"""Accounts at certificate authorities, challenges to answer, and when certificates are renewed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_acme"
down_revision = "0004_events"
# A process of the version before may go on using the database.
EXPANDS = True


def upgrade() -> None:
    op.create_table(
        "acme_account",
        sa.Column("directory_url", sa.Text(), nullable=False),
        sa.Column("account_url", sa.Text(), server_default="", nullable=False),
        sa.Column("email", sa.Text(), server_default="", nullable=False),
        sa.Column("private_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("directory_url", name=op.f("pk_acme_account")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "acme_challenge",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("key_authorization", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_acme_challenge")),
        sqlite_with_rowid=False,
    )
    _make_certificate_state()
    op.add_column(
        "certificate", sa.Column("last_error", sa.Text(), server_default="", nullable=False)
    )
    op.add_column("certificate", sa.Column("renew_at", sa.BigInteger(), nullable=True))
    for name in ("ask_at", "retry_at", "held_until", "failures"):
        op.add_column(
            "certificate",
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        )


def _make_certificate_state() -> None:
    op.create_table(
        "certificate_state",
        sa.Column("certificate_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("names", sa.Text(), server_default="", nullable=False),
        sa.Column("not_before", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_after", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("serial", sa.Text(), server_default="", nullable=False),
        sa.Column("is_usable", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("certificate_id", name=op.f("pk_certificate_state")),
        sqlite_with_rowid=False,
    )
    for column in ("changed_at", "not_after"):
        op.create_index(f"ix_certificate_state_{column}", "certificate_state", [column])
