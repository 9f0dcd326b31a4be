"""Mailbox addresses and SMTP paths, read once for every purpose.

The same parser serves MAIL, RCPT, the configuration and REST, so that the
question "may this be relayed" and the delivery never see two meanings of one
text. A percent hack or a bang path stays a literal local part and a source
route is dropped: neither ever routes. Work is linear in the input.

RFC 5321 §4.1.2; RFC 5321 §4.5.3.1; RFC 6531 §3.3; RFC 5891.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from mailtwist.errors import ProtocolViolation

MAX_LOCAL_PART: Final = 64  # RFC 5321 §4.5.3.1.1
MAX_DOMAIN: Final = 255  # RFC 5321 §4.5.3.1.2
MAX_PATH: Final = 256  # RFC 5321 §4.5.3.1.3, brackets and source route counted

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
_UNICODE = r"\u0080-\U0010ffff"

# Nearly every path there is: a dot-string at a host name. A label may hold an
# underscore, which DNS allows and real senders use.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*+"
_COMMON = re.compile(
    rf"<([{_ATEXT}]++(?:\.[{_ATEXT}]++)*+)@({_DOMAIN})>".encode("ascii"),
)
_DOMAIN_NAME = re.compile(_DOMAIN)

# RFC 5321 §4.1.2, with the additions of RFC 6531 §3.3; the domain is checked on its own.
_DOT_STRING = rf"[{_UNICODE}{_ATEXT}]++(?:\.[{_UNICODE}{_ATEXT}]++)*+"
_QUOTED_STRING = rf'"(?:[ !#-\[\]-~{_UNICODE}]|\\[ -~])*+"'
_PATH = re.compile(
    r"<(?:@[^\s<>\":]*+:)?"
    rf"(?P<local>{_DOT_STRING}|{_QUOTED_STRING})"
    r"@(?P<domain>\[[!-Z^-~]*+\]|[^\s<>\"@\[\]]*+)>"
)
_POSTMASTER = re.compile(rb"<postmaster>", re.IGNORECASE)
_PLAIN_LOCAL_PART = re.compile(_DOT_STRING)
_QUOTED_PAIR = re.compile(r"\\(.)")
_TO_QUOTE = re.compile(r'(["\\])')

# Never inside an address, quoted or not: they would end a header line somewhere.
_LINE_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: ``local_part`` without quoting, ``domain`` as A-labels in lower case.

    The domain is empty for the bare ``postmaster`` of RFC 5321 §4.1.1.3 and, with
    an empty local part, for the null path. It may be a literal such as
    ``[127.0.0.1]`` or ``[IPv6:::1]``.
    """

    local_part: str
    domain: str

    def __str__(self) -> str:
        """The form for the wire, the local part quoted where it must be."""
        local_part = self.local_part
        if not self.domain:
            return local_part
        if _PLAIN_LOCAL_PART.fullmatch(local_part) is None:
            local_part = '"' + _TO_QUOTE.sub(r"\\\1", local_part) + '"'
        return f"{local_part}@{self.domain}"

    @property
    def folded(self) -> str:
        """The key for comparison: two spellings of one mailbox are equal here."""
        return f"{fold_local_part(self.local_part)}@{self.domain}"


def fold_local_part(local_part: str) -> str:
    """A local part as it is compared and kept in rows."""
    if local_part.isascii():
        return local_part.lower()
    return unicodedata.normalize("NFC", local_part.casefold())


def parse_path(data: bytes, *, smtputf8: bool = False) -> tuple[Address | None, bytes]:
    """Read ``<path>`` at the start of ``data``; the rest comes back as it is.

    None stands for the null path. Blanks before the bracket are forgiven, because
    many clients write ``FROM: <a@b>``. Raises: ProtocolViolation.
    """
    data = data.lstrip(b" ")
    match = _COMMON.match(data)
    if match is not None:
        local, domain = match.group(1, 2)
        _check_lengths(len(local), match.end(), len(domain))
        return Address(local.decode("ascii"), domain.decode("ascii").lower()), data[match.end() :]
    if data.startswith(b"<>"):
        return None, data[2:]
    match = _POSTMASTER.match(data)
    if match is not None:
        return Address(match.group()[1:-1].decode("ascii"), ""), data[match.end() :]
    return _parse_rare_path(data, smtputf8)


def _parse_rare_path(data: bytes, smtputf8: bool) -> tuple[Address, bytes]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse_syntax()
    match = _PATH.match(text)
    if match is None:
        _refuse_syntax()
    local, domain = match.group("local", "domain")
    if not smtputf8 and not match.group().isascii():
        raise ProtocolViolation(
            "Address beyond ASCII needs SMTPUTF8", code=553, status="5.6.7"
        )  # RFC 6531 §3.5
    octets = len(match.group().encode("utf-8"))
    _check_lengths(len(local.encode("utf-8")), octets, 0)
    if local.startswith('"'):
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    if _LINE_BREAKS.search(local):
        _refuse_syntax()
    return Address(local, _parse_domain(domain)), text[match.end() :].encode("utf-8")


def parse_address(text: str) -> Address:
    """Read an address as people write it in configuration, CLI and REST.

    Raises: ProtocolViolation.
    """
    address, rest = None, b""
    if not text.startswith("@"):
        address, rest = parse_path(f"<{text}>".encode("utf-8", "replace"), smtputf8=True)
    if address is None or rest or not address.domain:
        _refuse_syntax()
    return address


def fold_domain(text: str) -> str:
    """A host name or address literal as A-labels in lower case.

    Raises: ProtocolViolation.
    """
    return _parse_domain(text)


def _parse_domain(text: str) -> str:
    if text.startswith("["):
        return _parse_literal(text)
    # Before anything costly, and before IDNA, whose work grows faster than its input.
    if len(text) > MAX_DOMAIN:
        _refuse_syntax()
    if not text.isascii():
        text = _to_a_labels(text)
    if len(text) > MAX_DOMAIN or _DOMAIN_NAME.fullmatch(text) is None:
        _refuse_syntax()
    return text.lower()


def _to_a_labels(text: str) -> str:
    # Its tables cost memory and few servers ever see such a name.
    import idna

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        _refuse_syntax()


def _parse_literal(text: str) -> str:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 §4.1.3), in one spelling."""
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:" and "%" not in inner:
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:50]).compressed}]"
        return f"[{ipaddress.IPv4Address(inner[:20])}]"
    except ValueError:
        _refuse_syntax()


def _check_lengths(local_part: int, path: int, domain: int) -> None:
    if local_part > MAX_LOCAL_PART:
        raise ProtocolViolation(
            f"Local part too long, {MAX_LOCAL_PART} octets at most", code=550, status="5.5.4"
        )
    if path > MAX_PATH or domain > MAX_DOMAIN:
        raise ProtocolViolation(
            f"Path too long, {MAX_PATH} octets at most", code=550, status="5.5.4"
        )


def _refuse_syntax() -> NoReturn:
    raise ProtocolViolation("Invalid address", code=501, status="5.5.4")
