"""What clients give as a certificate: checked as a whole before it becomes a row.

Of the certificate, those above it and the key any may be given; what is not given is taken
from the row. All of them are then written together, so that a row never holds half a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.host_names import host_names
from mailtwist.policy.hashing import Derivation
from mailtwist.store import certificates
from mailtwist.store.certificates import PURPOSE, Material, Row
from mailtwist.store.entities.model import Entity, Prepared
from mailtwist.store.entities.model import Facts as SettingsFacts
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets, Unreadable
from mailtwist.tls import importing, issuing, pem, rows
from mailtwist.tls.importing import Given, Held

ENTITY: Final = "certificate"
_CERTIFICATE: Final = "certificate_pem"
_ABOVE: Final = "root_certificate"
_KEY: Final = "private_key_pem"
_PUBLIC: Final = "public_key_pem"
_COLUMNS: Final = (_CERTIFICATE, _ABOVE, _KEY, _PUBLIC)
_MAX_OCTETS: Final = 64 << 10

# The column that a fault is told of.
_WHERE: Final = {"certificate": _CERTIFICATE, "chain": _ABOVE, "key": _KEY, "hostname": "hostname"}


def are_in(entity: Entity, attributes: Mapping[str, Any]) -> bool:
    """Whether a client gives anything that is to be checked here."""
    return entity.name == ENTITY and any(
        attributes.get(name) is not None and not isinstance(attributes[name], Prepared)
        for name in _COLUMNS
    )


def as_columns(material: Material, issuer: str, now: int) -> dict[str, Any]:
    """A certificate as the attributes of a row."""
    facts = material.facts
    values = {
        "issuer": issuer,
        "generated_at": now,
        _CERTIFICATE: material.certificate_pem,
        _ABOVE: material.root_certificate,
        _PUBLIC: material.public_key_pem,
        "names": " ".join(facts.names),
        "valid_from": facts.not_before,
        "expires_at": facts.not_after,
        "serial_number": facts.serial,
    }
    if material.sealed_key:
        values[_KEY] = material.sealed_key
    return {name: Prepared(value) for name, value in values.items()}


class CertificateValues:
    """``threads``: where keys are read and made; ``settings``: what they say."""

    def __init__(
        self,
        database: Any,
        secrets: Secrets,
        threads: Derivation,
        settings: Callable[[], SettingsFacts],
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._threads = threads
        self._settings = settings

    async def signed(self, hostname: str, *, names: str = "", kind: str = "") -> dict[str, Any]:
        """The attributes of a certificate that we sign for a row, with a new key.

        ``names``: others than the row's that it is for, too; ``kind``: of the key, by default
        that of the settings. Raises: ProtocolViolation.
        """
        wanted = tuple(dict.fromkeys((*host_names(hostname), *_names(names))))
        kind = kind or self._settings().certificate_key
        if kind not in issuing.KINDS:
            raise ProtocolViolation(f"key_type: {' or '.join(issuing.KINDS)} is expected")
        return await self._threads.run(partial(self._signed, wanted, kind, now_us()))

    def _signed(self, names: Sequence[str], kind: str, now: int) -> dict[str, Any]:
        try:
            issued = issuing.issue(names, _moment(now), kind=kind)
        except ValueError as error:
            text = f"hostname: no certificate can name {', '.join(names)[:253]}"
            raise ProtocolViolation(text) from error
        return as_columns(rows.signed_by_us(issued, self._secrets), certificates.SELF, now)

    async def checked(self, attributes: Mapping[str, Any], row_id: str) -> dict[str, Any]:
        """The attributes with all columns of the certificate in place.

        ``row_id`` "": of a new row. Raises: ProtocolViolation that names the column.
        """
        row = await self._row(row_id)
        given = _given(attributes, row)
        found = {name: value for name, value in attributes.items() if name not in _COLUMNS}
        if given.is_nothing:
            return found
        made = await self._threads.run(partial(self._made, given, row, attributes, now_us()))
        # The issuer may be somebody's remark, unless it says that we look after the row.
        remark = attributes.get("issuer")
        if isinstance(remark, str) and remark and remark not in _RESERVED:
            del made["issuer"]
        return found | made

    async def _row(self, row_id: str) -> Row | None:
        if not row_id:
            return None
        found: Row | None = await self._database.read(
            lambda connection: certificates.find(connection, row_id.lower())
        )
        return found

    # -- in a thread --------------------------------------------------------------------------

    def _made(
        self, given: Given, row: Row | None, attributes: Mapping[str, Any], now: int
    ) -> dict[str, Any]:
        held = self._held(row, attributes)
        try:
            made = importing.imported(given, held, _moment(now))
        except pem.Fault as fault:
            text = f"invalid value for {_WHERE[fault.where]}: {fault}"
            raise ProtocolViolation(text) from fault
        if made is None:
            return _emptied(row)
        material = replace(
            rows.material(made.bundle, self._secrets),
            certificate_pem=made.certificate,
            root_certificate=made.above,
        )
        return as_columns(material, made.issuer, now)

    def _held(self, row: Row | None, attributes: Mapping[str, Any]) -> Held:
        asked = attributes.get("hostname")
        if row is None:
            return Held(asked if isinstance(asked, str) else "")
        hostname = asked if isinstance(asked, str) and asked else row.hostname
        return Held(
            hostname, row.issuer, row.certificate_pem, row.root_certificate, self._opened(row)
        )

    def _opened(self, row: Row) -> str:
        if not row.sealed_key:
            return ""
        try:
            return self._secrets.open(row.sealed_key, PURPOSE)
        except Unreadable:
            # Of no use to anybody: only a new one helps.
            return ""


def _moment(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1_000_000, UTC)


def _names(text: str) -> tuple[str, ...]:
    return host_names(text) if text.strip() else ()


_RESERVED: Final = frozenset({certificates.SELF, certificates.OWN_KEY, certificates.ACME})


def _emptied(row: Row | None) -> dict[str, Any]:
    """A row without certificate; its key may still sign mail."""
    values: dict[str, Any] = {
        _CERTIFICATE: "",
        _ABOVE: "",
        _PUBLIC: row.public_key_pem if row is not None and row.sealed_key else "",
        "names": "",
        "valid_from": None,
        "expires_at": None,
        "serial_number": "",
    }
    return {name: Prepared(value) for name, value in values.items()}


def _given(attributes: Mapping[str, Any], row: Row | None) -> Given:
    """What is given and differs: who sends back what he has read changes nothing.

    Raises: ProtocolViolation.
    """
    certificate, above = _text(attributes, _CERTIFICATE), _text(attributes, _ABOVE)
    if certificate == ("" if row is None else row.certificate_pem):
        certificate = None
    if certificate is None and above == ("" if row is None else row.root_certificate):
        above = None
    return Given(certificate, above, _text(attributes, _KEY) or "")


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _MAX_OCTETS:
        raise ProtocolViolation(f"invalid value for {name}")
    return value
