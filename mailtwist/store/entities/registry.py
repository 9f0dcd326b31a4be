"""Every entity by its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mailtwist.store.entities import (
    mail_accounts,
    mail_boxes,
    mails,
    operations,
    outboxes,
    places,
    projects,
    servers,
    users,
    webhooks,
)
from mailtwist.store.entities.model import Entity

ENTITIES: Final[Mapping[str, Entity]] = MappingProxyType(
    {
        entity.name: entity
        for entity in (
            *users.ENTITIES,
            *operations.ENTITIES,
            *servers.ENTITIES,
            *places.ENTITIES,
            mail_accounts.ENTITY,
            mail_boxes.ENTITY,
            mails.ENTITY,
            outboxes.ENTITY,
            *webhooks.ENTITIES,
            projects.ENTITY,
        )
    }
)
