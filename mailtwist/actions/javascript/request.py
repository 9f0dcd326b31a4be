"""Requests for values of expressions: made into frames, and their answers read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from mailtwist.errors import ExpressionError, ExpressionLimit

if TYPE_CHECKING:
    from mailtwist.actions.javascript.worker import Worker

# As it is sent, where a character that is not ASCII has six octets.
MAX_SCOPE: Final = 6 << 20
MAX_EXPRESSIONS: Final = 1000
MAX_EXPRESSION: Final = 64 << 10
MAX_DEPTH: Final = 100
SHOWN: Final = 60
TOO_DEEP: Final = "the result is nested too deep"
NAME: Final = re.compile(r"[\w$]+")


@dataclass(eq=False, slots=True)
class Request:
    """One request; ``turn`` comes while it waits, ``used_s`` is how long a process had it."""

    who: str
    expressions: tuple[str, ...]
    scope: Mapping[str, Any]
    turn: Deferred[Worker] = field(default_factory=Deferred)
    timer: IDelayedCall | None = None
    used_s: float = 0.0

    def stop_waiting(self) -> None:
        """It has left the line."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()

    def frames(self) -> tuple[bytes, bytes]:
        """Both as ASCII. Raises: ExpressionError."""
        if len(self.expressions) > MAX_EXPRESSIONS:
            raise ExpressionLimit("Too many expressions")
        for each in self.expressions:
            if len(each) > MAX_EXPRESSION:
                raise ExpressionLimit(about(each, "too long"))
        try:
            scope = json.dumps(self._needed(), allow_nan=False).encode("ascii")
        except (ValueError, RecursionError):
            raise ExpressionLimit("What an expression sees is no JSON, or too deep") from None
        if len(scope) > MAX_SCOPE:
            raise ExpressionLimit("What an expression sees is too large")
        return scope, json.dumps(self.expressions).encode("ascii")

    def _needed(self) -> Mapping[str, Any]:
        """Only the names that occur; any, where one may be written in escapes."""
        if any("\\" in each for each in self.expressions):
            return self.scope
        words = {word for each in self.expressions for word in NAME.findall(each)}
        return {name: value for name, value in self.scope.items() if name in words}

    def values(self, answer: bytes) -> list[Any]:
        """What the process answered. Raises: ExpressionError."""
        try:
            answers = json.loads(answer)
        except RecursionError:
            raise self.failed(TOO_DEEP) from None
        # Cheaper than to look how deep each is: almost none has so many brackets.
        is_deep = answer.count(b"[") + answer.count(b"{") > MAX_DEPTH
        for expression, (kind, value) in zip(self.expressions, answers, strict=False):
            if kind != "=":
                error = ExpressionLimit if kind == "!" else ExpressionError
                raise error(about(expression, value))
            if is_deep and depth(value) > MAX_DEPTH:
                raise ExpressionLimit(about(expression, TOO_DEEP))
        return [value for _, value in answers]

    def failed(self, why: str) -> ExpressionLimit:
        """The error of a request without an answer."""
        return ExpressionLimit(about(self.expressions[0], why))


def about(expression: str, why: str) -> str:
    """Tell which expression and why; long ones show their beginning."""
    text = expression if len(expression) <= SHOWN else f"{expression[:SHOWN]}..."
    return f"Expression {text!r}: {why}"


def depth(value: Any) -> int:
    """How deep lists and maps are nested; 1 for neither."""
    level, levels = [value], 0
    while level:
        levels += 1
        level = [
            child
            for each in level
            if isinstance(each, list | dict)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return levels
