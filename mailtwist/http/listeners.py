"""``/listeners``: what is bound where, what an order would move, and that order.

For administrators. ``GET /listeners`` tells of every node, ``GET /listeners/plan`` of the node
that answers, ``POST /listeners/apply`` gives the order and answers with what came of it here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Protocol

from mailtwist.errors import Conflict, MailError, Refusal
from mailtwist.http.exchange import Answer, Exchange, Route, json_answer, refusal
from mailtwist.http.schemas import TEXT, Schema, ref


class Step(Protocol):
    def document(self) -> dict[str, Any]: ...


class Problem(Protocol):
    @property
    def text(self) -> str: ...


class Plan(Protocol):
    @property
    def steps(self) -> Sequence[Step]: ...
    @property
    def conflicts(self) -> Sequence[Problem]: ...


class Listing(Protocol):
    def document(self) -> dict[str, Any]: ...


class Reconciliation(Protocol):
    """What is needed of :class:`mailtwist.control.reconciliation.Reconciliation`."""

    async def listing(self) -> Listing: ...
    async def plan(self) -> Plan: ...
    async def apply(self) -> Sequence[Step]:
        """Raises: Conflict with a ``report`` when nothing was changed."""


def routes(reconciliation: Reconciliation) -> tuple[Route, ...]:
    listeners = Listeners(reconciliation)
    return (
        Route("/listeners", ("GET",), listeners.list),
        Route("/listeners/plan", ("GET",), listeners.plan),
        Route("/listeners/apply", ("POST",), listeners.apply),
    )


class Listeners:
    """The routes' functions."""

    def __init__(self, reconciliation: Reconciliation) -> None:
        self._reconciliation = reconciliation

    async def list(self, exchange: Exchange) -> Answer:
        await _check(exchange)
        return json_answer((await self._reconciliation.listing()).document())

    async def plan(self, exchange: Exchange) -> Answer:
        await _check(exchange)
        found = await self._reconciliation.plan()
        return json_answer(
            {
                "steps": [each.document() for each in found.steps],
                "conflicts": [each.text for each in found.conflicts],
            }
        )

    async def apply(self, exchange: Exchange) -> Answer:
        await _check(exchange)
        # A page of somebody else can make a browser send a POST, with the cookie: not JSON.
        exchange.json()
        try:
            report = await self._reconciliation.apply()
        except Conflict as error:
            return _refused(error)
        return json_answer({"report": [each.document() for each in report]})


async def _check(exchange: Exchange) -> None:
    viewer = await exchange.identify()
    if not viewer.is_admin:
        raise Refusal("Only administrators may see and move listeners")


def _refused(error: MailError) -> Answer:
    """The usual shape of an error, and beside it what came of each listener."""
    report: Sequence[Step] = getattr(error, "report", ())
    answer = refusal(error)
    document = {**json.loads(answer.body), "report": [each.document() for each in report]}
    return json_answer(document, answer.status)


# -- their description ----------------------------------------------------------------------

_NUMBER: Final[Schema] = {"type": "integer"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_STEP: Final = _object(
    action={
        "type": "string",
        "enum": [
            *("open", "change", "close", "keep"),
            *("opened", "changed", "closed", "kept", "failed"),
        ],
    },
    name=TEXT,
    source=TEXT,
    protocol=TEXT,
    address=TEXT,
    changed=_array(TEXT),
    reason=TEXT,
)
_LISTING: Final = _object(
    generation=_NUMBER,
    nodes=_array(_object(node=_NUMBER, generation=_NUMBER, updated_at=TEXT, error=TEXT)),
    listeners=_array(
        _object(
            node=_NUMBER,
            name=TEXT,
            source=TEXT,
            protocol=TEXT,
            address=TEXT,
            port=_NUMBER,
            state={"type": "string", "enum": ["listening", "failed"]},
            error=TEXT,
            generation=_NUMBER,
        )
    ),
)


def _operation(summary: str, schema: Schema, *, refused: Schema | None = None) -> Schema:
    answers: Schema = {"200": _answer("Done", schema)}
    if refused is not None:
        answers["409"] = _answer("Nothing was changed, and why", refused)
    answers |= {"4XX": ref("responses", "refused"), "5XX": ref("responses", "refused")}
    return {"tags": ["listeners"], "summary": summary, "responses": answers}


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


PATHS: Final[Schema] = {
    "/listeners": {"get": _operation("What is bound where, on every node", _LISTING)},
    "/listeners/plan": {
        "get": _operation(
            "What an order would open, change and close",
            _object(steps=_array(_STEP), conflicts=_array(TEXT)),
        )
    },
    "/listeners/apply": {
        "post": _operation(
            "Bring the listeners in line with rows and keys, all or nothing",
            _object(report=_array(_STEP)),
            refused=_object(report=_array(_STEP), message=TEXT),
        )
    },
}
