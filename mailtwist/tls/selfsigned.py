"""The certificate of last resort: self-signed, made once and kept in the data folder.

It lets TLS work on the first day; clients must be told to trust it. It is made anew only
when it is about to end or when the server takes a host name that it does not cover.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from mailtwist.errors import ConfigError
from mailtwist.mail.host_names import is_address
from mailtwist.tls import issuing, pem

CERT_FILE: Final = "self-signed.crt"
KEY_FILE: Final = "self-signed.key"
LIFETIME: Final = timedelta(days=3650)
RENEW_BEFORE: Final = timedelta(days=30)


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
        write_whole(key_path, key, 0o600)
        write_whole(cert_path, chain, 0o644)
    except OSError as error:
        raise ConfigError(f"data_dir: cannot write {error.filename}: {error.strerror}") from error
    return chain, key


def make(hostnames: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """Make a certificate for these names and this machine's own; P-256, valid ten years."""
    names = (*hostnames, "localhost", "127.0.0.1", "::1")
    issued = issuing.issue(names, now, kind=issuing.ECDSA, lifetime=LIFETIME)
    return issued.leaf_pem.encode("ascii"), issued.key_pem.encode("ascii")


def _is_good(chain: bytes, key: bytes, hostnames: Sequence[str], now: datetime) -> bool:
    try:
        bundle = pem.read(chain, key=key, now=None)
    except pem.Fault:
        return False
    return bundle.not_after - RENEW_BEFORE > now and all(
        is_address(name) or name.lower() in bundle.names for name in hostnames
    )


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Put the file there whole or not at all, readable by nobody else from its first octet."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
