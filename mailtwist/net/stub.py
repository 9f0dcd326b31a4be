"""One question to DNS and its answer, by dnspython; it blocks.

For a thread (:mod:`mailtwist.net.dns`) and for commands. dnspython is imported at
the first question.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from mailtwist.mail.host_names import is_address

if TYPE_CHECKING:
    import dns.resolver

log = Logger()

# A recursive server that is at a loss says so within seconds.
TRY_S: Final = 5.0
TRIES: Final = 2
# RFC 9715 §3.1: what passes every link without fragments.
UDP_OCTETS: Final = 1232
MAX_CNAMES: Final = 8
MAX_VALUES: Final = 256

# The system's list of servers is read again after this.
SYSTEM_S: Final = 60.0


class DnsError(Exception):
    """The text tells the operator, and nothing secret."""


class NoSuchName(DnsError):
    """The name does not exist (NXDOMAIN)."""


class NoData(DnsError):
    """The name exists and has nothing of this type."""


class LookupFailed(DnsError):
    """Nobody could say: time-out, SERVFAIL, a loop of CNAMEs, garbage. Worth another try."""


@dataclass(frozen=True, slots=True)
class Mx:
    """``name`` in lower case without the last dot; empty: the null MX (RFC 7505)."""

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``values``: :class:`Mx`, an address, the octets of a TXT, else text; 256 at most.

    ``is_secure``: the server says that it checked DNSSEC. That is worth as much as
    the way to the server.
    """

    values: tuple[Any, ...]
    ttl: int  # seconds
    is_secure: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """An answer too: there is nothing."""

    error: type[DnsError]
    text: str
    ttl: int


def _host_name(name: Any) -> str:
    text: str = name.to_text(omit_final_dot=True)
    return "" if text == "." else text.lower()


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "MX": lambda record: Mx(record.preference, _host_name(record.exchange)),
    "A": lambda record: str(record.address),
    "AAAA": lambda record: str(record.address),
    # RFC 7208 §3.3: the strings of one record belong together, without blanks.
    "TXT": lambda record: b"".join(record.strings),
}


class Stub:
    """Asks one server, or those of the system, and waits for the answer.

    ``server``: "host:port", "" for the system's.
    """

    def __init__(self, server: str = "", *, try_s: float = TRY_S, tries: int = TRIES) -> None:
        self._server = server
        self._try_s = try_s
        self._lifetime_s = try_s * tries
        self._resolver: dns.resolver.Resolver | None = None
        self._made_at = 0.0
        self._making = threading.Lock()

    def query(self, name: str, kind: str) -> Answer:
        """Raises: NoSuchName, NoData, LookupFailed."""
        found = self.ask(name, kind)
        if isinstance(found, Missing):
            raise found.error(found.text)
        return found

    def ask(self, name: str, kind: str) -> Answer | Missing:
        import dns.exception
        import dns.name

        try:
            # Absolute: the system's search list is not for mail domains.
            asked = dns.name.from_text(f"{name.rstrip('.')}.")
        except dns.exception.DNSException:
            return Missing(NoSuchName, f"{name} is no domain name", 0)
        try:
            return self._follow(asked, kind)
        except (dns.exception.DNSException, OSError) as error:
            log.debug(
                "DNS question {name} {kind} failed: {error}", name=name, kind=kind, error=error
            )
            return Missing(LookupFailed, f"{name} {kind}: {_reason(error)}", 0)

    def _follow(self, asked: dns.name.Name, kind: str) -> Answer | Missing:
        """Ask; go after a CNAME whose end the server left out."""
        name, text = asked, _host_name(asked)
        resolver = self._current()
        for _ in range(MAX_CNAMES):
            try:
                found = resolver.resolve(
                    name, kind, raise_on_no_answer=False, search=False, lifetime=self._lifetime_s
                )
            except _errors().NXDOMAIN as error:
                return Missing(NoSuchName, f"{text} does not exist", _negative_ttl(error))
            ttl = found.chaining_result.minimum_ttl
            if found.rrset is not None:
                return _read(found, kind, ttl)
            if found.canonical_name == name:
                return Missing(NoData, f"{text} has no {kind}", ttl)
            name = found.canonical_name
        return Missing(LookupFailed, f"{text} {kind}: too many CNAMEs", 0)

    def _current(self) -> dns.resolver.Resolver:
        with self._making:
            is_old = not self._server and time.monotonic() - self._made_at > SYSTEM_S
            if self._resolver is None or is_old:
                self._resolver, self._made_at = self._made(), time.monotonic()
            return self._resolver

    def _made(self) -> dns.resolver.Resolver:
        import dns.flags
        import dns.resolver

        made = dns.resolver.Resolver(configure=not self._server)
        if self._server:
            host, _, port = self._server.rpartition(":")
            made.nameservers = [_address_of(host.strip("[]"))]
            made.port = int(port)
        made.timeout, made.lifetime = self._try_s, self._lifetime_s
        # RFC 6840 §5.7: AD in a question asks for AD in the answer.
        made.set_flags(dns.flags.RD | dns.flags.AD)
        made.use_edns(0, 0, UDP_OCTETS)
        return made


def _errors() -> Any:
    import dns.resolver

    return dns.resolver


def _address_of(host: str) -> str:
    """The server may be given by name ("localhost:53", a container's)."""
    if is_address(host):
        return host
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0][4][0])


def _reason(error: Exception) -> str:
    """In words for anybody; dnspython's own name our servers."""
    import dns.exception

    words = {
        _errors().LifetimeTimeout: "timed out",
        _errors().NoNameservers: "the server could not say",
        _errors().NoResolverConfiguration: "no DNS server is known",
        dns.exception.DNSException: "no usable answer",
    }
    return next((text for kind, text in words.items() if isinstance(error, kind)), "no network")


def _negative_ttl(error: Any) -> int:
    responses = error.responses().values()
    return min(int(each.resolve_chaining().minimum_ttl) for each in responses)


def _read(found: dns.resolver.Answer, kind: str, ttl: int) -> Answer:
    import dns.flags

    read = _READERS.get(kind, lambda record: record.to_text())
    values = [read(record) for record in found]
    if kind == "MX":
        # Of more than anybody needs, the best are kept.
        values.sort(key=lambda mx: mx.preference)
    is_secure = bool(found.response.flags & dns.flags.AD)
    return Answer(tuple(values[:MAX_VALUES]), ttl, is_secure)


def addresses_by_system(name: str) -> tuple[str, ...]:
    """What the machine says: /etc/hosts, a container's names, DNS. Blocks.

    Raises: NoSuchName, LookupFailed.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        is_missing = error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)}
        raise (NoSuchName if is_missing else LookupFailed)(f"{name}: {error.strerror}") from None
    except (OSError, UnicodeError) as error:
        raise LookupFailed(f"{name}: {error}") from None
    return tuple(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
