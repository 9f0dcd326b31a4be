"""Messages of the queue become rows, and rows become messages again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store import changes
from mailtwist.store.content import Spooled
from mailtwist.store.queue import destinations
from mailtwist.store.queue.values import Lease, Message, Notify, Priority, Recipient, State
from mailtwist.store.sql import Statement, is_postgresql, many

# The generation that is raised when recipients may be due, or must no longer be delivered.
KIND: Final = "queue"

_INSERT_MESSAGE = Statement(
    """
    INSERT INTO queue_message (queue_id, content_id, octets, header_octets, prefix, hostname,
        account_id, reverse_path, envid, ret, body, smtputf8, requiretls, priority, unfinished,
        received_at, expires_at, attend_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
_INSERT_RECIPIENT = Statement(
    """
    INSERT INTO queue_recipient (queue_id, n, address, destination, original, forwarded_by,
        orcpt, notify, state, priority, due_at, lease_until, node_id, attempts, was_warned)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
_MESSAGES = Statement(
    """
    SELECT queue_id, reverse_path, received_at, expires_at, attend_at, prefix, hostname,
        account_id, envid, ret, body, smtputf8, requiretls, priority, content_id, octets,
        header_octets
    FROM queue_message WHERE queue_id {numbers}
    """
)

# What a claim returns of each recipient, in the order that :func:`messages` expects.
RECIPIENT_COLUMNS: Final = (
    "queue_id, n, address, destination, original, forwarded_by, orcpt, notify, attempts,"
    " was_warned, code, status, reply"
)


def insert(connection: Connection, items: Sequence[tuple[Message, Spooled, Lease | None]]) -> None:
    """Write messages with their recipients: a fixed number of statements for any number.

    Without a lease they wait and are due at once. The contents are written by the caller.
    """
    _INSERT_MESSAGE.each(connection, [_message_row(item, spooled) for item, spooled, _ in items])
    recipients = [
        _recipient_row(message, recipient, lease)
        for message, _, lease in items
        for recipient in message.recipients
    ]
    _INSERT_RECIPIENT.each(connection, recipients)
    waiting = [
        (recipient.destination, message.received_at)
        for message, _, lease in items
        if lease is None
        for recipient in message.recipients
    ]
    if waiting:
        destinations.expect(connection, waiting)
        tell(connection)


def _message_row(message: Message, spooled: Spooled) -> tuple[Any, ...]:
    return (
        message.queue_id, spooled.content_id, spooled.octets, spooled.structure.header_octets,
        message.prefix, message.hostname, message.account_id, message.reverse_path,
        message.envid, message.ret, message.body, int(message.smtputf8),
        int(message.requiretls), int(message.priority), len(message.recipients),
        message.received_at, message.expires_at, message.attend_at,
    )  # fmt: skip


def _recipient_row(message: Message, recipient: Recipient, lease: Lease | None) -> tuple[Any, ...]:
    state, until, node_id = State.WAITING, 0, 0
    if lease is not None:
        state, until, node_id = State.LEASED, lease.until, lease.node_id
    return (
        message.queue_id, recipient.n, recipient.address, recipient.destination,
        recipient.original, recipient.forwarded_by, recipient.orcpt, int(recipient.notify),
        int(state), int(message.priority), message.received_at, until, node_id,
        recipient.attempts, int(recipient.was_warned),
    )  # fmt: skip


def tell(connection: Connection) -> None:
    """Report that the runners should look at the queue."""
    if is_postgresql(connection):
        # Its listener tells the other nodes; the generation's row would make all batches queue.
        changes.pending(connection).kinds.add(KIND)
    else:
        changes.bump(connection, KIND)


def messages(connection: Connection, recipients: Iterable[Sequence[Any]]) -> list[Message]:
    """Read the messages of recipients, given as rows of :data:`RECIPIENT_COLUMNS`.

    Those of one message and one destination make one value. Urgent ones stand first, then the
    older ones.
    """
    parts: dict[tuple[int, str], list[Recipient]] = {}
    for row in recipients:
        recipient = _recipient(row)
        parts.setdefault((row[0], recipient.destination), []).append(recipient)
    return sorted(_joined(connection, parts), key=lambda item: (item.priority, item.queue_id))


def whole_messages(connection: Connection, recipients: Iterable[Sequence[Any]]) -> list[Message]:
    """As :func:`messages`, but those of one message make one value, whatever their destination."""
    parts: dict[tuple[int, str], list[Recipient]] = {}
    for row in recipients:
        parts.setdefault((row[0], ""), []).append(_recipient(row))
    return sorted(_joined(connection, parts), key=lambda item: item.queue_id)


def _recipient(row: Sequence[Any]) -> Recipient:
    (_, n, address, destination, original, forwarded_by, orcpt, notify, attempts, was_warned, code,
     status, reply) = row  # fmt: skip
    return Recipient(
        n, address, destination, original, forwarded_by, orcpt, Notify(notify), attempts,
        bool(was_warned), code, status, reply,
    )  # fmt: skip


def _joined(
    connection: Connection, parts: Mapping[tuple[int, str], list[Recipient]]
) -> Iterator[Message]:
    if not parts:
        return
    wanted = many(connection, {queue_id for queue_id, _ in parts})
    rows = {row[0]: row for row in _MESSAGES(connection, (wanted,))}
    for (queue_id, _), recipients in parts.items():
        recipients.sort(key=lambda recipient: recipient.n)
        yield _message(rows[queue_id], tuple(recipients))


def _message(row: Sequence[Any], recipients: tuple[Recipient, ...]) -> Message:
    (queue_id, reverse_path, received_at, expires_at, attend_at, prefix, hostname, account_id,
     envid, ret, body, smtputf8, requiretls, priority, content_id, octets,
     header_octets) = row  # fmt: skip
    return Message(
        queue_id, reverse_path, recipients, received_at, expires_at, attend_at, bytes(prefix),
        hostname, account_id, envid, ret, body, bool(smtputf8), bool(requiretls),
        Priority(priority), content_id, octets, header_octets,
    )  # fmt: skip
