"""Alembic's entry: the connection, its transaction and its lock come from upgrade()."""

from __future__ import annotations

from alembic import context

from mailtwist.store.migrations.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
