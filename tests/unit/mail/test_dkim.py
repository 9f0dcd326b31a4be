from __future__ import annotations

import hashlib
import time

import pytest

from mailtwist.mail.dkim import (
    MAX_HEADER,
    MAX_SIGNED,
    BodyHasher,
    HashedMessage,
    author_domains,
    canonical_field,
    draft,
    finish,
)

FROM = b"From: Ann <ann@example.com>\r\n"


def hashed(*blocks: bytes) -> HashedMessage:
    hasher = BodyHasher()
    for block in blocks:
        hasher.feed(block)
    return hasher.close()


def drafted(header: bytes) -> tuple[bytes, bytes] | None:
    return draft(
        hashed(header + b"\r\nhello\r\n"),
        domain="example.com",
        selector="d1",
        algorithm="rsa-sha256",
        now=1_800_000_000,
    )


def names_of(header: bytes) -> list[str]:
    made = drafted(header)
    assert made is not None
    tags = b"".join(made[0].split()).decode("ascii").split(";")
    return next(tag[2:] for tag in tags if tag.startswith("h=")).split(":")


# RFC 6376 §3.4.5 and §3.4.4.
@pytest.mark.parametrize(
    "body, canonical",
    [
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        (b"", b""),
        (b"\r\n", b""),
        (b" \t\r\n\r\n \r\n", b""),
        (b"a", b"a\r\n"),
        (b"a  ", b"a\r\n"),
        (b"a\r\n\r\n\r\nb", b"a\r\n\r\n\r\nb\r\n"),
        (b"\r\na\r\n", b"\r\na\r\n"),
        (b"a\r\n \r\n\t\r\n", b"a\r\n"),
        (b"a \n\t\rb\r\n", b"a \n \rb\r\n"),
    ],
)
def test_a_body_is_hashed_relaxed_however_it_is_cut(body: bytes, canonical: bytes) -> None:
    message = FROM + b"\r\n" + body
    expected = HashedMessage(FROM, hashlib.sha256(canonical).digest())
    assert hashed(message) == expected
    assert hashed(*(message[n : n + 1] for n in range(len(message)))) == expected
    for cut in range(len(message)):
        assert hashed(message[:cut], message[cut:]) == expected


@pytest.mark.parametrize(
    "message, header, canonical",
    [
        (b"", b"", b""),
        (b"\r\n", b"", b""),
        (b"\r\nbody", b"", b"body\r\n"),
        (b"\r\n\r\nbody", b"", b"\r\nbody\r\n"),
        (b"A: b", b"A: b\r\n", b""),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"A: b\r\n\r\n", b"A: b\r\n", b""),
        (b"A: b\n\nbody\r\n\r\nrest", b"A: b\n\nbody\r\n", b"rest\r\n"),
    ],
)
def test_the_header_ends_at_the_first_empty_line(
    message: bytes, header: bytes, canonical: bytes
) -> None:
    expected = HashedMessage(header, hashlib.sha256(canonical).digest())
    assert hashed(message) == expected
    assert hashed(*(message[n : n + 1] for n in range(len(message)))) == expected


@pytest.mark.parametrize(
    "raw, canonical",
    [
        (b"A: X\r\n", b"a:X\r\n"),
        (b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n"),
        (b"Subject:\r\n", b"subject:\r\n"),
        (b"Subject:\r\n  a:  b\t\r\n\t\r\n", b"subject:a: b\r\n"),
    ],
)
def test_a_field_is_unfolded_and_its_blanks_are_one(raw: bytes, canonical: bytes) -> None:
    assert canonical_field(raw) == canonical


def test_fields_that_are_there_are_sealed_against_a_second_one() -> None:
    header = FROM + b"Subject: s\r\nReceived: x\r\nTo: a@b\r\nTO: c@d\r\nList-Id: <x>\r\nX-Y: z\r\n"
    assert names_of(header) == ["From", "From", "Subject", "Subject", "To", "To", "To", "List-Id"]


def test_two_authors_are_both_signed_and_a_third_is_kept_out() -> None:
    header = FROM + b"from : eve@example.net\r\n"
    assert names_of(header) == ["From"] * 3
    made = drafted(header)
    assert made is not None
    # RFC 6376 §5.4.2: the last one first.
    assert made[1].startswith(b"from:eve@example.net\r\nfrom:Ann <ann@example.com>\r\ndkim-")


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: nobody wrote this\r\n",
        b"",
        FROM + b"Subject: a\nBcc: b\r\n",
        FROM + b"Subject: a\rb\r\n",
        FROM + b"To: a@b\r\n" * MAX_SIGNED,
        FROM + b"X-Long: " + b"x" * MAX_HEADER + b"\r\n",
        FROM + b"X: y\r\n" * (MAX_HEADER // 6),
    ],
    ids=["no From", "empty", "LF", "CR", "many To", "long field", "many fields"],
)
def test_what_cannot_be_signed_is_told(header: bytes) -> None:
    assert drafted(header) is None


def test_a_header_without_end_is_not_kept() -> None:
    hasher = BodyHasher()
    for _ in range(MAX_HEADER // 1024 + 2):
        hasher.feed(b"x" * 1024)
    message = hasher.close()
    assert message.too_long
    assert message.header == b""


def test_lines_are_short_and_nothing_follows_the_signature() -> None:
    header = FROM + b"".join(
        b"%b: x\r\n" % name
        for name in (b"Subject", b"To", b"Cc", b"Date", b"Message-ID", b"References")
    )
    made = drafted(header)
    assert made is not None
    field = finish(made[0], b"\xff" * 256)
    assert field.endswith(b"\r\n")
    lines = field.split(b"\r\n")
    assert all(len(line) <= 78 for line in lines), lines
    assert all(line.startswith(b"\t") for line in lines[1:-1])
    assert b"l=" not in field.replace(b"relaxed", b"")
    assert made[1].endswith(b" b=")


@pytest.mark.parametrize(
    "header, domains",
    [
        (FROM, ["example.com"]),
        (b"Subject: x\r\nfRoM : a@b.example, Bob <b@C.example>,\r\n d@b.example\r\n", None),
        (b"From: undisclosed:;\r\n", []),
        (b"From: nobody\r\n", []),
        (b'From: "a@evil.example" <a@good.example>\r\n', ["good.example"]),
        (b"From: a@x.example (b@y.example)\r\n", ["x.example"]),
        ("From: ü@bücher.example\r\n".encode(), ["xn--bcher-kva.example"]),
        (b"From: \xff@\xff.example\r\n", []),
        (b"Subject: a\r\n From: a@b.example\r\n", []),
        (b"", []),
    ],
)
def test_the_domains_of_the_authors(header: bytes, domains: list[str] | None) -> None:
    assert author_domains(header) == (["b.example", "c.example"] if domains is None else domains)


@pytest.mark.parametrize(
    "piece", [b" ", b"\t", b"\r\n", b"\r", b" \r", b" \r\n", b"x ", b"x  ", b"x\r\n\r\n", b"\0"]
)
def test_hostile_bodies_cost_linear_time(piece: bytes) -> None:
    block = (piece * 65536)[:65536]

    def cost(count: int) -> float:
        hasher = BodyHasher()
        hasher.feed(b"\r\n")
        begin = time.process_time()
        for _ in range(count):
            hasher.feed(block)
        hasher.close()
        return time.process_time() - begin

    # 4 MiB; even the slowest takes 10 ms a block. Quadratic work would take minutes.
    assert cost(64) < 3
