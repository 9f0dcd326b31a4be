"""Environment variables of the programs that mailtwist replaces.

Most variables mean one setting and stand beside it, in its declaration. Here
are those that mean more than one, or whose values are spelled differently.
``ELEMTA_<KEY>`` works for every key, like ``MAILTWIST_<KEY>``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

Convert = Callable[[str, Mapping[str, str]], object | None]


@dataclass(frozen=True, slots=True)
class Variable:
    """``convert`` gives what the variable says of ``key``, or None for nothing."""

    name: str
    key: str
    convert: Convert


def _when(word: str, value: object) -> Convert:
    return lambda text, _: value if text.strip() == word else None


_LOG_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
    "fatal": "error",
}


def _log_level(text: str, _: Mapping[str, str]) -> object | None:
    return _LOG_LEVELS.get(text.strip().lower())


def _redis_url(text: str, _: Mapping[str, str]) -> object | None:
    address = text.strip()
    if not address:
        return None
    return address if "://" in address else f"redis://{address}/0"


def _database_url(text: str, environ: Mapping[str, str]) -> object | None:
    kind = environ.get("DAPTIN_DB_TYPE", "").strip().lower() or "sqlite3"
    convert = {"sqlite3": _sqlite_url, "postgres": _postgres_url}.get(kind)
    if convert is None:
        raise ValueError(f"the databases are sqlite3 and postgres, not {kind}")
    return convert(text.strip())


def _sqlite_url(text: str) -> str:
    return f"sqlite:///{os.path.abspath(text)}"


def _postgres_url(text: str) -> str:
    """A URL stays one; "host=... user=..." becomes one."""
    if "://" in text:
        return text
    try:
        words = dict(word.split("=", 1) for word in shlex.split(text))
    except ValueError:
        raise ValueError('must be a URL or "host=... user=... dbname=..."') from None
    user = quote(words.pop("user", ""), safe="")
    password = words.pop("password", "")
    login = f"{user}:{quote(password, safe='')}@" if password else f"{user}@" if user else ""
    host, port = words.pop("host", "localhost"), words.pop("port", "")
    name = quote(words.pop("dbname", ""), safe="")
    query = f"?{urlencode(words)}" if words else ""
    return f"postgresql+psycopg://{login}{host}{':' + port if port else ''}/{name}{query}"


def _catch_all(text: str, _: Mapping[str, str]) -> object | None:
    return {"*": text}


PREDECESSOR_VARIABLES: tuple[Variable, ...] = (
    # In production, and for GIN_MODE=release, the defaults are right.
    Variable("ENVIRONMENT", "dev_mode", _when("development", True)),
    Variable("ENVIRONMENT", "log_level", _when("development", "debug")),
    Variable("GIN_MODE", "log_level", _when("debug", "debug")),
    Variable("REDIS_ADDR", "redis_url", _redis_url),
    Variable("DAPTIN_DB_CONNECTION_STRING", "database_url", _database_url),
    # Nothing but this exact word counts, as in the program it comes from.
    Variable("DAPTIN_DISABLE_SMTP", "disable_smtp", _when("true", True)),
    Variable("DAPTIN_LOG_LEVEL", "log_level", _log_level),
    Variable("DAPTIN_LOG_LOCATION", "log_file", lambda text, _: text),
    Variable("FORWARD_EMAIL", "aliases", _catch_all),
)

# Each adds a listener, whatever `listeners` says.
PORT_VARIABLES: tuple[tuple[str, str], ...] = (
    ("DAPTIN_PORT", "http"),
    ("DAPTIN_HTTPS_PORT", "https"),
    ("PORT", "http"),
)

# The service that PORT and the variables below belong to is known by one of these. Alone they are
# too common: a shell has them for reasons of its own.
COMPANY: tuple[str, ...] = ("MAIL_DOMAIN", "MAIL_HOSTNAME", "DEFAULT_FROM", "SMTP_RELAY_HOST")
COMMON: frozenset[str] = frozenset({"PORT"})

# Variables of that service that say nothing to the server, and what does instead.
UNUSED_VARIABLES: Mapping[str, str] = {
    "TRAEFIK_ENTRYPOINT": "it is for the proxy before us; compose.yaml hands it on",
    "ENABLE_TLS": "it is for the proxy before us; compose.yaml hands it on",
    "SMTP_HOST": "one process takes /send and delivers",
    "SMTP_PORT": "one process takes /send and delivers",
    "MAIL_USER": "`mailtwist account add` makes accounts",
    "MAIL_PASSWORD": "`mailtwist account add` makes accounts",
    "MAIL_PORT": "listeners says what is open",
    "MAIL_SECURE": "listeners says what is open",
}


def is_meant(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable of a predecessor is one: it is set, and no other program's."""
    if not environ.get(name, "").strip():
        return False
    if name not in COMMON and name not in UNUSED_VARIABLES:
        return True
    return any(environ.get(each) for each in COMPANY)


# Keys of older files that say nothing here, and what does instead. A key that ends with "*" stands
# for all that begin so; a group for all in it.
RETIRED_KEYS: Mapping[str, str] = {
    "antispam": "checks of arriving mail are settings of their own",
    "antivirus": "checks of arriving mail are settings of their own",
    "auth.datasource_*": "auth.backend and auth.file_path say who knows the users",
    "cache": "nothing has to be set for it",
    "delivery.retry_delay": "queue.retry_schedule says when mail is tried again",
    "delivery.timeout": "outbound.connect_timeout says how long a host may take",
    "listen_submission": "listeners takes one of protocol submission",
    "logging": "log_level, log_file and log_format say what is logged",
    "memory": "limits.* bounds what clients may use",
    "metrics": "figures are read over HTTP",
    "plugins": "checks of arriving mail are settings of their own",
    "queue.keep_message_data": "queue.keep_delivered_messages says how long a text is kept",
    "queue.queue_priority_enabled": "mail leaves in the order in which it came",
    "queue_processor": "the queue works by itself; queue.* and outbound.* say how",
    "rate_limiter": "limits.* says how much one client may do",
    "resources": "limits.* bounds what clients may use",
    "server.listen_submission": "listeners takes one of protocol submission",
    "tls.client_auth": "clients are not asked for certificates",
    "tls.enable_starttls": "tls.enabled says whether STARTTLS is offered",
    "tls.letsencrypt": "acme.* says where certificates come from",
}


def retired(key: str) -> str:
    """What counts instead of a key of older files; "" for all others."""
    for name, reason in RETIRED_KEYS.items():
        if key == name or (name.endswith("*") and key.startswith(name[:-1])):
            return reason
    return ""


# Where to find the file when the command line does not say.
FILE_VARIABLES: tuple[str, ...] = ("MAILTWIST_CONFIG", "ELEMTA_CONFIG_PATH")

DEPRECATED: Mapping[str, str] = {
    name: f"SMTP_{name}"
    for name in ("RELAY_HOST", "RELAY_PORT", "RELAY_USERNAME", "RELAY_PASSWORD")
}
