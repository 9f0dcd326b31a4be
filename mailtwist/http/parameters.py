"""The query string of a list or a row: page, order, filters, columns, includes.

=========================  ==================================================================
parameter                  meaning
=========================  ==================================================================
``page[number]``           from 1; 0 counts as 1
``page[size]``             10; 0 counts as 1, more than 1000 as 1000
``page[after]/[before]``   the id of a row: only rows behind, or before, it
``sort``                   columns with commas between, ``-`` for descending
``filter``                 a text to look for in the columns that name a row
``query``                  JSON, see :mod:`mailtwist.mail.filters`
``fields``                 columns that are wanted; also ``fields[entity]``
``included_relations``     relations whose rows come along; also ``include``
=========================  ==================================================================

Other parameters don't count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.http.exchange import Parameters
from mailtwist.http.jsonapi import encode_query
from mailtwist.mail.filters import parse_query
from mailtwist.store.entities.model import ListRequest

DEFAULT_SIZE: Final = 10
MAX_SIZE: Final = 1000
MAX_NUMBER: Final = 1_000_000_000
MAX_NAMES: Final = 100
MAX_SORT: Final = 10
# What a URL of another page has of its own, and what it must not repeat.
_NOT_REPEATED: Final = frozenset({"page[number]", "page[size]", "token"})


def read_list(parameters: Parameters, entity: str) -> ListRequest:
    """Raises: ProtocolViolation, which names the parameter."""
    return ListRequest(
        filter=parse_query(_first(parameters, "query")),
        text=_first(parameters, "filter"),
        sort=tuple(_sort(parameters)),
        size=min(_whole(parameters, "page[size]", DEFAULT_SIZE), MAX_SIZE),
        number=_whole(parameters, "page[number]", 1),
        after=_first(parameters, "page[after]"),
        before=_first(parameters, "page[before]"),
        columns=read_columns(parameters, entity),
        includes=read_includes(parameters),
    )


def read_columns(parameters: Parameters, entity: str) -> frozenset[str] | None:
    """The columns that are wanted; None: all that are shown without being asked for."""
    for name in (f"fields[{entity}]", "fields"):
        if name in parameters:
            return frozenset(_names(parameters, name)) or None
    return None


def read_includes(parameters: Parameters) -> tuple[str, ...]:
    found = (*_names(parameters, "included_relations"), *_names(parameters, "include"))
    return tuple(dict.fromkeys(found))


def other_pages(parameters: Parameters) -> str:
    """The query string of another page, without its number and size."""
    return encode_query(
        (name, value)
        for name, values in parameters.items()
        if name not in _NOT_REPEATED
        for value in values
    )


def _sort(parameters: Parameters) -> Iterator[tuple[str, bool]]:
    names = _names(parameters, "sort")
    if len(names) > MAX_SORT:
        raise ProtocolViolation(f"sort: more than {MAX_SORT} columns")
    for name in names:
        is_descending = name.startswith("-")
        # In a query string a plus is a blank, so it is gone by now.
        yield name.lstrip("-+").strip(), is_descending


def _names(parameters: Parameters, name: str) -> list[str]:
    values = parameters.get(name)
    if not values:
        return []
    found = [part.strip() for value in values for part in value.split(",")]
    found = [part for part in found if part]
    if len(found) > MAX_NAMES:
        raise ProtocolViolation(f"{name}: more than {MAX_NAMES} names")
    return found


def _whole(parameters: Parameters, name: str, default: int) -> int:
    """A number of at least 1; nothing is the default."""
    text = _first(parameters, name).strip()
    if not text:
        return default
    if len(text) > 10 or not (text.isascii() and text.isdigit()) or int(text) > MAX_NUMBER:
        raise ProtocolViolation(f"{name}: not a number from 0 to {MAX_NUMBER}")
    return max(1, int(text))


def _first(parameters: Parameters, name: str) -> str:
    values = parameters.get(name)
    return values[0] if values else ""
