"""Outcomes that only say something to the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from mailtwist.actions.registry import Call, Performed, Performer, Response
from mailtwist.errors import ProtocolViolation

HEADER: Final = "client.header.set"
MAX_HEADERS: Final = 20
MAX_VALUE: Final = 4096
# RFC 9110 §5.6.2, §5.5.
_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,100}", re.ASCII)
_VALUE: Final = re.compile(r"[ -~\t]*", re.ASCII)
# These say how the answer is framed or what it is, which is ours to say.
_OURS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def said(kind: str, attributes: Mapping[str, Any]) -> Performed:
    """An element of the answer, word for word. Raises: ProtocolViolation."""
    if kind == HEADER:
        read_headers(attributes)
    given = dict(attributes)
    return Performed(given, (Response(kind, given),))


async def create(_call: Call, attributes: Mapping[str, Any]) -> Performed:
    """The same, of the type in ``response_type``."""
    kind = attributes.get("response_type")
    if not isinstance(kind, str) or not kind:
        raise ProtocolViolation("response_type is missing")
    return said(kind, attributes)


def read_headers(attributes: Mapping[str, Any]) -> tuple[int | None, dict[str, str]]:
    """The status of the answer, if it says one, and its header fields.

    Raises: ProtocolViolation for what HTTP cannot carry.
    """
    status, fields = None, {}
    for name, given in attributes.items():
        value = _spelled(given)
        if name.lower() == "status":
            status = _status(value)
        elif not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise ProtocolViolation(f"{HEADER}: {name[:100]} cannot be set")
        elif len(value) > MAX_VALUE or not _VALUE.fullmatch(value):
            raise ProtocolViolation(f"{HEADER}: invalid value for {name}")
        else:
            fields[name] = value.strip()
    if len(fields) > MAX_HEADERS:
        raise ProtocolViolation(f"{HEADER}: more than {MAX_HEADERS} fields")
    return status, fields


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _status(text: str) -> int:
    if not re.fullmatch("[2-5][0-9][0-9]", text.strip(), re.ASCII):
        raise ProtocolViolation(f"{HEADER}: status {text[:20]} is none from 200 to 599")
    return int(text)


PERFORMERS: Final[Mapping[str, Performer]] = MappingProxyType({"response.create": create})
