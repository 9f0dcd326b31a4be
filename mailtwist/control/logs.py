"""Log lines: one JSON object each for machines, or one line each for people.

Events are a fixed text with fields. What a connection causes bears its ``session`` id, which
its pump keeps in a context variable. Fields whose name says that they hold a secret are
dropped here, whoever put them in; protocol lines are logged at level ``debug`` alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TextIO

from twisted.logger import ILogObserver, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import provider

from mailtwist.config import Settings
from mailtwist.net.session_id import session_id

LogEvent = dict[str, Any]
Formatter = Callable[[LogEvent], str]

LEVELS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
SECRET_NAMES: Final = ("password", "passwd", "secret", "credential", "token", "api_key", "apikey")
MAX_VALUE: Final = 2000
MAX_TRACEBACK: Final = 10_000
MAX_ITEMS: Final = 100


def open_stream(settings: Settings) -> TextIO:
    """Open what lines go to: ``log_file``, else standard output as it is now.

    (Twisted redirects ``sys.stdout`` into the log later.) Raises: OSError.
    """
    if settings.log_file:
        return open(settings.log_file, "a", encoding="utf-8")
    return sys.stdout


def make_observer(settings: Settings, stream: TextIO) -> Any:
    """Make the observer that writes in the form and from the level that the settings ask for."""
    return observer(stream, FORMATTERS[settings.log_format], LEVELS[settings.log_level])


def observer(stream: TextIO, formatter: Formatter, lowest: Any) -> Any:
    """Make an observer that writes events of at least this level."""
    wanted = frozenset(level for level in LogLevel.iterconstants() if level >= lowest)

    @provider(ILogObserver)
    def write(event: LogEvent) -> None:
        if _level(event) not in wanted or _is_chatter(event):
            return
        try:
            stream.write(formatter(event) + "\n")
            stream.flush()
        except (OSError, ValueError):
            # The reader went away, or the disk is full: mail matters more than its log.
            pass

    return write


def json_line(event: LogEvent) -> str:
    """One JSON object: time, level, event, session, then the event's own fields."""
    line: dict[str, Any] = {
        "time": _timestamp(event.get("log_time", 0.0)),
        "level": _level(event).name,
        "event": _text(event),
    }
    session = event.get("session") or session_id.get()
    if session:
        line["session"] = session
    line.update(_fields(event))
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["error"] = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"[:MAX_VALUE]
        line["traceback"] = failure.getTraceback()[-MAX_TRACEBACK:]
    return _encode(line)


def human_line(event: LogEvent) -> str:
    """A line to read: time of day, text, fields; a failure's traceback below it."""
    level = _level(event)
    session = event.get("session") or session_id.get()
    fields = _fields(event) | ({"session": session} if session else {})
    parts = [_time(event).astimezone().strftime("%H:%M:%S"), _escaped(_text(event))]
    if level not in (LogLevel.info, LogLevel.debug):
        parts.insert(1, level.name.upper())
    parts += [f"{name}={_escaped(_shown(value))}" for name, value in fields.items()]
    line = " ".join(parts)
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line += "\n" + failure.getTraceback()[-MAX_TRACEBACK:]
    return line


# json.dumps would make an encoder for each line. All values are plain by then, and none holds
# itself.
_encode: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode

FORMATTERS: Final[Mapping[str, Formatter]] = {"json": json_line, "text": human_line}


def _is_chatter(event: LogEvent) -> bool:
    """What Twisted says of its own ports and threads; its errors are kept."""
    if event.get("log_namespace") not in ("log_legacy", "-"):
        return False
    return not event.get("isError") and "log_failure" not in event


def _level(event: LogEvent) -> Any:
    return event.get("log_level") or LogLevel.info


def _time(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _timestamp(log_time: float) -> str:
    """RFC 3339 in UTC, to the millisecond; what most lines share with the last is kept."""
    seconds, fraction = divmod(log_time, 1)
    milliseconds = round(fraction * 1_000_000) // 1000
    if milliseconds == 1000:
        seconds, milliseconds = seconds + 1, 0
    return f"{_to_the_second(seconds)}.{milliseconds:03}Z"


@lru_cache(maxsize=1)
def _to_the_second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def _text(event: LogEvent) -> str:
    text = event.get("log_format")
    # Nearly all texts are fixed; to format them costs more than the rest of a line.
    if not isinstance(text, str) or "{" in text:
        text = formatEvent(event)
    return text[:MAX_VALUE] or "failure"


def _fields(event: LogEvent) -> dict[str, Any]:
    # Nearly all values are strings; this is done for each of every line.
    return {
        name: value[:MAX_VALUE] if type(value) is str else _plain(value)
        for name in _shown_names(tuple(event))
        if (value := event[name]) is not None and value != ""
    }


@lru_cache(maxsize=1000)
def _shown_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Which fields of an event belong in its line; events of one place have the same names."""
    return tuple(name for name in names if _is_shown(name))


def _is_shown(name: str) -> bool:
    if name.startswith("log_") or name in _FOREIGN:
        return False
    return not any(word in name.lower() for word in SECRET_NAMES)


# What the old logging of Twisted puts into each event, and what is a key of ours already.
_FOREIGN: Final = frozenset(
    {"isError", "message", "time", "system", "format", "level", "event", "session", "why"}
    | {"failure", "logLevel", "traceback"}
)


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:MAX_VALUE]
    if isinstance(value, bytes):
        return value[:MAX_VALUE].decode("utf-8", "replace")
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:MAX_ITEMS]]
    return str(value)[:MAX_VALUE]


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _escaped(text: str) -> str:
    """Keep what a peer sent from forging lines or steering a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
