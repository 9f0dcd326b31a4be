"""Transports: domains whose mail does not go to their MX hosts, and where it goes instead."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from mailtwist.config.kinds import MASK, Kind, one_line
from mailtwist.config.names import Domain, Host, join_host_port

MX: Final = "mx"
DEFAULT_PORTS: Final = {"smtp": 25, "smtps": 465, "lmtp": 24}
TLS_WORDS: Final = ("none", "opportunistic", "required", "verify")
SUBMISSIONS_PORT: Final = 465  # RFC 8314 §3.3: it begins with TLS

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Transport:
    """Where the mail of a domain goes. ``scheme`` "mx": to its MX hosts, a smart host or not.

    ``tls``: one of :data:`TLS_WORDS`.
    """

    scheme: str = MX
    host: str = ""
    port: int = 25
    username: str = ""
    password: str = field(default="", repr=False)
    tls: str = ""

    @property
    def has_login(self) -> bool:
        return bool(self.username)


@dataclass(frozen=True, slots=True)
class DomainPattern(Kind[str]):
    """A domain, or all of its subdomains: ``.example.net``."""

    name = "domain, .domain or *"

    def parse(self, value: object) -> str:
        text = one_line(value)
        dot = "." if text.startswith(".") else ""
        domain = Domain().parse(text.removeprefix("."))
        if not domain:
            raise ValueError("is no domain name")
        return f"{dot}{domain}"


@dataclass(frozen=True, slots=True)
class TransportUrl(Kind[Transport]):
    """``mx``, or ``smtp://[user:password@]host[:port][?tls=...]``, also smtps:// and lmtp://.

    No error repeats the value: it may hold a password.
    """

    name = "mx, or URL (smtp, smtps, lmtp)"

    def parse(self, value: object) -> Transport:
        text = one_line(value)
        if text.lower() == MX:
            return Transport()
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError:
            raise ValueError("must be mx, or a URL with host and port") from None
        if url.scheme not in DEFAULT_PORTS:
            raise ValueError("must be mx, or a URL that starts with smtp://, smtps:// or lmtp://")
        if url.path not in {"", "/"} or url.fragment:
            raise ValueError("must end behind the host, the port or ?tls=")
        username, password = _login(url)
        return Transport(
            scheme=url.scheme,
            host=_host(url),
            port=port or DEFAULT_PORTS[url.scheme],
            username=username,
            password=password,
            tls=_tls(url, bool(username)),
        )

    def show(self, value: Transport) -> object:
        if value.scheme == MX:
            return MX
        login = f"{quote(value.username, safe='')}:{MASK}@" if value.has_login else ""
        where = join_host_port(value.host, value.port)
        return f"{value.scheme}://{login}{where}?tls={value.tls}"


def _host(url: SplitResult) -> str:
    try:
        host = Host().parse(url.hostname or "")
    except ValueError:
        host = ""
    if not host:
        raise ValueError("must name a host")
    return host


def _login(url: SplitResult) -> tuple[str, str]:
    username, password = unquote(url.username or ""), unquote(url.password or "")
    if bool(username) != bool(password):
        raise ValueError("must have a user and a password, or neither")
    # A line end would become a second command.
    if _CONTROL.search(username) or _CONTROL.search(password):
        raise ValueError("must have no control character in its login")
    return username, password


def _tls(url: SplitResult, has_login: bool) -> str:
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    asked = query.pop("tls", "").lower()
    if query:
        raise ValueError("must have nothing but tls= behind its question mark")
    if not asked:
        # A password goes to nobody but the host that it is meant for.
        return "verify" if has_login else "required" if url.scheme == "smtps" else "opportunistic"
    if asked not in TLS_WORDS:
        raise ValueError(f"must have a ?tls= of {', '.join(TLS_WORDS)}")
    if url.scheme == "smtps" and asked in {"none", "opportunistic"}:
        raise ValueError("must have a ?tls= of required or verify, for smtps:// is TLS")
    return asked
