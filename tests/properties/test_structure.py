"""Whatever a message holds, its structure is valid, bounded and independent of the blocks."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import asdict
from email.message import Message
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from hypothesis import example, given
from hypothesis import strategies as st

from mailtwist.mail import parts
from mailtwist.mail.structure import Parser, Structure
from mailtwist.mail.text import searchable
from tests.properties.imap_values import check_body, check_envelope, read

# Pieces that mean something to the parser, so that chance combines them.
_PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"--",
        b"\n--a",
        b"\r\n--a\r\n",
        b"\r\n--a--\r\n",
        b"\r\n--b\r\n",
        b"--b--",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n",
        b'Content-Type: multipart/digest; boundary="b"\r\n\r\n',
        b"Content-Type: multipart/mixed; boundary=a--\r\n\r\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"Content-Type: text/plain; charset*0*=utf-8''%41; charset*1=b\r\n",
        b'Content-Disposition: attachment; filename="a\\"b"\r\n',
        b"Content-Language: de, en\r\n",
        b"Content-ID: <x\xff>\r\n",
        b"Subject: =?utf-8?q?=C3=A4?= (\r\n",
        b'From: "A" <a@b>, G: c@d;, (x) <@r:e@f>\r\n',
        b"To: <\0>, @, \x80\r\n",
        b"Date: 1 Jan 2026 00:00 +0000\r\n",
        b"Received: x\r\n\ty\r\n",
        b"x" * 40,
        b'"',
        b"\\",
        b"\0",
        b"\xff",
    ]
)
_CHAOS = st.lists(_PIECES | st.binary(max_size=6), max_size=40).map(b"".join)

# Lines of nested multiparts with every kind of line end, so that delimiters match.
_LINES_OF_PARTS = st.tuples(
    st.sampled_from(
        [
            b"",
            b"",
            b"--a",
            b"--a--",
            b"--b",
            b"--b--",
            b"--a \t",
            b"--ab",
            b"-",
            b"x",
            b"Content-Type: multipart/mixed; boundary=a",
            b"Content-Type: multipart/digest; boundary=b",
            b"Content-Type: message/rfc822",
        ]
    ),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\n\n", b"\r\n\r\n", b""]),
).map(b"".join)
_NESTED = st.tuples(
    st.sampled_from([b"", b"Subject: x\n"]),
    st.sampled_from([b"a", b"b"]).map(b"Content-Type: multipart/mixed; boundary=%b\r\n".__mod__),
    st.sampled_from(
        [
            b"",
            b"\r\n--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n",
            b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n",
        ]
    ),
    st.lists(_LINES_OF_PARTS, max_size=12).map(b"".join),
).map(b"".join)
HOSTILE = _CHAOS | _NESTED


def parse(data: bytes, *, window: int = 65536, step: int = 0) -> Structure:
    parser = Parser(window=window)
    for start in range(0, len(data), step or max(len(data), 1)):
        parser.feed(data[start : start + (step or len(data))])
    return parser.close()


@given(HOSTILE)
@example(b"")
@example(b"\r\n")
@example(b"Content-Type: multipart/mixed; boundary=a\r\n--a")
@example(b'Subject: unbalanced ( " \\ {5}\r\n\r\n')
def test_every_answer_is_valid_on_the_wire(data: bytes) -> None:
    structure = parse(data)
    check_envelope(read(structure.envelope))
    check_body(read(structure.bodystructure), extended=True)
    check_body(read(structure.body), extended=False)


@given(HOSTILE, st.integers(1, 9), st.sampled_from([1, 2, 7, 64]))
def test_the_blocks_never_matter(data: bytes, step: int, window: int) -> None:
    assert parse(data, window=window, step=step) == parse(data)


@given(HOSTILE)
def test_one_octet_at_a_time_gives_the_same(data: bytes) -> None:
    assert parse(data, window=1, step=1) == parse(data)


@given(HOSTILE, st.sampled_from([1, 64, 65536]))
@example(b"", 64)
@example(b"x: " + b"y" * 65536 + b"\r\nMessage-ID: <1>\r\nReceived: x\r\n\r\n", 1 << 20)
def test_what_is_read_later_is_the_same(data: bytes, window: int) -> None:
    whole = asdict(parse(data))
    for name, value in whole.items():
        parser = Parser(window=window)
        parser.feed(data)
        later = parser.close(passing=data)
        # Each of them may be the one that is asked for first.
        assert getattr(later, name) == value
        assert asdict(later) == whole


@given(HOSTILE)
@example(
    b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--a\r\n"
)
def test_parts_lie_inside_each_other_and_in_order(data: bytes) -> None:
    structure = parse(data)
    root = parts.decode(structure.parts)
    assert parts.encode(root) == structure.parts
    assert (root.start, root.header_end) == (0, structure.header_octets)
    assert root.end == structure.octets == len(data)
    for part in root.walk():
        assert part.start <= part.header_end <= part.end
        place = part.header_end
        for child in part.children:
            assert place <= child.start
            assert child.end <= part.end
            place = child.end


@given(HOSTILE)
def test_texts_go_into_any_database(data: bytes) -> None:
    structure = parse(data)
    texts = (
        structure.message_id,
        structure.subject,
        structure.folded_subject,
        structure.folded_from,
        structure.folded_to,
        searchable(data, structure.parts),
    )
    for text in texts:
        text.encode("utf-8")
        assert "\0" not in text


# -- the standard library as oracle, on mail that is well formed --------------------------------

_WORDS = st.text("abc -.:", min_size=0, max_size=60)
_LINES = st.lists(_WORDS, min_size=1, max_size=6).map("\n".join)


def _multipart(children: list[Message]) -> Message:
    whole = MIMEMultipart("mixed")
    for child in children:
        whole.attach(child)
    return whole


def _nested(message: Message) -> Message:
    message["Subject"] = "inner"
    return MIMEMessage(message)


def _text(body: str) -> Message:
    return MIMEText(body, "plain", "us-ascii")


def _file(body: bytes) -> Message:
    part = MIMEApplication(body, Name="a b.bin")
    part.add_header("Content-Disposition", "attachment", filename="a b.bin")
    return part


_LEAVES = _LINES.map(_text) | st.binary(max_size=100).map(_file)
_MESSAGES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(_multipart) | inner.map(_nested),
    max_leaves=6,
)


def _compare(data: bytes, part: parts.Part, oracle: Message) -> None:
    assert part.content_type == oracle.get_content_type()
    payload = oracle.get_payload()
    if isinstance(payload, list):
        assert len(part.children) == len(payload)
        for child, expected in zip(part.children, payload, strict=True):
            assert isinstance(expected, Message)
            _compare(data, child, expected)
        return
    assert data[part.body] == str(payload).encode("ascii", "surrogateescape")


@given(_MESSAGES)
def test_it_sees_what_the_standard_library_sees(message: Message) -> None:
    message["From"] = "Ann Example <ann@example.org>"
    made = message.as_bytes(policy=email.policy.compat32.clone(linesep="\r\n"))
    # The policy leaves the line ends inside of bodies as they were.
    data = re.sub(rb"(?<!\r)\n", b"\r\n", made)
    structure = parse(data)
    oracle = email.message_from_bytes(data)
    _compare(data, parts.decode(structure.parts), oracle)
    assert read(structure.envelope)[2] == [[b"Ann Example", None, b"ann", b"example.org"]]
    names = [part.get_filename() for part in oracle.walk()]
    assert structure.has_attachment == any(
        name or part.get_content_type() == "message/rfc822"
        for name, part in zip(names, oracle.walk(), strict=True)
    )
