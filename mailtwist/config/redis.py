"""Where a Redis is, and who we are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from mailtwist.config.names import Url

SCHEMES: Final = ("redis", "rediss", "unix")
PORT: Final = 6379
MAX_DATABASE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RedisServer:
    """``path``: of a socket, "" where it is a host. ``shown``: without the password."""

    host: str = "localhost"
    port: int = PORT
    path: str = ""
    is_tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    @property
    def shown(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.is_tls else 'redis'}://{host}:{self.port}/{self.database}"

    def hidden(self, said: str) -> str:
        """What it said, without the password: of what it refuses it may repeat the words."""
        return said.replace(self.password, "********") if self.password else said


def read_redis(url: str) -> RedisServer:
    """Take such a URL apart. Raises: ValueError, which never repeats it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("must be a URL such as redis://host:6379/0") from None
    scheme = parts.scheme.lower()
    if options.keys() - {"db"}:
        raise ValueError("has an unknown option; the only one is db")
    if scheme not in SCHEMES or parts.fragment or port == 0:
        raise ValueError("must be a URL such as redis://host:6379/0")
    is_socket = scheme == "unix"
    if is_socket and not parts.path.startswith("/"):
        raise ValueError("must name a socket, such as unix:///run/redis/redis.sock")
    if is_socket and (host or port):
        raise ValueError("must name a socket with three slashes: unix:///run/redis/redis.sock")
    given = options["db"][-1] if "db" in options else "" if is_socket else parts.path.strip("/")
    return RedisServer(
        host=host or "localhost",
        port=port or PORT,
        path=unquote(parts.path) if is_socket else "",
        is_tls=scheme == "rediss",
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=_database(given),
    )


def _database(given: str) -> int:
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and int(given[:8]) < MAX_DATABASE):
        raise ValueError("must end in the number of a database, such as redis://host:6379/0")
    return int(given)


@dataclass(frozen=True, slots=True)
class RedisUrl(Url):
    schemes: tuple[str, ...] = SCHEMES

    def parse(self, value: object) -> str:
        text = Url.parse(self, value)
        if text:
            read_redis(text)
        return text
