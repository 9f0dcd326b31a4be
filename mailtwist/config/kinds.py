"""The kinds of value a setting may have: how each is read, bounded and shown.

``parse`` takes what YAML, TOML or an environment variable gave and returns the
value the program uses; it raises ``ValueError`` with a text that completes
"limits.recipients: ...". ``show`` is the way back, into what YAML can say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# No number that is longer than this is meant; what overflows a float would be infinite.
_DURATION_PART = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(ms|[smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
# Stands for a secret wherever one would be shown.
MASK = "********"
# Longer than any sane setting; keeps error texts and regular expressions short.
MAX_TEXT = 4096


def one_line(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {sort_of(value)}")
    if len(value) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT} characters")
    if any(character in value for character in "\0\r\n"):
        raise ValueError("must be one line")
    return value.strip()


def sort_of(value: object) -> str:
    if isinstance(value, Mapping):
        return "a group of keys"
    if isinstance(value, list | tuple):
        return "a list"
    return json.dumps(value, default=str)


class Kind(Generic[T]):
    """One kind of value. ``name`` is what the documentation calls it."""

    name = "value"

    def parse(self, value: object) -> T:
        raise NotImplementedError

    def show(self, value: T) -> object:
        return value


@dataclass(frozen=True, slots=True)
class Text(Kind[str]):
    name = "text"

    def parse(self, value: object) -> str:
        # A user name or password of digits only is a number to YAML.
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return one_line(value)


@dataclass(frozen=True, slots=True)
class Path(Kind[str]):
    name = "path"

    def parse(self, value: object) -> str:
        return one_line(value)


@dataclass(frozen=True, slots=True)
class Flag(Kind[bool]):
    name = "true or false"

    def parse(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in TRUE:
            return True
        if word in FALSE:
            return False
        raise ValueError(f"must be true or false, not {sort_of(value)}")


@dataclass(frozen=True, slots=True)
class Choice(Kind[str]):
    words: tuple[str, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return " | ".join(self.words)

    def parse(self, value: object) -> str:
        # YAML reads a bare "none" as text, but "off" and "no" as false.
        word = "none" if value is False and "none" in self.words else str(value).strip().lower()
        if word not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}, not {sort_of(value)}")
        return word


@dataclass(frozen=True, slots=True)
class Whole(Kind[int]):
    low: int
    high: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"whole number, {self.low} to {self.high}"

    def parse(self, value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, not {sort_of(value)}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self.low} to {self.high}, not {value}")
        return value


@dataclass(frozen=True, slots=True)
class Octets(Kind[int]):
    """A size: plain octets, or "25M", "25MB", "25MiB", always in steps of 1024."""

    low: int
    high: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"size, {show_size(self.low)} to {show_size(self.high)}"

    def parse(self, value: object) -> int:
        if isinstance(value, str):
            match = _SIZE.fullmatch(value.strip())
            if match is None:
                raise ValueError(f'must be a size such as 26214400 or "25M", not {sort_of(value)}')
            value = int(float(match[1]) * SIZE_UNITS[match[2].upper()])
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f'must be a size such as 26214400 or "25M", not {sort_of(value)}')
        if not self.low <= value <= self.high:
            limits = f"{show_size(self.low)} to {show_size(self.high)}"
            raise ValueError(f"must be from {limits}, not {show_size(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Duration(Kind[float]):
    """A time in seconds: a plain number of them, or "90s", "24h", "1h30m", "5d"."""

    low: float
    high: float

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"time, {show_duration(self.low)} to {show_duration(self.high)}"

    def parse(self, value: object) -> float:
        seconds = _seconds(value)
        if not self.low <= seconds <= self.high:
            limits = f"{show_duration(self.low)} to {show_duration(self.high)}"
            raise ValueError(f"must be from {limits}, not {show_duration(seconds)}")
        return seconds

    def show(self, value: float) -> object:
        return show_duration(value)


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    parts = list(_DURATION_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text.replace(" ", ""):
        raise ValueError(f'must be a time such as 90, "90s", "24h" or "5d", not {sort_of(value)}')
    return sum(float(part[1]) * DURATION_UNITS[part[2]] for part in parts)


def show_duration(seconds: float) -> str:
    """The shortest exact spelling with one unit: 90.0 is "90s", 86400.0 is "24h"."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    for unit in ("d", "h", "m"):
        size = DURATION_UNITS[unit]
        # "24h" says more than "1d" and "120s" less than "2m".
        if seconds and seconds % size == 0 and (unit != "d" or seconds > size):
            return f"{int(seconds / size)}{unit}"
    return f"{int(seconds)}s"


def show_size(octets: int) -> str:
    for unit in ("G", "M", "K"):
        if octets and octets % SIZE_UNITS[unit] == 0:
            return f"{octets // SIZE_UNITS[unit]}{unit}"
    return str(octets)


@dataclass(frozen=True, slots=True)
class ListOf(Kind[tuple[V, ...]]):
    """A list. One text is taken apart at commas and spaces, as the environment needs it."""

    kind: Kind[V]
    most: int = 10_000

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"list of: {self.kind.name}"

    def parse(self, value: object) -> tuple[V, ...]:
        if isinstance(value, str):
            value = [item for item in re.split(r"[,\s]+", value) if item]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = [value]
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list, not {sort_of(value)}")
        if len(value) > self.most:
            raise ValueError(f"has more than {self.most} items")
        return tuple(self._item(n, item) for n, item in enumerate(value))

    def _item(self, n: int, item: object) -> V:
        try:
            return self.kind.parse(item)
        except ValueError as error:
            raise ValueError(f"item {n + 1} {error}") from None

    def show(self, value: tuple[V, ...]) -> object:
        return [self.kind.show(item) for item in value]


@dataclass(frozen=True, slots=True)
class MapOf(Kind[Mapping[str, V]]):
    """Keys of the user's own choice. One text is ``key=value, key=value`` or JSON."""

    key: Kind[str]
    kind: Kind[V]
    most: int = 10_000

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.key.name} -> {self.kind.name}"

    def parse(self, value: object) -> Mapping[str, V]:
        if isinstance(value, str):
            value = _pairs(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a group of keys and values, not {sort_of(value)}")
        if len(value) > self.most:
            raise ValueError(f"has more than {self.most} keys")
        return dict(self._pair(key, item) for key, item in value.items())

    def _pair(self, key: object, item: object) -> tuple[str, V]:
        try:
            folded = "*" if key == "*" else self.key.parse(key)
            return folded, self.kind.parse(item)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    def show(self, value: Mapping[str, V]) -> object:
        return {key: self.kind.show(item) for key, item in value.items()}


def _pairs(text: str) -> Mapping[str, object]:
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ValueError(f"is no JSON: {error}") from None
        assert isinstance(found, dict)
        return found
    pairs: dict[str, object] = {}
    for item in filter(None, re.split(r"[,\s]+", text)):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError('must be "key=value, key=value"')
        pairs[key] = value
    return pairs
