"""The tables of outgoing mail; what their rows mean stands in :mod:`.values`."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, SmallInteger, Table, Text, text

from mailtwist.store.schema import Rowid, key, metadata, number

# What the queue knows of a message. content_id is 0 once nobody needs the content any more.
queue_message = Table(
    "queue_message",
    metadata,
    Column("queue_id", Rowid, primary_key=True, autoincrement=False),
    number("content_id"),
    number("octets"),  # of the content, without the prefix
    number("header_octets"),  # of the content's header block, its blank line counted
    Column("prefix", LargeBinary, nullable=False),  # stands before the content
    Column("hostname", Text, nullable=False),  # to greet the next hop with; "": the server's
    number("account_id"),  # who submitted it; 0: nobody
    Column("reverse_path", Text, nullable=False),  # "": the null path
    Column("envid", Text, nullable=False),
    Column("ret", Text, nullable=False),  # "", FULL, HDRS
    Column("body", Text, nullable=False),  # 7BIT, 8BITMIME, BINARYMIME
    Column("smtputf8", SmallInteger, nullable=False),
    Column("requiretls", SmallInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("held", SmallInteger, nullable=False, server_default=text("0")),
    Column("unfinished", Integer, nullable=False),  # how many of its recipients
    Column("failed", Integer, nullable=False, server_default=text("0")),  # and of these
    number("received_at"),
    number("expires_at"),
    number("attend_at"),  # a delay is to be reported, or it expires
    number("finished_at", nullable=True),
)
_submitted = text("account_id <> 0")
Index(
    "ix_queue_message_account_id",
    queue_message.c.account_id,
    queue_message.c.queue_id,
    sqlite_where=_submitted,
    postgresql_where=_submitted,
)
Index("ix_queue_message_content_id", queue_message.c.content_id)
_open = text("finished_at IS NULL")
Index(
    "ix_queue_message_attend_at",
    queue_message.c.attend_at,
    sqlite_where=_open,
    postgresql_where=_open,
)
_finished = text("finished_at IS NOT NULL")
Index(
    "ix_queue_message_finished_at",
    queue_message.c.finished_at,
    sqlite_where=_finished,
    postgresql_where=_finished,
)
# Messages leave this one when their content is given up; without it each sweep would pass all
# that finished within the week.
_spent = text("finished_at IS NOT NULL AND failed = 0 AND content_id <> 0")
Index(
    "ix_queue_message_spent",
    queue_message.c.finished_at,
    sqlite_where=_spent,
    postgresql_where=_spent,
)
_failed = text("failed > 0")
Index(
    "ix_queue_message_failed",
    queue_message.c.queue_id,
    sqlite_where=_failed,
    postgresql_where=_failed,
)

# One row for each recipient: whoever claims, delivers and gives up does so for one of these.
queue_recipient = Table(
    "queue_recipient",
    metadata,
    key("queue_id"),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("original", Text, nullable=False),
    Column("forwarded_by", Text, nullable=False),
    Column("orcpt", Text, nullable=False),
    Column("notify", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),  # mailtwist.store.queue.values.State
    Column("priority", SmallInteger, nullable=False),
    number("due_at"),
    number("lease_until"),  # 0: not leased
    number("node_id"),  # who leased it last
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("was_warned", SmallInteger, nullable=False, server_default=text("0")),
    Column("code", Integer, nullable=False, server_default=text("0")),  # these three: what the
    Column("status", Text, nullable=False, server_default=""),  # other side said last
    Column("reply", Text, nullable=False, server_default=""),
    number("ended_at", nullable=True),
    sqlite_with_rowid=False,
)
# Its columns are all that a claim reads to choose, and rows of one message stand together.
_waiting = text("state = 0")
Index(
    "ix_queue_recipient_waiting",
    queue_recipient.c.destination,
    queue_recipient.c.priority,
    queue_recipient.c.due_at,
    queue_recipient.c.queue_id,
    queue_recipient.c.n,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
_leased = text("state = 1")
Index(
    "ix_queue_recipient_leased",
    queue_recipient.c.lease_until,
    sqlite_where=_leased,
    postgresql_where=_leased,
)

# What backs off as a whole. next_due is never later than the first of its waiting recipients,
# unless the destination is suspended; it may be earlier, which costs a look in vain.
queue_destination = Table(
    "queue_destination",
    metadata,
    Column("name", Text, primary_key=True),
    number("next_due"),
    number("suspended_until", 0),
    Column("failures", Integer, nullable=False, server_default=text("0")),  # in a row
    Column("reply", Text, nullable=False, server_default=""),
    number("since", 0),  # when the failures began
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 50},
)
Index("ix_queue_destination_next_due", queue_destination.c.next_due)

# Every attempt, so that "why?" has an answer.
queue_attempt = Table(
    "queue_attempt",
    metadata,
    key("queue_id"),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    number("started_at"),
    number("ended_at"),
    Column("host", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("tls", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("code", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("outcome", SmallInteger, nullable=False),  # mailtwist.store.queue.values.Outcome
    sqlite_with_rowid=False,
)

# Foreign addresses that were refused for good.
suppression = Table(
    "suppression",
    metadata,
    Column("address", Text, primary_key=True),  # folded
    Column("bounces", Integer, nullable=False),
    number("since"),
    number("last_at"),
    Column("reply", Text, nullable=False),
    number("queue_id"),  # of the last bounce
    sqlite_with_rowid=False,
)
