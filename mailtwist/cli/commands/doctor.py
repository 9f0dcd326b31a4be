"""``mailtwist doctor``: is everything up, can mail leave, is the domain published?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mailtwist.cli.context import Context, json_option, print_json
from mailtwist.cli.doctor.examination import Check, Finding, Status, examine, fail
from mailtwist.errors import ConfigError, MailError

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.policy.dns_records import Record
    from mailtwist.store.dkim_keys import Key
    from mailtwist.store.engine import Engine

# A domain whose mail hosts are always up, to see whether their port is open from here.
PROBE: Final = "gmail.com"


@click.command()
@click.argument("domain", required=False)
@click.option(
    "--probe",
    metavar="DOMAIN",
    default=PROBE,
    show_default=True,
    help="Whose mail hosts are called, where no smart host is set; nothing is sent.",
)
@json_option
@click.pass_obj
def doctor(context: Context, domain: str | None, probe: str, as_json: bool) -> None:
    """Look at the whole installation and say what is wrong with it, and what to do.

    With DOMAIN its DNS records are compared with those of `mailtwist dns`. Status 0 says that
    nothing failed; warnings do not count. It takes half a minute at most, and sends no mail.
    """
    found = _found(context, domain, probe)
    failed = [each for each in found if each.status is Status.FAIL]
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(each) for each in found]})
    else:
        _print(found)
    if failed:
        raise MailError(f"{len(failed)} of {len(found)} checks failed")
    if not as_json:
        warned = sum(each.status is Status.WARN for each in found)
        click.echo(f"nothing failed, {warned} warnings" if warned else "all is well")


def _found(context: Context, domain: str | None, probe: str) -> list[Finding]:
    from mailtwist.config import InvalidConfiguration

    try:
        settings = context.settings
    except InvalidConfiguration as error:
        return [
            fail("configuration", each, "see: mailtwist config check") for each in error.problems
        ]
    except ConfigError as error:
        return [fail("configuration", error.text)]
    return examine(list(_checks(context, settings, domain, probe)))


def _checks(
    context: Context, settings: Settings, domain: str | None, probe: str
) -> Iterator[Check]:
    from mailtwist.cli.doctor import installation, leaving, running

    yield Check("configuration", partial(installation.configuration, settings, context.env_file))
    yield Check("data folder", partial(installation.data_folder, settings))
    yield Check("secrets", partial(installation.secrets, settings, context.env_file))
    yield Check("tls", partial(installation.tls, settings))
    yield Check("database", partial(installation.database, settings), deadline_s=20)
    yield Check("server", partial(running.listeners, settings), deadline_s=20)
    yield Check("dns", partial(leaving.resolver, settings))
    yield from leaving.delivery(settings, probe)
    yield Check("redis", partial(leaving.redis, settings))
    if domain is not None:
        yield Check("records", partial(_records, context, settings, domain), deadline_s=30)


def _records(context: Context, settings: Settings, domain: str) -> Iterator[Finding]:
    from mailtwist.cli.doctor.published import records

    wanted: Sequence[Record] = _wanted(context, settings, domain)
    yield from records(settings, wanted)


def _wanted(context: Context, settings: Settings, name: str) -> list[Record]:
    """What ``mailtwist dns`` prints; no key is made here, nor a database."""
    from mailtwist.mail.address import fold_domain
    from mailtwist.policy.dns_records import records
    from mailtwist.store.engine import open_engine
    from mailtwist.store.ids import now_us

    domain = fold_domain(name)
    engine = open_engine(settings.database_url)
    try:
        keys = _keys(engine, domain)
    finally:
        engine.dispose()
    return records(domain, hostname=settings.hostname, keys=keys, settings=settings, now=now_us())


def _keys(engine: Engine, domain: str) -> list[Key]:
    from mailtwist.store import dkim_keys, upgrade

    if engine.is_sqlite and not Path(engine.path).exists():
        return []
    with engine.read() as connection:
        is_empty = upgrade.current_revision(connection) is None
        return [] if is_empty else dkim_keys.list(connection, domain)


def _print(found: Sequence[Finding]) -> None:
    width = min(max((len(each.name) for each in found), default=0), 40)
    for each in found:
        click.echo(f"{each.status.ljust(4)}  {each.name.ljust(width)}  {each.reason}")
        if each.advice:
            click.echo(f"{'':6}{'':{width}}  -> {each.advice}")
