"""The outcomes of an action, one behind the other: condition, attributes, deed.

All that they write is in the call's buffer; what a failed outcome put there goes, and unless it
may fail, the call ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from twisted.logger import Logger

from mailtwist.actions import values
from mailtwist.actions.buffer import Stale
from mailtwist.actions.definition import ON_ROWS, Method, Outcome
from mailtwist.actions.performers import PERFORMERS, responses, rows
from mailtwist.actions.registry import Call, Performed, Response
from mailtwist.errors import ExpressionError, MailError, ProtocolViolation

log = Logger()

# Of all that expressions see, and of all that is answered, as JSON.
MAX_SCOPE: Final = 1 << 20
MAX_ANSWER: Final = 4 << 20
# Of what all outcomes get.
MAX_ATTRIBUTES: Final = 16 << 20


class Wordless:
    """Stands where no JavaScript is."""

    async def evaluate(self, expressions: Sequence[str], scope: Mapping[str, Any]) -> NoReturn:
        raise ExpressionError("No expressions can be evaluated here")


class Running:
    """The outcomes of one call. :meth:`run`, commit the buffer, then :meth:`answer`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._shown: list[Performed] = []
        # References to what is known only when the buffer is settled.
        self._waiting: dict[str, tuple[Outcome, Performed]] = {}
        self._answer_room = MAX_ANSWER
        self._attributes_room = MAX_ATTRIBUTES

    async def run(self) -> None:
        """Do all of them, but for what the buffer will do.

        Raises: what an outcome raises that may not fail; the buffer is not to be committed then.
        """
        for outcome in self._call.definition.outcomes:
            performed = await self._tried(outcome)
            if performed is None:
                continue
            if outcome.reference:
                self._waiting[outcome.reference] = outcome, performed
            if not outcome.is_hidden:
                self._shown.append(performed)
                self._count(performed)

    def answer(self) -> list[Response]:
        """The elements of the answer that are not hidden."""
        return [each for performed in self._shown for each in performed.whole.responses]

    def _count(self, performed: Performed) -> None:
        """Raises: ProtocolViolation. What is still to come is as large as what it is made of."""
        for each in performed.responses:
            self._answer_room -= weight(each.attributes, self._answer_room)
        if self._answer_room < 0:
            raise ProtocolViolation(f"The answer has more than {MAX_ANSWER} characters")

    async def _tried(self, outcome: Outcome) -> Performed | None:
        """What an outcome came to; None: it was not for now, or it failed and may."""
        buffer = self._call.buffer
        await self._look_up(outcome)
        before = buffer.mark()
        try:
            performed = await self._performed(outcome)
            if outcome.continues_on_error and buffer.mark().units > before.units:
                # Now, for later it would be too late to go on without it.
                await buffer.settle(with_mail=True)
        except Stale:
            raise
        except MailError as error:
            buffer.drop(before)
            log.info("outcome failed", place=outcome.place, error=error.text)
            if not outcome.continues_on_error:
                raise
            return None
        if outcome.continues_on_error:
            buffer.forgive(before)
        return performed

    async def _look_up(self, outcome: Outcome) -> None:
        """Put into the scope what the outcome can be about. Raises: ProtocolViolation."""
        names = [name for name in self._waiting if outcome.may_mention(name)]
        if any(self._waiting[name][1].later for name in names):
            await self._call.buffer.settle()
        for name in names:
            source, performed = self._waiting.pop(name)
            self._call.scope[name] = performed.whole.value
            if weight(self._call.scope, MAX_SCOPE) > MAX_SCOPE:
                raise ProtocolViolation(f"{source.place}: {name} is too large to be kept")

    async def _performed(self, outcome: Outcome) -> Performed | None:
        call = self._call
        script = call.script or Wordless()
        if not await values.holds(outcome.condition, call.scope, script):
            return None
        attributes = await values.evaluate(dict(outcome.attributes), call.scope, script)
        self._attributes_room -= weight(attributes, self._attributes_room)
        if self._attributes_room < 0:
            raise ProtocolViolation(f"{outcome.place}: Attributes are too large")
        if outcome.is_logged:
            log.info("outcome", place=outcome.place, attributes=sorted(attributes))
        return await _perform(call, outcome, attributes)


async def _perform(call: Call, outcome: Outcome, attributes: Mapping[str, Any]) -> Performed:
    if outcome.method is Method.ACTIONRESPONSE:
        return responses.said(outcome.type, attributes)
    if outcome.method in ON_ROWS:
        return await rows.ON_ROWS[outcome.method](call, outcome.type, attributes)
    performer = PERFORMERS.get(outcome.type)
    if performer is None:
        raise ProtocolViolation(f"{outcome.place}: there is no such performer")
    return await performer(call, attributes)


def weight(value: Any, limit: int) -> int:
    """About how many characters a value has as JSON; counting ends beyond the limit."""
    total = 0
    waiting = [value]
    while waiting and total <= limit:
        each = waiting.pop()
        total += 2
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, Mapping):
            total += sum(len(name) + 4 for name in each)
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif each is not None:
            total += len(json.dumps(each, default=str))
    return total
