"""Strings of the IMAP wire for octets of any kind (RFC 9051 §4.3, §9).

Parsing a message once at delivery leaves ENVELOPE and BODYSTRUCTURE ready to
send; these are the few forms they are made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NIL = b"NIL"

# Nearly every value: nothing to escape, nothing that needs a literal.
_PLAIN = re.compile(rb"[ !#-\[\]-~\t]*+")
_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*+")


def string(value: bytes) -> bytes:
    """Octets as a quoted string where one can hold them, else as a literal.

    A NUL can stand in neither (RFC 9051 §9, CHAR8) and is left out.
    """
    if _PLAIN.fullmatch(value):
        return b'"%b"' % value
    if _QUOTABLE.fullmatch(value):
        value = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'"%b"' % value
    value = value.replace(b"\0", b"")
    return b"{%d}\r\n%b" % (len(value), value)


def nstring(value: bytes | None) -> bytes:
    """A string, or NIL where there is none."""
    return NIL if value is None else string(value)


def strings(values: Iterable[bytes]) -> bytes:
    """A parenthesised list of strings; NIL for none."""
    joined = b" ".join(map(string, values))
    return b"(%b)" % joined if joined else NIL
