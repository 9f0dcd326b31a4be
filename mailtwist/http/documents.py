"""The documentation page of the tables, made from the declarations of the entities.

``scripts/generate.py`` writes it; ``scripts/check`` fails when it differs from what this
module says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mailtwist.store.entities import ENTITIES
from mailtwist.store.entities.model import Column, Entity, Relation

HEAD = """\
# Tables

<!-- Generated from the declarations in mailtwist/store/entities by scripts/generate.py. Do not edit. -->

Which columns has each table, and what may be done with its rows?

Every row also has `reference_id` (its id), `permission`, `created_at`, `updated_at` and, where rows have one, its owner `user_account_id`.
How to ask for rows: [rest.md](rest.md); who may: [permissions.md](permissions.md).
"""  # noqa: E501


def page(entities: Iterable[Entity] | None = None) -> str:
    """docs/tables.md."""
    given = sorted(entities or ENTITIES.values(), key=lambda entity: entity.name)
    lines = [HEAD]
    for entity in given:
        lines += [*_section(entity), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(entity: Entity) -> Iterator[str]:
    yield from (f"## {entity.name}", "", _sentence(entity.doc), "")
    yield f"Methods: {', '.join(_methods(entity))}."
    if entity.columns:
        yield from ("", "| column | type | default | |", "| --- | --- | --- | --- |")
        yield from (_column(column) for column in entity.columns.values())
    if entity.relations:
        yield from ("", "| relation | leads to | |", "| --- | --- | --- |")
        yield from (_relation(relation) for relation in entity.relations.values())


def _methods(entity: Entity) -> list[str]:
    writers = {"POST": entity.create, "PATCH": entity.update, "DELETE": entity.delete}
    return ["GET", *(name for name, writer in writers.items() if writer is not None)]


def _column(column: Column) -> str:
    default = "" if column.default is None else f"`{_plain(column.default)}`"
    return f"| `{column.name}` | {column.type} | {default} | {_remarks(column)} |"


def _plain(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("|", "\\|") or '""'


def _remarks(column: Column) -> str:
    marks = {
        "required": column.is_required and not column.is_readonly,
        "unique": column.is_unique,
        "read only": column.is_readonly,
        "never read": column.is_writeonly or column.is_secret,
        "only when asked for": column.is_hidden,
    }
    return _remark(column.doc, marks)


def _relation(relation: Relation) -> str:
    kind = "many " if relation.is_many else ""
    marks = {"required": relation.is_required, "read only": relation.is_readonly}
    return f"| `{relation.name}` | {kind}{relation.entity} | {_remark(relation.doc, marks)} |"


def _remark(doc: str, marks: Mapping[str, bool]) -> str:
    """What the column is, and what is so of it."""
    names = ", ".join(name for name, is_so in marks.items() if is_so)
    both = (_sentence(doc), names and f"{names.capitalize()}.")
    return " ".join(part for part in both if part).replace("|", "\\|")


def _sentence(text: str) -> str:
    return " ".join(text.split())
