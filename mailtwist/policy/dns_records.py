"""The DNS records that a mail domain needs, each with its reason: for people and as data."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from mailtwist.config import Settings
from mailtwist.policy.dkim_rotation import KEEP_US, record_name, record_value
from mailtwist.policy.keyring import configured_selector
from mailtwist.store.dkim_keys import ACTIVE, NEXT, RETIRED, Key

# RFC 1035 §3.3.14: a TXT record is strings of at most this many octets.
MAX_STRING: Final = 255

# What mail clients look for (RFC 6186, RFC 8314): service, our protocol, its usual port.
_SERVICES: Final = (
    ("_submissions", "submissions", 465, "sending over TLS"),
    ("_submission", "submission", 587, "sending with STARTTLS"),
    ("_imaps", "imaps", 993, "reading over TLS"),
)
# RFC 6186 §3.4: a target of "." says that there is none.
_ABSENT: Final = (("_imap", "reading without TLS"), ("_pop3", "POP3"), ("_pop3s", "POP3"))


@dataclass(frozen=True, slots=True)
class Record:
    """``name`` and host names have no last dot; the value of a TXT is unquoted.

    ``name`` is empty where it cannot be known (the PTR of an address that is not given).
    ``need``: "must" (mail does not arrive or is not believed), "should" or "may".
    """

    type: str
    name: str
    value: str
    reason: str
    need: str = "should"


def records(
    domain: str,
    *,
    hostname: str,
    addresses: Sequence[str] = (),
    keys: Iterable[Key] = (),
    settings: Settings,
    now: int,
) -> list[Record]:
    """What to publish for a domain whose mail ``hostname`` takes.

    ``addresses``: of the host, where they are known. ``keys``: all of the domain. ``now`` in
    microseconds.
    """
    return [
        *_host(domain, hostname, addresses),
        Record("MX", domain, f"10 {hostname}", "says which host takes mail for the domain", "must"),
        *_spf(domain, hostname, settings.relay.host),
        *_dkim(keys, configured_selector(settings.dkim), now),
        *_policies(domain, hostname),
        *_clients(domain, hostname, settings),
    ]


def zone_line(record: Record) -> str:
    """The record as a zone file has it; a comment when its name is not known."""
    if not record.name:
        return f"; {record.type} -> {record.value}."
    return f"{record.name}. IN {record.type} {_VALUES.get(record.type, str)(record.value)}"


def strings(text: str) -> list[str]:
    """The strings that a long TXT record is made of."""
    return [text[at : at + MAX_STRING] for at in range(0, len(text), MAX_STRING)] or [""]


def _quoted(text: str) -> str:
    return " ".join(
        '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in strings(text)
    )


def _dotted(text: str) -> str:
    return text if text.endswith(" .") else f"{text}."


_VALUES: Final = {
    "TXT": _quoted,
    "MX": _dotted,
    "SRV": _dotted,
    "CNAME": _dotted,
    "PTR": _dotted,
}


# -- the host -------------------------------------------------------------------------------


def _lies_in(hostname: str, domain: str) -> bool:
    return f".{hostname}".endswith(f".{domain}")


def _host(domain: str, hostname: str, addresses: Sequence[str]) -> Iterator[Record]:
    known = [ipaddress.ip_address(address) for address in addresses]
    if _lies_in(hostname, domain):
        for address in known:
            kind = "AAAA" if address.version == 6 else "A"
            yield Record(kind, hostname, str(address), "where the host is found", "must")
    reason = (
        "large providers take nothing from an address whose name does not lead back to it;"
        " whoever gave you the address sets this"
    )
    for address in known:
        yield Record("PTR", address.reverse_pointer, hostname, reason, "must")
    if not known:
        yield Record("PTR", "", hostname, f"for the address of the server: {reason}", "must")


def _spf(domain: str, hostname: str, smart_host: str) -> Iterator[Record]:
    reason = "lists who may send for the domain: its own host"
    terms = "mx"
    if smart_host:
        terms += f" {_spf_term(smart_host)}"
        reason += (
            f", and {smart_host}, through which its mail leaves. If that host's operator names"
            " an include: for SPF, put it in place of the term"
        )
    reason += ". ~all rather than -all, so that forwarded mail is judged by its signature"
    yield Record("TXT", domain, f"v=spf1 {terms} ~all", reason, "must")
    if hostname != domain and _lies_in(hostname, domain):
        reason = "the same for the host itself, in whose name bounces leave (RFC 7208 §2.4)"
        yield Record("TXT", hostname, "v=spf1 a -all", reason)


def _spf_term(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"a:{host}"
    return f"ip{address.version}:{address}"


# -- signatures -----------------------------------------------------------------------------


def _dkim(keys: Iterable[Key], configured: str, now: int) -> Iterator[Record]:
    for key in keys:
        reason, need = _purpose(key, configured)
        if key.state != RETIRED or key.retired_at + KEEP_US > now:
            yield Record("TXT", record_name(key), record_value(key), reason, need)


def _purpose(key: Key, configured: str) -> tuple[str, str]:
    if key.state == RETIRED:
        last = datetime.fromtimestamp((key.retired_at + KEEP_US) / 1e6, UTC)
        return f"of a key that signs no more: keep it until {last:%Y-%m-%d}", "should"
    if key.configured != configured:
        return "of an earlier dkim.selector: keep it a week after the change", "should"
    if key.state == NEXT:
        return "of the next key, which signs once this is published", "must"
    assert key.state == ACTIVE
    return "lets everybody verify the signatures of mail from the domain", "must"


# -- policies -------------------------------------------------------------------------------


def mta_sts_policy(hostname: str) -> str:
    """The file ``https://mta-sts.<domain>/.well-known/mta-sts.txt`` (RFC 8461 §3.2)."""
    return f"version: STSv1\r\nmode: testing\r\nmx: {hostname}\r\nmax_age: 604800\r\n"


