"""Values of actions: what is in them is looked up, put into texts, or evaluated.

=================  ==========================================================
``~name``          the value with its type; unknown: the attribute is left out
``!js``, ``{{js}}``  what the expression yields
``$name``          put into the text, anywhere; unknown: left as it is
=================  ==========================================================

A path is a name and what is inside: ``user.email``, ``users[0].email``; ``.email`` is short
for ``subject.email``. Lists and maps are done all the way down. What was looked up is not
looked at again: no input becomes an expression.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from mailtwist.errors import ExpressionError, ExpressionLimit

MAX_DEPTH: Final = 20
# Of all texts that one evaluation puts together.
MAX_OCTETS: Final = 4 << 20


class Dropped:
    """The type of DROPPED."""

    def __repr__(self) -> str:
        return "DROPPED"


DROPPED: Final = Dropped()

_WORD: Final = r"\w+(?:-\w+){0,3}"
_PATH: Final = rf"\.?[^\W\d]\w*(?:-\w+){{0,3}}(?:\.{_WORD}|\[\d{{1,9}}\]){{0,9}}"
_TYPED: Final = re.compile(rf"~({_PATH})")
_INSIDE: Final = re.compile(rf"\$({_PATH})")
_STEP: Final = re.compile(_WORD)
# Where a path may end: "$name.com" and "$a-b" may both be a short path and some text.
_END: Final = re.compile(r"(?<=\w)(?=[.\[-])|(?<=\])")


class Evaluator(Protocol):
    """Evaluates expressions: a Script, or what one call may use of it."""

    async def evaluate(
        self, expressions: Sequence[str], scope: Mapping[str, Any]
    ) -> Sequence[Any]: ...


async def evaluate(value: Any, scope: Mapping[str, Any], script: Evaluator) -> Any:
    """The value with everything in it done; all expressions in one request.

    DROPPED for an unknown ``~name``; in lists and maps it is left out.
    Raises: ExpressionError.
    """
    expressions = list(_expressions(value, 0))
    results = await script.evaluate(expressions, scope) if expressions else ()
    return _Evaluation(scope, iter(results)).of(value)


async def holds(condition: Any, scope: Mapping[str, Any], script: Evaluator) -> bool:
    """Whether a condition lets its outcome run: none, true, 1, "true" or "1" do.

    One that is wrong (an unknown name) does not hold. Raises: ExpressionLimit for one that
    goes beyond a bound or reaches for what is forbidden.
    """
    if condition is None or (isinstance(condition, str) and not condition.strip()):
        return True
    try:
        value = await evaluate(condition, scope, script)
    except ExpressionLimit:
        raise
    except ExpressionError:
        return False
    if isinstance(value, str):
        return value.strip() in {"true", "1"}
    return isinstance(value, int | float) and value == 1


def _expression(text: str) -> str | None:
    """The JavaScript of a text, or None."""
    if text.startswith("!") and text[1:].strip():
        return text[1:]
    if text.startswith("{{") and text.endswith("}}") and text[2:-2].strip():
        return text[2:-2]
    return None


def _expressions(value: Any, depth: int) -> Iterator[str]:
    """The expressions of a value in the order in which they are put back."""
    if depth > MAX_DEPTH:
        raise ExpressionLimit("Attributes are nested too deep")
    if isinstance(value, str):
        expression = _expression(value)
        if expression is not None:
            yield expression
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _expressions(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _expressions(each, depth + 1)


class _Evaluation:
    """One value on its way; ``results`` are those of its expressions."""

    def __init__(self, scope: Mapping[str, Any], results: Iterator[Any]) -> None:
        self._scope, self._results = scope, results
        self._octets = 0

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._of_text(value)
        if isinstance(value, Mapping):
            done = {key: self.of(each) for key, each in value.items()}
            return {key: each for key, each in done.items() if each is not DROPPED}
        if isinstance(value, list | tuple):
            return [each for each in map(self.of, value) if each is not DROPPED]
        return value

    def _of_text(self, text: str) -> Any:
        if _expression(text) is not None:
            return next(self._results)
        typed = _TYPED.fullmatch(text)
        if typed:
            return lookup(typed[1], self._scope)
        return _INSIDE.sub(self._put_in, text) if "$" in text else text

    def _put_in(self, found: re.Match[str]) -> str:
        text = _interpolated(found[1], self._scope)
        if text is None:
            return found[0]
        self._octets += len(text)
        if self._octets > MAX_OCTETS:
            raise ExpressionLimit("A text of the action becomes too large")
        return text


def lookup(path: str, scope: Mapping[str, Any]) -> Any:
    """What the path leads to, or DROPPED."""
    value: Any = scope
    for step in _steps(path):
        if isinstance(value, Mapping):
            value = value.get(step, DROPPED)
        elif isinstance(value, list | tuple) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return DROPPED
    return value


def _steps(path: str) -> list[str]:
    return (["subject"] if path.startswith(".") else []) + _STEP.findall(path)


def _interpolated(path: str, scope: Mapping[str, Any]) -> str | None:
    """The text in place of ``$path``: of the longest part that leads somewhere, or None."""
    value = lookup(path, scope)
    if value is not DROPPED:
        return as_text(value)
    for end in reversed([found.start() for found in _END.finditer(path)]):
        value = lookup(path[:end], scope)
        # "$user.nope" is not the whole user and ".nope".
        if value is not DROPPED and not isinstance(value, Mapping | list | tuple):
            return as_text(value) + path[end:]
    return None


def as_text(value: Any) -> str:
    """A value inside a text: nothing for None, JSON for lists, maps and truth."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
