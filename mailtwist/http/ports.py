"""What the routes need of the layers below, and nothing more.

The store's rows come through :class:`Resources`, identities through :class:`Identities`,
``_config`` through :class:`Values`. All errors are those of :mod:`mailtwist.errors`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.http.exchange import Family, Route
    from mailtwist.mail.permissions import Viewer
    from mailtwist.store.entities.model import Item, ListRequest, Page, Ref

Relations: TypeAlias = "Mapping[str, Ref | tuple[Ref, ...] | None]"


class Health(Protocol):
    """What the server knows of itself."""

    @property
    def is_good(self) -> bool: ...
    @property
    def detail(self) -> str: ...


class Identities(Protocol):
    async def viewer(self, token: str) -> Viewer:
        """Whose token or API key this is.

        Raises: an error with http_status 401 for one that is forged, expired or withdrawn.
        """
        ...


class Values(Protocol):
    """The ``_config`` keys as they count now, from memory."""

    def get(self, name: str) -> str:
        """The value, "" when it is not set."""
        ...


class Challenges(Protocol):
    async def answer(self, token: str) -> str | None:
        """The key authorization that an ACME authority is to find at a token; None: unknown.

        Anybody may ask, at any rate. Raises: TemporaryFailure.
        """
        ...


class Resources(Protocol):
    """The rows of all entities, under the permissions of whoever looks.

    Raises: NotFound (unknown entity, id or relation), Refusal with a ``title`` (403), Conflict
    (409), ProtocolViolation (400, names the column), TemporaryFailure (503).
    """

    async def list(self, viewer: Viewer, entity: str, request: ListRequest) -> Page: ...

    async def get(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        *,
        columns: frozenset[str] | None = None,
        includes: Sequence[str] = (),
    ) -> Page:
        """A page of exactly one item and what it includes."""
        ...

    async def create(
        self, viewer: Viewer, entity: str, attributes: Mapping[str, Any], relations: Relations
    ) -> Item: ...

    async def update(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        attributes: Mapping[str, Any],
        relations: Relations,
    ) -> Item: ...

    async def delete(self, viewer: Viewer, entity: str, row_id: str) -> None: ...

    async def related(
        self, viewer: Viewer, entity: str, row_id: str, relation: str, request: ListRequest
    ) -> Page:
        """The rows behind a relation; at most one of a to-one relation."""
        ...

    async def relate(
        self, viewer: Viewer, entity: str, row_id: str, relation: str, refs: Sequence[Ref]
    ) -> None:
        """Add to a to-many relation; what is there already is no error."""
        ...

    async def unrelate(
        self, viewer: Viewer, entity: str, row_id: str, relation: str, refs: Sequence[Ref]
    ) -> None: ...

    async def replace(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        relation: str,
        refs: Sequence[Ref] | Ref | None,
    ) -> None:
        """Make the relation point to exactly these; one or None for a to-one relation."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What all HTTP listeners of a process share."""

    health: Callable[[], Awaitable[Health]]
    settings: Settings | None = None
    identities: Identities | None = None
    resources: Resources | None = None
    values: Values | None = None
    routes: Sequence[Route] = ()
    """Those of `/action` (mailtwist.http.actions) and `/_config` (mailtwist.http.config)."""
    challenges: Challenges | None = None
    families: Sequence[Family] = ()
    """Which routes look alike where none is found; the first that covers a path counts."""
