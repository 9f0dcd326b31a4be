"""Named operations: what one is, what it gets and what it answers.

An :class:`Operation` belongs to an entity and has declared inputs. The table of all
operations is :data:`mailtwist.actions.builtin.OPERATIONS`; :mod:`mailtwist.actions.execution`
finds one, asks whether the viewer may, checks the inputs and runs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from mailtwist.mail.permissions import (
    ACTION_LOCKED,
    ADMIN,
    AUTHENTICATED_EXECUTE,
    LOCKED,
    Viewer,
)
from mailtwist.store.administration import BuiltIn

if TYPE_CHECKING:
    from mailtwist.actions.buffer import Buffer
    from mailtwist.actions.definition import Definition
    from mailtwist.actions.javascript import Script
    from mailtwist.actions.mailing import Mailing
    from mailtwist.actions.one_time_codes import OneTimeCodes
    from mailtwist.actions.passwords import PasswordResets
    from mailtwist.actions.rendering import Rendering
    from mailtwist.actions.resources import Resources
    from mailtwist.actions.sending import Intake
    from mailtwist.actions.values import Evaluator
    from mailtwist.policy.hashing import Derivation
    from mailtwist.policy.identities import Identities
    from mailtwist.store.entities.model import Item
    from mailtwist.tls.acme.issuance import Issuance

# Of action rows, once there is an administrator: his alone, everybody's, whoever's signed in.
FOR_ADMINISTRATORS: Final = ACTION_LOCKED
FOR_GUESTS: Final = LOCKED
FOR_USERS: Final = ACTION_LOCKED | AUTHENTICATED_EXECUTE


@dataclass(frozen=True, slots=True)
class Input:
    """A declared input. ``tags`` are checks: ``email``, ``min=8``, ``eqfield=password``."""

    name: str
    type: str = "label"
    is_required: bool = False
    tags: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """One element of the answer: ``{"ResponseType": type, "Attributes": attributes}``."""

    type: str
    attributes: Mapping[str, Any] | Sequence[Any] | None = None

    def document(self) -> dict[str, Any]:
        given = self.attributes
        return {
            "ResponseType": self.type,
            "Attributes": dict(given) if isinstance(given, Mapping) else given,
        }


class Reconciliation(Protocol):
    """Brings the listeners in line with what the rows and keys want."""

    async def apply(self) -> object:
        """Open, close and change what differs, all or nothing.

        Raises: Conflict or Refusal, whose text names the host names or ``address:port``.
        """

    def restart(self) -> None:
        """The same soon, after the answer to who asks is out; what fails goes to the log."""


class Queue(Protocol):
    """The part of the queue's runner that operations need."""

    async def run_once(self, queue_id: int | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What operations work with; one in a process.

    ``derivation``: where keys are made. ``queue``: None where nothing leaves (dev_mode).
    ``script``: None where no expression can be evaluated. ``environment``: what expressions see
    as ``env``. ``clock``: ends calls that take too long. ``mailing``: letters; ``codes``: what is
    mailed to prove that somebody reads it; ``resets``: of passwords; ``rendering``: templates;
    ``issuance``: certificates of an authority.
    """

    resources: Resources
    identities: Identities
    database: Any
    derivation: Derivation
    reconciliation: Reconciliation
    intake: Intake
    queue: Queue | None = None
    is_smtp_disabled: bool = False
    script: Script | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    clock: Any = None
    mailing: Mailing | None = None
    codes: OneTimeCodes | None = None
    resets: PasswordResets | None = None
    rendering: Rendering | None = None
    issuance: Issuance | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """One call: who asks, from where, and what to work with."""

    services: Services
    viewer: Viewer
    peer: str = ""  # the client's IP address


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an action of one's own, for its performers.

    ``context.viewer`` is who asked; what outcomes do, they do by ``as_administrator``. ``scope``:
    what expressions see, JSON only. ``buffer``: where everything goes that is to be written.
    ``script``: evaluates expressions, for so long in all as one call may. ``is_privileged``:
    somebody administers the server, so that not everybody may define actions.
    """

    context: Context
    definition: Definition
    scope: dict[str, Any]
    buffer: Buffer
    depth: int = 0
    script: Evaluator | None = None
    is_privileged: bool = True

    @property
    def as_administrator(self) -> Viewer:
        """The caller with the rights of an administrator: what he makes is his.

        On a server that nobody administers yet, anybody could make himself a key or a row in
        the name of the administrator to come: there it is the caller as he is.
        """
        if not self.is_privileged:
            return self.context.viewer
        return replace(self.context.viewer, is_admin=True, scopes=None)


@dataclass(frozen=True, slots=True)
class Performed:
    """What an outcome came to: ``value`` is kept under its Reference, JSON only.

    ``later`` tells it instead, once the buffer was settled or committed.
    """

    value: Any = None
    responses: Sequence[Response] = ()
    later: Callable[[], Performed] | None = None

    @property
    def whole(self) -> Performed:
        return self if self.later is None else self.later()


# Gets the call and the outcome's attributes, evaluated. Whatever it writes goes to the buffer.
Performer: TypeAlias = Callable[[Call, Mapping[str, Any]], Awaitable[Performed]]

Run: TypeAlias = Callable[
    [Context, Mapping[str, Any], "Item | None"], Awaitable[Sequence[Response]]
]


@dataclass(frozen=True, slots=True)
class Operation:
    """``run(context, attributes, subject)``; the subject is the row that ``<entity>_id`` names.

    ``needs_subject``: without it the call is refused. ``permission``: of its row in table
    ``action`` once there is an administrator. ``scope``: a kind that an API key needs at least;
    of ``send`` the operation itself looks at the domain.
    """

    entity: str
    name: str
    label: str
    run: Run
    inputs: tuple[Input, ...] = ()
    needs_subject: bool = False
    permission: int = FOR_ADMINISTRATORS
    scope: str = ADMIN

    @property
    def subject_key(self) -> str:
        return f"{self.entity}_id"

    @property
    def row(self) -> BuiltIn:
        """What its row in table ``action`` is made from."""
        return BuiltIn(self.entity, self.name, self.label, self.needs_subject, self.permission)

    def schema(self) -> dict[str, Any]:
        """What clients draw a form from."""
        return {
            "Name": self.name,
            "Label": self.label,
            "OnType": self.entity,
            "InstanceOptional": not self.needs_subject,
            "InFields": [
                {
                    "Name": each.label or each.name,
                    "ColumnName": each.name,
                    "ColumnType": each.type,
                    "IsNullable": not each.is_required,
                }
                for each in self.inputs
            ],
            "Validations": [
                {"ColumnName": each.name, "Tags": ",".join(each.tags)}
                for each in self.inputs
                if each.tags
            ],
        }


def notify(message: str, *, title: str = "Success", kind: str = "success") -> Response:
    """A line for the person."""
    return Response("client.notify", {"message": message, "title": title, "type": kind})


def redirect(location: str, delay: int) -> Response:
    """Where a browser goes next, after ``delay`` milliseconds."""
    return Response("client.redirect", {"delay": delay, "location": location, "window": "self"})


def failed(message: str) -> Response:
    """The whole answer of a call that failed."""
    return notify(message, title="failed", kind="error")
