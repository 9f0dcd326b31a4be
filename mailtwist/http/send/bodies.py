"""The body of ``POST /send`` becomes a letter, or a refusal that names the member.

Names of members are taken in any case and with or without ``_`` and ``-``, as programs write
them (``reply_to``, ``replyTo``, ``Reply-To``). What is not known is passed over, for forms send
more than a letter has; what looks like a slip of a long name is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mailtwist.actions import letters
from mailtwist.actions.letters import Letter
from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.http.bodies import UnsupportedType, read_json
from mailtwist.http.send.answers import Invalid, Missing

_MISSING: Final = {
    "to": "Recipient (to) is required",
    "subject": "Subject is required",
    "body": "Email body is required",
}
_KNOWN: Final = {
    name.replace("_", ""): name
    for name in (
        "to", "cc", "bcc", "from", "reply_to", "subject", "body", "html", "text", "headers",
        "attachments",
    )
}  # fmt: skip
_ATTACHMENT: Final = {
    name.replace("_", ""): name for name in ("filename", "content", "content_type", "content_id")
}
# Shorter names are near to other words.
_LONG: Final = 7
_JOINTS: Final = re.compile("[_-]")
_FLAGS: Final = {"true": True, "false": False}


def read(body: bytes, content_type: str, *, is_strict: bool) -> dict[str, Any]:
    """The members of a request as :func:`letter` takes them; `from` may be lacking.

    Raises: Invalid, Missing.
    """
    try:
        found = read_json(body, content_type, is_strict=is_strict)
        if not isinstance(found, dict):
            raise Invalid("an object is expected")
        given = _members(found, _KNOWN)
        _check_present(given)
        return _with_parts(given)
    except UnsupportedType as error:
        raise Invalid("application/json is expected") from error
    except ProtocolViolation as error:
        raise _invalid(error) from error


def letter(given: Mapping[str, Any], *, limit: int) -> Letter:
    """The letter that has these members; ``limit``: octets that it may have. Raises: Invalid."""
    try:
        return letters.read(given, limit=limit)
    except ProtocolViolation as error:
        raise _invalid(error) from error


def _invalid(error: MailError) -> Invalid:
    return Invalid(error.text.removeprefix("invalid value for "), detail=error.detail)


def _members(found: Mapping[str, Any], known: Mapping[str, str], where: str = "") -> dict[str, Any]:
    """What is known, under its own name. Raises: Invalid."""
    given: dict[str, Any] = {}
    for said, value in found.items():
        folded = _JOINTS.sub("", said[:50]).lower()
        name = known.get(folded)
        if name is None:
            _check_slip(said, folded, known, where)
        elif name in given:
            raise Invalid(f"{where}{name}: it is there twice")
        elif value is not None:
            given[name] = value
    return given


def _check_slip(said: str, folded: str, known: Mapping[str, str], where: str) -> None:
    if len(folded) < _LONG - 1:
        return
    for each, name in known.items():
        if len(each) >= _LONG and _is_near(folded, each):
            raise Invalid(f"{where}{ascii(said)[1:-1][:50]}: is {name} meant?")


def _is_near(one: str, other: str) -> bool:
    """Whether one letter is missing, too much or another, or two are swapped."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    is_swapped = one[:2] == other[1::-1] and one[2:] == other[2:]
    return is_swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:]


def _check_present(given: Mapping[str, Any]) -> None:
    """Raises: Missing, in the order in which Dinky Server looks; Invalid."""
    if _names_nobody(given.get("to")):
        raise Missing(_MISSING["to"])
    if not (_text(given, "subject") or "").strip():
        raise Missing(_MISSING["subject"])
    html = given.get("html")
    has_html = isinstance(html, str) and html.strip().lower() not in _FLAGS and bool(html)
    if not (_text(given, "body") or _text(given, "text") or has_html):
        raise Missing(_MISSING["body"])


def _names_nobody(to: Any) -> bool:
    if isinstance(to, list):
        return all(map(_names_nobody, to))
    return not (to.strip(" ,;\t\r\n") if isinstance(to, str) else to)


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"{name}: a text is expected")
    return value


def _with_parts(given: dict[str, Any]) -> dict[str, Any]:
    """The members with `text` and `html` for what is text and what is HTML. Raises: Invalid."""
    body, text = given.pop("body", None), given.pop("text", None)
    html = given.pop("html", False)
    if isinstance(html, str):
        html = _FLAGS.get(html.strip().lower(), html)
    if not isinstance(html, bool | str):
        raise Invalid("html: true, false or the HTML itself is expected")
    if html is True:
        given |= {"html": body, "text": text} if body else {"html": text}
    elif body and text and body != text:
        raise Invalid("text: body is the text already")
    else:
        given |= {"html": html or None, "text": body or text}
    if "attachments" in given:
        given["attachments"] = _attachments(given["attachments"])
    _check_headers(given.get("headers"))
    return given


def _attachments(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise Invalid("attachments: a list is expected")
    return [
        _members(each, _ATTACHMENT, "attachments.") if isinstance(each, Mapping) else each
        for each in found
    ]


def _check_headers(found: Any) -> None:
    if isinstance(found, Mapping) and not all(isinstance(each, str) for each in found.values()):
        raise Invalid("headers: texts are expected")
