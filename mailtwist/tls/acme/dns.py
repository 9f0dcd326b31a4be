"""The TXT record that proves a name by dns-01: made by dynamic update, or by a program.

Everything here blocks, within bounds.

Standards: RFC 8555 §8.4; RFC 2136 (dynamic updates); RFC 8945 (TSIG).
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterable, Sequence
from threading import Event
from typing import IO, Any, Final, Protocol

from mailtwist.config.names import split_host_port
from mailtwist.config.outgoing import Acme
from mailtwist.mail.host_names import is_address
from mailtwist.tls.acme.values import Challenge, OrderFailed, tidy

UPDATE_S: Final = 10.0
HOOK_S: Final = 120.0
LOOK_S: Final = 0.25
# Of what a program says on its standard error, so many octets from its end are told.
MAX_WORDS: Final = 1000
# A certificate proves nothing for long; nor should its record stay in caches.
TTL_S: Final = 60


class Records(Protocol):
    """Where records are made. Both raise OrderFailed."""

    def add(self, name: str, value: str) -> None: ...
    def remove(self, name: str, value: str) -> None: ...


def records_of(settings: Acme, stop: Event | None = None) -> Records:
    """What the settings name; ``stop`` ends a program that runs.

    Raises: OrderFailed when they name nothing, or what is no key.
    """
    if settings.dns_hook:
        return Hook(settings.dns_hook, stop=stop)
    if settings.dns_server:
        return Updates(settings)
    raise OrderFailed("acme.challenge dns-01 needs acme.dns_server or acme.dns_hook")


def publish(
    records: Records, challenges: Iterable[Challenge], *, wait_s: float, stop: Event
) -> None:
    """Make the records and leave them time to spread. Raises: OrderFailed."""
    for each in challenges:
        records.add(each.record_name, each.record)
    if stop.wait(wait_s):
        raise OrderFailed("the server stops")


def withdraw(records: Records, challenges: Iterable[Challenge]) -> list[OrderFailed]:
    """Remove the records; what could not be removed."""
    failures = []
    for each in challenges:
        try:
            records.remove(each.record_name, each.record)
        except OrderFailed as error:
            failures.append(error)
    return failures


class Hook:
    """A program that is called with ``add NAME VALUE`` and ``remove NAME VALUE``."""

    def __init__(
        self, command: Sequence[str], *, seconds: float = HOOK_S, stop: Event | None = None
    ) -> None:
        self._command = tuple(command)
        self._seconds = seconds
        self._stop = stop or Event()

    def add(self, name: str, value: str) -> None:
        self._call("add", name, value)

    def remove(self, name: str, value: str) -> None:
        self._call("remove", name, value)

    def _call(self, verb: str, name: str, value: str) -> None:
        command = [*self._command, verb, name, value]
        try:
            with (
                # No pipe: a daemon that it starts would hold the other end, and us with it.
                tempfile.TemporaryFile() as complaints,
                # A session of its own: what it started ends with it.
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    start_new_session=True,
                ) as process,
            ):
                self._wait_for(process)
                said = _last_of(complaints)
        except OSError as error:
            raise OrderFailed(f"acme.dns_hook: {self._command[0]}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            took = f"acme.dns_hook: {verb} {name} took more than {self._seconds:.0f} s"
            raise OrderFailed("the server stops" if self._stop.is_set() else took) from error
        if process.returncode:
            text = f"acme.dns_hook: {verb} {name} ended with status {process.returncode}"
            raise OrderFailed(f"{text}: {said}" if said else text)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """Raises: TimeoutExpired; it is killed then."""
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                process.wait(LOOK_S)
                return
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline and not self._stop.is_set():
                    continue
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise


def _last_of(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(0, size - MAX_WORDS))
    return tidy(complaints.read(MAX_WORDS).decode("utf-8", "replace"))


class Updates:
    """Dynamic updates to one server, signed where a key is named."""

    def __init__(self, settings: Acme) -> None:
        import dns.exception
        import dns.name
        import dns.tsig
        import dns.tsigkeyring

        self._host, self._port = split_host_port(settings.dns_server)
        self._zone = settings.dns_zone
        self._algorithm = dns.name.from_text(settings.dns_key_algorithm)
        self._keyring: Any = None
        if settings.dns_key_name:
            try:
                b64decode(settings.dns_key_secret, validate=True)
                key = {settings.dns_key_name: (self._algorithm, settings.dns_key_secret)}
                self._keyring = dns.tsigkeyring.from_text(key)
            except (ValueError, dns.exception.DNSException) as error:
                # The key itself is never repeated.
                raise OrderFailed("acme.dns_key_name, acme.dns_key_secret: no TSIG key") from error

    def add(self, name: str, value: str) -> None:
        owner = self._owner(name)
        self._update(owner, "add", TTL_S, "TXT", f'"{value}"')

    def remove(self, name: str, value: str) -> None:
        owner = self._owner(name)
        self._update(owner, "delete", "TXT", f'"{value}"')

    def _update(self, name: str, verb: str, *what: Any) -> None:
        import dns.rcode
        import dns.update

        zone = self._zone or self._zone_of(name)
        update = dns.update.UpdateMessage(
            zone, keyring=self._keyring, keyalgorithm=self._algorithm if self._keyring else ""
        )
        getattr(update, verb)(_absolute(name), *what)
        answer = self._ask(update)
        if answer.rcode() != dns.rcode.NOERROR:
            said = dns.rcode.to_text(answer.rcode())
            raise OrderFailed(f"acme.dns_server: {verb} {name} in {zone}: {said}")

    def _owner(self, name: str) -> str:
        """Where a name's records really are: some keep only this one elsewhere, by CNAME."""
        import dns.message
        import dns.rdatatype

        seen = name
        for _ in range(8):
            answer = self._ask(dns.message.make_query(_absolute(seen), "CNAME"))
            found = [
                rrset[0].target.to_text(omit_final_dot=True)
                for rrset in answer.answer
                if rrset.rdtype == dns.rdatatype.CNAME
            ]
            if not found:
                return seen
            seen = found[-1]
        raise OrderFailed(f"acme.dns_server: {name} is a chain of aliases without end")

    def _zone_of(self, name: str) -> str:
        """The closest zone above a name that the server knows."""
        import dns.message
        import dns.rdatatype

        labels = name.rstrip(".").split(".")
        for first in range(1, len(labels)):
            zone = ".".join(labels[first:])
            answer = self._ask(dns.message.make_query(_absolute(zone), "SOA"))
            for rrset in answer.answer:
                if rrset.rdtype == dns.rdatatype.SOA:
                    return str(rrset.name.to_text(omit_final_dot=True))
        raise OrderFailed(f"acme.dns_server: it has no zone for {name}; see acme.dns_zone")

    def _ask(self, message: Any) -> Any:
        import dns.exception
        import dns.query

        try:
            return dns.query.tcp(message, self._address(), UPDATE_S, self._port)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            said = tidy(str(error)) or type(error).__name__
            raise OrderFailed(f"acme.dns_server: {self._host}: {said}") from error

    def _address(self) -> str:
        import socket

        if is_address(self._host):
            return self._host
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return str(found[0][4][0])


def _absolute(name: str) -> Any:
    import dns.name

    return dns.name.from_text(name)
