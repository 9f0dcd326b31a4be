"""Values of columns: what clients give becomes what the store keeps, and back.

Clients write booleans, numbers and moments in many ways and read them in one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NoReturn

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import MAX_DEPTH
from mailtwist.store.entities.model import Column, Type

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_LIST: Final = 1_000

_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on", "t"), True),
    **dict.fromkeys(("false", "0", "no", "off", "f"), False),
}
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}(\.0{0,20})?", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# What an UTF-8 column of either database cannot hold.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def refuse(column: Column, what: str) -> NoReturn:
    """Raise the ProtocolViolation for a value of the column."""
    raise ProtocolViolation(f"invalid value for {column.name}: {what}")


def stored(column: Column, value: Any) -> Any:
    """What the store keeps for a value of JSON, None for none.

    Raises: ProtocolViolation, whose text names the column.
    """
    return None if value is None else _STORED[column.type](column, value)


def is_storable(text: str) -> bool:
    """Tell whether either database can hold the text."""
    return _UNSTORABLE.search(text) is None


def _text(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        refuse(column, "a text is expected")
    if len(value) > column.max_length:
        refuse(column, f"longer than {column.max_length} characters")
    if not is_storable(value):
        refuse(column, "characters that cannot be stored")
    if column.is_folded:
        value = value.lower()
    if column.choices and value not in column.choices:
        refuse(column, f"one of {', '.join(column.choices)} is expected")
    return str(value)


def _integer(column: Column, value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value.strip().partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(column, "a whole number is expected")
    if not column.lowest <= value <= column.highest:
        refuse(column, f"a number from {column.lowest} to {column.highest} is expected")
    return value


def _number(column: Column, value: Any) -> float:
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 10**300:
        refuse(column, "a number is expected")
    if not math.isfinite(value):
        refuse(column, "a finite number is expected")
    return float(value)


def boolean(value: Any) -> bool | None:
    """A boolean in any spelling; None when it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in {0, 1} else None
    return _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else None


def _boolean(column: Column, value: Any) -> int:
    meant = boolean(value)
    if meant is None:
        refuse(column, "true or false is expected")
    return int(meant)


def _timestamp(column: Column, value: Any) -> int:
    found = moment(value)
    if found is None:
        refuse(column, "a moment is expected, such as 2026-01-31T12:00:00Z")
    return found


def moment(value: Any) -> int | None:
    """Microseconds since 1970 of ISO 8601 or of an epoch in s, ms or us; None: not a moment."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not _DECIMAL.fullmatch(text):
            return _iso(text)
        value = float(text)
    if not isinstance(value, int | float) or not 0 <= value < 2**62:
        return None
    # Seconds up to the year 5138, milliseconds from 1973 on.
    for limit, factor in ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1)):
        if value < limit:
            return round(value * factor)
    return None


def _iso(text: str) -> int | None:
    if len(text) > 40:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        return (parsed - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def _json(column: Column, value: Any) -> str:
    text = value if isinstance(value, str) else _dumped(column, value)
    _text(column, text)
    if not text:
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        refuse(column, "not valid JSON")
    return text


def _dumped(column: Column, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        refuse(column, "not valid JSON")


def _list(column: Column, value: Any) -> str:
    if isinstance(value, str) and value.strip().startswith("["):
        if value.count("[") > MAX_DEPTH:
            refuse(column, "a list of texts is expected")
        try:
            value = json.loads(value)
        except ValueError:
            refuse(column, "not valid JSON")
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        refuse(column, "a list of texts is expected")
    if len(listed) > MAX_LIST:
        refuse(column, f"more than {MAX_LIST} texts")
    if not all(is_storable(item) for item in listed):
        refuse(column, "characters that cannot be stored")
    return _text(column, json.dumps(listed, ensure_ascii=False))


def _secret(column: Column, value: Any) -> NoReturn:
    raise AssertionError(f"{column.name} reached the store unprepared")


_STORED: Final[Mapping[Type, Callable[[Column, Any], Any]]] = {
    Type.TEXT: _text,
    Type.INTEGER: _integer,
    Type.BOOLEAN: _boolean,
    Type.NUMBER: _number,
    Type.TIMESTAMP: _timestamp,
    Type.JSON: _json,
    Type.LIST: _list,
    Type.PASSWORD: _secret,
    Type.SECRET: _secret,
}


def renderer(column: Column) -> Callable[[Any], Any]:
    """Make of a value of the store what a client reads; None stays None without it."""
    return _RENDERED.get(column.type, _as_is)


def _as_is(value: Any) -> Any:
    return value


# A row shows most moments twice, and pages are asked for again and again.
@lru_cache(maxsize=4096)
def iso(microseconds: int) -> str:
    """Write a moment as ISO 8601 in UTC, to the microsecond where it has any."""
    try:
        whole, rest = divmod(microseconds, 1_000_000)
        # (strftime does not fill up years before 1000.)
        text = (EPOCH + timedelta(seconds=whole)).isoformat()[:19]
    except OverflowError:  # beyond the year 9999
        return "9999-12-31T23:59:59Z"
    return f"{text}.{rest:06d}Z" if rest else f"{text}Z"


_RENDERED: Final[Mapping[Type, Callable[[Any], Any]]] = {
    Type.BOOLEAN: bool,
    Type.TIMESTAMP: iso,
    Type.LIST: json.loads,
}
