"""The process that serves: does each of its listeners greet, with a certificate that holds?"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mailtwist.cli.doctor.examination import Finding, fail, ok, warn
from mailtwist.cli.doctor.leaving import is_sandbox
from mailtwist.config import Settings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# For each call and each answer.
PATIENCE_S: Final = 4.0
# Authorities renew a month ahead: whoever is as near as this has stopped to.
SOON_DAYS: Final = 14
MAX_LINE: Final = 1000
# Of a file that another program may have written.
MAX_LISTENERS: Final = 200
_CAPABILITIES: Final = re.compile(r"\[CAPABILITY [^]]*\] ")
_ON_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_IMAP: Final = frozenset({"imap", "imaps"})
_WEB: Final = frozenset({"http", "https", "http-redirect"})


@dataclass(frozen=True, slots=True)
class Bound:
    """One line of listeners.json."""

    protocol: str
    host: str
    port: int
    tls: bool
    hostname: str  # that its certificate should be for

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol} {host}:{self.port}"


# What was found of a listener, and the certificate that it showed.
Looked = tuple[Finding, "Certificate | None"]


class NotAsExpected(Exception):
    """What the other side said instead."""


def listeners(settings: Settings) -> Iterator[Finding]:
    """The process, and every listener that it has opened."""
    from mailtwist.control.pid_file import running

    folder = Path(settings.data_dir)
    pid = running(folder)
    if pid is None:
        yield fail("server", f"none runs on {folder}", "run: mailtwist serve")
        return
    yield ok("server", f"process {pid} runs")
    bound = _bound(settings, folder)
    if not bound:
        yield fail("listeners", "none is open", "see the server's log")
        return
    with ThreadPoolExecutor(min(len(bound), 32)) as threads:
        looked = list(threads.map(lambda each: _examined(each, settings), bound))
    yield from (finding for finding, _ in looked)
    # Most listeners show the same one.
    shown = dict.fromkeys(
        (certificate, each.hostname)
        for each, (_, certificate) in zip(bound, looked, strict=True)
        if certificate is not None
    )
    is_trusting = is_sandbox(settings)
    for certificate, hostname in shown:
        yield judged(certificate, hostname, datetime.now(UTC), is_sandbox=is_trusting)


def _bound(settings: Settings, folder: Path) -> list[Bound]:
    try:
        rows: list[dict[str, Any]] = json.loads((folder / "listeners.json").read_text())
        return [_bound_of(row, settings) for row in rows[:MAX_LISTENERS]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _bound_of(row: dict[str, Any], settings: Settings) -> Bound:
    found = next((each for each in settings.listeners if each.title == row["name"]), None)
    hostname = (found.hostname if found else "") or settings.hostname
    address = str(row["address"])
    return Bound(
        str(row["protocol"]),
        _ON_LOOPBACK.get(address, address),
        int(row["port"]),
        bool(row["tls"]),
        hostname,
    )


def _examined(bound: Bound, settings: Settings) -> Looked:
    if _wants_proxy(bound, settings):
        text = "open; not asked: it expects the PROXY protocol of this machine"
        return ok(bound.name, text), None
    try:
        with socket.create_connection((bound.host, bound.port), PATIENCE_S) as link:
            return _talked(bound, link)
    except NotAsExpected as error:
        return fail(bound.name, str(error), "see the server's log"), None
    except TimeoutError:
        reason = f"no answer within {PATIENCE_S:g} s"
        return fail(bound.name, reason, "see the server's log"), None
    except (OSError, http.client.HTTPException) as error:
        reason = f"cannot be reached: {error}"
        return fail(bound.name, reason, "see: mailtwist listeners list"), None


def _wants_proxy(bound: Bound, settings: Settings) -> bool:
    from mailtwist.net.networks import Networks

    return any(
        bound.host in Networks(each.proxies)
        for each in settings.listeners
        if (each.protocol, each.port) == (bound.protocol, bound.port)
    )


def _talked(bound: Bound, link: socket.socket) -> Looked:
    certificate = None
    if bound.tls:
        link, certificate = _secured(link, bound.hostname)
    with link:
        if bound.protocol in _WEB:
            answered = _health if bound.protocol != "http-redirect" else _redirect
            return answered(bound, link), certificate
        said, upgraded = _greeted(bound, link)
        return ok(bound.name, _CAPABILITIES.sub("", said)), certificate or upgraded


# -- mail -----------------------------------------------------------------------------------


def _greeted(bound: Bound, link: socket.socket) -> tuple[str, Certificate | None]:
    """What it greets with, and its certificate where it offers STARTTLS."""
    start, offers = _GREETINGS[bound.protocol in _IMAP]
    with link.makefile("rb") as file:
        said = _line(file)
        if not said.startswith(start):
            raise NotAsExpected(f"it greets with: {said}")
        if bound.tls or not offers(bound, link, file):
            return said, None
    secured, certificate = _secured(link, bound.hostname)
    secured.close()
    return said, certificate


def _smtp_offers_tls(bound: Bound, link: socket.socket, file: Any) -> bool:
    hello = b"LHLO" if bound.protocol == "lmtp" else b"EHLO"
    offered = _asked(link, file, hello + b" localhost", "250")
    return "STARTTLS" in offered.upper() and bool(_asked(link, file, b"STARTTLS", "220"))


def _asked(link: socket.socket, file: Any, command: bytes, wanted: str) -> str:
    """All lines of an SMTP reply."""
    link.sendall(command + b"\r\n")
    lines = []
    for _ in range(100):
        lines.append(_line(file))
        if not lines[-1].startswith(wanted):
            raise NotAsExpected(f"{command.decode()} is answered with: {lines[-1]}")
        if lines[-1][3:4] != "-":
            break
    return "\n".join(lines)


def _imap_offers_tls(_: Bound, link: socket.socket, file: Any) -> bool:
    link.sendall(b"a CAPABILITY\r\n")
    offered = _line(file)
    if "STARTTLS" not in offered.upper():
        return False
    _line(file)
    link.sendall(b"b STARTTLS\r\n")
    said = _line(file)
    if not said.startswith("b OK"):
        raise NotAsExpected(f"STARTTLS is answered with: {said}")
    return True


Offer = Callable[[Bound, socket.socket, Any], bool]
# By whether it is IMAP.
_GREETINGS: Final[dict[bool, tuple[str, Offer]]] = {
    False: ("220", _smtp_offers_tls),
    True: ("* OK", _imap_offers_tls),
}


def _line(file: Any) -> str:
    from mailtwist.cli.queued import clean

    line: bytes = file.readline(MAX_LINE)
    if not line:
        raise NotAsExpected("the connection was closed")
    return clean(line.rstrip(b"\r\n").decode("utf-8", "replace"))


# -- the web --------------------------------------------------------------------------------


def _health(bound: Bound, link: socket.socket) -> Finding:
    status, text = _get(bound, link, "/health")
    try:
        document = json.loads(text)
        is_good, message = document["success"] is True, str(document["message"])
    except (ValueError, KeyError, TypeError):
        return fail(bound.name, f"/health answers {status}", "see the server's log")
    if status == 200 and is_good:
        return ok(bound.name, f"/health: {message}")
    return fail(bound.name, f"/health answers {status}: {message}", "see the server's log")


def _redirect(bound: Bound, link: socket.socket) -> Finding:
    status, _ = _get(bound, link, "/")
    if status in {301, 308}:
        return ok(bound.name, "sends browsers to https")
    return fail(bound.name, f"answers {status} where it should redirect")


def _get(bound: Bound, link: socket.socket, path: str) -> tuple[int, str]:
    client = http.client.HTTPConnection(bound.host, bound.port, timeout=PATIENCE_S)
    client.sock = link
    client.request("GET", path, headers={"Host": bound.hostname, "Connection": "close"})
    answer = client.getresponse()
    return answer.status, answer.read(65536).decode("utf-8", "replace")


# -- certificates ---------------------------------------------------------------------------


def _secured(link: socket.socket, name: str) -> tuple[socket.socket, Certificate]:
    """TLS without a look at the certificate; the certificate."""
    from cryptography import x509

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        secured = context.wrap_socket(link, server_hostname=name)
    except ssl.SSLError as error:
        raise NotAsExpected(f"no TLS: {error.reason or error}") from None
    octets = secured.getpeercert(binary_form=True)
    assert octets is not None  # a server always shows one
    return secured, x509.load_der_x509_certificate(octets)


_ADVICE: Final = "have an authority sign one (docs/acme.md), or set tls.cert_file"


def judged(
    certificate: Certificate, hostname: str, now: datetime, *, is_sandbox: bool = False
) -> Finding:
    """Whether clients will take this certificate for ``hostname``."""
    from mailtwist.tls.pem import matches, names_of

    name = f"certificate {hostname}"
    ends = certificate.not_valid_after_utc
    names = names_of(certificate)
    shown = f"certificate for {', '.join(names[:3]) or 'nobody'} until {ends:%Y-%m-%d}"
    if ends <= now:
        return fail(name, f"expired: {shown}", "see: mailtwist cert list")
    if certificate.not_valid_before_utc > now:
        return fail(name, f"not valid yet: {shown}", "is the clock right?")
    if not matches(names, hostname):
        return warn(name, f"not for {hostname}: {shown}", _ADVICE)
    if (ends - now).days < SOON_DAYS:
        return warn(name, f"ends soon: {shown}", "see: mailtwist cert list")
    if certificate.issuer == certificate.subject and not is_sandbox:
        return warn(name, f"signed by itself, clients will not trust it: {shown}", _ADVICE)
    return ok(name, shown)
