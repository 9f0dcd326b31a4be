"""``mailtwist dns``: what to publish for a domain, and why."""

from __future__ import annotations

import ipaddress
import textwrap
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import click

from mailtwist.cli.context import Context, json_option, print_json

if TYPE_CHECKING:
    from mailtwist.policy.dns_records import Record

NEEDS = {
    "must": "Without these mail does not arrive, or is not believed.",
    "should": "These make mail safer and clients easier to set up.",
    "may": "These serve what not everybody runs.",
}


@click.command()
@click.argument("domain")
@click.option(
    "--address",
    "addresses",
    metavar="IP",
    multiple=True,
    help="An address of the server as the world sees it; may be repeated.",
)
@json_option
@click.pass_obj
def dns(context: Context, domain: str, addresses: tuple[str, ...], as_json: bool) -> None:
    """Print the DNS records of DOMAIN, each with its reason; make its DKIM key."""
    from mailtwist.policy.dns_records import zone_line

    found = _records(context, domain, [_address(text) for text in addresses])
    if as_json:
        print_json([{**asdict(record), "zone": zone_line(record)} for record in found])
        return
    found.sort(key=lambda record: list(NEEDS).index(record.need))
    for need, group in groupby(found, key=lambda record: record.need):
        click.echo(f"; {NEEDS[need]}\n")
        for record in group:
            for line in textwrap.wrap(record.reason, 97, break_on_hyphens=False):
                click.echo(f"; {line}")
            click.echo(f"{zone_line(record)}\n")


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.BadParameter(f"{text} is no IP address", param_hint="--address") from None


def _records(context: Context, name: str, addresses: list[str]) -> list[Record]:
    from mailtwist.cli.filing import run_now
    from mailtwist.cli.signing import open_keyring
    from mailtwist.mail.address import fold_domain
    from mailtwist.policy.dns_records import records
    from mailtwist.store import dkim_keys
    from mailtwist.store.ids import now_us

    domain, settings = fold_domain(name), context.settings
    with open_keyring(context) as keyring:
        for algorithm in keyring.algorithms if settings.dkim.enabled else ():
            run_now(keyring.active(domain, algorithm))
        keys = run_now(keyring.database.read(lambda each: dkim_keys.list(each, domain)))
    return records(
        domain,
        hostname=settings.hostname,
        addresses=addresses,
        keys=keys,
        settings=settings,
        now=now_us(),
    )
