"""The tokens of a command, one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailtwist.errors import ProtocolViolation
from mailtwist.imap import mutf7
from mailtwist.imap.grammar import (
    Parser,
    decode_base64,
    format_date_time,
    format_mailbox,
    nquote,
    quote,
)
from mailtwist.mail.flags import DELETED, SEEN

READS: list[tuple[Callable[[Parser], Any], bytes, Any]] = [
    (Parser.atom, b"INBOX", b"INBOX"),
    (Parser.atom, b"a.b-c=;'~", b"a.b-c=;'~"),
    (Parser.astring, b"a]b", b"a]b"),
    (Parser.astring, b'""', b""),
    (Parser.astring, b'"a b"', b"a b"),
    (Parser.astring, rb'"a\"b\\c"', b'a"b\\c'),
    (Parser.astring, b"{3}\r\na\r\n", b"a\r\n"),
    (Parser.astring, b"{3+}\r\n)(*", b")(*"),
    (Parser.astring, b"{0}\r\n", b""),
    (Parser.astring, '"ü"'.encode(), "ü".encode()),
    (Parser.text, b"{2}\r\n\xc3\xbc", "ü"),
    (Parser.nstring, b"nil", None),
    (Parser.nstring, b'"nil"', b"nil"),
    (Parser.tag, b"a001", b"a001"),
    (Parser.tag, b"]", b"]"),
    (Parser.number, b"0", 0),
    (Parser.number, b"4294967295", 4294967295),
    (Parser.nz_number, b"1", 1),
    (Parser.number64, b"9223372036854775807", 2**63 - 1),
    (Parser.flag_list, b"()", (0, ())),
    (Parser.flag_list, rb"(\Seen \deleted)", (SEEN | DELETED, ())),
    (Parser.flag_list, rb"(\SEEN $Forwarded Work work)", (SEEN, ("$Forwarded", "Work"))),
    (Parser.store_flags, rb"\Seen Work", (SEEN, ("Work",))),
    (Parser.store_flags, rb"(\Seen)", (SEEN, ())),
    (Parser.date, b"1-Feb-1994", date(1994, 2, 1)),
    (Parser.date, b'"01-feb-1994"', date(1994, 2, 1)),
    (Parser.date_time, b'" 1-Jan-1970 00:00:01 +0000"', 1_000_000),
    (Parser.date_time, b'"01-Jan-1970 01:00:00 +0100"', 0),
    (Parser.date_time, b'"31-Dec-1969 23:30:00 -0030"', 0),
    (Parser.date_time, b'"31-Dec-1998 23:59:60 +0000"', 915148799_000_000),
    (Parser.mailbox, b"inbox", "INBOX"),
    (Parser.mailbox, b"iNbOx/x", "INBOX/x"),
    (Parser.mailbox, b'"Entw&APw-rfe"', "Entwürfe"),
    (Parser.mailbox, b'"R&-D"', "R&D"),
    (Parser.pattern, b"*", "*"),
    (Parser.pattern, b"a/%", "a/%"),
    (Parser.pattern, b'""', ""),
    (Parser.patterns, b"(a b*)", ["a", "b*"]),
    (Parser.base64, b"=", b""),
    (Parser.base64, b"AGE=", b"\0a"),
]


@pytest.mark.parametrize(("method", "octets", "value"), READS)
def test_a_token_has_its_value(method: Callable[[Parser], Any], octets: bytes, value: Any) -> None:
    parser = Parser(octets)
    assert method(parser) == value
    parser.end()


REFUSES: list[tuple[Callable[[Parser], Any], bytes]] = [
    (Parser.atom, b""),
    (Parser.atom, b"("),
    (Parser.atom, b'"a"'),
    (Parser.atom, b"\xc3\xbc"),
    (Parser.astring, b'"a'),
    (Parser.astring, rb'"a\b"'),
    (Parser.astring, b'"a\rb"'),
    (Parser.astring, b'"a\nb"'),
    (Parser.astring, b'"a\0b"'),
    (Parser.astring, b"{3}\r\nab"),
    (Parser.astring, b"{3}ab"),
    (Parser.astring, b"{-3}\r\nabc"),
    (Parser.astring, b"{99999999999}\r\na"),
    (Parser.astring, b"{1}\r\n\0"),
    (Parser.text, b"{1}\r\n\xff"),
    (Parser.tag, b"a" * 65),
    (Parser.tag, b"+"),
    (Parser.tag, b""),
    (Parser.number, b"4294967296"),
    (Parser.number, b"-1"),
    (Parser.number, b"9" * 5000),
    (Parser.nz_number, b"0"),
    (Parser.number64, b"9223372036854775808"),
    (Parser.flag_list, rb"(\Unknown)"),
    (Parser.flag_list, rb"(\Recent)"),
    (Parser.flag_list, rb"(\Seen"),
    (Parser.flag_list, b"( )"),
    (Parser.date, b"30-Feb-1994"),
    (Parser.date, b"1-Foo-1994"),
    (Parser.date, b'"1-Feb-1994'),
    (Parser.date, b"1-Feb-0000"),
    (Parser.date_time, b'"1-Jan-1970 00:00:00 +0000"'),
    (Parser.date_time, b'"01-Jan-1970 24:00:00 +0000"'),
    (Parser.date_time, b'"01-Jan-1970 00:00:00 +9900"'),
    (Parser.date_time, b'"00-Jan-1970 00:00:00 +0000"'),
    (Parser.mailbox, b"&AA"),
    (Parser.mailbox, b'"&"'),
    (Parser.mailbox, b'"\xc3\xbc"'),
    (Parser.pattern, b"%" * 65),
    (Parser.pattern, b"a" * 1025),
    (Parser.patterns, b"(" + b" ".join([b"a"] * 17) + b")"),
    (Parser.sequence_set, b"0"),
    (Parser.sequence_set, b"1,,2"),
    (Parser.sequence_set, b"4294967296"),
    (Parser.base64, b"A"),
    (Parser.base64, b"AA"),
]


@pytest.mark.parametrize(("method", "octets"), REFUSES)
def test_bad_tokens_are_violations(method: Callable[[Parser], Any], octets: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        method(Parser(octets))


def test_nesting_has_a_bound() -> None:
    def nested(parser: Parser) -> int:
        return 1 + max(parser.items(lambda: nested(parser), empty=True), default=0)

    assert nested(Parser(b"(" * 30 + b")" * 30)) == 30
    with pytest.raises(ProtocolViolation, match="nested too deeply"):
        nested(Parser(b"(" * 10_000 + b")" * 10_000))


def test_large_tokens_are_read_in_linear_time() -> None:
    hostile = [
        (Parser.astring, b'"' + rb"\"" * 30_000 + b'"'),
        (Parser.astring, b'"' + rb"\\" * 30_000),
        (Parser.astring, b"a" * 60_000),
        (Parser.sequence_set, b",".join(b"%d" % n for n in range(1, 11_000, 1))),
        (Parser.flag_list, b"(" + b" ".join(b"k%d" % n for n in range(9000)) + b")"),
        (Parser.mailbox, b'"' + b"&APw-" * 12_000 + b'"'),
        (Parser.mailbox, b'"' + b"&" * 60_000 + b'"'),
    ]
    began = time.perf_counter()
    for method, octets in hostile:
        try:
            method(Parser(octets))
        except ProtocolViolation:
            pass
    assert time.perf_counter() - began < 1


STRINGS = [
    (b"", b'""'),
    (b"a b", b'"a b"'),
    (b'a"b\\', rb'"a\"b\\"'),
    (b"a\r\nb", b"{4}\r\na\r\nb"),
    (b"\xff", b"{1}\r\n\xff"),
]


@pytest.mark.parametrize(("octets", "wire"), STRINGS)
def test_strings_are_quoted_or_literals(octets: bytes, wire: bytes) -> None:
    assert quote(octets) == wire
    assert Parser(wire).string() == octets


def test_nil_and_the_string_nil_differ() -> None:
    assert nquote(None) == b"NIL"
    assert nquote(b"NIL") == b'"NIL"'
    assert format_mailbox("NIL") == b'"NIL"'


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_modified_utf7_returns_what_was_spelled(name: str) -> None:
    assert mutf7.decode(mutf7.encode(name)) == name


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="&-+,AGkP/ \xfc", max_size=12))
def test_a_name_has_one_spelling(text: str) -> None:
    octets = text.encode("latin-1")
    try:
        name = mutf7.decode(octets)
    except ProtocolViolation:
        return
    assert mutf7.encode(name) == octets


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("INBOX", b"INBOX"),
        ("Sent Mail", b'"Sent Mail"'),
        ("Entwürfe", b"Entw&APw-rfe"),
        ("台北", b"&U,BTFw-"),
        ("R&D", b"R&-D"),
        ("💡", b"&2D3coQ-"),
    ],
)
def test_mailbox_names_on_the_wire(name: str, wire: bytes) -> None:
    assert format_mailbox(name) == wire
    assert Parser(wire).mailbox() == name


def test_mailbox_names_in_utf8() -> None:
    assert format_mailbox('a"ü', utf8=True) == '"a\\"ü"'.encode()
    assert Parser('"a\\"ü"'.encode(), utf8=True).mailbox() == 'a"ü'


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 253_402_300_799))
def test_date_times_are_read_as_written(second: int) -> None:
    assert Parser(format_date_time(second * 1_000_000)).date_time() == second * 1_000_000


def test_base64_is_strict() -> None:
    assert decode_base64(b"AGEAYg==") == b"\0a\0b"
    for bad in (b"A", b"AG EAYg==", b"AGEAYg", b"AGEAYg===", b"*"):
        with pytest.raises(ProtocolViolation):
            decode_base64(bad)
