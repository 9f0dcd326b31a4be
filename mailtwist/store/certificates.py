"""The ``certificate`` rows as TLS needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

KIND: Final = "certificate"
# What the private key is sealed for.
PURPOSE: Final = "certificate.private_key_pem"

_USABLE = text(
    "SELECT hostname, certificate_pem, root_certificate, private_key_pem FROM certificate"
    " WHERE certificate_pem <> '' AND private_key_pem <> '' ORDER BY hostname"
)


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    hostname: str
    chain: str  # PEM, the certificate first
    sealed_key: str  # PEM, sealed


def usable(connection: Connection) -> list[StoredCertificate]:
    """The rows that hold a certificate and its key."""
    return [
        StoredCertificate(hostname, _chain(certificate, issuer), sealed_key)
        for hostname, certificate, issuer, sealed_key in connection.execute(_USABLE)
    ]


def _chain(certificate: str, issuer: str) -> str:
    """One text; the issuer stands in a column of its own where it is not in the first."""
    return certificate if issuer.strip() in certificate else f"{certificate.rstrip()}\n{issuer}"
