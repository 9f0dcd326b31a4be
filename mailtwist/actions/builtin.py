"""Every operation that is built in, by entity and name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mailtwist.actions import accounts, acme, certificates, mail_boxes, outbox, passwords, world
from mailtwist.actions.registry import Operation

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = MappingProxyType(
    {
        (operation.entity, operation.name): operation
        for module in (accounts, passwords, world, outbox, mail_boxes, certificates, acme)
        for operation in module.OPERATIONS
    }
)
