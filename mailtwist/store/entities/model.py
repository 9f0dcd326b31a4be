"""What an entity is: one declaration drives routes, checks, documents and the command line.

An :class:`Entity` names its columns and relations; its :class:`Source` gives its rows, its
writers change them. The engine does what is common: gates, checks of values, relations,
includes. Everything here is a plain value or a plain function of a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from mailtwist.errors import Refusal
from mailtwist.mail.filters import Tree
from mailtwist.mail.permissions import ALL, LOCKED, OPEN, OWN_MAIL, OWNED, Viewer

DEFAULT_SIZE: Final = 10
MAX_SIZE: Final = 1_000

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return NOTHING


class Type(StrEnum):
    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    NUMBER = "number"
    TIMESTAMP = "timestamp"  # in the store: microseconds; outside: ISO 8601, UTC
    JSON = "json"  # kept and read as its text; given as that text or as the value
    LIST = "list"  # of texts, kept as JSON
    PASSWORD = "password"  # kept as verifiers; read as ""  # noqa: S105
    SECRET = "secret"  # kept sealed; never read  # noqa: S105


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it is seen outside.

    ``default`` is what a missing value becomes; with None and not required it stays empty.
    ``is_readonly``: what the client gives is passed over, only our own code sets it (Prepared);
    ``is_fixed``: the same once the row is there.
    ``is_hidden``: left out unless asked for. ``is_virtual``: never compared or sorted by, for no
    SQL knows it. ``is_folded``: kept and compared in lower case. ``choices``: the only texts it
    takes. ``lowest`` and ``highest``: of an integer.
    """

    name: str
    type: Type = Type.TEXT
    default: Any = None
    is_required: bool = False
    is_unique: bool = False
    is_readonly: bool = False
    is_fixed: bool = False
    is_writeonly: bool = False
    is_hidden: bool = False
    is_virtual: bool = False
    is_folded: bool = False
    max_length: int = 10_000
    choices: tuple[str, ...] = ()
    lowest: int = -(2**53)
    highest: int = 2**53
    doc: str = ""

    @property
    def is_secret(self) -> bool:
        return self.type in {Type.PASSWORD, Type.SECRET}

    @property
    def is_queryable(self) -> bool:
        """Whether filters and sorting may name it: a secret could be guessed letter by letter."""
        return not (self.is_secret or self.is_virtual or self.is_writeonly)


@dataclass(frozen=True, slots=True)
class Relation:
    """``inverse``: the relation of the other entity that leads back; the rows are those with it.

    Such a relation holds nothing itself, so its rows are a list and a document only links it.
    """

    name: str
    entity: str
    is_many: bool = False
    is_required: bool = False
    is_readonly: bool = False
    inverse: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Ref:
    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Item:
    """One row for its reader. Attributes are ready for JSON, the system's among them:

    ``__type``, ``reference_id``, ``permission``, ``created_at``, ``updated_at`` and one with the
    id of the other row for each relation to one. ``relations`` misses those with an inverse.
    """

    entity: str
    id: str
    attributes: Mapping[str, Any]
    relations: Mapping[str, Ref | tuple[Ref, ...] | None] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row with what the gates and the writers must know. ``owner`` 0: nobody.

    ``key``: the source's own, such as the primary key. ``sharing``: the entity and number under
    which row_group shares it, by default its own entity and an integer key; None: never shared.
    """

    item: Item
    key: Any
    owner: int
    permission: int
    sharing: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What is asked of a list. ``columns`` None: all that are not hidden.

    ``sort``: pairs of a column and whether it descends; empty: the entity's own order, and in a
    page after or before a row the order that leads away from it. ``text``: is searched in the
    labels. ``after``, ``before``: ids of rows.
    """

    filter: Tree | None = None
    text: str = ""
    sort: tuple[tuple[str, bool], ...] = ()
    size: int = DEFAULT_SIZE
    number: int = 1
    after: str = ""
    before: str = ""
    columns: frozenset[str] | None = None
    includes: tuple[str, ...] = ()
    needs_total: bool = True

    @property
    def offset(self) -> int:
        return 0 if self.after or self.before else (self.number - 1) * self.size


