"""Section numbers of RFC 9051 §6.4.5, on the example that the RFC gives."""

from __future__ import annotations

import pytest

from mailtwist.mail import parts
from mailtwist.mail.parts import Kind, Part
from mailtwist.mail.structure import Parser


def _structure(data: bytes) -> Part:
    parser = Parser()
    parser.feed(data)
    return parts.decode(parser.close().parts)


def _multipart(boundary: str, *bodies: str) -> str:
    inside = "".join(f"--{boundary}\n{body}\n" for body in bodies)
    return f"Content-Type: multipart/mixed; boundary={boundary}\n\n{inside}--{boundary}--\n"


# The tree of RFC 9051 §6.4.5: text, file, a message with two parts, a multipart
# whose second part is a message with a multipart.
_INNER = _multipart(
    "d", "Content-Type: text/plain\n\n4.2.2.1", "Content-Type: text/rich\n\n4.2.2.2"
)
_FORWARDED = _multipart("e", "Content-Type: text/plain\n\n4.2.1", _INNER)
RFC = _multipart(
    "a",
    "Content-Type: text/plain\n\none",
    "Content-Type: application/octet-stream\n\ntwo",
    "Content-Type: message/rfc822\n\nSubject: three\n"
    + _multipart("b", "Content-Type: text/plain\n\n3.1", "Content-Type: a/b\n\n3.2"),
    _multipart(
        "c",
        "Content-Type: image/gif\n\n4.1",
        "Content-Type: message/rfc822\n\nSubject: four two\n" + _FORWARDED,
    ),
).replace("\n", "\r\n").encode()  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "octets"),
    [
        ((1,), b"one"),
        ((2,), b"two"),
        ((3, 1), b"3.1"),
        ((3, 2), b"3.2"),
        ((4, 1), b"4.1"),
        ((4, 2, 1), b"4.2.1"),
        ((4, 2, 2, 1), b"4.2.2.1"),
        ((4, 2, 2, 2), b"4.2.2.2"),
    ],
)
def test_numbers_lead_to_parts(numbers: tuple[int, ...], octets: bytes) -> None:
    root = _structure(RFC)
    start, end = parts.section(root, numbers) or (0, 0)
    assert RFC[start:end] == octets


@pytest.mark.parametrize(
    "numbers", [(5,), (0,), (1, 1), (2, 1), (3, 3), (3, 1, 1), (4, 3), (4, 2, 2, 3), (4, 1, 1)]
)
def test_numbers_of_no_part_lead_nowhere(numbers: tuple[int, ...]) -> None:
    assert parts.find(_structure(RFC), numbers) is None
    assert parts.section(_structure(RFC), numbers, "MIME") is None


@pytest.mark.parametrize(
    ("numbers", "text", "start", "end"),
    [
        ((), "", b"Content-Type: multipart/mixed; boundary=a", b"--a--\r\n"),
        ((), "HEADER", b"Content-Type: multipart/mixed; boundary=a", b"boundary=a\r\n\r\n"),
        ((), "TEXT", b"--a\r\n", b"--a--\r\n"),
        ((1,), "MIME", b"Content-Type: text/plain", b"text/plain\r\n\r\n"),
        ((3,), "MIME", b"Content-Type: message/rfc822", b"rfc822\r\n\r\n"),
        ((3,), "", b"Subject: three", b"--b--\r\n"),
        ((3,), "HEADER", b"Subject: three", b"boundary=b\r\n\r\n"),
        ((3,), "TEXT", b"--b\r\n", b"--b--\r\n"),
        ((4,), "MIME", b"Content-Type: multipart/mixed; boundary=c", b"boundary=c\r\n\r\n"),
        ((4, 2), "HEADER", b"Subject: four two", b"boundary=e\r\n\r\n"),
        ((4, 2, 2), "MIME", b"Content-Type: multipart/mixed; boundary=d", b"boundary=d\r\n\r\n"),
    ],
)
def test_specifiers_name_octets(
    numbers: tuple[int, ...], text: str, start: bytes, end: bytes
) -> None:
    first, last = parts.section(_structure(RFC), numbers, text) or (0, 0)
    octets = RFC[first:last]
    assert octets.startswith(start)
    assert octets.endswith(end)


@pytest.mark.parametrize(("numbers", "text"), [((1,), "HEADER"), ((2,), "TEXT"), ((4,), "HEADER")])
def test_only_a_message_has_header_and_text(numbers: tuple[int, ...], text: str) -> None:
    assert parts.section(_structure(RFC), numbers, text) is None


def test_part_one_of_a_single_part_message_is_its_text() -> None:
    data = b"Subject: x\r\n\r\nbody"
    root = _structure(data)
    assert parts.section(root, (1,)) == (14, 18)
    assert parts.section(root, (1,), "MIME") == (0, 14)
    assert parts.find(root, (2,)) is None
    assert parts.find(root, (1, 1)) is None


def test_a_message_that_is_a_message_has_parts_behind_part_one() -> None:
    data = b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nbody"
    root = _structure(data)
    assert data[slice(*(parts.section(root, (1,), "HEADER") or ()))] == b"Subject: x\r\n\r\n"
    assert data[slice(*(parts.section(root, (1, 1)) or ()))] == b"body"


def test_a_tree_survives_its_text() -> None:
    root = _structure(RFC)
    assert parts.decode(parts.encode(root)) == root
    leaf = Part(0, 2, 3, Kind.LEAF, "text/plain")
    assert parts.encode(leaf) == b"0 0 2 3 l text/plain - -\n"


def test_leaves_are_found_by_their_main_type() -> None:
    found = [RFC[part.body] for part in parts.leaves(_structure(RFC), "text")]
    assert found == [b"one", b"3.1", b"4.2.1", b"4.2.2.1", b"4.2.2.2"]
