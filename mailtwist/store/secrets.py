"""Secrets that must be readable again, sealed before they become rows.

The key is a file beside the database, so that the database alone (a backup, a replica)
gives nothing away. Nodes that share a database share the file too.
"""

from __future__ import annotations

import contextlib
import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Final

from mailtwist.errors import ConfigError, MailError

KEY_FILE: Final = "secret.key"
KEY_OCTETS: Final = 32
_NONCE: Final = 12
_VERSION: Final = "v1:"


class Unreadable(MailError):
    """A sealed text was changed, is for another purpose or was sealed under another key file."""

    default_text = "A sealed secret cannot be opened"


class Secrets:
    """Seals and opens short texts under one key. Any thread may."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        assert len(key) == KEY_OCTETS
        self._key = key
        self._cipher = AESGCM(self.derive("seal"))

    def seal(self, text: str, purpose: str) -> str:
        """Encrypt a text; only :meth:`open` with the same purpose gives it back."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, text.encode("utf-8"), purpose.encode("utf-8"))
        return _VERSION + b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, purpose: str) -> str:
        """Give back what :meth:`seal` took. Raises: Unreadable."""
        from cryptography.exceptions import InvalidTag

        try:
            data = b64decode(sealed.removeprefix(_VERSION), validate=True)
            opened = self._cipher.decrypt(data[:_NONCE], data[_NONCE:], purpose.encode("utf-8"))
        except (ValueError, InvalidTag) as error:
            raise Unreadable(detail=f"not sealed under this {KEY_FILE}") from error
        return opened.decode("utf-8")

    def derive(self, purpose: str) -> bytes:
        """32 octets for one purpose, always the same, that tell nothing about the others."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

        info = b"mailtwist " + purpose.encode("utf-8")
        return HKDFExpand(hashes.SHA256(), KEY_OCTETS, info).derive(self._key)


def load_or_make(data_dir: Path) -> Secrets:
    """Read the key file, made first where there is none. Blocks. Raises: ConfigError."""
    path = data_dir / KEY_FILE
    try:
        key = _read(path) or _make(path)
    except OSError as error:
        raise ConfigError(f"data_dir: cannot read or make {path}: {error.strerror}") from error
    if len(key) != KEY_OCTETS:
        raise ConfigError(f"data_dir: {path} must hold {KEY_OCTETS} octets, not {len(key)}")
    return Secrets(key)


def _read(path: Path) -> bytes:
    """Read the file; empty when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(KEY_OCTETS + 1)
    except FileNotFoundError:
        return b""


def _make(path: Path, suffix: str = "") -> bytes:
    """Put a new key there whole and on disk, or read the one of who was quicker.

    ``suffix``: of the temporary file; by default that of this process.
    """
    temporary = path.with_name(path.name + (suffix or f".{os.getpid()}"))
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_OCTETS))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            # Unlike a rename it never replaces a key that something is sealed under.
            path.hardlink_to(temporary)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return _read(path)


def _sync_folder(folder: Path) -> None:
    """Without this a power cut could lose the name of the file, and all that is sealed with it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
