"""``--env-file``: variables from a file such as ``.env``, beside those of the environment."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from io import StringIO
from pathlib import Path
from typing import Final

from mailtwist.errors import ConfigError

MAX_OCTETS: Final = 1 << 20
# The names that came from the file. The process that replaces this one (upgrade-in-place)
# inherits them, and must read them anew.
TAKEN: Final = "_MAILTWIST_FROM_ENV_FILE"


def take(path: str, environ: MutableMapping[str, str]) -> None:
    """Add what the file sets and ``environ`` does not. Raises: ConfigError, OSError."""
    for name in environ.pop(TAKEN, "").split():
        environ.pop(name, None)
    found = {name: value for name, value in _read(Path(path)) if name not in environ}
    environ.update(found)
    environ[TAKEN] = " ".join(found)


def _read(path: Path) -> Iterator[tuple[str, str]]:
    from dotenv import dotenv_values

    text = _text(path)
    _check(path, text)
    for name, value in dotenv_values(stream=StringIO(text)).items():
        # A name alone, without "=", sets nothing.
        if value is not None:
            yield name, value


def _text(path: Path) -> str:
    with path.open("rb") as file:
        octets = file.read(MAX_OCTETS + 1)
    if len(octets) > MAX_OCTETS:
        raise ConfigError(f"{path}: is longer than {MAX_OCTETS} octets")
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None


def _check(path: Path, text: str) -> None:
    """Refuse what the reader would leave out in silence."""
    from dotenv.parser import parse_stream

    for binding in parse_stream(StringIO(text)):
        # Never the line itself: it may hold a password.
        where = f"{path}: line {binding.original.line}"
        if binding.error:
            raise ConfigError(f"{where}: must be NAME=VALUE")
        if "\0" in binding.original.string:
            raise ConfigError(f"{where}: holds a NUL")
