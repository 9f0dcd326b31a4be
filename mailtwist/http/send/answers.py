"""The answers of ``/send``: the two members that scripts look for, and errors in one shape.

An error has all that any client of Dinky Server reads: ``success`` and ``message`` as its
program answered, ``error`` and ``details`` as its handbook says.
"""

from __future__ import annotations

from typing import Final

from mailtwist.errors import MailError
from mailtwist.http.exchange import Answer, WrongMethod, json_answer

FAILED: Final = "Failed to send email"
INVALID: Final = "Invalid request format"
PATH: Final = "/send"


class Invalid(MailError):
    """The body cannot be read; the text says where."""

    http_status = 400


class Missing(MailError):
    """What every letter needs is not there."""

    http_status = 400


class Failed(MailError):
    """Every recipient was refused for good; the text is what was said of the first.

    ``queue_id`` 0: nothing was written.
    """

    http_status = 500
    queue_id = 0


def sent(queue_id: int) -> Answer:
    return json_answer(
        {"success": True, "message": "Email sent successfully"},
        headers=(("Location", f"{PATH}/{queue_id}"),),
    )


def refuse(error: MailError) -> Answer:
    """How an error of ``/send`` looks, also where there is no route."""
    text = _text(error)
    if error.http_status >= 500:
        answer = _union(error.http_status, f"{FAILED}: {text}", FAILED, text)
    elif isinstance(error, Invalid) or error.http_status == 413:
        answer = _union(error.http_status, f"{INVALID}: {text}", INVALID, text)
    else:
        answer = _union(error.http_status, text, text, text)
    if isinstance(error, Failed) and error.queue_id:
        return answer.with_header("Location", f"{PATH}/{error.queue_id}")
    return answer


def refuse_look(error: MailError) -> Answer:
    """How an error of ``GET /send/<id>`` looks."""
    text = _text(error)
    return _union(error.http_status, text, text, text)


def _text(error: MailError) -> str:
    if isinstance(error, WrongMethod) and error.allowed:
        names = [name for name in error.allowed if name not in ("HEAD", "OPTIONS")]
        return f"Only {' and '.join(names)} method is allowed"
    return error.text


def _union(status: int, message: str, error: str, details: str) -> Answer:
    return json_answer(
        {"success": False, "message": message, "error": error, "details": details}, status
    )
