"""SMTP arguments: octets to values. Every function raises ProtocolViolation, none is slow.

RFC 5321 §4.1; RFC 1870; RFC 6152; RFC 4954 §5; RFC 3461 §4 (xtext).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import NoReturn

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, parse_path

# More parameters than any extension set has.
MAX_PARAMETERS = 20
MAX_DOMAIN = 255

_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]{0,63})(?:=([\x21-\x3c\x3e-\x7e]+))?")
# A host name as clients send it: underscores, single labels and a final dot are common.
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rb"%b(?:\.%b)*\.?" % (_LABEL, _LABEL))
_IPV4 = re.compile(rb"\[(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\]")
_IPV6 = re.compile(rb"\[IPv6:([0-9A-Fa-f:.]{2,45})\]", re.IGNORECASE)
_GENERAL_LITERAL = re.compile(rb"\[[A-Za-z0-9-]*[A-Za-z0-9]:[\x21-\x5a\x5e-\x7e]+\]")
_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_HEX = re.compile(rb"\+([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: reverse_path None is the null path; size 0 means none was declared."""

    reverse_path: Address | None
    size: int = 0
    body: str = "7BIT"
    submitter: str | None = None  # AUTH=, decoded; "<>": unknown


@dataclass(frozen=True, slots=True)
class Rcpt:
    forward_path: Address


@dataclass(frozen=True, slots=True)
class Auth:
    """mechanism in capitals; initial None: the client waits for a challenge."""

    mechanism: str
    initial: bytes | None


# -- EHLO, HELO -----------------------------------------------------------------------------


def parse_greeting(argument: bytes) -> str:
    """The name or address literal of EHLO and HELO."""
    argument = argument.strip()
    if not argument:
        raise ProtocolViolation("A host name or address literal is needed")
    if len(argument) > MAX_DOMAIN or not (_HOST.fullmatch(argument) or _is_literal(argument)):
        raise ProtocolViolation("Invalid host name")
    return argument.decode("ascii")


def _is_literal(argument: bytes) -> bool:
    """RFC 5321 §4.1.3."""
    if found := _IPV4.fullmatch(argument):
        return all(int(octet) <= 255 for octet in found.groups())
    if found := _IPV6.fullmatch(argument):
        try:
            IPv6Address(found[1].decode("ascii"))
        except ValueError:
            return False
        return True
    if argument[:6].lower() == b"[ipv6:":
        return False
    return _GENERAL_LITERAL.fullmatch(argument) is not None


# -- MAIL, RCPT -----------------------------------------------------------------------------


def parse_mail(argument: bytes) -> Mail:
    """``FROM:<path>`` and its parameters."""
    path, rest = _path(argument, b"FROM:", "Syntax: MAIL FROM:<address>")
    mail = Mail(path)
    if rest:
        for name, value in _parameters(rest):
            read = MAIL_PARAMETERS.get(name)
            if read is None:
                _unknown_parameter(name)
            mail = read(mail, value)
    return mail


def parse_rcpt(argument: bytes) -> Rcpt:
    """``TO:<path>`` and its parameters."""
    path, rest = _path(argument, b"TO:", "Syntax: RCPT TO:<address>")
    if path is None:
        raise ProtocolViolation("Invalid address")
    if rest:
        for name, _value in _parameters(rest):
            _unknown_parameter(name)
    return Rcpt(path)


def _path(argument: bytes, word: bytes, syntax: str) -> tuple[Address | None, bytes]:
    if argument[: len(word)].upper() != word:
        raise ProtocolViolation(syntax)
    # Blanks behind the colon are no good syntax, yet older clients write them.
    argument = argument[len(word) :].lstrip(b" ")
    if not argument.startswith(b"<"):
        raise ProtocolViolation(syntax)
    path, rest = parse_path(argument)
    if rest and not rest.startswith(b" "):
        raise ProtocolViolation(syntax)
    return path, rest


def _parameters(rest: bytes) -> list[tuple[str, str]]:
    """``NAME[=VALUE] ...``; names in capitals, each at most once."""
    found: dict[str, str] = {}
    for n, word in enumerate(rest.split()):
        match = _PARAMETER.fullmatch(word)
        if match is None or n >= MAX_PARAMETERS:
            raise ProtocolViolation("Invalid parameter syntax")
        name = match[1].decode("ascii").upper()
        if name in found:
            raise ProtocolViolation(f"Parameter {name} given twice")
        found[name] = (match[2] or b"").decode("ascii")
    return list(found.items())


def _unknown_parameter(name: str) -> NoReturn:
    # RFC 5321 §4.1.1.11
    raise ProtocolViolation(f"Parameter {name} not recognized", code=555)


def _size(mail: Mail, value: str) -> Mail:
    # RFC 1870 §5: 1 to 20 digits.
    if not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise ProtocolViolation("Invalid SIZE parameter syntax")
    return replace(mail, size=int(value))


def _body(mail: Mail, value: str) -> Mail:
    body = value.upper()
    if body not in {"7BIT", "8BITMIME"}:
        raise ProtocolViolation("Invalid BODY parameter: must be 7BIT or 8BITMIME")
    return replace(mail, body=body)


def _auth(mail: Mail, value: str) -> Mail:
    return replace(mail, submitter=parse_xtext(value.encode("ascii")))


# An extension adds its parameters here.
MAIL_PARAMETERS: Mapping[str, Callable[[Mail, str], Mail]] = {
    "SIZE": _size,
    "BODY": _body,
    "AUTH": _auth,
}


def parse_xtext(value: bytes) -> str:
    """RFC 3461 §4."""
    if not value or not _XTEXT.fullmatch(value):
        raise ProtocolViolation("Invalid xtext")
    return _HEX.sub(lambda found: bytes([int(found[1], 16)]), value).decode("utf-8", "replace")


# -- the rest -------------------------------------------------------------------------------


def parse_auth(argument: bytes) -> Auth:
    """``MECHANISM [initial response]``; "=" stands for an empty response (RFC 4954 §4)."""
    words = argument.split()
    if not words or len(words) > 2 or not words[0].isascii():
        raise ProtocolViolation("Syntax: AUTH mechanism [initial-response]")
    return Auth(words[0].decode("ascii").upper(), words[1] if len(words) > 1 else None)


def parse_nothing(argument: bytes) -> None:
    """RFC 5321 §4.1.1: commands without arguments refuse them."""
    if argument.strip():
        raise ProtocolViolation("No arguments are allowed")


def parse_text(argument: bytes) -> bytes:
    """Whatever stands there (NOOP, HELP)."""
    return argument


def parse_needed(argument: bytes) -> bytes:
    """Some text, never none (VRFY, EXPN)."""
    if not argument.strip():
        raise ProtocolViolation("An argument is needed")
    return argument
