"""``mailtwist cert``: the certificates in rows. A running server uses what changes at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli.context import Context, json_option, print_json, print_rows
from mailtwist.errors import ConfigError, Conflict, NotFound, ProtocolViolation

if TYPE_CHECKING:
    from mailtwist.store.certificates import Listed, Material, Row
    from mailtwist.store.database import Inline
    from mailtwist.store.secrets import Secrets
    from mailtwist.tls.importing import Outcome
    from mailtwist.tls.pem import Bundle

_COLUMNS = ("hostname", "issuer", "expires_at", "serial_number", "names")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def cert() -> None:
    """List, order, import, export and renew certificates."""


@cert.command("list")
@json_option
@click.pass_obj
def list_(context: Context, as_json: bool) -> None:
    """List the certificates in rows, and when they end."""
    from mailtwist.store import certificates

    with _opened(context) as opened, opened.database.engine.read() as connection:
        found = [_row(each) for each in certificates.listed(connection)]
    if as_json:
        print_json(found)
    else:
        print_rows([{**each, "names": " ".join(each["names"])} for each in found], _COLUMNS)


def _row(found: Listed) -> dict[str, Any]:
    facts = found.facts
    return {
        "hostname": found.hostname,
        "issuer": found.issuer,
        "names": list(facts.names),
        "valid_from": _date(facts.not_before),
        "expires_at": _date(facts.not_after),
        "serial_number": facts.serial,
        "is_usable": facts.is_usable,
        "reference_id": found.reference_id,
    }


def _date(microseconds: int) -> str:
    if not microseconds:
        return ""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).isoformat()


# -- import ---------------------------------------------------------------------------------


@cert.command("import")
@click.argument("certificate", type=_FILE)
@click.argument("key", type=_FILE)
@click.option("--chain", type=_FILE, help="Those that lead to a root, where CERTIFICATE has none.")
@click.option("--hostname", metavar="NAME", default="", help="Of the row; default: its first name.")
@json_option
@click.pass_obj
def import_(
    context: Context,
    certificate: Path,
    key: Path,
    chain: Path | None,
    hostname: str,
    as_json: bool,
) -> None:
    """Put CERTIFICATE (PEM, in any order with its chain) and its KEY into a row.

    The row of that host name is made where there is none; one that is there is replaced.
    """
    given = _text(certificate), _text(chain) if chain else None, _text(key)
    with _opened(context) as opened:
        made, row = _import(opened, given, hostname)
        _adopt_key(context, opened, row.hostname)
    _tell("imported", row.hostname, made.bundle, as_json)


def _text(path: Path) -> str:
    from mailtwist.tls.pem import MAX_OCTETS

    with path.open("rb") as file:
        return file.read(MAX_OCTETS + 1).decode("latin-1")


def _import(
    opened: _Opened, given: tuple[str, str | None, str], hostname: str
) -> tuple[Outcome, Row]:
    """Check it, and write it into its row. Raises: ConfigError that says what is wrong."""
    from mailtwist.store import certificates
    from mailtwist.store.ids import now_us
    from mailtwist.tls import importing, pem, rows
    from mailtwist.tls.importing import Given, Held

    certificate, above, key = given
    try:
        names = pem.host_names(hostname or _first_name(certificate, above or "", key))
        held = Held(",".join(names))
        made = importing.imported(Given(certificate, above, key), held, opened.now)
    except pem.Fault as fault:
        raise ConfigError(f"{fault.where}: {fault}") from fault
    if made is None or made.bundle.key is None:
        raise ConfigError("certificate and key: one of the files is empty")
    material = rows.material(made.bundle, opened.secrets)
    with opened.writing() as connection:
        row = _of_hostname(connection, held.hostname) or _added(connection, held.hostname)
        certificates.store_issued(
            connection, row.certificate_id, material, issuer=made.issuer, now=now_us()
        )
    return made, row


def _first_name(certificate: str, above: str, key: str) -> str:
    from mailtwist.tls import pem

    bundle = pem.read(certificate, above, key, now=None)
    names = (*bundle.names, *bundle.addresses)
    if not names:
        raise pem.Fault("certificate", "the certificate names no host; give --hostname")
    return names[0]


def _of_hostname(connection: Any, hostname: str) -> Row | None:
    from mailtwist.store import certificates

    return certificates.of_hostname(connection, hostname)


def _added(connection: Any, hostname: str) -> Row:
    from mailtwist.store import certificates
    from mailtwist.store.ids import now_us
    from mailtwist.store.reference import reference_id

    certificates.add(connection, hostname, reference_id(now_us()), now=now_us())
    row = _of_hostname(connection, hostname)
    assert row is not None, "just made"
    return row


def _adopt_key(context: Context, opened: _Opened, hostname: str) -> None:
    """The key of a mail domain signs its mail, too."""
    from mailtwist.cli.filing import run_now
    from mailtwist.policy.hashing import Inline
    from mailtwist.policy.keyring import Keyring

    keyring = Keyring(opened.database, opened.secrets, Inline(), context.settings.dkim)
    run_now(keyring.adopt(hostname))


# -- export ---------------------------------------------------------------------------------


@cert.command("export")
@click.argument("hostname")
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files go; default: here.",
)
@click.option("--with-key", is_flag=True, help="Write the private key too, for its owner alone.")
@json_option
@click.pass_obj
def export(context: Context, hostname: str, folder: Path, with_key: bool, as_json: bool) -> None:
    """Write the certificate of HOSTNAME with its chain to HOSTNAME.crt, its key to .key."""
    from mailtwist.store.certificates import PURPOSE
    from mailtwist.tls.selfsigned import write_whole

    with _opened(context) as opened:
        row = opened.row(hostname)
        if not row.certificate_pem:
            raise NotFound(f"{row.hostname} has no certificate yet")
        contents = {".crt": (row.chain, 0o644)}
        if with_key and row.sealed_key:
            contents[".key"] = opened.secrets.open(row.sealed_key, PURPOSE), 0o600
    folder.mkdir(parents=True, exist_ok=True)
    name = row.hostname.partition(",")[0].replace("*", "_")
    written = []
    for suffix, (text, mode) in contents.items():
        path = folder / f"{name}{suffix}"
        write_whole(path, text.encode("utf-8"), mode)
        written.append(str(path))
    if as_json:
        print_json({"hostname": row.hostname, "files": written})
    else:
        click.echo("\n".join(written))


# -- order, renew ---------------------------------------------------------------------------


@cert.command("order")
@click.argument("hostname")
@click.option("--email", metavar="ADDRESS", default="", help="Of yours; default: acme.email.")
@json_option
@click.pass_obj
def order(context: Context, hostname: str, email: str, as_json: bool) -> None:
    """Order a certificate for HOSTNAME, or several with commas, from an authority (ACME).

    Its row is made where there is none. The server renews it by itself from then on. An
    authority that asks over HTTP needs a running server, which answers it at port 80.
    """
    from mailtwist.tls import pem

    with _opened(context) as opened:
        with opened.writing() as connection:
            name = _names(hostname)
            row = _of_hostname(connection, name) or _added(connection, name)
        _order(context, opened, row, email)
        bundle = pem.read(opened.row(hostname).chain, now=None)
    _tell("ordered", row.hostname, bundle, as_json)


@cert.command("renew")
@click.argument("hostname")
@json_option
@click.pass_obj
def renew(context: Context, hostname: str, as_json: bool) -> None:
    """Order the certificate of HOSTNAME anew from its authority, or sign one of our own anew.

    An authority that asks over HTTP needs a running server, which answers it.
    """
    from mailtwist.store.certificates import ACME, OWN_KEY, SELF
    from mailtwist.tls import pem

    with _opened(context) as opened:
        row = opened.row(hostname)
        if row.issuer == ACME:
            _order(context, opened, row)
        elif row.issuer in {SELF, OWN_KEY} or not row.certificate_pem:
            _sign(context, opened, row)
        else:
            raise Conflict(f"{row.hostname} was imported; import the certificate that follows it")
        bundle = pem.read(opened.row(hostname).chain, now=None)
    _tell("renewed", row.hostname, bundle, as_json)


def _order(context: Context, opened: _Opened, row: Row, email: str = "") -> None:
    from mailtwist.cli.filing import run_now
    from mailtwist.policy.hashing import Inline
    from mailtwist.store.ids import now_us
    from mailtwist.tls.acme.issuance import NO_EMAIL, Issuance

    issuance = Issuance(
        opened.database,
        context.settings.acme,
        secrets=opened.secrets,
        threads=Inline(),
        now=now_us,
    )
    try:
        run_now(issuance.issue(row.reference_id, email))
    except ProtocolViolation as error:
        if error.text != NO_EMAIL:
            raise
        raise ConfigError("name an address of yours: --email you@example.com") from None


def _sign(context: Context, opened: _Opened, row: Row) -> None:
    from mailtwist.store import certificates
    from mailtwist.store.certificates import SELF
    from mailtwist.store.ids import now_us

    issuer = row.issuer if row.certificate_pem else SELF
    material = _follower(context, opened, row)
    with opened.writing() as connection:
        certificates.store_issued(
            connection, row.certificate_id, material, issuer=issuer, now=now_us()
        )


def _follower(context: Context, opened: _Opened, row: Row) -> Material:
    from mailtwist.tls import issuing, pem, rows

    if row.certificate_pem:
        return rows.follower(row, opened.secrets, opened.now)
    names = pem.host_names(row.hostname)
    made = issuing.issue(names, opened.now, kind=context.settings.tls.key_type)
    return rows.signed_by_us(made, opened.secrets)


# -- what they share ------------------------------------------------------------------------


def _tell(done: str, hostname: str, bundle: Bundle, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "hostname": hostname,
                "names": [*bundle.names, *bundle.addresses],
                "expires_at": bundle.not_after.isoformat(),
                "serial_number": bundle.serial,
                "chain_length": len(bundle.certificates),
            }
        )
    else:
        click.echo(f"{done} {hostname}, good until {bundle.not_after.date().isoformat()}")


@dataclass(frozen=True, slots=True)
class _Opened:
    """The open store and the key file."""

    database: Inline
    secrets: Secrets

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    @contextmanager
    def writing(self) -> Iterator[Any]:
        with self.database.engine.write() as connection:
            yield connection

    def row(self, hostname: str) -> Row:
        """The row for a name: with exactly this, or with it among others. Raises: NotFound."""
        from mailtwist.store import certificates

        wanted = _names(hostname)
        with self.database.engine.read() as connection:
            found = certificates.of_hostname(connection, wanted)
            if found is None:
                numbers = [
                    each.certificate_id
                    for each in certificates.listed(connection)
                    if wanted in each.hostname.split(",")
                ]
                found = next(iter(certificates.rows(connection, numbers)), None)
        if found is None:
            advice = "to have one: mailtwist cert order, or cert import"
            raise NotFound(f"there is no certificate row for {wanted}; {advice}")
        return found


def _names(hostname: str) -> str:
    """As rows have it: host names, with commas between. Raises: ConfigError."""
    from mailtwist.mail.host_names import host_names

    try:
        return ",".join(host_names(hostname))
    except ProtocolViolation as error:
        raise ConfigError(error.text) from error


@contextmanager
def _opened(context: Context) -> Iterator[_Opened]:
    from mailtwist.cli.filing import inline
    from mailtwist.store.secrets import load_or_make

    with context.store() as engine, inline(engine) as database:
        yield _Opened(database, load_or_make(Path(context.settings.data_dir)))
