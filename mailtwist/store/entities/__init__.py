"""The rows that the REST interface shows, one declaration for each kind."""

from __future__ import annotations

from mailtwist.store.entities.registry import ENTITIES
from mailtwist.store.entities.seeding import seed

__all__ = ["ENTITIES", "seed"]
