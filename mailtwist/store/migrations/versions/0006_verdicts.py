"""What the checks of arriving mail found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_verdicts"
down_revision = "0005_acme"
# A process of the version before may go on using the database.
EXPANDS = True


def upgrade() -> None:
    for column in (
        sa.Column("spam_score", sa.Float(), nullable=False, server_default=sa.text("0")),
        sa.Column("verdicts", sa.Text(), nullable=False, server_default=""),
    ):
        op.add_column("email_detail", column)
