"""What clients give as a secret, made safe: passwords become verifiers, the rest is sealed.

A secret column is sealed for the purpose ``<entity>.<column>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.policy import passwords
from mailtwist.policy.hashing import Derivation, Turns
from mailtwist.store.accounts import Verifier
from mailtwist.store.entities.model import Column, Entity, Prepared, Type
from mailtwist.store.secrets import Secrets

# The column whose password counts; others are there for clients of predecessors.
PASSWORD: Final = "password"  # noqa: S105
# Users show the password itself, over HTTP: nobody asks for their SCRAM keys.
_WITHOUT_SCRAM: Final = frozenset({"user_account"})
MAX_SECRET: Final = 65_536


class SecretValues:
    """``cost``: of new verifiers; they wait for their ``turns`` as logins do."""

    def __init__(self, secrets: Secrets, derivation: Derivation, turns: Turns, cost: int) -> None:
        self._secrets = secrets
        self._derivation = derivation
        self._turns = turns
        self._cost = cost

    @staticmethod
    def are_in(entity: Entity, attributes: Mapping[str, Any]) -> bool:
        """Whether there is anything that takes a processor."""
        given = _given(entity, attributes)
        return any(column.is_secret and not _is_empty(value) for column, value in given)

    async def safe(self, entity: Entity, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes with every secret replaced; empty ones, as readers see them, left out.

        Raises: ProtocolViolation, which names the column.
        """
        found = dict(attributes)
        for column, value in _given(entity, attributes):
            if not column.is_secret or isinstance(value, Prepared):
                continue
            del found[column.name]
            is_password = column.type is Type.PASSWORD
            if _is_empty(value) or (is_password and column.name != PASSWORD):
                continue
            text = _text(column, value)
            if is_password:
                found[column.name] = Prepared(await self._verifiers(entity, column, text))
            else:
                found[column.name] = Prepared(
                    self._secrets.seal(text, f"{entity.name}.{column.name}")
                )
        return found

    async def _verifiers(
        self, entity: Entity, column: Column, password: str
    ) -> tuple[Verifier, ...]:
        make = partial(
            passwords.make_verifiers,
            password,
            cost=self._cost,
            has_scram=entity.name not in _WITHOUT_SCRAM,
        )
        try:
            return tuple(await self._turns.take("", lambda: self._derivation.run(make)))
        except Refusal as error:
            raise ProtocolViolation(f"invalid value for {column.name}: {error.text}") from error


def _given(entity: Entity, attributes: Mapping[str, Any]) -> list[tuple[Column, Any]]:
    return [
        (entity.columns[name], value)
        for name, value in attributes.items()
        if name in entity.columns
    ]


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _text(column: Column, value: Any) -> str:
    if not isinstance(value, str) or len(value) > min(MAX_SECRET, column.max_length):
        raise ProtocolViolation(f"invalid value for {column.name}")
    return value