@dataclass(frozen=True, slots=True)
class Page:
    """``total`` counts all that the viewer may see and the filter allows, whatever the page."""

    items: tuple[Item, ...]
    total: int
    included: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """A page as its source gives it, all of it visible to the viewer."""

    rows: tuple[Stored, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What settings say and no table knows."""

    local_domains: tuple[str, ...] = ()  # the first is that of names without domain
    hostname: str = ""
    dkim_selector: str = "d1"
    certificate_key: str = "rsa"  # the kind of those that we make for certificates


@dataclass(frozen=True, slots=True)
class Reading:
    """For whom and from where rows are read.

    ``columns``: those asked for; None: all that are not hidden.
    """

    connection: Connection
    viewer: Viewer
    entity: Entity
    facts: Facts = Facts()
    columns: frozenset[str] | None = None

    def wants(self, name: str) -> bool:
        """Tell whether a column must be read at all."""
        if self.columns is None:
            column = self.entity.columns.get(name)
            return column is None or not column.is_hidden
        return name in self.columns


# Attributes that every row has beside its columns.
SYSTEM_COLUMNS: Final[Mapping[str, Column]] = MappingProxyType(
    {
        column.name: column
        for column in (
            Column("reference_id", doc="The id of the row, a UUID."),
            Column("permission", Type.INTEGER, lowest=0, doc="Who may do what with the row."),
            Column("created_at", Type.TIMESTAMP, is_readonly=True),
            Column("updated_at", Type.TIMESTAMP, is_readonly=True),
        )
    }
)
OWNER_RELATION: Final = "user_account_id"
GROUP_RELATION: Final = "usergroup_id"


def by_name(*columns: Column) -> Mapping[str, Column]:
    """Columns as an entity wants them."""
    return MappingProxyType({column.name: column for column in columns})


def relations(*listed: Relation) -> Mapping[str, Relation]:
    """Relations as an entity wants them."""
    return MappingProxyType({relation.name: relation for relation in listed})


class Source(Protocol):
    """Where the rows of an entity are."""

    def page(self, reading: Reading, request: ListRequest) -> Slice:
        """A page of what the viewer may read; the gate of the row is part of the statement.

        ``request`` was checked: its columns exist and may be compared.
        """
        ...

    def rows(self, reading: Reading, ids: Collection[str]) -> Mapping[str, Stored]:
        """The rows with these ids, in one statement and before any gate; unknown ids miss.

        Raises: AccessDenied, where even telling whether a row exists would tell too much.
        """
        ...


class Links(Protocol):
    """The rows that a relation to many leads to, by the keys of both."""

    @property
    def is_membership(self) -> bool:
        """Whether it makes somebody a member of a group: more than sharing a row with it."""
        ...

    def refs(self, connection: Connection, keys: Collection[int]) -> Mapping[int, tuple[Ref, ...]]:
        """What each of the rows leads to, in one statement; rows that lead nowhere miss."""
        ...

    def add(self, connection: Connection, key: int, others: Collection[int]) -> None: ...

    def remove(self, connection: Connection, key: int, others: Collection[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A value from our own code, in the form the store keeps: passes read-only and every parser.

    A password's is a tuple of Verifier, a secret's its sealed text.
    """

    value: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What a writer is given. All was checked: types, relations, gates.

    ``values``: columns with what the store keeps; when creating, defaults are filled in and only
    empty ones miss; when changing, only what changes is there. ``relations``: the rows meant, a
    tuple for relations to many, None for none; never user_account_id and usergroup_id.
    ``owner``: the user_id the row is to have (creating) or gets (changing; None: stays).
    ``permission`` likewise. ``row``: the one to change or delete.
    """

    connection: Connection
    viewer: Viewer
    entity: Entity
    now: int
    facts: Facts = Facts()
    values: Mapping[str, Any] = field(default_factory=_nothing)
    relations: Mapping[str, Any] = field(default_factory=_nothing)
    owner: int | None = None
    permission: int | None = None
    row: Stored | None = None

    def with_values(self, values: Mapping[str, Any]) -> Change:
        """The same change with other values."""
        return replace(self, values=values)

    @property
    def key(self) -> Any:
        """The key of the row to change or delete."""
        assert self.row is not None
        return self.row.key


Create = Callable[[Change], str]  # gives the id of the row, which is the one there already or new
Write = Callable[[Change], None]
# Rows of one page, to be returned with more attributes; one or two statements for all of them.
Complete = Callable[[Reading, Sequence[Stored]], Sequence[Stored]]


_PERMISSIONS: Final = (
    "table_permission",
    "row_permission",
    "fresh_table_permission",
    "fresh_row_permission",
    "owner_bits",
)


@dataclass(frozen=True, slots=True)
class Entity:
    """One kind of row. A writer None: the method is not allowed.

    ``is_private``: what guests may is never asked. ``table_permission`` and
    ``row_permission``: after somebody became administrator; ``fresh_...`` until then.
    ``owner_bits``: what the table's gate grants to the owner of a row whatever its permission
    says. ``labels``: what the text filter looks in. ``is_shared``: rows may be shared with groups
    (relation usergroup_id). ``links``: how relations to many without inverse are kept, when it
    is not sharing. The relations user_account_id and usergroup_id are added by themselves.
    """

    name: str
    doc: str
    columns: Mapping[str, Column]
    source: Source
    relations: Mapping[str, Relation] = field(default_factory=dict)
    links: Mapping[str, Links] = field(default_factory=dict)
    create: Create | None = None
    update: Write | None = None
    delete: Write | None = None
    complete: Complete | None = None
    is_private: bool = False
    is_shared: bool = True
    table_permission: int = LOCKED
    row_permission: int = LOCKED
    fresh_row_permission: int = OWNED
    fresh_table_permission: int = OPEN
    owner_bits: int = 0
    order: tuple[tuple[str, bool], ...] = (("created_at", True),)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        standard = [Relation(OWNER_RELATION, "user_account", doc="Whose row it is.")]
        if self.is_shared:
            doc = "The groups that the row is shared with."
            standard.append(Relation(GROUP_RELATION, "usergroup", is_many=True, doc=doc))
        every = {relation.name: relation for relation in standard} | dict(self.relations)
        object.__setattr__(self, "relations", MappingProxyType(every))
        for name in _PERMISSIONS:  # plain integers, for drivers know no flags
            object.__setattr__(self, name, int(getattr(self, name)))


def private_bits(permission: int) -> int:
    """A permission without what it gives to guests."""
    return permission & ~ALL


PRIVATE_ROW: Final = OWN_MAIL


class AccessDenied(Refusal):
    """A gate is closed. ``title`` says which of the two."""

    TABLE: Final = "TableAccessPermissionChecker"
    ROW: Final = "ObjectAccessPermissionChecker"

    def __init__(self, title: str, text: str = "") -> None:
        super().__init__(text or "Forbidden")
        self.title = title


class MethodNotAllowed(Refusal):
    http_status = 405
    default_text = "Method not allowed"
