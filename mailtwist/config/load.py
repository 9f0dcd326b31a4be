"""From a file, the environment and the command line to checked :class:`Settings`."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mailtwist.config.declare import Declaration, Section, members, variable_of
from mailtwist.config.files import read_file
from mailtwist.config.given import (
    ALIASES,
    DECLARATIONS,
    SECTIONS,
    Collected,
    Given,
    from_environment,
    from_file,
    from_options,
    nearest,
)
from mailtwist.config.listeners import (
    MAIL_IN,
    SANDBOX,
    Listener,
    ListenerItem,
    listener,
    named_apart,
    problems_of,
)
from mailtwist.config.names import Url, fold_domain, split_host_port
from mailtwist.config.predecessors import (
    DEPRECATED,
    FILE_VARIABLES,
    PORT_VARIABLES,
    UNUSED_VARIABLES,
    is_meant,
)
from mailtwist.config.settings import Settings
from mailtwist.config.transports import SUBMISSIONS_PORT
from mailtwist.errors import ConfigError


class InvalidConfiguration(ConfigError):
    """All that is wrong, in ``problems``; the text is the first of it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(problems) - 1} more; see: config check)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")


def load(
    path: str | Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in use. ``overrides`` are the options of the command line, by key.

    Raises ``ConfigError`` whose text names the file or variable and the key.
    """
    found = Collected()
    from_options(found, overrides or {})
    from_environment(found, environ)
    file = path or next((environ[each] for each in FILE_VARIABLES if environ.get(each)), None)
    if file is not None:
        from_file(found, read_file(Path(file)), str(file))
    sources: dict[str, str] = {}
    values = _section(found, Settings, "", sources)
    settings: Settings = values(Settings)
    settings = _resolved(settings)
    listeners = tuple(_listeners(found, settings, environ))
    found.problems.extend(_contradictions(settings))
    if found.problems:
        raise InvalidConfiguration(found.problems)
    return replace(
        settings,
        listeners=listeners,
        sources=sources,
        warnings=tuple(_warnings(found, settings, environ)),
    )


class _Values(dict[str, Any]):
    def __call__(self, cls: type) -> Any:
        return cls(**self)


def _section(found: Collected, cls: type, prefix: str, sources: dict[str, str]) -> _Values:
    values = _Values()
    for member in members(cls, prefix):
        name = member.key.removeprefix(prefix)
        if isinstance(member, Declaration):
            given = found.values.get(member.key)
            if given:
                _parse_into(values, name, member, given[0], found.problems)
                sources[member.key] = _source(given[0])
        elif member.many:
            given_items = found.items.get(member.key)
            if given_items:
                values[f"{name}_given"] = _items(found.problems, member, given_items)
                sources[member.key] = _source(given_items)
        else:
            values[name] = _section(found, member.cls, f"{member.key}.", sources)(member.cls)
    return values


def _source(given: Given) -> str:
    return given.source if given.source == "command line" else f"{given.source} {given.name}"


def _where(given: Given, key: str) -> str:
    """How an error begins: the file and the key, or the variable and what it means."""
    return f"{given.name}: {key}" if given.source == "file" else f"{given.name} ({key})"


def _parse_into(
    values: dict[str, Any], name: str, member: Declaration, given: Given, problems: list[str]
) -> None:
    try:
        values[name] = member.kind.parse(given.value)
    except ValueError as error:
        # What is wrong with an address is said without it.
        is_told = isinstance(member.kind, Url) or not member.secret
        text = str(error) if is_told else "is no such value"
        problems.append(f"{_where(given, member.key)}: {text}")


def _items(problems: list[str], section: Section, given: Given) -> tuple[Any, ...]:
    raw = _listed(given.value) if isinstance(given.value, str) else given.value
    if not isinstance(raw, list) or len(raw) > 1000:
        problems.append(f"{_where(given, section.key)}: must be a list of at most 1000 groups")
        return ()
    return tuple(
        _item(problems, section, replace(given, value=item), f"{section.key}[{n}]")
        for n, item in enumerate(raw)
    )


def _listed(text: str) -> object:
    """The list in a variable: "smtp=127.0.0.1:25,imap=:143", or JSON."""
    if text.lstrip().startswith("["):
        import json

        try:
            return json.loads(text)
        except ValueError:
            return None
    pairs = [item.partition("=") for item in text.replace(",", " ").split()]
    return [{"protocol": protocol, "address": address} for protocol, _, address in pairs]


def _item(problems: list[str], section: Section, given: Given, key: str) -> Any:
    values = _Values()
    if not isinstance(given.value, Mapping):
        problems.append(f"{_where(given, key)}: must be a group of keys")
        return section.cls()
    known = {each.key: each for each in members(section.cls)}
    for name, value in given.value.items():
        member = known.get(str(name))
        if isinstance(member, Declaration):
            single = replace(given, value=value)
            _parse_into(values, str(name), replace(member, key=f"{key}.{name}"), single, problems)
        else:
            hint = nearest(str(name), known)
            problems.append(f"{_where(given, f'{key}.{name}')}: unknown key{hint}")
    is_spelled_right = all(str(name) in known for name in given.value)
    for name in ("protocol", "address"):
        if is_spelled_right and not given.value.get(name):
            problems.append(f"{_where(given, f'{key}.{name}')}: is missing")
    return values(section.cls)


# -- what follows from the values -----------------------------------------------------------


def _resolved(settings: Settings) -> Settings:
    folder = Path(settings.data_dir).expanduser().absolute()
    url = settings.database_url or f"sqlite:///{folder / 'mailtwist.db'}"
    scheme, _, rest = url.partition("://")
    if scheme in {"postgres", "postgresql"}:
        url = f"postgresql+psycopg://{rest}"
    return replace(
        settings,
        hostname=settings.hostname or _own_hostname(),
        data_dir=str(folder),
        database_url=url,
        relay=replace(settings.relay, password=_without_spaces(settings.relay.password)),
    )


def _without_spaces(password: str) -> str:
    """An app password as it is meant: it is shown, and copied, in groups of four."""
    return "".join(password.split())


def _own_hostname() -> str:
    # Not getfqdn: that asks DNS, and may take seconds.
    try:
        return fold_domain(socket.gethostname())
    except ValueError:
        return "localhost"


def _listeners(
    found: Collected, settings: Settings, environ: Mapping[str, str]
) -> Iterator[Listener]:
    wanted = [_given_listener(item) for item in settings.listeners_given if item.address]
    if settings.listen_addr:
        wanted.append(listener("smtp", settings.listen_addr))
    extra = list(_port_listeners(found, environ))
    if not wanted and "listeners" not in found.items:
        # A port given by its own variable takes the place of the sandbox's.
        replaced = {each.protocol for each in extra}
        wanted = [each for each in SANDBOX if each.protocol not in replaced]
    for each in extra:
        wanted = _with(wanted, each)
    given = found.items.get("listeners")
    for n, key, problem in problems_of(wanted):
        name = f"listeners[{n}].{key}"
        found.problems.append(f"{_where(given, name) if given else name}: {problem}")
    if settings.disable_smtp:
        wanted = [each for each in wanted if each.protocol not in MAIL_IN]
    yield from named_apart(wanted)


def _with(wanted: list[Listener], extra: Listener) -> list[Listener]:
    """Add a listener. One on every interface serves what was asked for on one of them."""
    rivals = [
        each
        for each in wanted
        if extra.port and (each.protocol, each.port) == (extra.protocol, extra.port)
    ]
    if any(each.host in {"", extra.host} for each in rivals):
        return wanted
    if not extra.host:
        wanted = [each for each in wanted if each not in rivals]
    return [*wanted, extra]


def _given_listener(item: ListenerItem) -> Listener:
    return listener(item.protocol, item.address, item)


def _port_listeners(found: Collected, environ: Mapping[str, str]) -> Iterator[Listener]:
    for name, protocol in PORT_VARIABLES:
        if not is_meant(name, environ):
            continue
        text = environ[name].strip()
        address = text if ":" in text else f":{text}"
        try:
            split_host_port(address)
        except ValueError as error:
            found.problems.append(f"{name}: {error}")
        else:
            yield listener(protocol, address)


def _contradictions(settings: Settings) -> Iterator[str]:
    if bool(settings.tls.cert_file) != bool(settings.tls.key_file):
        missing = "key_file" if settings.tls.cert_file else "cert_file"
        yield f"tls.{missing}: is missing; a certificate and its key are given together"
    if settings.auth.backend == "file" and not settings.auth.file_path:
        yield "auth.file_path: is missing; auth.backend is file"
    if settings.auth.backend == "ldap":
        for name in ("url", "base_dn"):
            if not getattr(settings.ldap, name):
                yield f"ldap.{name}: is missing; auth.backend is ldap"
    if settings.delivery.mode == "lmtp" and not settings.delivery.host:
        yield "delivery.host: is missing; delivery.mode is lmtp"
    if not settings.queue.retry_schedule:
        yield "queue.retry_schedule: is empty; one wait is the least"


def _warnings(found: Collected, settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    yield from found.warnings
    for key, given in found.values.items():
        declaration = DECLARATIONS[key]
        if given[0].name in DEPRECATED:
            yield f"{given[0].name}: is called {DEPRECATED[given[0].name]} now"
        if declaration.inactive:
            yield f"{_where(given[0], key)}: {declaration.inactive}"
    if unused := [name for name in UNUSED_VARIABLES if is_meant(name, environ)]:
        yield f"{', '.join(unused)}: not read by the server; see docs/environment.md"
    yield from _relay_warnings(found, settings)
    yield from _misspelled(environ)


def _relay_warnings(found: Collected, settings: Settings) -> Iterator[str]:
    relay = settings.relay
    given = found.values.get("relay.password")
    if given and str(given[0].value).strip() != relay.password:
        yield (
            f"{_where(given[0], 'relay.password')}: the spaces in it are left out; "
            "a password that has some is written in transports, as %20"
        )
    if relay.host and bool(relay.username) != bool(relay.password):
        missing = "password" if relay.username else "username"
        yield f"relay.{missing}: is missing; without it no login is tried"
    if relay.host and relay.port == SUBMISSIONS_PORT and not relay.tls:
        yield "relay.port: 465 begins with TLS, and relay.tls is off: it will not be understood"


def _misspelled(environ: Mapping[str, str]) -> Iterator[str]:
    """A word on each variable that nearly names a setting; tools of ours use other names."""
    known = [variable_of(key) for key in (*DECLARATIONS, *ALIASES, *SECTIONS)]
    for name in environ:
        if name.startswith("MAILTWIST_") and name not in known and name not in FILE_VARIABLES:
            for close in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                yield f"{name}: names no setting; did you mean {close}?"
