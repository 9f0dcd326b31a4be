"""What ``GET /send/<id>`` tells: what became of each recipient of one request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mailtwist.store.send_requests import (
    CAPTURED,
    DEFERRED,
    FAILED,
    QUEUED,
    REFUSED,
    Fate,
    SendRequest,
)

SENT: Final = "sent"
PARTLY: Final = "partly"
_WAITING: Final = frozenset({QUEUED, DEFERRED})
_LOST: Final = frozenset({FAILED, REFUSED})


def document(request: SendRequest, fates: Sequence[Fate]) -> dict[str, Any]:
    return {
        "id": str(request.queue_id),
        "created_at": _time(request.created_at),
        "from": request.sender,
        "subject": request.subject,
        "message_id": f"<{request.message_id}>",
        "state": state_of({fate.state for fate in fates}),
        "recipients": [_recipient(fate) for fate in fates],
    }


def state_of(states: set[str]) -> str:
    """One word for all: `queued` while anybody may still get it, then what it came to."""
    if states & _WAITING:
        return QUEUED
    if states <= _LOST:
        return FAILED
    if states == {CAPTURED}:
        return CAPTURED
    return PARTLY if states & _LOST else SENT


def _recipient(fate: Fate) -> dict[str, Any]:
    return {
        "address": fate.address,
        "state": fate.state,
        "reply": fate.reply,
        "attempts": fate.attempts,
        "next_attempt_at": _time(fate.next_attempt_at) if fate.next_attempt_at else None,
    }


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).isoformat()[:19] + "Z"
