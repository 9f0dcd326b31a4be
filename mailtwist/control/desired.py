"""The listeners that there shall be: of the file, of mail_server rows, of ``_config`` keys.

Pure: what is wanted goes in, a list that can be bound or all its contradictions come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from mailtwist.config import Listener, Settings, overlay
from mailtwist.config.names import join_host_port, split_host_port
from mailtwist.control.plan import Problem
from mailtwist.errors import Conflict
from mailtwist.store.mail_servers import MailServer

ROW: Final = "row/"
IMAP: Final = "config/imap"
HTTPS: Final = "config/https"
IMAPS_PORT: Final = 993

_EVERYWHERE: Final[Mapping[str, frozenset[int]]] = {
    "": frozenset({4, 6}),
    "0.0.0.0": frozenset({4}),  # noqa: S104
    "::": frozenset({6}),
}

Get = Callable[[str], str]


def desired(
    settings: Settings, rows: Iterable[MailServer], get: Get
) -> tuple[tuple[Listener, ...], tuple[Problem, ...]]:
    """The listeners, and what is wrong with them; ``get`` gives the value of a key."""
    problems: list[Problem] = []
    wanted = [*settings.listeners]
    if not settings.disable_smtp:
        wanted += _of_rows(rows, problems)
    wanted += _of_keys(settings, get, problems)
    problems += _contradictions(wanted)
    return tuple(wanted), tuple(problems)


def checked(settings: Settings, rows: Iterable[MailServer], get: Get) -> tuple[Listener, ...]:
    """The listeners. Raises: Conflict that names all host names and addresses concerned."""
    wanted, problems = desired(settings, rows, get)
    if problems:
        raise Conflict("; ".join(each.text for each in problems))
    return wanted


def _of_rows(rows: Iterable[MailServer], problems: list[Problem]) -> Iterator[Listener]:
    for row in rows:
        if not row.is_enabled:
            continue
        try:
            yield listener_of(row)
        except ValueError as error:
            text = f"mail_server {row.hostname}: listen_interface {error}"
            problems.append(Problem((name_of(row),), text, label=row.hostname))


def name_of(row: MailServer) -> str:
    """What the listener of a row is called, in plans and states."""
    return f"{ROW}{row.reference_id}"


def listener_of(row: MailServer) -> Listener:
    """Raises: ValueError for an interface that is none."""
    host, port = split_host_port(row.listen_interface.strip())
    return Listener(
        name=name_of(row),
        label=row.hostname,
        protocol="submissions" if row.always_on_tls else "smtp",
        host=host,
        port=port,
        hostname=row.hostname,
        max_clients=max(row.max_clients, 0),
        max_size=max(row.max_size, 0),
        authentication_required=row.authentication_required,
        optional_login=not row.authentication_required,
        xclient_on=row.xclient_on,
    )


def _of_keys(settings: Settings, get: Get, problems: list[Problem]) -> Iterator[Listener]:
    for name, enabled, interface, make in (
        (IMAP, overlay.IMAP_ENABLED, overlay.IMAP_INTERFACE, _imap),
        (HTTPS, overlay.HTTPS_ENABLED, overlay.HTTPS_INTERFACE, _https),
    ):
        if not overlay.is_on(get(enabled)):
            continue
        try:
            host, port = split_host_port(get(interface))
        except ValueError as error:
            problems.append(Problem((name,), f"{interface} {error}"))
        else:
            yield make(name, host, port, settings, get)


def _imap(name: str, host: str, port: int, settings: Settings, get: Get) -> Listener:
    tls = get(overlay.IMAP_TLS)
    begins = port == IMAPS_PORT if tls == overlay.BY_PORT else tls == overlay.IMPLICIT
    protocol = "imaps" if begins else "imap"
    hostname = get(overlay.IMAP_HOSTNAME) or f"imap.{settings.hostname}"
    return Listener(name=name, protocol=protocol, host=host, port=port, hostname=hostname)


def _https(name: str, host: str, port: int, settings: Settings, get: Get) -> Listener:
    return Listener(name=name, protocol="https", host=host, port=port)


def _contradictions(wanted: Sequence[Listener]) -> Iterator[Problem]:
    for one, other in combinations(wanted, 2):
        # Two of the file were compared when it was read, or ask for different free ports.
        if one.port and one.port == other.port and _overlap(one.host, other.host):
            text = f"{_said(one)} and {_said(other)} cannot listen on one address"
            yield Problem((one.name, other.name), text)


def _overlap(one: str, other: str) -> bool:
    return one == other or bool(_all_of(one) & _some_of(other) or _all_of(other) & _some_of(one))


def _all_of(host: str) -> frozenset[int]:
    """The IP versions of which a host is every address."""
    return _EVERYWHERE.get(host, frozenset())


def _some_of(host: str) -> frozenset[int]:
    """The IP versions of which it has addresses."""
    return _EVERYWHERE.get(host) or frozenset({6 if ":" in host else 4})


def _said(listener: Listener) -> str:
    return f"{listener.label or listener.name} ({join_host_port(listener.host, listener.port)})"
