"""Certificates in chains for tests: root, intermediate, leaf, each of them as bad as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)

MAKE: dict[str, Any] = {
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "dsa": lambda: dsa.generate_private_key(2048),
}


@cache
def key(kind: str, number: int = 0) -> Any:
    """The same key each time, for making one takes long."""
    return MAKE[kind]()


def key_pem(private: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return private.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@dataclass(frozen=True)
class Signed:
    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return key_pem(self.key)


def sign(
    subject: str,
    issuer: Signed | None = None,
    *,
    names: tuple[str, ...] = (),
    is_authority: bool | None = False,
    kind: str = "p256",
    private: Any = None,
    since: timedelta = timedelta(days=-1),
    until: timedelta = timedelta(days=90),
) -> Signed:
    """``issuer`` None: itself."""
    private = private or MAKE[kind]()
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(issuer.certificate.subject if issuer else named)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + since)
        .not_valid_after(NOW + until)
    )
    if is_authority is not None:
        constraints = x509.BasicConstraints(is_authority, None)
        builder = builder.add_extension(constraints, critical=True)
    if names:
        listed = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(listed, critical=False)
    signer = issuer.key if issuer else private
    has_hash = not isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return Signed(builder.sign(signer, hashes.SHA256() if has_hash else None), private)


class Chain:
    """Root, intermediate and a leaf for the names."""

    def __init__(self, *names: str, **more: Any) -> None:
        self.root = sign("Root", is_authority=True, kind="p256")
        self.middle = sign("Middle", self.root, is_authority=True, kind="p256")
        self.leaf = sign(names[0], self.middle, names=names, **more)

    @property
    def key(self) -> str:
        return self.leaf.key_pem

    @property
    def pems(self) -> tuple[str, str, str]:
        return self.leaf.pem, self.middle.pem, self.root.pem
