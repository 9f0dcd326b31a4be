"""The part that returns the original: all of it, or its header (RFC 6522 §3; RFC 6533 §5)."""

from __future__ import annotations

import re
from binascii import b2a_qp
from typing import Final

from mailtwist.mail.dsn.values import Report
from mailtwist.mail.header import split_fields

# Of an original that is returned whole, and of a header that is.
MAX_RETURNED: Final = 256 * 1024
MAX_HEADER: Final = 64 * 1024
_MAX_LINE: Final = 998  # RFC 5322 §2.1.1

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


def header_of(octets: bytes) -> bytes:
    """The header block at the start of a message, without the blank line behind it."""
    if octets.startswith((b"\r\n", b"\n")):
        return b""
    match = _BLANK_LINE.search(octets)
    return octets if match is None else octets[: match.start()] + b"\r\n"


def may_return_whole(octets: bytes) -> bool:
    """Tell whether a message can stand in another one as it is.

    One with NUL, lone CR or LF, or lines that SMTP has no room for cannot.
    """
    if len(octets) > MAX_RETURNED or b"\0" in octets:
        return False
    ends = octets.count(b"\r\n")
    if ends != octets.count(b"\r") or ends != octets.count(b"\n"):
        return False
    return max(map(len, octets.split(b"\r\n"))) <= _MAX_LINE


def original_part(report: Report) -> tuple[bytes, bytes, bytes]:
    """Media type, transfer encoding and octets of the part that returns the original."""
    if report.whole is not None:
        kind = b"message/global" if report.is_global else b"message/rfc822"
        # RFC 2046 §5.2.1: a message is never encoded.
        return kind, _plain_encoding(report.whole), report.whole
    kind = b"message/global-headers" if report.is_global else b"text/rfc822-headers"
    header = _tidy(report.header)
    if not _needs_encoding(header, report.is_global):
        return kind, _plain_encoding(header), header
    # RFC 6522 §4: a header that is broken may be encoded.
    return kind, b"quoted-printable", b2a_qp(header, istext=True)


def _tidy(header: bytes) -> bytes:
    """The fields of a header block with sound line ends, cut where it is too long."""
    if len(header) > MAX_HEADER:
        # Whole lines, for who reads it; the last field may lack its end.
        header = header[:MAX_HEADER]
        header = header[: header.rfind(b"\n") + 1] or header
    lines = _LINE_END.split(header.replace(b"\0", b""))
    block = b"".join(line + b"\r\n" for line in lines if line.strip())
    # Of a message that begins without a header the text must not be taken for one.
    return b"".join(field for name, field in split_fields(block) if name)


def _needs_encoding(header: bytes, is_global: bool) -> bool:
    if max(map(len, header.split(b"\r\n"))) > _MAX_LINE:
        return True
    if header.isascii():
        return False
    return not (is_global and _is_utf8(header))


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _plain_encoding(octets: bytes) -> bytes:
    return b"7bit" if octets.isascii() else b"8bit"
