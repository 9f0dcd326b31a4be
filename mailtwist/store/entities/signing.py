"""What a ``mail_server`` row tells of the key that mail from its domain is signed with.

The domain is the nearest local one that the host name lies in, else the host name itself.
The rows of :mod:`mailtwist.store.dkim_keys` are only read here: whoever may seal makes keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, select

from mailtwist.store.dkim_keys import ACTIVE, RSA
from mailtwist.store.entities.model import Column, Facts, Reading, Stored
from mailtwist.store.entities.tables import mail_server
from mailtwist.store.tables import dkim_key, domain

COLUMNS: Final = (
    Column("dkim_selector", is_readonly=True, is_virtual=True, doc="Names the key in DNS."),
    Column("dkim_public_key", is_readonly=True, is_virtual=True, doc="In base64, as published."),
    Column(
        "dkim_dns_record",
        is_readonly=True,
        is_virtual=True,
        doc="The record that lets others verify signatures.",
    ),
)


def complete(reading: Reading, rows: Sequence[Stored]) -> Sequence[Stored]:
    """The rows with the columns above; empty ones where the domain has no key yet."""
    if not any(reading.wants(column.name) for column in COLUMNS):
        return rows
    hostnames = _hostnames(reading.connection, rows)
    domains = domains_of(reading.connection, hostnames.values(), reading.facts)
    keys = _keys(reading.connection, set(domains.values()), reading.facts.dkim_selector)
    return [_with_key(reading, row, domains[hostnames[row.key]], keys) for row in rows]


def _hostnames(connection: Connection, rows: Sequence[Stored]) -> dict[int, str]:
    """By key, for the row may be read without its host name."""
    query = select(mail_server.c.mail_server_id, mail_server.c.hostname)
    wanted = query.where(mail_server.c.mail_server_id.in_([row.key for row in rows]))
    return {row.mail_server_id: row.hostname for row in connection.execute(wanted)}


def domains_of(connection: Connection, hostnames: Iterable[str], facts: Facts) -> Mapping[str, str]:
    """For each host name the domain whose mail it signs."""
    above = {hostname: _above(hostname) for hostname in hostnames}
    candidates = sorted({name for names in above.values() for name in names})
    query = select(domain.c.name).where(
        domain.c.name.in_(candidates),
        domain.c.enabled == 1,
        domain.c.kind.in_(("local", "inbox")),
    )
    local = set(connection.execute(query).scalars()) | set(facts.local_domains)
    return {
        hostname: next((name for name in names if name in local), hostname)
        for hostname, names in above.items()
    }


def _above(hostname: str) -> list[str]:
    """The host name and the domains that it lies in, the nearest first."""
    labels = hostname.split(".")
    return [".".join(labels[n:]) for n in range(max(len(labels) - 1, 1))]


def _keys(connection: Connection, domains: Iterable[str], configured: str) -> dict[str, str]:
    """The selector and public key of each domain that has one, with a blank between."""
    query = (
        select(dkim_key.c.domain, dkim_key.c.selector, dkim_key.c.public_key)
        .where(
            dkim_key.c.domain.in_(sorted(domains)),
            dkim_key.c.state == ACTIVE,
            dkim_key.c.algorithm == RSA,
            dkim_key.c.configured == configured,
        )
        .order_by(dkim_key.c.created_at)
    )
    return {row.domain: f"{row.selector} {row.public_key}" for row in connection.execute(query)}


def _with_key(reading: Reading, row: Stored, name: str, keys: Mapping[str, str]) -> Stored:
    selector, _, public_key = keys.get(name, f"{reading.facts.dkim_selector} ").partition(" ")
    record = (
        f'{selector}._domainkey.{name}. IN TXT "v=DKIM1; k=rsa; p={public_key}"'
        if public_key
        else ""
    )
    computed = {
        "dkim_selector": selector,
        "dkim_public_key": public_key,
        "dkim_dns_record": record,
    }
    shown = {key: value for key, value in computed.items() if reading.wants(key)}
    item = replace(row.item, attributes={**row.item.attributes, **shown})
    return replace(row, item=item)
