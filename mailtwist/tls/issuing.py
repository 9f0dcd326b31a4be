"""Certificates that we sign ourselves, for one host name or several.

Standards: RFC 5280 §4.1, §4.2.1; RFC 9525 §6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailtwist.tls.pem import Bundle, PrivateKey

LIFETIME: Final = timedelta(days=365)
# Those in rows are signed anew this long before they end.
RENEW_BEFORE: Final = timedelta(days=30)
# A client whose clock is a little behind takes it too.
_BEFORE: Final = timedelta(hours=1)
# ub-common-name of RFC 5280, Appendix A.1; longer names stand in the list of names alone.
MAX_COMMON_NAME: Final = 64

RSA: Final = "rsa"
ECDSA: Final = "ecdsa"
RSA_BITS: Final = 2048

_MAKE: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    RSA: lambda: rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS),
    ECDSA: lambda: ec.generate_private_key(ec.SECP256R1()),
}
KINDS: Final = tuple(_MAKE)


def make_key(kind: str = RSA) -> PrivateKey:
    """A new key: RSA of 2048 bits, which takes some 100 ms, or P-256."""
    return _MAKE[kind]()


def kind_of(key: PrivateKey) -> str:
    """What a key that follows this one should be."""
    return RSA if isinstance(key, rsa.RSAPrivateKey) else ECDSA


def issue(
    names: Sequence[str],
    now: datetime,
    *,
    key: PrivateKey | None = None,
    kind: str = RSA,
    lifetime: timedelta = LIFETIME,
) -> Bundle:
    """Sign a certificate for these host names and addresses, the first of which is the subject.

    ``key``: the one to use; None: a new one of this ``kind``. Raises: ValueError for what can be
    no name in a certificate.
    """
    key = key or make_key(kind)
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:MAX_COMMON_NAME])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return Bundle((certificate,), key)


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    return list(dict.fromkeys(_general_name(name.lower()) for name in names))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
