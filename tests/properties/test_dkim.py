"""The hash of a body, and the form of a field, are dkimpy's for any octets in any blocks."""

from __future__ import annotations

import hashlib

import dkim
from dkim.canonicalization import Relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from mailtwist.mail.dkim import BodyHasher, canonical_field, draft

_PIECES = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b" ", b"\t", b"  ", b" \r\n", b"\r\n\r\n", b"a", b".", b"\0", b"\xff"]
)
BODIES = st.one_of(
    st.lists(_PIECES, max_size=30).map(b"".join),
    st.lists(st.one_of(_PIECES, st.binary(max_size=5)), max_size=20).map(b"".join),
)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=10)


def feed(message: bytes, cuts: list[int]) -> BodyHasher:
    hasher = BodyHasher()
    at = n = 0
    while at < len(message):
        hasher.feed(message[at : at + cuts[n % len(cuts)]])
        at += cuts[n % len(cuts)]
        n += 1
    return hasher


@given(BODIES, CUTS)
@example(b"a \r", [1])
@example(b"\r\n \r\n \r", [2])
def test_bodies(body: bytes, cuts: list[int]) -> None:
    # What has no line end at its end gets one on the wire.
    on_wire = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    expected = hashlib.sha256(Relaxed.canonicalize_body(on_wire)).digest()
    assert feed(b"A: b\r\n\r\n" + body, cuts).close().body_hash == expected
    assert feed(b"\r\n" + body, cuts).close().body_hash == expected


# dkimpy strips VT and FF too; RFC 6376 §3.4.2 knows blanks and tabs alone.
_VALUE = st.text(st.sampled_from("ab:;= \t\0é"), max_size=20)


@given(st.lists(_VALUE, min_size=1, max_size=4))
def test_fields(lines: list[str]) -> None:
    value = "\r\n ".join(lines).encode("utf-8") + b"\r\n"
    ((name, expected),) = Relaxed.canonicalize_headers([(b"X-Y", value)])
    assert canonical_field(b"X-Y:" + value) == name + b":" + expected


_NAMES = st.sampled_from(
    ["From", "from", "Subject", "To", "CC", "Date", "X-Other", "Received", "List-Id", "Sender"]
)


@given(st.lists(st.tuples(_NAMES, _VALUE), max_size=12), BODIES, CUTS)
def test_what_is_signed(fields: list[tuple[str, str]], body: bytes, cuts: list[int]) -> None:
    """dkimpy, told the same names, signs the same octets."""
    header = b"From: a@example.com\r\n"
    header += b"".join(f"{name}: {value}\r\n".encode() for name, value in fields)
    hashed = feed(header + b"\r\n" + body, cuts).close()
    made = draft(hashed, domain="example.com", selector="s", algorithm="rsa-sha256", now=1)
    assert made is not None
    field, covered = made
    tags = dkim.util.parse_tag_value(field.partition(b":")[2])
    names = [name.strip().lower() for name in tags[b"h"].split(b":")]
    parsed, _ = dkim.rfc822_parse(header + b"\r\n")
    canonical = Relaxed.canonicalize_headers(parsed)
    chosen = dkim.select_headers(canonical, names)
    (own,) = Relaxed.canonicalize_headers([(b"dkim-signature", field.partition(b":")[2])])
    joined = b"".join(name + b":" + value for name, value in chosen)
    assert covered == joined + own[0] + b":" + own[1].rstrip()
