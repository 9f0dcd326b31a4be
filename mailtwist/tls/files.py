"""The certificate and key that somebody keeps in files, and whether they have changed.

Those that ``tls.cert_file`` and ``tls.key_file`` name, else ``certs/fullchain.pem`` with
``certs/privkey.pem`` in the folder that the server was started in, or in the data folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from mailtwist.config import Settings
from mailtwist.errors import ConfigError
from mailtwist.tls import pem

CERT_FILE: Final = "certs/fullchain.pem"
KEY_FILE: Final = "certs/privkey.pem"

Pair: TypeAlias = tuple[bytes, bytes]
# What tells one content of a file from the next; None: there is no file.
_Stamp: TypeAlias = "tuple[int, int, int] | None"


class KeyFiles:
    """The places where a pair may be, the first of which that has one counts."""

    def __init__(self, places: Sequence[tuple[str, str]], *, is_required: bool) -> None:
        # Whoever detaches from the terminal may change the folder.
        self.places = [(os.path.abspath(cert), os.path.abspath(key)) for cert, key in places]
        self.is_required = is_required
        self.pair: Pair | None = None
        self._stamps: list[tuple[_Stamp, _Stamp]] = []

    def read(self) -> Pair | None:
        """Read the pair; None where there is none and none is required. Blocks.

        What is in use stays when this raises ConfigError, which names what is wrong.
        """
        self._stamps = self._looked()
        for (cert, key), stamps in zip(self.places, self._stamps, strict=True):
            if self.is_required or None not in stamps:
                self.pair = read_pair(cert, key)
                return self.pair
        return self.pair

    def has_changed(self) -> bool:
        """Whether the files are others than those last read. Blocks for a moment."""
        return self._looked() != self._stamps

    def _looked(self) -> list[tuple[_Stamp, _Stamp]]:
        return [(_stamp(cert), _stamp(key)) for cert, key in self.places]


def named_by(settings: Settings) -> KeyFiles:
    """The files that the settings mean, read already.

    Raises: ConfigError when those that they name are missing or unusable, unless
    ``tls.self_signed`` lets another stand in for missing ones.
    """
    tls = settings.tls
    if tls.cert_file:
        files = KeyFiles([(tls.cert_file, tls.key_file or tls.cert_file)], is_required=True)
        if tls.self_signed and any(not Path(path).exists() for path in files.places[0]):
            return files
    else:
        folders = (Path(), Path(settings.data_dir))
        places = [(str(folder / CERT_FILE), str(folder / KEY_FILE)) for folder in folders]
        files = KeyFiles(places, is_required=False)
    files.read()
    return files


def read_pair(cert_file: str, key_file: str) -> Pair:
    """Read a certificate with its chain, put in order, and its key.

    An empty ``key_file`` means that the certificate's file holds the key too. An expired one
    is read as well: who is about to renew it must be able to start. Raises: ConfigError.
    """
    chain = _read("tls.cert_file", cert_file)
    key = _read("tls.key_file", key_file) if key_file and key_file != cert_file else chain
    try:
        bundle = pem.read(chain, key=key, now=None)
    except pem.Fault as error:
        where = f"tls.cert_file {cert_file} and tls.key_file {key_file or cert_file}"
        raise ConfigError(f"{where}: {error}") from error
    return bundle.full_pem.encode("ascii"), bundle.key_pem.encode("ascii")


def has_ended(pair: Pair, now: datetime) -> bool:
    """Whether clients refuse it for its age."""
    return pem.read(pair[0], now=None).not_after <= now


def _read(setting: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(pem.MAX_OCTETS + 1)
    except OSError as error:
        hint = "; tls.self_signed lets one of our own stand in" if _is_missing(error) else ""
        raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}{hint}") from error


def _is_missing(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
