"""A whole store as JSON: small stores of earlier versions that HEAD must open, on both databases.

A finished issue leaves one: ``python -m tests.support.dumps SQLITE_FILE JSON_FILE``.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, select, text

from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.upgrade import current_revision, upgrade


def dump(engine: Engine) -> dict[str, Any]:
    """All rows of all tables, and the revision they are at."""
    with engine.read() as connection:
        found = MetaData()
        found.reflect(connection)
        tables = {
            table.name: [dict(row._mapping) for row in connection.execute(select(table))]
            for table in sorted(found.tables.values(), key=lambda table: table.name)
            if table.name not in ("alembic_version", "sqlite_sequence")
        }
        return {"revision": current_revision(connection), "tables": tables}


def load(engine: Engine, dumped: dict[str, Any]) -> None:
    """Fill an empty database; it is left at the dump's revision."""
    upgrade(engine, to=dumped["revision"])
    with engine.write() as connection:
        found = MetaData()
        found.reflect(connection)
        for name, rows in dumped["tables"].items():
            if rows:
                connection.execute(found.tables[name].insert(), rows)
        if not engine.is_sqlite:
            _raise_sequences(connection, found)


def _raise_sequences(connection: Connection, found: MetaData) -> None:
    for table in found.tables.values():
        for column in table.primary_key.columns:
            if column.server_default is not None and "nextval" in str(column.server_default.arg):  # type: ignore[attr-defined]
                connection.execute(
                    text(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'),"
                        f" coalesce(max({column.name}), 0) + 1, false) FROM {table.name}"
                    )
                )


def to_json(dumped: dict[str, Any]) -> str:
    return json.dumps(dumped, indent=1, default=_octets, ensure_ascii=False) + "\n"


def from_json(written: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(written, object_hook=_value)
    return loaded


def _octets(value: object) -> dict[str, str]:
    assert isinstance(value, bytes), value
    try:
        return {"text": value.decode("ascii")} if len(value) < 300 else _packed(value)
    except UnicodeDecodeError:
        return _packed(value)


def _packed(value: bytes) -> dict[str, str]:
    return {"zlib": base64.b64encode(zlib.compress(value, 9)).decode()}


def _value(pairs: dict[str, Any]) -> Any:
    if pairs.keys() == {"text"}:
        return pairs["text"].encode("ascii")
    if pairs.keys() == {"zlib"}:
        return zlib.decompress(base64.b64decode(pairs["zlib"]))
    return pairs


def main(source: str, target: str) -> None:
    engine = open_engine(f"sqlite:///{source}")
    Path(target).write_text(to_json(dump(engine)))
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
