"""``mailtwist dkim``: the keys that outgoing mail is signed with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli.context import Context, json_option, print_json, print_rows
from mailtwist.errors import NotFound

if TYPE_CHECKING:
    from mailtwist.store.dkim_keys import Key


@click.group()
def dkim() -> None:
    """List and rotate the keys that sign outgoing mail."""


def _row(key: Key, configured: str) -> dict[str, Any]:
    from mailtwist.policy.dkim_rotation import record_name, record_value
    from mailtwist.store.dkim_keys import ACTIVE

    # A key of an earlier dkim.selector signs nothing, until that is set again.
    is_idle = key.state == ACTIVE and key.configured != configured
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "state": "idle" if is_idle else key.state,
        "name": record_name(key),
        "record": record_value(key),
        "public_key": key.public_key,
        "created_at": _date(key.created_at),
        "retired_at": _date(key.retired_at),
    }


def _date(microseconds: int) -> str | None:
    from datetime import UTC, datetime

    if not microseconds:
        return None
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).isoformat()


@dkim.command("list")
@click.argument("domain", required=False, default="")
@json_option
@click.pass_obj
def list_(context: Context, domain: str, as_json: bool) -> None:
    """List the keys of DOMAIN, or of all."""
    from mailtwist.mail.address import fold_domain
    from mailtwist.policy.keyring import configured_selector
    from mailtwist.store import dkim_keys

    name = fold_domain(domain) if domain else ""
    with context.store() as engine, engine.read() as connection:
        keys = dkim_keys.list(connection, name)
    rows = [_row(key, configured_selector(context.settings.dkim)) for key in keys]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("domain", "selector", "algorithm", "state", "created_at"))


@dkim.command("rotate")
@click.argument("domain")
@click.option("--selector", metavar="NAME", default="", help="Of the new key; default: the next.")
@click.option("--now", "at_once", is_flag=True, help="Do not wait for the record in DNS.")
@json_option
@click.pass_obj
def rotate(context: Context, domain: str, selector: str, at_once: bool, as_json: bool) -> None:
    """Make the key that follows and let it sign once its record is in DNS.

    Call it again to look once more; a running server looks every ten minutes by itself.
    """
    from mailtwist.policy.keyring import configured_selector

    keys = _rotate(context, domain, selector, at_once)
    rows = [_row(key, configured_selector(context.settings.dkim)) for key in keys]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        _tell(row)


def _tell(row: dict[str, Any]) -> None:
    from mailtwist.policy.dns_records import Record, zone_line

    if row["state"] == "active":
        click.echo(f"{row['name']} signs now; keep the record before it for a week")
        return
    click.echo("; Publish this. It signs as soon as the server sees it, which looks every")
    click.echo("; ten minutes, or when this command is called again.")
    click.echo(zone_line(Record("TXT", row["name"], row["record"], "")))


def _rotate(context: Context, name: str, selector: str, at_once: bool) -> list[Key]:
    from mailtwist.cli.filing import run_now
    from mailtwist.cli.signing import open_keyring
    from mailtwist.mail.address import fold_domain
    from mailtwist.policy.dkim_rotation import prepare

    domain, wanted = fold_domain(name), _folded(selector)
    keys = []
    with open_keyring(context) as keyring:
        for algorithm in keyring.algorithms:
            try:
                key = run_now(prepare(keyring, domain, algorithm, wanted))
            except NotFound:
                continue  # its first key makes itself
            keys.append(run_now(_take_over(context, keyring.database, key, at_once)))
    if not keys:
        raise NotFound(f"{domain} has no DKIM key yet; `mailtwist dns {domain}` makes it")
    return keys


async def _take_over(context: Context, database: Any, key: Key, at_once: bool) -> Key:
    from mailtwist.policy.dkim_rotation import activate, is_published
    from mailtwist.store.dkim_keys import ACTIVE

    resolver = _Resolver(context.settings.outbound.resolver)
    if not at_once and not await is_published(resolver, key):
        return key
    await activate(database, key)
    return replace(key, state=ACTIVE)


def _folded(selector: str) -> str:
    from mailtwist.config.names import fold_domain

    try:
        return fold_domain(selector) if selector else ""
    except ValueError:
        raise click.BadParameter(f"{selector} is no selector", param_hint="--selector") from None


class _Resolver:
    """Asks DNS and waits."""

    def __init__(self, server: str) -> None:
        from mailtwist.net.dns import Stub

        self._stub = Stub(server)

    async def txt(self, name: str) -> list[bytes]:
        return list(self._stub.query(name, "TXT").values)
