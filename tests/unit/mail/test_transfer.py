"""Encodings undone block by block give what they give in one."""

from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.mail.transfer import decoder

CASES = [
    ("", b"as =3D it is", b"as =3D it is"),
    ("8bit", b"\xff\0", b"\xff\0"),
    ("base64", b"aGVs\r\nbG8=\r\n", b"hello"),
    ("base64", b"aG!Vs bG8", b"hello"),
    ("base64", b"aGVsbG8=YWJj", b"hello"),
    ("base64", b"a", b""),
    ("base64", b"=", b""),
    ("quoted-printable", b"a=C3=A4=\r\nb\r\n", "aäb\r\n".encode()),
    ("quoted-printable", b"=ZZ=", b"=ZZ"),
]


@pytest.mark.parametrize(("encoding", "data", "expected"), CASES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_encoding_is_undone_however_it_is_cut(encoding, data, expected, size):
    undone = decoder(encoding)
    pieces = [undone.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert b"".join([*pieces, undone.close()]) == expected


@given(st.binary(max_size=300), st.integers(1, 40))
def test_what_was_encoded_comes_back(data, size):
    for encoding, encoded in (
        ("base64", base64.encodebytes(data)),
        ("quoted-printable", quopri.encodestring(data)),
    ):
        undone = decoder(encoding)
        pieces = [undone.feed(encoded[at : at + size]) for at in range(0, len(encoded), size)]
        assert b"".join([*pieces, undone.close()]) == data
