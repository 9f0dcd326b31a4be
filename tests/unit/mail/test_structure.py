"""ENVELOPE, BODYSTRUCTURE and the rest, octet for octet; and the bounds of the parser."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from mailtwist.mail import parts
from mailtwist.mail.structure import MAX_DEPTH, MAX_PARTS, Parser, Structure
from tests.properties.imap_values import check_body, check_envelope, read


def parse(data: bytes, step: int = 65536) -> Structure:
    parser = Parser()
    for start in range(0, len(data), step):
        parser.feed(data[start : start + step])
    return parser.close()


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


MIXED = crlf(
    """\
Received: one
Received: two
From: Ann Example <ann@example.org>
To: bo@example.org, "Example, Cy" <cy@example.org>
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= to you
Date: Mon, 16 Nov 2026 23:30:00 -0500
Message-ID: <1@example.org>
Content-Type: multipart/mixed; boundary="=_a b"

preamble
--=_a b
Content-Type: text/plain; charset=UTF-8; format=flowed
Content-Transfer-Encoding: 8bit

line one
line two
--=_a b
Content-Type: application/pdf; name="A B.PDF"
Content-Disposition: attachment; filename="A B.PDF"; size=3
Content-Transfer-Encoding: base64
Content-ID: <part2@example.org>
Content-Description: a "file"
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==
Content-Language: de, en
Content-Location: http://example.org/

YWJj
--=_a b
Content-Type: message/rfc822

From: inner@example.org
Subject: inner

