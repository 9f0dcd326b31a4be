"""Certificates for tests: an authority that signs for any name, and certificates gone wrong."""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """Signs server certificates; ``file`` holds its own for a client that shall trust it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp()) if folder is None else folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"Authority {x509.random_serial_number():x} of the tests"[:64])
        certificate = _builder(self._name, self._name, self._key, 0, 3650)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        signed = (
            certificate.add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = self._folder / "authority.pem"
        self.file.write_bytes(signed.public_bytes(Encoding.PEM))

    def issue(self, *names: str, since_days: int = -1, days: int = 365) -> Path:
        """A PEM file with key and certificate for these DNS names and addresses (or nobody)."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name("server"), self._name, key, since_days, days)
        return self._write(names, builder, key, self._key)

    def self_signed(self, *names: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0]), _name(names[0]), key, -1, 365)
        return self._write(names, builder, key, key)

    def _write(
        self,
        names: tuple[str, ...],
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
    ) -> Path:
        if names:
            san = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(san, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self._folder / f"{certificate.serial_number:x}.pem"
        path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
        return path


def server_context(pem: Path) -> ssl.SSLContext:
    """The server's side of TLS, for a PEM file with key and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: int, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=since - 1))
        .not_valid_after(now + timedelta(days=days))
    )
