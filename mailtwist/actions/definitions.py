"""Definitions of actions as rows hold them: checked when they are written, read when called."""

from __future__ import annotations

from typing import Any

from mailtwist.actions import definition
from mailtwist.actions.definition import Definition
from mailtwist.actions.inputs import CONFORMATIONS, VALIDATIONS
from mailtwist.actions.performers import PERFORMERS
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.permissions import HIGHEST
from mailtwist.store.entities.registry import ENTITIES


def check(given: Definition) -> Definition:
    """The same, once all that it names is known. Raises: ProtocolViolation."""
    definition.check(
        given,
        performers=PERFORMERS,
        tables=ENTITIES,
        validations=VALIDATIONS,
        conformations=CONFORMATIONS,
    )
    if given.permission is not None and not 0 <= given.permission <= HIGHEST:
        raise ProtocolViolation(f"Permission: a number from 0 to {HIGHEST} is expected")
    return given


def check_given(schema: Any) -> None:
    """Check what a client gives as ``action_schema``: an object, or one as JSON text.

    Raises: ProtocolViolation naming the outcome.
    """
    if isinstance(schema, str):
        check(definition.loaded(schema))
    else:
        check(definition.parse(schema))


def of_row(schema: str) -> Definition:
    """The definition in a row; the same text is read once. Raises: ProtocolViolation.

    It is checked again: what wrote it may have known other performers than we do.
    """
    return check(definition.loaded(schema))
