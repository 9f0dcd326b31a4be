"""The tables of accounts and mail, in SQLAlchemy Core, the same on SQLite and PostgreSQL.

Times are integer microseconds since 1970 (UTC). ``content_id`` and
``received_as`` are 63-bit, time-ordered and made by the node
(:mod:`mailtwist.store.ids`). Mailbox, entry and e-mail numbers count inside
their account, from ``account_state``. Low-volume tables carry a UUIDv7
``reference_id`` that the outside may keep.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from mailtwist.store.schema import Rowid, key, metadata, number

# -- the nodes that share the database ------------------------------------------------------

node = Table(
    "node",
    metadata,
    Column("node_id", Integer, primary_key=True, autoincrement=False),  # 0 to 1023
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    number("seen_at"),
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    number("node_id"),
    number("until"),
)

# One counter for each kind of cached fact; whoever changes one of them raises it.
generation = Table(
    "generation",
    metadata,
    Column("kind", Text, primary_key=True),
    number("n", 0),
)

# -- who receives ---------------------------------------------------------------------------

domain = Table(
    "domain",
    metadata,
    Column("domain_id", Rowid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # A-labels, lower case
    Column("kind", Text, nullable=False, server_default="local"),  # local | inbox | relay
    Column("catch_all", Text, nullable=False, server_default=""),  # an address, or none
    Column("delimiter", Text, nullable=False, server_default="+"),  # of sub-addresses
    Column("enabled", SmallInteger, nullable=False, server_default=text("1")),
    Column("reference_id", Text, nullable=False, unique=True),
    number("created_at"),
    number("updated_at"),
    number("owner_user_id", 0),  # 0: nobody
    number("permission", 561_441),  # mailtwist.mail.permissions
)

# RCPT is one look-up here. local_part is folded to lower case.
address = Table(
    "address",
    metadata,
    key("domain_id"),
    Column("local_part", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # account | alias
    number("account_id", nullable=True),
    Column("reference_id", Text, nullable=True),  # of an alias
    number("created_at", 0),
    number("updated_at", 0),
    sqlite_with_rowid=False,
)
Index("ix_address_account_id", address.c.account_id)
_named = text("reference_id IS NOT NULL")
Index(
    "ix_address_reference_id",
    address.c.reference_id,
    unique=True,
    sqlite_where=_named,
    postgresql_where=_named,
)

address_target = Table(
    "address_target",
    metadata,
    key("domain_id"),
    Column("local_part", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("target", Text, nullable=False),
    sqlite_with_rowid=False,
)
Index("ix_address_target_target", address_target.c.target)

account = Table(
    "account",
    metadata,
    Column("account_id", Rowid, primary_key=True),
    Column("username", Text, nullable=False, unique=True),  # the address, folded
    number("domain_id"),
    Column("state", Text, nullable=False, server_default="active"),  # active | disabled | removing
    number("quota_octets", 0),  # 0: no limit
    number("quota_messages", 0),
    number("auth_version", 1),  # raised with each password change
    Column("reference_id", Text, nullable=False, unique=True),
    number("created_at"),
    number("updated_at"),
    number("owner_user_id", 0),  # 0: nobody
    number("mail_server_id", 0),  # 0: none
    number("permission", 16_256),  # mailtwist.mail.permissions; its mail has the same
    sqlite_autoincrement=True,  # the number of a removed account never comes back
)
Index("ix_account_owner_user_id", account.c.owner_user_id)

account_secret = Table(
    "account_secret",
    metadata,
    key("account_id"),
    Column("secret_id", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # bcrypt | scram-sha-256
    Column("verifier", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    number("created_at"),
    sqlite_with_rowid=False,
)

# Failed logins, by account and by address, so that a lock-out survives a restart.
login_failure = Table(
    "login_failure",
    metadata,
    Column("scope", Text, primary_key=True),  # account | address
    Column("subject", Text, primary_key=True),
    number("failures", 0),
    number("window_start"),
    number("locked_until", 0),
    sqlite_with_rowid=False,
)

# What clients did within a time that ends, for rates that all nodes count together.
rate_count = Table(
    "rate_count",
    metadata,
    Column("scope", Text, primary_key=True),  # a rule of mailtwist.policy.rates
    Column("subject", Text, primary_key=True),  # an address, a network or a user name
    number("n"),
    number("ends_at"),
    sqlite_with_rowid=False,
)

# What was sent over HTTP, as it was known when it was taken (store.send_requests).
send_request = Table(
    "send_request",
    metadata,
    Column("queue_id", Rowid, primary_key=True, autoincrement=False),
    Column("scope", Text, nullable=False),  # who asked
    Column("sender", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("recipients", Text, nullable=False),  # JSON: [address, state, reply] of each
    number("created_at"),
)
Index("ix_send_request_created_at", send_request.c.created_at)

# The answers under idempotency keys, for a day.
send_key = Table(
    "send_key",
    metadata,
    Column("name", Text, primary_key=True),  # a digest of who asks and of his key
    Column("digest", Text, nullable=False),  # of the request's body
    number("queue_id"),
    Column("status", Integer, nullable=False),
    Column("details", Text, nullable=False),
    number("created_at"),
    sqlite_with_rowid=False,
)
Index("ix_send_key_created_at", send_key.c.created_at)

# The keys that outgoing mail is signed with.
dkim_key = Table(
    "dkim_key",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("selector", Text, primary_key=True),
    Column("algorithm", Text, nullable=False),  # rsa-sha256 | ed25519-sha256
    Column("configured", Text, nullable=False),  # the setting dkim.selector when it was made
    Column("private_key", Text, nullable=False),  # sealed; empty when retired
    Column("public_key", Text, nullable=False),  # base64, as published
    Column("state", Text, nullable=False),  # active | next | retired
    number("created_at"),
    number("retired_at", 0),
    sqlite_with_rowid=False,
)

# -- what an account holds ------------------------------------------------------------------

account_state = Table(
    "account_state",
    metadata,
    key("account_id"),
    number("modseq", 1),  # one counter for all mailboxes, taken under this row's lock
    number("next_mailbox", 1),
    number("next_entry", 1),  # numbers entries and e-mails alike
    number("next_uidvalidity", 1),
    number("octets", 0),
    number("messages", 0),
    postgresql_with={"fillfactor": 50},
)

mailbox = Table(
    "mailbox",
    metadata,
    key("account_id"),
    key("mailbox_id"),
    Column("name", Text, nullable=False),  # Unicode, levels parted by "/", INBOX in capitals
    Column("special_use", Text, nullable=False, server_default=""),  # e.g. \Sent
    number("uidvalidity"),
    number("changed_modseq"),
    number("created_at"),
    # What clients of the REST interface said; nothing here reads it.
    Column("attributes", Text, nullable=False, server_default=""),
    Column("flags", Text, nullable=False, server_default=""),
    Column("permanent_flags", Text, nullable=False, server_default=""),
    number("permission", nullable=True),  # null: that of the account
    UniqueConstraint("account_id", "name"),
    sqlite_with_rowid=False,
)

mailbox_state = Table(
    "mailbox_state",
    metadata,
    key("account_id"),
    key("mailbox_id"),
    number("uidnext", 1),
    number("messages", 0),
    number("unseen", 0),
    number("deleted", 0),
    number("octets", 0),
    number("highestmodseq", 1),
    number("recent_from", 1),  # \Recent is uid >= recent_from
    number("expunged_floor", 0),  # below it, expunged rows were pruned
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 50},
)

subscription = Table(
    "subscription",
    metadata,
    key("account_id"),
    Column("name", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# Bits 8 to 62 of message.flags; the name is kept as first spelled.
keyword = Table(
    "keyword",
    metadata,
    key("account_id"),
    Column("bit", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("folded", Text, nullable=False),
    UniqueConstraint("account_id", "folded"),
    sqlite_with_rowid=False,
)

# Narrow and clustered: FETCH, STORE and SEARCH of flags read nothing else.
message = Table(
    "message",
    metadata,
    key("account_id"),
    key("mailbox_id"),
    key("uid"),
    number("entry_id"),  # stays the same through MOVE
    number("email_id"),  # of the email table
    number("flags", 0),  # bits: mailtwist.mail.flags
    number("modseq"),
    number("octets"),  # RFC822.SIZE: prefix and content
    number("internaldate"),
    number("saved_at"),
    UniqueConstraint("account_id", "entry_id"),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 85},
)
Index(
    "ix_message_account_id_mailbox_id_modseq",
    message.c.account_id,
    message.c.mailbox_id,
    message.c.modseq,
)
Index("ix_message_email_id", message.c.email_id)
_unseen = text("(flags & 1) = 0")
Index(
    "ix_message_unseen",
    message.c.account_id,
    message.c.mailbox_id,
    message.c.uid,
    sqlite_where=_unseen,
    postgresql_where=_unseen,
)

# What FETCH of many messages reads; never changed, and shared by the copies of a message in one
# account. The account is in the upper half of the number, so that one integer names a row: as
# SQLite's rowid it takes FETCH from each row to the next without a look into an index, and the
# e-mails of an account are one range of it. What lists of messages do not show has a table of
# its own, for SQLite reads whole pages. (m: 310 k rows a second keyed by two columns, 400 k by
# one, 550 k without the details.) Clustered by two columns SQLite would keep at most 1,000
# octets of a row in its page, and halve FETCH.
email = Table(
    "email",
    metadata,
    Column("email_id", Rowid, primary_key=True, autoincrement=False),
    number("account_id"),
    number("content_id"),
    number("octets"),  # of the content, without the prefix
    number("header_octets"),  # of the content's header block, its blank line counted
    Column("prefix", LargeBinary, nullable=False),  # trace headers before the content
    Column("envelope", LargeBinary, nullable=False),  # ready for the wire, as the next one
    Column("bodystructure", LargeBinary, nullable=False),
)
Index("ix_email_content_id", email.c.content_id)

# The other half of each e-mail: what SEARCH asks for, and what is read of one message.
email_detail = Table(
    "email_detail",
    metadata,
    Column("email_id", Rowid, primary_key=True, autoincrement=False),
    number("account_id"),
    Column("body", LargeBinary, nullable=False),  # FETCH's BODY, ready for the wire
    Column("parts", LargeBinary, nullable=False),  # mailtwist.mail.parts
    number("sent_at", nullable=True),  # the Date field
    Column("sent_day", Integer, nullable=True),  # days since 1970, as its sender wrote it
    Column("message_id", Text, nullable=False),
    Column("subject", Text, nullable=False),  # decoded
    Column("folded_subject", Text, nullable=False),  # these five: decoded, case-folded
    Column("folded_from", Text, nullable=False),
    Column("folded_to", Text, nullable=False),
    Column("folded_cc", Text, nullable=False),
    Column("folded_bcc", Text, nullable=False),
    Column("has_attachment", SmallInteger, nullable=False),
    Column("return_path", Text, nullable=True),  # null: not by SMTP; "": the null path
    Column("recipient", Text, nullable=False, server_default=""),
    Column("client_address", Text, nullable=False, server_default=""),
    Column("is_tls", SmallInteger, nullable=False, server_default=text("0")),
    number("received_as", nullable=True),  # the id of "queued as"
    Column("spam_score", Float, nullable=False, server_default=text("0")),
    # What the checks found, as Authentication-Results says it; "": nothing was to be found.
    Column("verdicts", Text, nullable=False, server_default=""),
)
Index("ix_email_detail_account_id_message_id", email_detail.c.account_id, email_detail.c.message_id)

# One row for each operation that expunged: what a session that knows an older state must drop.
expunged = Table(
    "expunged",
    metadata,
    key("account_id"),
    key("mailbox_id"),
    key("modseq"),
    Column("uids", Text, nullable=False),  # a UID set: "3:9,12"
    number("at"),
    sqlite_with_rowid=False,
)

# What happened to messages, for a while. Numbered in the order it was written; on PostgreSQL
# that is not quite the order in which it is seen: a transaction may end after a later one.
event = Table(
    "event",
    metadata,
    Column("event_id", Rowid, primary_key=True),
    number("account_id"),  # who received or submitted; 0: nobody
    Column("kind", Text, nullable=False),  # received | delivered | deferred | bounced
    number("at"),
    Column("data", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,  # the number of a swept event never comes back
)

# -- captured mail --------------------------------------------------------------------------

# The inboxes whose mail is read over HTTP and kept for a while: one row for each address that a
# message in the INBOX of a capturing account (mailtwist.store.inbox) was captured for. It goes
# with its message, and when that leaves INBOX.
inbox_message = Table(
    "inbox_message",
    metadata,
    key("account_id"),
    Column("local_part", Text, primary_key=True),  # folded, tag and all: the inbox's name
    key("queue_id"),  # of "queued as": the message's name over HTTP
    Column("domain", Text, primary_key=True),  # A-labels, lower case; "": none was given
    number("entry_id"),
    Column("address", Text, nullable=False),  # as spelled
    number("received_at"),
    sqlite_with_rowid=False,
)
Index("ix_inbox_message_account_id_entry_id", inbox_message.c.account_id, inbox_message.c.entry_id)
Index("ix_inbox_message_account_id_queue_id", inbox_message.c.account_id, inbox_message.c.queue_id)
Index("ix_inbox_message_received_at", inbox_message.c.received_at)

# Whatever a project's login or keys send is captured in its account.
project = Table(
    "project",
    metadata,
    Column("project_id", Rowid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # a-z, 0-9 and hyphens
    Column("account_id", BigInteger, nullable=False, unique=True),
    Column("reference_id", Text, nullable=False, unique=True),
    number("owner_user_id", 0),  # 0: nobody
    number("permission", 16_256),  # mailtwist.mail.permissions
    number("created_at"),
    number("updated_at"),
)
Index("ix_project_owner_user_id", project.c.owner_user_id)

# -- octets ---------------------------------------------------------------------------------

content = Table(
    "content",
    metadata,
    Column("content_id", Rowid, primary_key=True, autoincrement=False),
    number("octets"),
    Column("sha256", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=True),  # up to 64 KiB; null: chunks
)

content_chunk = Table(
    "content_chunk",
    metadata,
    Column("chunk_id", Rowid, primary_key=True),
    number("content_id"),
    Column("n", Integer, nullable=False),
    number("start"),  # offset of the first octet
    Column("data", LargeBinary, nullable=False),  # at most 1 MiB
    UniqueConstraint("content_id", "n"),
)

# Chunks whose content row is not written yet; what a crash leaves is swept by this mark.
upload = Table(
    "upload",
    metadata,
    key("content_id"),
    number("node_id"),
    number("started_at"),
    sqlite_with_rowid=False,
)

# Contents that an expunge may have left without referent; a sweeper decides a day later.
content_doubt = Table(
    "content_doubt",
    metadata,
    key("content_id"),
    number("since"),
    sqlite_with_rowid=False,
)
