"""Values that administrators store under ``/_config``: which there are and what they change.

Some stand for a setting; what the command line, the environment or the file says of that
setting counts more and locks the key. The others are read where they act. Keys that nobody
here knows are kept for whoever stored them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mailtwist.config.declare import Declaration
from mailtwist.config.describe import value_of
from mailtwist.config.given import DECLARATIONS
from mailtwist.config.kinds import TRUE, Choice, Duration, Flag, Kind, Octets, Text, Whole, sort_of
from mailtwist.config.names import Domain, HostPort
from mailtwist.config.settings import Settings

MAX_NAME: Final = 100
MAX_VALUE: Final = 1 << 16

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+:/-]*", re.ASCII)
# What a key that we do not know is about, by its name: such a value is sealed and never shown.
_SECRET: Final = re.compile(r"secret|password|private_?key|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JsonObject(Kind[Mapping[str, Any]]):
    """A JSON object, as dashboards write it."""

    name = "JSON object"

    def parse(self, value: object) -> Mapping[str, Any]:
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"must be a JSON object, not {sort_of(value)[:80]}")
        return found


@dataclass(frozen=True, slots=True)
class SigningSecret(Kind[str]):
    """Long enough that nobody finds it by trying."""

    name = "text of 32 characters at least"

    def parse(self, value: object) -> str:
        # RFC 7518 §3.2
        if not isinstance(value, str) or len(value.encode("utf-8", "replace")) < 32:
            raise ValueError("must have 32 characters at least")
        return value


@dataclass(frozen=True, slots=True)
class Key:
    """One key of ``/_config``. ``setting``: the dotted key that it stands for."""

    name: str
    kind: Kind[Any]
    default: str
    doc: str
    setting: str = ""
    aliases: tuple[str, ...] = ()
    secret: bool = False


def _of_setting(name: str, setting: str, *, doc: str = "") -> Key:
    declared: Declaration = DECLARATIONS[setting]
    aliases = () if name == setting else (setting,)
    shown = _shown(declared.kind, declared.default)
    return Key(name, declared.kind, shown, doc or declared.doc, setting, aliases)


def _shown(kind: Kind[Any], value: Any) -> str:
    """A value as text: what a request would send."""
    shown = kind.show(value) if not isinstance(kind, Duration | Octets) else value
    return shown if isinstance(shown, str) else json.dumps(shown)


IMAP_ENABLED: Final = "imap.enabled"
IMAP_INTERFACE: Final = "imap.listen_interface"
IMAP_HOSTNAME: Final = "imap.hostname"
IMAP_TLS: Final = "imap.tls"
HTTPS_ENABLED: Final = "enable_https"
HTTPS_INTERFACE: Final = "https.listen_interface"
# Values of IMAP_TLS.
BY_PORT: Final = "auto"
IMPLICIT: Final = "implicit"
JWT_SECRET: Final = "jwt.secret"  # noqa: S105  (its name)
JWT_ISSUER: Final = "jwt.token.issuer"
JWT_HOURS: Final = "jwt.token.life.hours"
RATE: Final = "limit.rate"
CORS: Final = "cors.config"
GZIP: Final = "gzip.enable"
DEFAULT_SERVER: Final = "mail.default_server_hostname"

KEYS: Final[tuple[Key, ...]] = (
    _of_setting("hostname", "hostname"),
    Key(
        IMAP_ENABLED,
        Flag(),
        "false",
        "Whether IMAP is served on `imap.listen_interface`, from the next reconciliation on.",
        aliases=("imps.enabled",),
    ),
    Key(
        IMAP_INTERFACE,
        HostPort(),
        ":1143",
        "Where: `host:port`.",
        aliases=("imps.listen_interface",),
    ),
    Key(
        IMAP_HOSTNAME,
        Domain(),
        "",
        "The name of that listener; empty: `imap.` before `hostname`.",
        aliases=("imps.hostname",),
    ),
    Key(
        IMAP_TLS,
        Choice((BY_PORT, IMPLICIT, "starttls")),
        BY_PORT,
        "Whether that listener begins with TLS (`implicit`) or offers STARTTLS (`starttls`); "
        "`auto`: with TLS on port 993 only.",
        aliases=("imps.tls",),
    ),
    Key(
        HTTPS_ENABLED,
        Flag(),
        "false",
        "Whether HTTPS is served on `https.listen_interface`, from the next reconciliation on.",
    ),
    Key(HTTPS_INTERFACE, HostPort(), ":6443", "Where: `host:port`."),
    _of_setting("mail.dkim_selector", "dkim.selector"),
    _of_setting("mail.default_from", "send.default_from"),
    Key(
        DEFAULT_SERVER,
        Domain(),
        "",
        "The mail_server row that mail of actions leaves by when they name none.",
    ),
    Key(
        "mail.save_workers_size",
        Whole(1, 10_000),
        "1",
        "Kept for older installations; mail is stored by one writer whatever it says.",
    ),
    Key(
        JWT_SECRET,
        SigningSecret(),
        "",
        "What tokens are signed with, 32 characters at least; made at the first start.",
        secret=True,
    ),
    Key(JWT_ISSUER, Text(), "", "The issuer that tokens name; made at the first start."),
    Key(JWT_HOURS, Whole(1, 87_600), "72", "How long a token holds, in hours."),
    Key(
        "encryption.secret",
        Text(),
        "",
        "Kept for older installations; secrets are sealed under the key file of `data_dir`.",
        secret=True,
    ),
    Key(
        RATE,
        JsonObject(),
        "{}",
        'HTTP requests a second from one address, by path: `{"/ping": 2}`; other paths have 500.',
    ),
    Key(
        "limit.max_connections",
        Whole(0, 1_000_000),
        "100",
        "HTTP requests at once from one address; 0: no limit.",
    ),
    Key(
        CORS,
        JsonObject(),
        "{}",
        "Which web origins may call: `allowed_origins`, `allowed_methods`, `allowed_headers`, "
        "`exposed_headers`, `allow_credentials`, `max_age`; none by default.",
    ),
    Key(GZIP, Flag(), "true", "Whether answers are compressed for clients that ask for it."),
)

_BY_NAME: Final[Mapping[str, Key]] = {
    name: key for key in KEYS for name in (key.name, *key.aliases)
}


def canonical(name: str) -> str:
    """The one name of a key, whichever of its names was given."""
    key = _BY_NAME.get(name)
    return name if key is None else key.name


def is_secret(name: str) -> bool:
    key = _BY_NAME.get(name)
    return key.secret if key is not None else _SECRET.search(name) is not None


def is_on(text: str) -> bool:
    """What a flag's text means; nonsense is off."""
    return text.strip().lower() in TRUE


