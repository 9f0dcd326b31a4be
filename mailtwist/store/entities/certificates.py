"""Certificates by host name, as the interfaces show and change them.

Whoever writes PEM texts has checked them as a whole, and gives what is known of the certificate
with them (:mod:`mailtwist.actions.certificate_values`).
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, func, select

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.host_names import host_names
from mailtwist.store import certificates
from mailtwist.store.entities.model import PRIVATE_ROW, Change, Column, Entity, Type, by_name
from mailtwist.store.entities.tables import certificate, certificate_state
from mailtwist.store.entities.tabular import Tabular
from mailtwist.store.reference import reference_id

MAX_HOSTNAMES: Final = 4_000
MAX_PEM: Final = 64 << 10
MAX_NAME: Final = 200

# What only our own code sets.
FACTS: Final = ("names", "valid_from", "expires_at", "serial_number")
_TEXTS: Final = frozenset({"certificate_pem", "root_certificate", "private_key_pem"})


def _known(column: ColumnElement[Any], nothing: Any) -> ColumnElement[Any]:
    """A column of the state of a row, null while it holds nothing."""
    own = certificate_state.c.certificate_id == certificate.c.certificate_id
    return select(func.nullif(column, nothing)).where(own).scalar_subquery()


_CERTIFICATES: Final = Tabular(
    certificate,
    "certificate_id",
    expressions={
        "names": _known(certificate_state.c.names, ""),
        "valid_from": _known(certificate_state.c.not_before, 0),
        "expires_at": _known(certificate_state.c.not_after, 0),
        "serial_number": _known(certificate_state.c.serial, ""),
    },
    # certificates.KIND; that module may be on its way here.
    kinds=("certificate",),
)


def _with_host_names(change: Change) -> Change:
    """The change with its host names as A-labels. Raises: ProtocolViolation."""
    if "hostname" not in change.values:
        return change
    try:
        names = host_names(change.values["hostname"])
    except ProtocolViolation as error:
        raise ProtocolViolation(f"invalid value for hostname: {error.text}") from error
    return change.with_values({**change.values, "hostname": ",".join(names)})


def _create(change: Change) -> str:
    change = _with_host_names(change)
    reference = reference_id(change.now)
    number = _CERTIFICATES.insert(change, reference)
    if change.values.get("certificate_pem") and "names" not in change.values:
        return reference  # its certificate is yet to be looked into
    certificates.note(change.connection, number, _facts(change), now=change.now)
    return reference


def _update(change: Change) -> None:
    change = _with_host_names(change)
    if "certificate_pem" in change.values:
        # What is known of the one before it says nothing of this one.
        change = change.with_values({**change.values, "renew_at": None, "last_error": ""})
    _CERTIFICATES.update(change)
    if "names" in change.values:
        certificates.note(change.connection, change.key, _facts(change), now=change.now)
    elif _TEXTS & change.values.keys():
        certificates.forget(change.connection, change.key)
    else:
        certificates.touch(change.connection, change.key, now=change.now)


def _facts(change: Change) -> certificates.Facts:
    values = change.values
    return certificates.Facts(
        tuple(str(values.get("names") or "").split()),
        values.get("valid_from") or 0,
        values.get("expires_at") or 0,
        values.get("serial_number") or "",
        bool(values.get("certificate_pem") and values.get("private_key_pem")),
    )


def _delete(change: Change) -> None:
    _CERTIFICATES.delete(change)
    certificates.forget(change.connection, change.key)


def _pem(name: str, **more: Any) -> Column:
    return Column(name, default="", max_length=MAX_PEM, **more)


CERTIFICATE: Final = Entity(
    name="certificate",
    doc="Certificates by host name. The private key is never read back.",
    columns=by_name(
        Column(
            "hostname",
            is_required=True,
            is_unique=True,
            is_folded=True,
            max_length=MAX_HOSTNAMES,
            doc="Whom it is for; several names with commas between.",
        ),
        Column(
            "issuer",
            default="self",
            max_length=MAX_NAME,
            doc="self, acme, imported, or own-key: signed by ourselves with a key that was given.",
        ),
        Column("generated_at", Type.TIMESTAMP),
        _pem("certificate_pem", doc="PEM; given with others in any order, they are put in order."),
        _pem("root_certificate", doc="PEM: those that lead from the certificate to a root."),
        Column("private_key_pem", Type.SECRET, is_writeonly=True),
        _pem("public_key_pem", doc="PEM; it follows from the key."),
        Column("names", is_readonly=True, doc="What the certificate is for, a blank between."),
        Column("valid_from", Type.TIMESTAMP, is_readonly=True),
        Column("expires_at", Type.TIMESTAMP, is_readonly=True, doc="When the certificate ends."),
        Column("serial_number", is_readonly=True, doc="In hexadecimal."),
        Column(
            "renew_at",
            Type.TIMESTAMP,
            is_readonly=True,
            doc="When a certificate of an authority is renewed; set once the server has looked.",
        ),
        Column(
            "last_error",
            is_readonly=True,
            doc="Why the last order of a certificate failed; empty when it did not.",
        ),
    ),
    source=_CERTIFICATES,
    create=_create,
    update=_update,
    delete=_delete,
    is_private=True,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    labels=("hostname",),
)
