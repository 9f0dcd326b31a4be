"""SMTP arguments: octets to values. Every function raises ProtocolViolation, none is slow.

RFC 5321 §4.1; RFC 1870; RFC 6152; RFC 4954 §5; RFC 3030; RFC 3461 §4; RFC 6531 §3.4;
RFC 8689 §3; XCLIENT as Postfix has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, parse_path
from mailtwist.queue.envelope import Mail
from mailtwist.store.queue.values import BINARYMIME, Notify

# What clients that said HELO declare all the same, and no harm in it.
FORGIVEN = frozenset({"size", "body"})
CHUNK_SYNTAX = "Syntax: BDAT <chunk-size> [LAST]"
MAX_SIZE_DIGITS = 19
XCLIENT_ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO")
UNAVAILABLE = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
# More parameters than any extension set has.
MAX_PARAMETERS = 20
MAX_DOMAIN = 255
MAX_ENVID = 100  # RFC 3461 §4.4
MAX_ORCPT = 500  # RFC 3461 §4.2

_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]{0,63})(?:=([\x21-\x3c\x3e-\x7e\x80-\xff]+))?")
# A host name as clients send it: underscores, single labels and a final dot are common.
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rb"%b(?:\.%b)*\.?" % (_LABEL, _LABEL))
_IPV4 = re.compile(rb"\[(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\]")
_IPV6 = re.compile(rb"\[IPv6:([0-9A-Fa-f:.]{2,45})\]", re.IGNORECASE)
_GENERAL_LITERAL = re.compile(rb"\[[A-Za-z0-9-]*[A-Za-z0-9]:[\x21-\x5a\x5e-\x7e]+\]")
_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_HEX = re.compile(rb"\+([0-9A-F]{2})")
_GRAPHIC = re.compile(r"[ -~]+")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Parameter:
    """The field of Mail or Rcpt that a parameter fills, and how its value ("": none) is read."""

    field: str
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT. ``orcpt``: decoded, with its type. ``is_utf8``: good only where MAIL said SMTPUTF8."""

    forward_path: Address
    notify: Notify = Notify.UNSET
    orcpt: str = ""
    is_utf8: bool = False
    is_extended: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Auth:
    """mechanism in capitals; initial None: the client waits for a challenge."""

    mechanism: str
    initial: bytes | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """BDAT. ``problem``: what is wrong behind the size, whose octets come all the same."""

    size: int
    is_last: bool = False
    problem: str = ""


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
    if not rest:
        mail = Mail(path)
    else:
        given = _parameters(rest, MAIL_PARAMETERS)
        mail = Mail(path, is_extended=not FORGIVEN.issuperset(given), **given)
    if not mail.smtputf8 and not argument.isascii():
        # RFC 6531 §3.5
        raise ProtocolViolation("Address beyond ASCII needs SMTPUTF8", code=553, status="5.6.7")
    return mail


def parse_rcpt(argument: bytes) -> Rcpt:
    """``TO:<path>`` and its parameters."""
    path, rest = _path(argument, b"TO:", "Syntax: RCPT TO:<address>")
    if path is None:
        raise ProtocolViolation("Invalid address")
    given = _parameters(rest, RCPT_PARAMETERS) if rest else {}
    return Rcpt(path, is_utf8=not argument.isascii(), is_extended=bool(given), **given)


def _path(argument: bytes, word: bytes, syntax: str) -> tuple[Address | None, bytes]:
    if argument[: len(word)].upper() != word:
        raise ProtocolViolation(syntax)
    # Blanks behind the colon are no good syntax, yet older clients write them.
    argument = argument[len(word) :].lstrip(b" ")
    if not argument.startswith(b"<"):
        raise ProtocolViolation(syntax)
    # Whether SMTPUTF8 was said is known only behind the path.
    path, rest = parse_path(argument, smtputf8=True)
    if rest and not rest.startswith(b" "):
        raise ProtocolViolation(syntax)
    return path, rest