def _policies(domain: str, hostname: str) -> Iterator[Record]:
    reports = f"rua=mailto:postmaster@{domain}"
    yield Record(
        "TXT",
        f"_dmarc.{domain}",
        f"v=DMARC1; p=none; {reports}",
        "asks for reports on mail that claims to come from the domain. Begin with p=none, read"
        " them, then go to p=quarantine and p=reject",
        "must",
    )
    # Another policy must have another id (RFC 8461 §3.1).
    number = sha256(mta_sts_policy(hostname).encode("ascii")).hexdigest()[:20]
    yield Record(
        "TXT",
        f"_mta-sts.{domain}",
        f"v=STSv1; id={number}",
        "says that mail to the domain always comes under TLS. Publish it only when"
        f" https://mta-sts.{domain}/.well-known/mta-sts.txt is served, and change the id with it",
        "may",
    )
    yield Record(
        "CNAME", f"mta-sts.{domain}", hostname, "the web host of that file (RFC 8461)", "may"
    )
    yield Record(
        "TXT",
        f"_smtp._tls.{domain}",
        f"v=TLSRPTv1; {reports}",
        "asks for reports on TLS that failed (RFC 8460)",
    )


# -- mail clients ---------------------------------------------------------------------------


def _clients(domain: str, hostname: str, settings: Settings) -> Iterator[Record]:
    for service, protocol, usual, what in _SERVICES:
        port = _port(settings, protocol) or usual
        reason = f"lets mail programs find the server for {what} (RFC 6186, RFC 8314)"
        yield Record("SRV", f"{service}._tcp.{domain}", f"0 1 {port} {hostname}", reason)
    for service, what in _ABSENT:
        yield Record("SRV", f"{service}._tcp.{domain}", "0 0 0 .", f"there is no {what}", "may")
    for name, who in (("autoconfig", "Thunderbird"), ("autodiscover", "Outlook")):
        reason = f"where {who} asks for the settings of an account, if a web server answers there"
        yield Record("CNAME", f"{name}.{domain}", hostname, reason, "may")


def _port(settings: Settings, protocol: str) -> int:
    """The port that clients elsewhere can reach; 0: none of the configuration."""
    for listener in settings.listeners:
        if listener.protocol == protocol and listener.host not in {"127.0.0.1", "::1", "localhost"}:
            return listener.port
    return 0