text
--=_a b--
epilogue
"""
)


def test_a_mixed_message_is_described_whole() -> None:
    structure = parse(MIXED)
    assert structure.octets == len(MIXED)
    assert structure.header_octets == MIXED.index(b"preamble")
    assert structure.envelope == (
        b'("Mon, 16 Nov 2026 23:30:00 -0500" "=?utf-8?q?Gr=C3=BC=C3=9Fe?= to you"'
        b' (("Ann Example" NIL "ann" "example.org"))'
        b' (("Ann Example" NIL "ann" "example.org"))'
        b' (("Ann Example" NIL "ann" "example.org"))'
        b' ((NIL NIL "bo" "example.org")("Example, Cy" NIL "cy" "example.org"))'
        b' NIL NIL NIL "<1@example.org>")'
    )
    assert structure.bodystructure == (
        b'(("text" "plain" ("charset" "UTF-8" "format" "flowed") NIL NIL "8bit" 18 1'
        b" NIL NIL NIL NIL)"
        b'("application" "pdf" ("name" "A B.PDF") "<part2@example.org>" "a \\"file\\""'
        b' "base64" 4 "Q2hlY2sgSW50ZWdyaXR5IQ=="'
        b' ("attachment" ("filename" "A B.PDF" "size" "3")) ("de" "en") "http://example.org/")'
        b'("message" "rfc822" NIL NIL NIL "7bit" 47'
        b' (NIL "inner" ((NIL NIL "inner" "example.org")) ((NIL NIL "inner" "example.org"))'
        b' ((NIL NIL "inner" "example.org")) NIL NIL NIL NIL NIL)'
        b' ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 0 NIL NIL NIL NIL)'
        b" 3 NIL NIL NIL NIL)"
        b' "mixed" ("boundary" "=_a b") NIL NIL NIL)'
    )
    assert structure.body == (
        b'(("text" "plain" ("charset" "UTF-8" "format" "flowed") NIL NIL "8bit" 18 1)'
        b'("application" "pdf" ("name" "A B.PDF") "<part2@example.org>" "a \\"file\\""'
        b' "base64" 4)'
        b'("message" "rfc822" NIL NIL NIL "7bit" 47'
        b' (NIL "inner" ((NIL NIL "inner" "example.org")) ((NIL NIL "inner" "example.org"))'
        b' ((NIL NIL "inner" "example.org")) NIL NIL NIL NIL NIL)'
        b' ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 0) 3) "mixed")'
    )


def test_what_search_needs_is_decoded_and_folded() -> None:
    structure = parse(MIXED)
    assert structure.subject == "Grüße to you"
    assert structure.folded_subject == "grüsse to you"
    assert structure.folded_from == "ann example <ann@example.org>"
    assert structure.folded_to == 'bo@example.org, "example, cy" <cy@example.org>'
    assert (structure.folded_cc, structure.folded_bcc) == ("", "")
    assert structure.message_id == "<1@example.org>"
    # 04:30 UTC on the 17th; the sender's own day is the 16th.
    assert structure.sent_at == 1794889800 * 1_000_000
    assert structure.sent_day == 20773
    assert structure.received_count == 2
    assert structure.has_attachment


def test_part_offsets_point_at_the_octets() -> None:
    root = parts.decode(parse(MIXED).parts)
    text, pdf, message = root.children
    assert MIXED[text.body] == b"line one\r\nline two"
    assert MIXED[pdf.body] == b"YWJj"
    assert MIXED[pdf.header].startswith(b"Content-Type: application/pdf")
    assert MIXED[pdf.header].endswith(b"\r\n\r\n")
    assert MIXED[message.children[0].body] == b"text"
    assert (text.content_type, text.encoding, text.charset) == ("text/plain", "8bit", "utf-8")


SINGLE = [
    ("", '"text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 2 0'),
    ("Content-Type: text", '"text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 2 0'),
    ("Content-Type: ;;;", '"text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 2 0'),
    (
        "Content-Type: text/plain; charset=utf-8;",
        '"text" "plain" ("charset" "utf-8") NIL NIL "7bit" 2 0',
    ),
    ("Content-Type: TEXT/HTML", '"TEXT" "HTML" NIL NIL NIL "7bit" 2 0'),
    ("Content-Type: text/x (a comment); a=b", '"text" "x" ("a" "b") NIL NIL "7bit" 2 0'),
    ("Content-Type: image/png", '"image" "png" NIL NIL NIL "7bit" 2'),
    (
        "Content-Type: a/b; filename*0*=utf-8''%c3%a4; filename*1=\"b c\"",
        '"a" "b" ("filename*" "utf-8\'\'%c3%a4b%20c") NIL NIL "7bit" 2',
    ),
    (
        "Content-Type: a/b; name*0=one; name*1=two; x=y",
        '"a" "b" ("name" "onetwo" "x" "y") NIL NIL "7bit" 2',
    ),
    ("Content-Transfer-Encoding: ", '"text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 2 0'),
    ("Content-Type: multipart/mixed; boundary=x", None),
    ("Content-Type: multipart/mixed", None),
]


@pytest.mark.parametrize(("field", "basic"), SINGLE)
def test_a_single_part_is_described(field: str, basic: str | None) -> None:
    structure = parse(crlf(f"{field}\n\nhi" if field else "\nhi"))
    if basic is None:
        # The grammar wants a part in every multipart.
        basic = '("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed"'
    assert structure.body == f"({basic})".encode()


@pytest.mark.parametrize(
    ("header", "envelope"),
    [
        ("", "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
        ("Subject:\nDate: \n", '("" "" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("Subject: a\n b\n\tc\n", '(NIL "a b\tc" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ('Subject: (" \\ {9}\n', '(NIL "(\\" \\\\ {9}" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("Subject: one\nSubject: two\n", '(NIL "one" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        (
            "To: a@b\nTo: c@d\n",
            '(NIL NIL NIL NIL NIL ((NIL NIL "a" "b")(NIL NIL "c" "d")) NIL NIL NIL NIL)',
        ),
        (
            "From: a@b\nSender: s@b\nReply-To:\n",
            '(NIL NIL ((NIL NIL "a" "b")) ((NIL NIL "s" "b")) ((NIL NIL "a" "b")) '
            "NIL NIL NIL NIL NIL)",
        ),
        (
            "To: undisclosed-recipients:;\n",
            '(NIL NIL NIL NIL NIL ((NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL)) '
            "NIL NIL NIL NIL)",
        ),
        ("In-Reply-To: <x@y>\n", '(NIL NIL NIL NIL NIL NIL NIL NIL "<x@y>" NIL)'),
        ("To: ,,\n", "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
    ],
)
def test_an_envelope_is_ready_for_the_wire(header: str, envelope: str) -> None:
    assert parse(crlf(header + "\n")).envelope == envelope.encode()


def test_octets_beyond_ascii_go_as_literals_and_nul_not_at_all() -> None:
    structure = parse("Subject: grün\r\nMessage-ID: <\0x>\r\n\r\n".encode())
    assert b" {5}\r\ngr\xc3\xbcn " in structure.envelope
    assert b'"<x>"' in structure.envelope


DELIMITERS = [
    ("trailing blanks", b"--b \t\r\n\r\none\r\n--b-- \r\n", [b"one"]),
    ("bare line feeds", b"--b\n\none\n--b\n\ntwo\n--b--\n", [b"one", b"two"]),
    ("no closing delimiter", b"--b\r\n\r\none\r\n", [b"one\r\n"]),
    ("a longer line is none", b"--b\r\n\r\n1\r\n--bb\r\n--b x\r\n--b--", [b"1\r\n--bb\r\n--b x"]),
    ("empty parts", b"--b\r\n--b\r\n\r\n--b--", [b"", b""]),
    ("a header cut short", b"--b\r\nA: b\r\n--b--", [b""]),
    ("at the very end", b"--b\r\n\r\none\r\n--b", [b"one", b""]),
    ("behind the closing one", b"--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\ntwo", [b"one"]),
    ("inside a line", b"--b\r\n\r\none --b\r\n--b--", [b"one --b"]),
    ("endless blanks", b"--b\r\n\r\none\r\n--b" + b" " * 2000 + b"\r\n--b--",
     [b"one\r\n--b" + b" " * 2000]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "bodies"), [row[1:] for row in DELIMITERS],
                         ids=[row[0] for row in DELIMITERS])  # fmt: skip
def test_delimiters_part_a_multipart(body: bytes, bodies: list[bytes]) -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body
    root = parts.decode(parse(data).parts)
    assert [data[part.body] for part in root.children] == bodies


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"A: b\r\n\r\nx", b"A: b\r\n\r\n"),
        (b"A: b\n\nx", b"A: b\n\n"),
        (b"A: b\n\r\nx", b"A: b\n\r\n"),
        (b"A: b\n\n\r\nx", b"A: b\n\n"),
        (b"A: b\r\n\n\r\nx", b"A: b\r\n\n"),
        (b"A: b\n\r\n\nx", b"A: b\n\r\n"),
        (b"\r\nx\n\n", b"\r\n"),
        (b"\n\nx", b"\n"),
        (b"\rx\r\r\n", b"\rx\r\r\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b\r", b"A: b\r"),
        (b"", b""),
    ],
)
def test_a_header_ends_at_its_first_blank_line(data: bytes, header: bytes) -> None:
    assert data[: parse(data).header_octets] == header
    assert data[: parse(data, step=1).header_octets] == header


def test_a_part_that_a_delimiter_cuts_short_keeps_its_header_line() -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nA: b\r\n--b\r\n--b"
    cut, empty, last = parts.decode(parse(data).parts).children
    assert data[cut.header] == b"A: b\r\n"
    assert (empty.start, empty.header_end, empty.end) == (empty.start,) * 3
    assert (last.start, last.end) == (len(data), len(data))


def test_the_boundary_of_a_multipart_that_is_over_counts_no_more() -> None:
    data = crlf(
        "Content-Type: multipart/mixed; boundary=a\n\n--a\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\ninner, never closed\n"
        "--a\n\nouter\n--b\nstill outer\n--a--\n"
    )
    inner, outer = parts.decode(parse(data).parts).children
    assert data[inner.children[0].body] == b"inner, never closed"
    assert data[outer.body] == b"outer\r\n--b\r\nstill outer"
    assert outer.children == []


def test_blanks_at_the_end_of_a_boundary_do_not_count() -> None:
    data = b'Content-Type: multipart/mixed; boundary="b "\r\n\r\n--b\r\n\r\none\r\n--b --\r\n--b--'
    assert [data[p.body] for p in parts.decode(parse(data).parts).children] == [b"one\r\n--b --"]


def test_of_equal_boundaries_the_inner_one_counts() -> None:
    data = crlf(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\ninner\n--b--\n--b\n\nouter\n--b--\n"
    )
    root = parts.decode(parse(data).parts)
    assert [data[part.body] for part in root.children[0].children] == [b"inner"]
    assert data[root.children[1].body] == b"outer"


def test_inside_a_digest_a_part_is_a_message() -> None:
    data = crlf(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\none\n"
        "--b\nContent-Type: text/plain\n\ntwo\n--b--\n"
    )
    root = parts.decode(parse(data).parts)
    assert [part.content_type for part in root.children] == ["message/rfc822", "text/plain"]
    assert b'(NIL "x" NIL' in parse(data).bodystructure


# -- what counts as an attachment --------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "has_attachment"),
    [
        ("Content-Type: text/plain", False),
        ("Content-Type: text/plain\nContent-Disposition: attachment", True),
        ("Content-Type: application/pdf; name=x.pdf", True),
        ("Content-Type: application/pdf\nContent-Disposition: inline; filename*=utf-8''x", True),
        ("Content-Type: image/png; name=x\nContent-Disposition: inline; filename=x", False),
        ("Content-Type: application/pgp-signature", False),
        ("Content-Type: message/rfc822", True),
        ("Content-Type: message/rfc822\nContent-Disposition: inline", False),
    ],
)
def test_attachments_are_told_from_texts(header: str, has_attachment: bool) -> None:
    assert parse(crlf(header + "\n\nx")).has_attachment is has_attachment


# -- bounds ------------------------------------------------------------------------------------


def _valid(structure: Structure) -> Structure:
    check_envelope(read(structure.envelope))
    check_body(read(structure.bodystructure), extended=True)
    check_body(read(structure.body), extended=False)
    return structure


@pytest.mark.parametrize(
    "data",
    [
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(10_000)
        ),
        b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    ],
    ids=["multiparts", "messages"],
)
def test_nesting_ends_at_a_bound(data: bytes) -> None:
    structure = _valid(parse(data))
    depths = [int(line.split()[0]) for line in structure.parts.splitlines()]
    assert max(depths) == MAX_DEPTH
    assert b'"application" "octet-stream"' in structure.bodystructure


def test_the_number_of_parts_has_a_bound_and_the_last_takes_the_rest() -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 5000
    structure = _valid(parse(data))
    root = parts.decode(structure.parts)
    assert len(root.children) == MAX_PARTS - 1
    assert root.children[-1].end == len(data)


def test_of_an_endless_header_only_the_start_is_read() -> None:
    data = b"Subject: seen\r\n" + b"X: y\r\n" * 100_000 + b"To: late@example.org\r\n\r\nbody"
    structure = _valid(parse(data, step=4096))
    assert structure.subject == "seen"
    assert structure.folded_to == ""
    assert structure.header_octets == len(data) - 4
    assert structure == parse(data, step=len(data))


def test_the_headers_of_all_parts_together_have_a_bound() -> None:
    part = b"--b\r\nContent-Type: a/b\r\nX: " + b"x" * 30_000 + b"\r\n\r\n\r\n"
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 20
    types = [p.content_type for p in parts.decode(_valid(parse(data)).parts).children]
    assert types == ["a/b"] * 8 + ["text/plain"] * 12


def test_addresses_and_parameters_have_bounds() -> None:
    many = b",".join(b"u%d@x" % n for n in range(8000))
    structure = _valid(parse(b"To: " + many + b"\r\n\r\n"))
    assert len(read(structure.envelope)[5]) == 1000
    fields = b"Content-Type: a/b" + b"".join(b"; n%d=v" % n for n in range(5000)) + b"\r\n\r\n"
    assert len(read(_valid(parse(fields)).bodystructure)[2]) == 200
    pieces = b"Content-Type: a/b" + b"".join(b"; n*%d=v" % n for n in range(5000)) + b"\r\n\r\n"
    assert read(_valid(parse(pieces)).bodystructure)[2] == [b"n", b"v" * 100]


def test_a_long_message_id_and_subject_are_cut_for_the_index_only() -> None:
    structure = parse(
        b"Message-ID: <" + b"x" * 9000 + b">\r\nSubject: " + b"y" * 9000 + b"\r\n\r\n"
    )
    assert len(structure.message_id) == 255
    assert len(structure.subject) == 8000
    assert structure.envelope.count(b"y") == 9000


@pytest.mark.parametrize(
    "unit",
    [
        b"\r\n--",
        b"\n--b",
        b"--b\r\n",
        b"--b\r\nA: b\r\n\r\n",
        b"\n",
        b"\r",
        b"-",
        b"\r\n--b ",
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n",
        b"--b\r\nFrom: <,@\r\n\r\n",
    ],
)
def test_a_megabyte_of_anything_costs_little(unit: bytes) -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + unit * (1_000_000 // len(unit))
    started = time.process_time()
    _valid(parse(data))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 60000,
        b"<" * 60000,
        b'"' * 60000,
        b"\\" * 60000,
        b"a@" * 30000,
        b" " * 60000,
        b";" * 60000,
        b"=?a?q?" * 10000,
        b"=?" * 30000,
        b"a;b=(" + b" " * 60000,
        b",a b" * 15000,
        b'a/b;c="' + b'\\"' * 30000,
        b"<@" * 30000,
        b"<a (b) " * 9000,
        b"1 " * 30000,
    ],
    ids=lambda value: repr(value[:8]),
)
def test_no_field_costs_more_than_its_length(value: bytes) -> None:
    names = (b"From", b"Subject", b"Content-Type", b"Content-Disposition", b"Date")
    started = time.process_time()
    for name in names:
        _valid(parse(name + b": " + value + b"\r\n\r\n"))
    assert time.process_time() - started < 1.5


def test_a_message_of_50_megabytes_is_not_kept() -> None:
    block = (b"A" * 76 + b"\r\n") * 800
    parser = Parser()
    tracemalloc.start()
    parser.feed(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n")
    for _ in range(800):
        parser.feed(block)
    structure = parser.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert structure.octets > 49_000_000
    assert peak < 1_000_000
