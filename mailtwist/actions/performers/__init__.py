"""What outcomes of actions may do, by name: ``mail.send``, ``otp.generate``, ...

One module a family, each with a mapping :data:`PERFORMERS` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mailtwist.actions.performers import codes, mail, responses, servers, ses, templates
from mailtwist.actions.registry import Performer

PERFORMERS: Final[Mapping[str, Performer]] = MappingProxyType(
    {
        name: performer
        for family in (responses, servers, mail, ses, codes, templates)
        for name, performer in family.PERFORMERS.items()
    }
)
