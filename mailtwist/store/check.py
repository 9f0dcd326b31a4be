"""What must hold in every committed state of the store, as questions to the database.

Each rule is one statement that finds offenders; a healthy store has none. All are set-wise,
so that 100 000 messages take about a second. Accounts under removal are exempt from what a
removal breaks on its way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection

from mailtwist.errors import Refusal
from mailtwist.mail.flags import FIRST_KEYWORD_BIT, LAST_KEYWORD_BIT, SYSTEM
from mailtwist.store.names import HIDDEN, checked
from mailtwist.store.sql import Statement

MAX_SHOWN: Final = 5

_KEPT = "account_id IN (SELECT account_id FROM account WHERE state <> 'removing')"


def _orphans(child: str, parent: str, *keys: str) -> str:
    joined = " AND ".join(f"p.{key} = c.{key}" for key in keys)
    shown = ", ".join(f"c.{key}" for key in keys)
    return (
        f"SELECT DISTINCT {shown} FROM {child} AS c"
        f" WHERE NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {joined})"
    )


_RULES: Final[dict[str, str]] = {
    # users, groups and permissions
    "secret of no user": _orphans("user_secret", "user_account", "user_id"),
    "member who is no user": _orphans("user_group", "user_account", "user_id"),
    "member of no group": _orphans("user_group", "usergroup", "group_id"),
    "row shared with no group": _orphans("row_group", "usergroup", "group_id"),
    "action of no table": _orphans("action", "world", "world_id"),
    "key of no user": """
        SELECT api_key_id FROM api_key AS k WHERE NOT EXISTS (
            SELECT 1 FROM user_account AS u WHERE u.user_id = k.owner_user_id)""",
    "account of no user": """
        SELECT account_id FROM account AS a WHERE owner_user_id <> 0 AND NOT EXISTS (
            SELECT 1 FROM user_account AS u WHERE u.user_id = a.owner_user_id)""",
    "account of no mail server": """
        SELECT account_id FROM account AS a WHERE mail_server_id <> 0 AND NOT EXISTS (
            SELECT 1 FROM mail_server AS m WHERE m.mail_server_id = a.mail_server_id)""",
    # accounts and addresses
    "account without state": _orphans("account", "account_state", "account_id"),
    "state without account": _orphans("account_state", "account", "account_id"),
    "account without domain": _orphans("account", "domain", "domain_id"),
    "account without INBOX": f"""
        SELECT account_id FROM account AS a WHERE {_KEPT} AND NOT EXISTS (
            SELECT 1 FROM mailbox AS b WHERE b.account_id = a.account_id AND b.name = 'INBOX')""",
    "account whose name is not its address": f"""
        SELECT a.account_id FROM account AS a WHERE {_KEPT} AND NOT EXISTS (
            SELECT 1 FROM address AS d JOIN domain AS o ON o.domain_id = d.domain_id
            WHERE d.account_id = a.account_id AND d.local_part || '@' || o.name = a.username)""",
    "address without domain": _orphans("address", "domain", "domain_id"),
    "address of no account": f"""
        SELECT domain_id, local_part FROM address
        WHERE kind = 'account' AND (account_id IS NULL OR NOT {_KEPT})""",
    "address neither of an account nor an alias": """
        SELECT domain_id, local_part FROM address
        WHERE kind NOT IN ('account', 'alias') OR (kind = 'alias' AND account_id IS NOT NULL)""",
    "alias without target": """
        SELECT domain_id, local_part FROM address AS a WHERE kind = 'alias' AND NOT EXISTS (
            SELECT 1 FROM address_target AS t
            WHERE t.domain_id = a.domain_id AND t.local_part = a.local_part)""",
    "alias without id": """
        SELECT domain_id, local_part FROM address
        WHERE (kind = 'alias') <> (reference_id IS NOT NULL)""",
    "target of no alias": """
        SELECT domain_id, local_part FROM address_target AS t WHERE NOT EXISTS (
            SELECT 1 FROM address AS a
            WHERE a.domain_id = t.domain_id AND a.local_part = t.local_part
              AND a.kind = 'alias')""",
    "secret of no account": _orphans("account_secret", "account", "account_id"),
    "subscription of no account": _orphans("subscription", "account", "account_id"),
    "keyword of no account": _orphans("keyword", "account", "account_id"),
    "keyword with a bit of its own kind of flags": f"""
        SELECT account_id, bit FROM keyword
        WHERE bit NOT BETWEEN {FIRST_KEYWORD_BIT} AND {LAST_KEYWORD_BIT}
           OR folded <> lower(name)""",
    # mailboxes
    "mailbox without account": _orphans("mailbox", "account", "account_id"),
    "mailbox without state": _orphans("mailbox", "mailbox_state", "account_id", "mailbox_id"),
    "state without mailbox": _orphans("mailbox_state", "mailbox", "account_id", "mailbox_id"),
    "mailbox beyond its account's counters": """
        SELECT b.account_id, b.mailbox_id FROM mailbox AS b
        JOIN account_state AS a ON a.account_id = b.account_id
        WHERE b.mailbox_id >= a.next_mailbox OR b.uidvalidity >= a.next_uidvalidity
           OR b.changed_modseq > a.modseq OR b.uidvalidity < 1 OR b.uidvalidity > 4294967295""",
    "mailbox state out of order": """
        SELECT s.account_id, s.mailbox_id FROM mailbox_state AS s
        JOIN account_state AS a ON a.account_id = s.account_id
        WHERE s.highestmodseq > a.modseq OR s.recent_from > s.uidnext
           OR s.expunged_floor > s.highestmodseq OR s.uidnext < 1""",
    "mailbox counters that are not the counts": f"""
        SELECT s.account_id, s.mailbox_id FROM mailbox_state AS s LEFT JOIN (
            SELECT account_id, mailbox_id, count(*) AS messages, sum(octets) AS octets,
                   sum(CASE WHEN flags & 1 = 0 THEN 1 ELSE 0 END) AS unseen,
                   sum(CASE WHEN flags & 8 <> 0 THEN 1 ELSE 0 END) AS deleted,
                   max(uid) AS uid, max(modseq) AS modseq, min(uid) AS lowest
            FROM message GROUP BY account_id, mailbox_id) AS m
        ON m.account_id = s.account_id AND m.mailbox_id = s.mailbox_id
        WHERE s.{_KEPT} AND (
              s.messages <> coalesce(m.messages, 0) OR s.octets <> coalesce(m.octets, 0)
           OR s.unseen <> coalesce(m.unseen, 0) OR s.deleted <> coalesce(m.deleted, 0)
           OR s.uidnext <= coalesce(m.uid, 0) OR s.highestmodseq < coalesce(m.modseq, 0)
           OR coalesce(m.lowest, 1) < 1)""",
    "account counters that are not the counts": f"""
        SELECT a.account_id FROM account_state AS a LEFT JOIN (
            SELECT account_id, count(*) AS messages, sum(octets) AS octets,
                   max(entry_id) AS entry_id
            FROM message GROUP BY account_id) AS m
        ON m.account_id = a.account_id
        WHERE a.{_KEPT} AND (
              a.messages <> coalesce(m.messages, 0) OR a.octets <> coalesce(m.octets, 0)
           OR a.next_entry <= coalesce(m.entry_id, 0))""",
    "expunged row of no mailbox": f"""
        {_orphans("expunged", "mailbox", "account_id", "mailbox_id")} AND c.{_KEPT}""",
    "expunged row above its mailbox's modseq": """
        SELECT e.account_id, e.mailbox_id, e.modseq FROM expunged AS e
        JOIN mailbox_state AS s
          ON s.account_id = e.account_id AND s.mailbox_id = e.mailbox_id
        WHERE e.modseq > s.highestmodseq""",
    # messages
    "message without mailbox": _orphans("message", "mailbox", "account_id", "mailbox_id"),
    "message without e-mail": _orphans("message", "email", "account_id", "email_id"),
    "e-mail without account": _orphans("email", "account", "account_id"),
    "e-mail whose number is not its account's": f"""
        SELECT e.email_id FROM email AS e
        JOIN account_state AS a ON a.account_id = e.account_id
        WHERE e.email_id >> 32 <> e.account_id OR a.next_entry <= (e.email_id & {2**32 - 1})""",
    "e-mail without message": f"""
        {_orphans("email", "message", "account_id", "email_id")} AND c.{_KEPT}""",
    "message of another size than its e-mail": """
        SELECT m.account_id, m.mailbox_id, m.uid FROM message AS m JOIN email AS e
          ON e.email_id = m.email_id
        WHERE m.octets <> length(e.prefix) + e.octets""",
    "message with flags of no meaning": f"""
        SELECT account_id, mailbox_id, uid FROM message
        WHERE flags < 0 OR flags & {(1 << FIRST_KEYWORD_BIT) - 1 - sum(SYSTEM.values())} <> 0""",
    "e-mail without details": _orphans("email", "email_detail", "account_id", "email_id"),
    "details without e-mail": _orphans("email_detail", "email", "account_id", "email_id"),
    # captured mail
    "inbox row of no account": _orphans("inbox_message", "account", "account_id"),
    "inbox row whose message is not in INBOX": f"""
        SELECT i.account_id, i.local_part, i.queue_id FROM inbox_message AS i
        WHERE i.{_KEPT} AND NOT EXISTS (
            SELECT 1 FROM message AS m
            JOIN mailbox AS b ON b.account_id = m.account_id AND b.mailbox_id = m.mailbox_id
            JOIN email_detail AS d ON d.email_id = m.email_id
            WHERE m.account_id = i.account_id AND m.entry_id = i.entry_id
              AND b.name = 'INBOX' AND d.received_as = i.queue_id)""",
    "project of another account than its own": """
        SELECT name FROM project AS p WHERE NOT EXISTS (
            SELECT 1 FROM account AS a
            WHERE a.account_id = p.account_id AND a.username = p.name || '@projects.invalid')""",
    "project of no user": """
        SELECT name FROM project AS p WHERE owner_user_id <> 0 AND NOT EXISTS (
            SELECT 1 FROM user_account AS u WHERE u.user_id = p.owner_user_id)""",
    # octets
    "e-mail without content": _orphans("email", "content", "content_id"),
    "e-mail of another size than its content": """
        SELECT e.account_id, e.email_id FROM email AS e JOIN content AS c
          ON c.content_id = e.content_id
        WHERE e.octets <> c.octets OR e.header_octets > e.octets OR e.header_octets < 0""",
    "content that no e-mail, message of the queue or doubt names": """
        SELECT content_id FROM content AS c
        WHERE NOT EXISTS (SELECT 1 FROM email AS e WHERE e.content_id = c.content_id)
          AND NOT EXISTS (SELECT 1 FROM queue_message AS q WHERE q.content_id = c.content_id)
          AND NOT EXISTS (SELECT 1 FROM content_doubt AS d WHERE d.content_id = c.content_id)""",
    "doubt about no content": _orphans("content_doubt", "content", "content_id"),
    "upload that is published": """
        SELECT content_id FROM upload
        WHERE content_id IN (SELECT content_id FROM content)""",
    "content of another size than its data": """
        SELECT content_id FROM content AS c WHERE octets <> CASE
            WHEN data IS NOT NULL THEN length(data)
            ELSE (SELECT coalesce(sum(length(k.data)), 0) FROM content_chunk AS k
                  WHERE k.content_id = c.content_id) END""",
    "content both whole and in chunks": """
        SELECT content_id FROM content WHERE data IS NOT NULL
          AND content_id IN (SELECT content_id FROM content_chunk)""",
    "chunk of no content and no upload": """
        SELECT DISTINCT content_id FROM content_chunk
        WHERE content_id NOT IN (SELECT content_id FROM content)
          AND content_id NOT IN (SELECT content_id FROM upload)""",
    "chunks with a gap": """
        SELECT DISTINCT content_id FROM (
            SELECT content_id, n, start,
                   row_number() OVER place - 1 AS nth,
                   sum(length(data)) OVER place - length(data) AS before
            FROM content_chunk
            WHERE content_id IN (SELECT content_id FROM content)
            WINDOW place AS (PARTITION BY content_id ORDER BY n)) AS k
        WHERE n <> nth OR start <> before""",
    # the queue
    "queue recipient without message": _orphans("queue_recipient", "queue_message", "queue_id"),
    "queue message without recipient": _orphans("queue_message", "queue_recipient", "queue_id"),
    "key of no request": _orphans("send_key", "send_request", "queue_id"),
    "attempt for no recipient": _orphans("queue_attempt", "queue_recipient", "queue_id", "n"),
    "queue message with other counts than its recipients": """
        SELECT m.queue_id FROM queue_message AS m LEFT JOIN (
            SELECT queue_id, sum(CASE WHEN state < 3 THEN 1 ELSE 0 END) AS unfinished,
                   sum(CASE WHEN state = 4 THEN 1 ELSE 0 END) AS failed
            FROM queue_recipient GROUP BY queue_id) AS r ON r.queue_id = m.queue_id
        WHERE m.unfinished <> r.unfinished OR m.failed <> r.failed
           OR (m.finished_at IS NULL) <> (m.unfinished > 0)""",
    "queue message without content": """
        SELECT queue_id FROM queue_message AS m
        WHERE (content_id = 0 AND (finished_at IS NULL OR failed > 0)) OR (content_id <> 0
           AND NOT EXISTS (SELECT 1 FROM content AS c WHERE c.content_id = m.content_id))""",
    "queue message of another size than its content": """
        SELECT m.queue_id FROM queue_message AS m JOIN content AS c
          ON c.content_id = m.content_id
        WHERE m.octets <> c.octets OR m.header_octets > m.octets OR m.header_octets < 0""",
    "queue recipient in no state": """
        SELECT queue_id, n FROM queue_recipient
        WHERE state NOT BETWEEN 0 AND 4 OR (state >= 3) <> (ended_at IS NOT NULL)
           OR (state = 1) <> (lease_until > 0)""",
    "queue recipient held apart from its message": """
        SELECT r.queue_id, r.n FROM queue_recipient AS r
        JOIN queue_message AS m ON m.queue_id = r.queue_id
        WHERE (r.state = 2 AND m.held = 0) OR (r.state = 0 AND m.held <> 0)""",
    "destination that is due later than its recipients": """
        SELECT r.destination FROM (
            SELECT destination, min(due_at) AS due_at FROM queue_recipient
            WHERE state = 0 GROUP BY destination) AS r
        LEFT JOIN queue_destination AS d ON d.name = r.destination
        WHERE d.name IS NULL OR (d.next_due > r.due_at AND d.next_due > d.suspended_until)""",
    "destination that is due while it is suspended": """
        SELECT name FROM queue_destination WHERE next_due < suspended_until OR failures < 0""",
}

_FLAGS = Statement("SELECT DISTINCT account_id, flags FROM message WHERE flags > 255")
_BITS = Statement("SELECT account_id, bit FROM keyword")
_NAMES = Statement("SELECT account_id, mailbox_id, name FROM mailbox")
_EXPUNGED = Statement("SELECT account_id, mailbox_id, uids FROM expunged")
_UIDS = Statement("SELECT uid FROM message WHERE account_id = ? AND mailbox_id = ? ORDER BY uid")


def verify(connection: Connection) -> list[str]:
    """Tell every rule that does not hold, with a few offenders; empty: the store is sound."""
    found = []
    for rule, text in _RULES.items():
        rows = Statement(f"{text} LIMIT {MAX_SHOWN + 1}")(connection).all()
        if rows:
            found.append(_violation(rule, [tuple(row) for row in rows]))
    for rule, offenders in _COMPUTED.items():
        offending = list(offenders(connection))
        if offending:
            found.append(_violation(rule, offending))
    return found


def _violation(rule: str, rows: Sequence[tuple[object, ...]]) -> str:
    shown = ", ".join("/".join(str(value) for value in row) for row in rows[:MAX_SHOWN])
    return f"{rule}: {shown}{', ...' if len(rows) > MAX_SHOWN else ''}"


def _unnamed_keywords(connection: Connection) -> Iterator[tuple[object, ...]]:
    named: dict[int, int] = {}
    for account_id, bit in _BITS(connection):
        named[account_id] = named.get(account_id, 0) | 1 << bit
    for account_id, flags in _FLAGS(connection):
        if flags >> FIRST_KEYWORD_BIT << FIRST_KEYWORD_BIT & ~named.get(account_id, 0):
            yield account_id, flags


def _odd_names(connection: Connection) -> Iterator[tuple[object, ...]]:
    for account_id, mailbox_id, name in _NAMES(connection):
        try:
            is_odd = not name.startswith(HIDDEN) and checked(name) != name
        except Refusal:
            is_odd = True
        if is_odd:
            yield account_id, mailbox_id


def _risen(connection: Connection) -> Iterator[tuple[object, ...]]:
    known: dict[tuple[int, int], list[int]] = {}
    for account_id, mailbox_id, text in _EXPUNGED(connection).all():
        key = (account_id, mailbox_id)
        if key not in known:
            known[key] = [row[0] for row in _UIDS(connection, key)]
        uids = known[key]
        for item in text.split(","):
            low, _, high = item.partition(":")
            at = bisect_left(uids, int(low))
            if at < len(uids) and uids[at] <= int(high or low):
                yield account_id, mailbox_id, uids[at]


_COMPUTED: Final[dict[str, Callable[[Connection], Iterator[tuple[object, ...]]]]] = {
    "keyword bit without a name": _unnamed_keywords,
    "mailbox with a name that is not allowed": _odd_names,
    "message that was expunged": _risen,
}
