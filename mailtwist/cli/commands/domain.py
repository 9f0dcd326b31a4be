"""``mailtwist domain``: the domains whose mail is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli.context import Context, json_option, print_json, print_rows

if TYPE_CHECKING:
    from mailtwist.store.domains import Domain


@click.group()
def domain() -> None:
    """Add, list and remove local domains."""


def _row(found: Domain) -> dict[str, Any]:
    return {
        "name": found.name,
        "kind": found.kind,
        "catch_all": found.catch_all,
        "source": "row",
        "reference_id": found.reference_id,
    }


@domain.command("add")
@click.argument("name")
@click.option("--catch-all", metavar="ADDRESS", default="", help="Who gets mail to nobody.")
@json_option
@click.pass_obj
def add(context: Context, name: str, catch_all: str, as_json: bool) -> None:
    """Make a domain local."""
    from mailtwist.mail.address import parse_address
    from mailtwist.store import domains

    target = str(parse_address(catch_all)) if catch_all else ""
    with context.store() as engine, engine.write() as connection:
        made = domains.add(connection, name, catch_all=target)
    if as_json:
        print_json(_row(made))
    else:
        click.echo(f"added {made.name}")


@domain.command("list")
@json_option
@click.pass_obj
def list_(context: Context, as_json: bool) -> None:
    """List the local domains, those of the configuration too."""
    from mailtwist.store import domains

    with context.store() as engine, engine.read() as connection:
        # Those of captured mail are nobody's (RFC 2606 §2).
        found = (each for each in domains.list(connection) if not each.name.endswith(".invalid"))
        rows = [_row(each) for each in found]
    named = {row["name"] for row in rows}
    source = context.settings.sources.get("domains", "default")
    rows += [
        {"name": name, "kind": "local", "catch_all": "", "source": source, "reference_id": ""}
        for name in context.settings.domains
        if name not in named
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("name", "kind", "catch_all", "source"))


@domain.command("remove")
@click.argument("name")
@json_option
@click.pass_obj
def remove(context: Context, name: str, as_json: bool) -> None:
    """Remove a domain without accounts."""
    from mailtwist.store import domains

    with context.store() as engine, engine.write() as connection:
        domains.remove(connection, name)
    if as_json:
        print_json({"name": name})
    else:
        click.echo(f"removed {name}")
