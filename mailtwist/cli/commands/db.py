"""``mailtwist db``: the schema and the invariants of the store."""

from __future__ import annotations

import click

from mailtwist.cli.context import Context, json_option, make_data_dir, print_json
from mailtwist.errors import MailError


@click.group()
def db() -> None:
    """Upgrade and check the database."""


@db.command("upgrade")
@json_option
@click.pass_obj
def upgrade(context: Context, as_json: bool) -> None:
    """Bring the schema to this version; the server does the same when it starts."""
    from mailtwist.store import upgrade as schema
    from mailtwist.store.engine import open_engine

    make_data_dir(context.settings)
    engine = open_engine(context.settings.database_url)
    try:
        is_changed = schema.upgrade(engine)
    finally:
        engine.dispose()
    if as_json:
        print_json({"revision": schema.SCHEMA_HEAD, "changed": is_changed})
    else:
        state = "upgraded to" if is_changed else "already at"
        click.echo(f"{state} {schema.SCHEMA_HEAD}")


@db.command("check")
@json_option
@click.pass_obj
def check(context: Context, as_json: bool) -> None:
    """Check that the store agrees with itself: counters, UIDs, contents."""
    from mailtwist.store.check import verify

    with context.store() as engine, engine.read() as connection:
        violations = verify(connection)
    if as_json:
        print_json({"ok": not violations, "violations": violations})
    else:
        for text in violations:
            click.echo(text)
    if violations:
        raise MailError(f"{len(violations)} invariants of the store do not hold")
    if not as_json:
        click.echo("the store agrees with itself")
