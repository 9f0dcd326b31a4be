"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_first"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("quota_octets", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quota_messages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("auth_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_account_reference_id")),
        sa.UniqueConstraint("username", name=op.f("uq_account_username")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "account_secret",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("secret_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "secret_id", name=op.f("pk_account_secret")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "account_state",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("modseq", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("next_mailbox", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("next_entry", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("next_uidvalidity", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("octets", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("messages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account_state")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "address",
        sa.Column("domain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("local_part", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("domain_id", "local_part", name=op.f("pk_address")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_address_account_id", "address", ["account_id"], unique=False)
    op.create_table(
        "address_target",
        sa.Column("domain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("local_part", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("domain_id", "local_part", "n", name=op.f("pk_address_target")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_address_target_target", "address_target", ["target"], unique=False)
    op.create_table(
        "content",
        sa.Column(
            "content_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("octets", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("content_id", name=op.f("pk_content")),
    )
    op.create_table(
        "content_chunk",
        sa.Column("chunk_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("content_id", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_id", name=op.f("pk_content_chunk")),
        sa.UniqueConstraint("content_id", "n", name=op.f("uq_content_chunk_content_id_n")),
    )
    op.create_table(
        "content_doubt",
        sa.Column("content_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("content_id", name=op.f("pk_content_doubt")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "domain",
        sa.Column(
            "domain_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="local", nullable=False),
        sa.Column("catch_all", sa.Text(), server_default="", nullable=False),
        sa.Column("delimiter", sa.Text(), server_default="+", nullable=False),
        sa.Column("enabled", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("domain_id", name=op.f("pk_domain")),
        sa.UniqueConstraint("name", name=op.f("uq_domain_name")),
        sa.UniqueConstraint("reference_id", name=op.f("uq_domain_reference_id")),
    )
    op.create_table(
        "email",
        sa.Column(
            "email_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("content_id", sa.BigInteger(), nullable=False),
        sa.Column("octets", sa.BigInteger(), nullable=False),
        sa.Column("header_octets", sa.BigInteger(), nullable=False),
        sa.Column("prefix", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("bodystructure", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("email_id", name=op.f("pk_email")),
    )
    op.create_index("ix_email_content_id", "email", ["content_id"], unique=False)
    op.create_table(
        "email_detail",
        sa.Column(
            "email_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("parts", sa.LargeBinary(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("sent_day", sa.Integer(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("folded_subject", sa.Text(), nullable=False),
        sa.Column("folded_from", sa.Text(), nullable=False),
        sa.Column("folded_to", sa.Text(), nullable=False),
        sa.Column("folded_cc", sa.Text(), nullable=False),
        sa.Column("folded_bcc", sa.Text(), nullable=False),
        sa.Column("has_attachment", sa.SmallInteger(), nullable=False),
        sa.Column("return_path", sa.Text(), nullable=True),
        sa.Column("recipient", sa.Text(), server_default="", nullable=False),
        sa.Column("client_address", sa.Text(), server_default="", nullable=False),
        sa.Column("is_tls", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("received_as", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("email_id", name=op.f("pk_email_detail")),
    )
    op.create_index(
        "ix_email_detail_account_id_message_id",
        "email_detail",
        ["account_id", "message_id"],
        unique=False,
    )
    op.create_table(
        "expunged",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("modseq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uids", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "mailbox_id", "modseq", name=op.f("pk_expunged")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "generation",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_generation")),
    )
    op.create_table(
        "keyword",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bit", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "bit", name=op.f("pk_keyword")),
        sa.UniqueConstraint("account_id", "folded", name=op.f("uq_keyword_account_id_folded")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "login_failure",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("window_start", sa.BigInteger(), nullable=False),
        sa.Column("locked_until", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("scope", "subject", name=op.f("pk_login_failure")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mailbox",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("special_use", sa.Text(), server_default="", nullable=False),
        sa.Column("uidvalidity", sa.BigInteger(), nullable=False),
        sa.Column("changed_modseq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "mailbox_id", name=op.f("pk_mailbox")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_mailbox_account_id_name")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mailbox_state",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uidnext", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("messages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unseen", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("deleted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("octets", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("highestmodseq", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("recent_from", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("expunged_floor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "mailbox_id", name=op.f("pk_mailbox_state")),
        postgresql_with={"fillfactor": 50},
        sqlite_with_rowid=False,
    )
    op.create_table(
        "message",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("email_id", sa.BigInteger(), nullable=False),
        sa.Column("flags", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.Column("octets", sa.BigInteger(), nullable=False),
        sa.Column("internaldate", sa.BigInteger(), nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "mailbox_id", "uid", name=op.f("pk_message")),
        sa.UniqueConstraint("account_id", "entry_id", name=op.f("uq_message_account_id_entry_id")),
        postgresql_with={"fillfactor": 85},
        sqlite_with_rowid=False,
    )
    op.create_index("ix_message_email_id", "message", ["email_id"], unique=False)
    op.create_index(
        "ix_message_account_id_mailbox_id_modseq",
        "message",
        ["account_id", "mailbox_id", "modseq"],
        unique=False,
    )
    op.create_index(
        "ix_message_unseen",
        "message",
        ["account_id", "mailbox_id", "uid"],
        unique=False,
        sqlite_where=sa.text("(flags & 1) = 0"),
        postgresql_where=sa.text("(flags & 1) = 0"),
    )
    op.create_table(
        "node",
        sa.Column("node_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node")),
    )
    op.create_table(
        "subscription",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_subscription")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "upload",
        sa.Column("content_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("content_id", name=op.f("pk_upload")),
        sqlite_with_rowid=False,
    )

    if op.get_bind().dialect.name == "postgresql":
        # Mail compresses badly and is read in slices.
        op.execute("ALTER TABLE content ALTER COLUMN data SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE content_chunk ALTER COLUMN data SET STORAGE EXTERNAL")
