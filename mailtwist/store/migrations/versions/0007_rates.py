"""What clients did within a time that ends."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_rates"
down_revision = "0006_verdicts"
# A process of the version before may go on using the database.
EXPANDS = True


def upgrade() -> None:
    op.create_table(
        "rate_count",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "subject", name="pk_rate_count"),
        sqlite_with_rowid=False,
    )
