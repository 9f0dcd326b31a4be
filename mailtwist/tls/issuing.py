"""A certificate of our own for one host name, as it goes into a row: RSA, for a year."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailtwist.tls.selfsigned import MAX_COMMON_NAME

LIFETIME: Final = timedelta(days=365)
RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM each; the private key as PKCS #8."""

    certificate: str
    public_key: str
    private_key: str = field(repr=False)


def issue(hostname: str, now: datetime) -> Issued:
    """Make a key and sign a certificate with it; takes a processor for some 100 ms.

    Raises: ValueError for what can be no name in a certificate.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:MAX_COMMON_NAME])])
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A client whose clock is a little behind takes it too.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return Issued(
        certificate.public_bytes(pem).decode("ascii"),
        public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode("ascii"),
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode("ascii"),
    )


def _general_name(hostname: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(hostname))
    except ValueError:
        return x509.DNSName(hostname)
