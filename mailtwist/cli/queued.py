"""Messages of the queue as JSON and as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mailtwist.store.queue.listing import Listed, Viewed, ViewedRecipient
    from mailtwist.store.queue.suppression import Suppressed
    from mailtwist.store.queue.values import Attempt

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def stamp(microseconds: int) -> str:
    """A time of the store in ISO 8601, in UTC; "" for 0."""
    return _moment(microseconds).isoformat(timespec="milliseconds") if microseconds else ""


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def clean(text: str) -> str:
    """What a peer said, without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


# -- JSON -----------------------------------------------------------------------------------


def listed(found: Listed) -> dict[str, Any]:
    """A line of ``queue list``. ``recipients`` may be cut; ``recipient_count`` is not."""
    return {
        "id": str(found.queue_id),
        "state": found.state,
        "sender": found.sender,
        "recipients": list(found.recipients),
        "recipient_count": found.recipient_count,
        "last_error": found.last_error,
        "attempt_count": found.attempts,
        "received_at": stamp(found.received_at),
        "next_attempt_at": stamp(found.due_at),
        "expires_at": stamp(found.expires_at),
        "octets": found.octets,
        "priority": found.priority.name.lower(),
    }


def viewed(found: Viewed) -> dict[str, Any]:
    """``queue view``: as in the list, all recipients, ``details`` of each, every attempt."""
    return {
        **listed(found.listed),
        "recipients": [each.address for each in found.recipients],
        "finished_at": stamp(found.listed.finished_at),
        "envid": found.envid,
        "ret": found.ret,
        "body": found.body,
        "smtputf8": found.smtputf8,
        "requiretls": found.requiretls,
        "content_kept": bool(found.content_id),
        "details": [_details(each) for each in found.recipients],
        "attempts": [
            _attempt(each, tried.number, tried.attempt)
            for each in found.recipients
            for tried in each.tried
        ],
        "destinations": [
            {
                "name": each.name,
                "failures": each.failures,
                "suspended_until": stamp(each.suspended_until),
                "reply": each.reply,
            }
            for each in found.destinations
        ],
    }


def _details(found: ViewedRecipient) -> dict[str, Any]:
    return {
        "address": found.address,
        "state": found.state,
        "destination": found.destination,
        "original": found.original,
        "forwarded_by": found.forwarded_by,
        "orcpt": found.orcpt,
        "notify": "" if not found.notify else (found.notify.name or "").replace("|", ","),
        "attempts": found.attempts,
        "last_error": found.last_error,
        "next_attempt_at": stamp(found.due_at) if found.state in {"active", "deferred"} else "",
        "was_warned": found.was_warned,
        "ended_at": stamp(found.ended_at),
    }


def _attempt(recipient: ViewedRecipient, number: int, attempt: Attempt) -> dict[str, Any]:
    return {
        "recipient": recipient.address,
        "number": number,
        "outcome": attempt.outcome.name.lower(),
        "code": attempt.code,
        "status": attempt.status,
        "reply": attempt.text,
        "stage": attempt.stage,
        "host": attempt.host,
        "address": attempt.address,
        "tls": attempt.tls,
        "started_at": stamp(attempt.started_at),
        "ended_at": stamp(attempt.ended_at),
    }


def suppressed(found: Suppressed) -> dict[str, Any]:
    return {
        "address": found.address,
        "bounces": found.bounces,
        "since": stamp(found.since),
        "last_at": stamp(found.last_at),
        "reply": found.reply,
        "queue_id": str(found.queue_id),
    }


# -- text -----------------------------------------------------------------------------------


def ago(microseconds: int, now: int) -> str:
    """How far a time is from now: "3 min ago", "in 2 h"."""
    seconds = abs(now - microseconds) // 1_000_000
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            text = f"{seconds // size} {unit}"
            break
    else:
        text = f"{seconds} s"
    return f"in {text}" if microseconds > now else f"{text} ago"


def row(found: Listed, now: int) -> dict[str, str]:
    """A line of the table that people read."""
    more = found.recipient_count - 1
    first = clean(found.recipients[0]) if found.recipients else ""
    return {
        "id": str(found.queue_id),
        "state": found.state,
        "age": ago(found.received_at, now).removesuffix(" ago"),
        "next": ago(found.due_at, now) if found.due_at > now else "",
        "sender": clean(found.sender) or "<>",
        "recipients": f"{first} +{more}" if more > 0 else first,
        "last_error": _cut(clean(found.last_error)),
    }


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def lines(found: Viewed, now: int) -> Iterator[str]:
    """``queue view`` for people: the message, then for each recipient what was tried."""
    line = found.listed
    yield f"{line.queue_id}  {line.state}"
    yield f"  sender    {clean(line.sender) or '<>'}"
    yield f"  received  {_when(line.received_at, now)}"
    if line.finished_at:
        yield f"  finished  {_when(line.finished_at, now)}"
    else:
        yield f"  expires   {_when(line.expires_at, now)}"
    kept = "" if found.content_id else ", no longer kept"
    yield f"  size      {line.octets} octets{kept}"
    for each in found.recipients:
        yield from _recipient_lines(each, now)
    for destination in found.destinations:
        if destination.suspended_until > now:
            until = _when(destination.suspended_until, now)
            yield ""
            yield f"{clean(destination.name)} backs off until {until}"
            yield f"  {clean(destination.reply)}"


def host(attempt: Attempt) -> str:
    """The host's name and address; the address alone where no name was asked for."""
    name = "" if attempt.host in attempt.address else attempt.host
    return clean(" ".join(filter(None, (name, attempt.address))))


def _when(microseconds: int, now: int) -> str:
    return f"{_moment(microseconds):%Y-%m-%d %H:%M:%S} UTC ({ago(microseconds, now)})"


def _recipient_lines(found: ViewedRecipient, now: int) -> Iterator[str]:
    yield ""
    way = f" (forwarded by {clean(found.forwarded_by)})" if found.forwarded_by else ""
    yield f"{clean(found.address)}{way}  {found.state}"
    for tried in found.tried:
        attempt = tried.attempt
        where = " ".join(filter(None, (host(attempt), clean(attempt.tls))))
        yield f"  {tried.number}. {_moment(attempt.started_at):%Y-%m-%d %H:%M:%S}  {where}"
        said = (str(attempt.code or ""), attempt.status, attempt.text)
        stage = f" [{attempt.stage}]" if attempt.stage else ""
        yield f"     {attempt.outcome.name.lower()}: {clean(' '.join(filter(None, said)))}{stage}"
    if found.state == "deferred":
        yield f"  next attempt {_when(found.due_at, now)}"