def check_name(name: str) -> None:
    """Raises: ValueError."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"must be a name of at most {MAX_NAME} letters, digits and . _ - @ + : /")


def check(name: str, text: str) -> None:
    """Refuse a value that the key could not use. Raises: ValueError that completes its name."""
    key = _BY_NAME.get(name)
    if len(text) > MAX_VALUE:
        raise ValueError(f"is longer than {MAX_VALUE} characters")
    if "\0" in text:
        raise ValueError("holds a NUL")
    if key is None:
        return
    try:
        key.kind.parse(text)
    except ValueError as error:
        raise ValueError("is no such value" if key.secret else str(error)[:200]) from None


def default(name: str) -> str:
    """What counts where nothing is stored; "" for keys that we do not know."""
    key = _BY_NAME.get(name)
    return "" if key is None else key.default


def locked_by(settings: Settings, name: str) -> str:
    """The source that has given the key's setting: "file /etc/mailtwist.yaml"; "": nobody."""
    key = _BY_NAME.get(name)
    return settings.sources.get(key.setting, "") if key is not None and key.setting else ""


def in_use(settings: Settings, name: str) -> str:
    """The value of a setting under its key's name, as text."""
    key = _BY_NAME[name]
    return _shown(key.kind, value_of(settings, key.setting))


def overlaid(settings: Settings, values: Mapping[str, str]) -> Settings:
    """The settings as stored values change them.

    Locked keys change nothing, and neither does a value that has become nonsense since.
    """
    for key in KEYS:
        text = values.get(key.name)
        if not key.setting or text is None or locked_by(settings, key.name):
            continue
        try:
            value = key.kind.parse(text)
        except ValueError:
            continue
        if value != "" or key.setting != "hostname":
            settings = _with(settings, key.setting.split("."), value)
    return settings


def _with(group: Any, path: list[str], value: Any) -> Any:
    """A copy of nested frozen settings with one of them changed."""
    name, rest = path[0], path[1:]
    return replace(group, **{name: _with(getattr(group, name), rest, value) if rest else value})