def _parameters(rest: bytes, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """``NAME[=VALUE] ...``, each at most once, by the fields that they fill."""
    found: dict[str, Any] = {}
    for n, word in enumerate(rest.split()):
        match = _PARAMETER.fullmatch(word)
        if match is None or n >= MAX_PARAMETERS:
            raise ProtocolViolation("Invalid parameter syntax")
        name = match[1].decode("ascii").upper()
        parameter = known.get(name)
        if parameter is None:
            # RFC 5321 §4.1.1.11
            raise ProtocolViolation(f"Parameter {name} not recognized", code=555)
        if parameter.field in found:
            raise ProtocolViolation(f"Parameter {name} given twice")
        found[parameter.field] = parameter.read(_text(match[2]))
    return found


def _text(value: bytes | None) -> str:
    try:
        return (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolViolation("Invalid parameter syntax") from None


def _size(value: str) -> int:
    # RFC 1870 §5: 1 to 20 digits.
    if not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise ProtocolViolation("Invalid SIZE parameter syntax")
    return int(value)


def _body(value: str) -> str:
    body = value.upper()
    if body not in {"7BIT", "8BITMIME", BINARYMIME}:
        raise ProtocolViolation("Invalid BODY parameter: must be 7BIT, 8BITMIME or BINARYMIME")
    return body


def _auth(value: str) -> str:
    return parse_xtext(value.encode())


def _ret(value: str) -> str:
    ret = value.upper()
    if ret not in {"FULL", "HDRS"}:
        raise ProtocolViolation("Invalid RET parameter: must be FULL or HDRS")
    return ret


def _envid(value: str) -> str:
    if len(value) > MAX_ENVID:
        raise ProtocolViolation(f"Invalid ENVID parameter: {MAX_ENVID} characters at most")
    envid = parse_xtext(value.encode())
    # A line end in it would begin a field of the report that quotes it.
    if not _GRAPHIC.fullmatch(envid):
        raise ProtocolViolation("Invalid ENVID parameter: printable characters only")
    return envid


def _switch(name: str) -> Parameter:
    """A parameter that is there or not."""

    def read(value: str) -> bool:
        if value:
            raise ProtocolViolation(f"Parameter {name} takes no value")
        return True

    return Parameter(name.lower(), read)


def _notify(value: str) -> Notify:
    notify = Notify.UNSET
    for word in value.split(","):
        flag = _NOTIFY.get(word.upper())
        if flag is None:
            raise ProtocolViolation(f"Invalid NOTIFY value: {word}")
        notify |= flag
    # RFC 3461 §4.1
    if notify & Notify.NEVER and notify != Notify.NEVER:
        raise ProtocolViolation("NOTIFY=NEVER must not be combined")
    return notify


def _orcpt(value: str) -> str:
    kind, semicolon, text = value.partition(";")
    if not semicolon or len(value) > MAX_ORCPT or not _ADDRESS_TYPE.fullmatch(kind):
        raise ProtocolViolation("Invalid ORCPT parameter: must be type;address")
    # RFC 6533 §3: an address beyond ASCII may stand there as it is.
    is_utf8 = kind.lower() == "utf-8"
    address = text if is_utf8 and not text.isascii() else parse_xtext(text.encode())
    is_safe = not _CONTROLS.search(address) if is_utf8 else _GRAPHIC.fullmatch(address)
    if not is_safe:
        raise ProtocolViolation("Invalid ORCPT parameter: printable characters only")
    return f"{kind};{address}"


_NOTIFY: Mapping[str, Notify] = {
    "NEVER": Notify.NEVER,
    "SUCCESS": Notify.SUCCESS,
    "FAILURE": Notify.FAILURE,
    "DELAY": Notify.DELAY,
}
# An extension adds its parameters here.
MAIL_PARAMETERS: Mapping[str, Parameter] = {
    "SIZE": Parameter("size", _size),
    "BODY": Parameter("body", _body),
    "AUTH": Parameter("submitter", _auth),
    "RET": Parameter("ret", _ret),
    "ENVID": Parameter("envid", _envid),
    "SMTPUTF8": _switch("SMTPUTF8"),
    "REQUIRETLS": _switch("REQUIRETLS"),
}
RCPT_PARAMETERS: Mapping[str, Parameter] = {
    "NOTIFY": Parameter("notify", _notify),
    "ORCPT": Parameter("orcpt", _orcpt),
}


def parse_xtext(value: bytes) -> str:
    """RFC 3461 §4."""
    if not value or not _XTEXT.fullmatch(value):
        raise ProtocolViolation("Invalid xtext")
    return _HEX.sub(lambda found: bytes([int(found[1], 16)]), value).decode("utf-8", "replace")


# -- the rest -------------------------------------------------------------------------------


def parse_chunk(argument: bytes) -> Chunk:
    """``SIZE [LAST]`` of BDAT (RFC 3030 §2)."""
    words = argument.split()
    if not words or not words[0].isdigit() or len(words[0]) > MAX_SIZE_DIGITS:
        raise ProtocolViolation(CHUNK_SYNTAX)
    size = int(words[0])
    if len(words) == 1:
        return Chunk(size)
    is_last = len(words) == 2 and words[1].upper() == b"LAST"
    return Chunk(size, is_last, "" if is_last else CHUNK_SYNTAX)


def parse_xclient(argument: bytes) -> dict[str, str]:
    """``NAME=VALUE ...``: names in capitals, values decoded; "" where the client knows none."""
    found: dict[str, str] = {}
    for n, word in enumerate(argument.split()):
        name, equals, value = word.partition(b"=")
        key = name.upper().decode("ascii", "replace")
        if not equals or n >= MAX_PARAMETERS or key not in XCLIENT_ATTRIBUTES or key in found:
            raise ProtocolViolation("Bad XCLIENT attribute")
        text = parse_xtext(value)
        found[key] = "" if text.upper() in UNAVAILABLE else text
    if not found:
        raise ProtocolViolation("Syntax: XCLIENT attribute=value...")
    return found


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
