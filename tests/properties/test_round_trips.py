"""What is written reads back as it was: sets of uids, addresses, header fields."""

from __future__ import annotations

import email.message
import email.policy
import itertools
from array import array
from email import headerregistry

from hypothesis import given, settings
from hypothesis import strategies as st

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, parse_address, parse_path
from mailtwist.mail.addresslist import Budget, render_addresses
from mailtwist.mail.dates import parse_date
from mailtwist.mail.header import format_field, select_fields, split_fields
from mailtwist.mail.mediatype import parse_media_type
from mailtwist.mail.text import strip_markup
from mailtwist.mail.trace import received, return_path
from mailtwist.mail.uidset import SequenceSet, compress, expand
from mailtwist.mail.wire import nstring, string
from mailtwist.mail.words import decode_words, fold
from tests.properties.imap_values import check_envelope, read

UIDS = st.sets(st.integers(1, 300), max_size=60)


@given(UIDS)
def test_a_set_of_uids_survives_its_text(uids: set[int]) -> None:
    text = compress(uids)
    assert expand(text) == sorted(uids)
    if uids:
        assert SequenceSet.parse(text.encode()) == SequenceSet.of(uids)
        assert str(SequenceSet.of(uids)) == text


_NUMBERS = st.integers(1, 80).map(str) | st.just("*")
_ITEMS = _NUMBERS | st.tuples(_NUMBERS, _NUMBERS).map(":".join)


@given(st.lists(_ITEMS, min_size=1, max_size=12).map(",".join), UIDS)
def test_selection_is_what_the_definition_says(text: str, uids: set[int]) -> None:
    numbers = SequenceSet.parse(text.encode())
    present = array("I", sorted(uids))
    maximum = max(uids, default=0)
    wanted = set()
    for item in text.split(","):
        ends = [maximum if end == "*" else int(end) for end in item.split(":")]
        if 0 not in ends:
            wanted |= set(range(min(ends), max(ends) + 1))
    assert list(numbers.select(present, maximum)) == sorted(wanted & uids)
    ranges = numbers.ranges(maximum)
    assert all(low <= high for low, high in ranges)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(ranges))
    assert SequenceSet.parse(str(numbers).encode()) == numbers


_LOCAL_PARTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20
) | st.text(st.characters(min_codepoint=160, max_codepoint=0x2000), min_size=1, max_size=10)
_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_DOMAINS = st.lists(_LABEL, min_size=1, max_size=4).map(".".join)


@given(_LOCAL_PARTS, _DOMAINS)
def test_an_address_survives_its_text(local_part: str, domain: str) -> None:
    address = Address(local_part, domain)
    assert parse_address(str(address)) == address
    wire = f"<{address}> X=1".encode()
    assert parse_path(wire, smtputf8=True) == (address, b" X=1")


@given(st.binary(max_size=80))
def test_no_octets_but_a_protocol_violation_stop_a_path(data: bytes) -> None:
    for candidate in (data, b"<" + data + b">", b"<a@" + data + b">", b'<"' + data + b'"@x>'):
        try:
            address, rest = parse_path(candidate, smtputf8=True)
        except ProtocolViolation:
            continue
        assert candidate.endswith(rest)
        if address is not None and address.domain:
            assert parse_path(f"<{address}>".encode(), smtputf8=True) == (address, b"")
            assert not set(str(address)) & set("\r\n\0")


@given(st.binary(max_size=60))
def test_any_octets_go_as_one_string(data: bytes) -> None:
    assert read(string(data)) == data.replace(b"\0", b"") or b"\0" in data
    assert read(nstring(None)) is None


@given(st.text(max_size=200))
def test_a_header_value_survives_or_is_refused(value: str) -> None:
    try:
        made = format_field("X-Value", value)
    except ProtocolViolation:
        return
    assert len(split_fields(made)) == 1
    unfolded = made.partition(b":")[2].replace(b"\r\n ", b" ").strip(b"\r\n ")
    expected = value.encode("utf-8", "replace").decode().strip(" ")
    if value.isascii():
        assert unfolded.decode() == expected
    else:
        assert decode_words(unfolded) == value.encode("utf-8", "replace").decode()


_NAMES = st.sampled_from([b"to", b"From", b"RECEIVED", b"x-y", b""])
_RAW = st.sampled_from([b"a", b" ", b"\t", b":", b"\n", b"\r\n", b"To:", b"From: ", b"x-y"])


@given(st.lists(_RAW | st.binary(max_size=2), max_size=20).map(b"".join), st.sets(_NAMES))
def test_chosen_and_left_out_fields_are_the_whole_block(block: bytes, names: set[bytes]) -> None:
    raw = [field for _, field in split_fields(block)]
    assert block.startswith(b"".join(raw))
    chosen = select_fields(block, names)
    left = select_fields(block, names, exclude=True)
    assert len(chosen) + len(left) >= sum(map(len, raw)) + 4
    assert chosen.endswith(b"\r\n")
    assert {field for _, field in split_fields(chosen)} <= {*raw, *(r + b"\r\n" for r in raw)}


_HOSTILE = st.lists(
    st.sampled_from(
        [
            b'"',
            b"\\",
            b"(",
            b")",
            b"<",
            b">",
            b"@",
            b",",
            b":",
            b";",
            b"[",
            b"]",
            b"=",
            b"*",
            b" ",
            b"a",
            b"=?utf-8?q?",
            b"?=",
            b"=?utf-7?b?",
            b"%41",
            b"/",
            b"\t",
            b"\xff",
            b"\x00",
            b"a@b",
            b"0*",
        ]
    ),
    max_size=30,
).map(b"".join)


@given(_HOSTILE)
def test_any_address_field_gives_whole_tuples(value: bytes) -> None:
    unfolded = value.replace(b"\0", b"")
    found = b"".join(render_addresses(unfolded, Budget()))
    addresses = b"(%b)" % found if found else b"NIL"
    check_envelope(read(b"(NIL NIL %b NIL NIL NIL NIL NIL NIL NIL)" % addresses))


@given(_HOSTILE)
def test_nothing_else_raises_on_any_octets(value: bytes) -> None:
    parse_media_type(b"a/b;" + value)
    parse_date(value)
    text = decode_words(value)
    text.encode("utf-8")
    assert fold(fold(text)) == fold(text)
    strip_markup(text)


@given(st.text(max_size=40), st.text(max_size=20))
def test_trace_fields_are_always_single_fields(helo: str, word: str) -> None:
    field = received(
        helo=helo,
        client_address=word,
        hostname="mx.example.org",
        protocol="ESMTP",
        queue_id=word,
        recipient=Address(word, "example.org"),
        seconds=0,
    )
    assert len(split_fields(field)) == 1
    assert len(split_fields(return_path(Address(word, word)))) == 1


_DISPLAY = st.text("abc .,'\"", min_size=1, max_size=12).map(lambda name: " ".join(name.split()))


@settings(max_examples=60)
@given(st.lists(st.tuples(_DISPLAY, _LABEL, _DOMAINS), min_size=1, max_size=4))
def test_addresses_are_seen_as_the_standard_library_sees_them(
    made: list[tuple[str, str, str]],
) -> None:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["To"] = [headerregistry.Address(name, local, domain) for name, local, domain in made]
    field = bytes(message).partition(b":")[2].partition(b"\r\n\r\n")[0]
    value = field.translate(None, b"\r\n").strip()
    assert read(b"(%b)" % b"".join(render_addresses(value, Budget()))) == [
        [name.encode() or None, None, local.encode(), domain.encode()]
        for name, local, domain in made
    ]
