"""The certificate of last resort: self-signed, made once and kept in the data folder.

It lets TLS work on the first day; clients must be told to trust it. It is made anew only
when it is about to end or when the server takes a host name that it does not cover.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailtwist.errors import ConfigError
from mailtwist.tls.contexts import names_of

CERT_FILE: Final = "self-signed.crt"
KEY_FILE: Final = "self-signed.key"
LIFETIME: Final = timedelta(days=3650)
RENEW_BEFORE: Final = timedelta(days=30)
# ub-common-name of RFC 5280, Appendix A.1; longer names stand in the SAN alone.
MAX_COMMON_NAME: Final = 64


def load_or_make(data_dir: Path, hostnames: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """Return (certificate, key) for these names, the first of which is the subject.

    Raises: ConfigError when the files can be neither read nor written.
    """
    cert_path, key_path = data_dir / CERT_FILE, data_dir / KEY_FILE
    try:
        chain, key = cert_path.read_bytes(), key_path.read_bytes()
        if _is_good(chain, key, hostnames, now):
            return chain, key
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"data_dir: cannot read {error.filename}: {error.strerror}") from error
    chain, key = make(hostnames, now)
    try:
        # The key first: a certificate without its key would be taken for broken and replaced.
        _write(key_path, key, 0o600)
        _write(cert_path, chain, 0o644)
    except OSError as error:
        raise ConfigError(f"data_dir: cannot write {error.filename}: {error.strerror}") from error
    return chain, key


def make(hostnames: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """Make a certificate for these names and this machine's own; P-256, valid ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostnames[0][:MAX_COMMON_NAME])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_general_names(hostnames)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _general_names(hostnames: Iterable[str]) -> list[x509.GeneralName]:
    names: dict[x509.GeneralName, None] = {}
    for hostname in (*hostnames, "localhost", "127.0.0.1", "::1"):
        try:
            names[x509.IPAddress(ip_address(hostname))] = None
        except ValueError:
            names[x509.DNSName(hostname.lower())] = None
    return list(names)


def _is_good(chain: bytes, key: bytes, hostnames: Sequence[str], now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(chain)
        private_key = serialization.load_pem_private_key(key, password=None)
        covered = set(names_of(chain))
    except (ValueError, TypeError):
        return False
    return (
        private_key.public_key() == certificate.public_key()
        and certificate.not_valid_after_utc - RENEW_BEFORE > now
        and all(_is_address(name) or name.lower() in covered for name in hostnames)
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put the file there whole or not at all, readable by nobody else from its first octet."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
