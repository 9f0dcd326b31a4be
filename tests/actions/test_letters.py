"""Letters: what is taken, what is refused and by which name, and whether readers understand it."""

from __future__ import annotations

import email
import email.policy
import subprocess
import sys
from typing import Any

import pytest

from mailtwist.actions import letters
from mailtwist.actions.letters import compose, read
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import parse_address

LIMIT = 1 << 20
GIVEN = {"from": "ann@example.com", "to": "bob@example.net", "subject": "Hi", "body": "Text"}


def made(**changed) -> bytes:
    letter = read({**GIVEN, **changed}, limit=LIMIT)
    return compose(letter, seconds=1_800_000_000, message_id="id@example.com")


def parsed(**changed):
    octets = made(**changed)
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert not message.defects
    return message


def test_a_plain_letter_is_a_few_fields_and_its_text():
    assert made() == (
        b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"
        b"From: ann@example.com\r\n"
        b"To: bob@example.net\r\n"
        b"Subject: Hi\r\n"
        b"Message-ID: <id@example.com>\r\n"
        b"MIME-Version: 1.0\r\n"
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Text\r\n"
    )


@pytest.mark.parametrize("more", [{}, {"html": "<p>x</p>"}], ids=["alone", "beside HTML"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ünïcödé",
        "зеленый чай\nи ещё",
        "🎉" * 300,
        "x" * 5000,
        "x" * 990,
        "x " * 494,
        "trailing blanks   \nand tabs\t\n",
        ".\n.\n..",
        "From here on\nFrom there",
        "a\rb\r\nc\n",
        "tab\there",
        "\x01\x1b[31m",
        "…\x85\u2028Å",
        "=?utf-8?q?no?=",
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_any_text_arrives(text, more):
    octets = made(body=text, **more)
    assert octets.isascii()
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert b"\r" not in octets.replace(b"\r\n", b"")
    read_back = parsed(body=text, **more).get_body(("plain",))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert read_back.get_content().replace("\r\n", "\n").rstrip("\n") == "\n".join(lines).rstrip(
        "\n"
    )


@pytest.mark.parametrize(
    "subject",
    ["", "Hi", "Grüße", "🎉" * 200, "word " * 100, "x" * 900, 'quo"ted \\ <x>', " two  blanks "],
    ids=lambda text: ascii(text)[:20],
)
def test_any_subject_arrives(subject):
    octets = made(subject=subject)
    header = octets.partition(b"\r\n\r\n")[0]
    assert max(map(len, header.split(b"\r\n"))) <= 998
    assert parsed(subject=subject)["Subject"].strip() == subject.strip()


@pytest.mark.parametrize(
    "given, expected",
    [
        ("bob@example.net", [("", "bob@example.net")]),
        (" bob@example.net ", [("", "bob@example.net")]),
        ("<bob@example.net>", [("", "bob@example.net")]),
        ("Bob <bob@example.net>", [("Bob", "bob@example.net")]),
        ('"Example, Bob" <bob@example.net>', [("Example, Bob", "bob@example.net")]),
        (r'"B \"x\" \\" <b@example.net>', [('B "x" \\', "b@example.net")]),
        ("a@example.net, b@example.net", [("", "a@example.net"), ("", "b@example.net")]),
        ("a@example.net;b@example.net;", [("", "a@example.net"), ("", "b@example.net")]),
        (["a@example.net", "B <b@example.net>"], [("", "a@example.net"), ("B", "b@example.net")]),
        (["a@example.net", ""], [("", "a@example.net")]),
        ("Dörte <d@example.net>", [("Dörte", "d@example.net")]),
        ("a@bücher.example", [("", "a@xn--bcher-kva.example")]),
        ("=?utf-8?q?x?= <a@example.net>", [("=?utf-8?q?x?=", "a@example.net")]),
    ],
    ids=ascii,
)
def test_addresses_in_many_forms(given, expected):
    letter = read({**GIVEN, "to": given}, limit=LIMIT)
    assert [(each.name, str(each.address)) for each in letter.to] == expected
    assert [str(each.address) for each in letter.to] == [
        each.addr_spec for each in parsed(to=given)["To"].addresses
    ]


def test_everybody_gets_it_once_and_blind_copies_are_nowhere():
    given = {**GIVEN, "cc": "BOB@example.net, c@example.net", "bcc": ["d@example.net"]}
    letter = read(given, limit=LIMIT)
    assert sorted(address.folded for address in letter.recipients) == [
        "bob@example.net",
        "c@example.net",
        "d@example.net",
    ]
    assert b"d@example.net" not in compose(letter, seconds=0, message_id="a@b")


def test_a_quoted_local_part_is_an_address():
    letter = read({**GIVEN, "to": '"a, b"@example.net'}, limit=LIMIT)
    assert letter.recipients == [parse_address('"a, b"@example.net')]


def test_an_address_beyond_ascii_is_told():
    letter = read({**GIVEN, "to": "jürgen@example.net"}, limit=LIMIT)
    assert letter.is_utf8
    assert "To: jürgen@example.net\r\n".encode() in compose(letter, seconds=0, message_id="a@b")
    assert not read({**GIVEN, "to": "a@bücher.example"}, limit=LIMIT).is_utf8


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"from": None}, "missing required field: from"),
        ({"from": ""}, "missing required field: from"),
        ({"from": []}, "missing required field: from"),
        ({"to": None}, "missing required field: to"),
        ({"to": [" "]}, "missing required field: to"),
        ({"from": "ann@example.com, eve@example.com"}, "from"),
        ({"to": "a@example.net b@example.net"}, "to"),
        ({"to": "Bob <bob@example.net"}, "to"),
        ({"to": 'B" <bob@example.net>'}, "to"),
        ({"to": "<<bob@example.net>>"}, "to"),
        ({"to": "Bob <bob@example.net> <eve@example.net>"}, "to"),
        ({"cc": True}, "cc"),
        ({"bcc": [["a@example.net"]]}, "bcc"),
        ({"to": ["a@example.net"] * 101}, "to"),
        ({"to": "a@example.net," * 9999}, "to"),
        ({"reply_to": "nobody"}, "reply_to"),
        ({"subject": {}}, "subject"),
        ({"subject": "\ud800"}, "subject"),
        ({"body": "\ud800"}, "body"),
        ({"html": []}, "html"),
        ({"body": "x" * (LIMIT + 1)}, "too large"),
        ({"attachments": {"content": "YQ=="}, "body": "x" * LIMIT}, "too large"),
        ({"attachments": [{"content": "YQ==" * LIMIT}]}, "too large"),
        ({"attachments": [{}] * 101}, "attachments"),
        ({"attachments": ["a"]}, "attachments"),
        ({"attachments": [{"filename": "x" * 256}]}, "attachments.filename"),
        ({"attachments": [{"content": "YQ"}]}, "attachments.content"),
        ({"attachments": [{"content": "YQ==YQ=="}]}, "attachments.content"),
        ({"attachments": [{"content": "ä"}]}, "attachments.content"),
        ({"headers": {"X-A": ["b"]}}, "headers.X-A"),
        ({"headers": {"X A": "b"}}, "headers"),
        ({"headers": {"X-A:": "b"}}, "headers"),
        ({"headers": {"X-ä": "b"}}, "headers"),
        ({"headers": {"To": "b"}}, "headers"),
        ({"headers": {"Return-Path": "b"}}, "headers"),
        ({"headers": {f"X-{n}": "b" for n in range(51)}}, "headers"),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_what_is_refused_is_named(changed, named):
    with pytest.raises(ProtocolViolation) as caught:
        read({**GIVEN, **changed}, limit=LIMIT)
    assert named in caught.value.text
    assert caught.value.http_status == 400
    assert len(caught.value.text) < 300


BREAKS = [
    "\r\n",
    "\r",
    "\n",
    "\0",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
]


@pytest.mark.mission("DAP-135")
@pytest.mark.parametrize("given_break", BREAKS, ids=ascii)
@pytest.mark.parametrize(
    "field",
    ["from", "to", "cc", "bcc", "reply_to", "subject", "filename", "content_type", "headers"],
)
def test_no_header_field_takes_a_line_break(field, given_break):
    evil = f"{given_break}Bcc: eve@example.org"
    given: dict[str, dict[str, Any]] = {
        "filename": {"attachments": [{"filename": f"a{evil}"}]},
        "content_type": {"attachments": [{"content_type": f"text/plain{evil}"}]},
        "headers": {"headers": {"X-A": f"b{evil}"}},
        "subject": {"subject": f"a{evil}"},
    }
    address = {field: f"a@example.net{evil}"}
    names: list[dict[str, Any]] = [given.get(field, address)]
    if field not in given:
        names += [
            {field: f'"Bob{evil}" <bob@example.net>'},
            {field: f"Bob{evil} <bob@example.net>"},
        ]
        names += [{field: [f"bob@example.net{evil}"]}, {field: f"bob@{evil}example.net"}]
    for changed in names:
        with pytest.raises(ProtocolViolation, match=field):
            read({**GIVEN, **changed}, limit=LIMIT)


@pytest.mark.parametrize(
    "given, kind",
    [
        ({"html": "<p>x</p>"}, "multipart/alternative"),
        ({"html": "<p>x</p>", "body": None}, "text/html"),
        ({"text": "x", "body": None}, "text/plain"),
        ({"body": None}, "text/plain"),
        ({"attachments": [{"content": "YQ=="}]}, "multipart/mixed"),
        ({"body": 5}, "text/plain"),
    ],
    ids=ascii,
)
def test_the_parts_that_are_given_are_there(given, kind):
    assert parsed(**given).get_content_type() == kind


@pytest.mark.parametrize(
    "given, kind",
    [
        (None, "application/octet-stream"),
        ("image/PNG; name=x", "image/png"),
        ("text/plain; charset=utf-16", "text/plain"),
        ("message/rfc822", "application/octet-stream"),
        ("multipart/mixed", "application/octet-stream"),
    ],
)
def test_an_attachment_is_octets_of_its_type(given, kind):
    message = parsed(
        attachments=[{"filename": "a b;ü.png", "content": "/wAB\r\nAgM=", "content_type": given}]
    )
    (found,) = message.iter_attachments()
    assert found.get_content_type() == kind
    assert found.get_filename() == "a b;ü.png"
    assert found.get_payload(decode=True) == b"\xff\x00\x01\x02\x03"


def test_what_is_heavy_is_not_loaded_before_somebody_needs_it():
    code = """
import sys
from typing import Any
import mailtwist.actions.builtin, mailtwist.actions.performers, mailtwist.queue.assembly
print([name for name in ("boto3", "botocore", "jinja2") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bounds_hold_whatever_is_given_at_once():
    letter = read({**GIVEN, "headers": {f"X-{n}": "y" * 900 for n in range(50)}}, limit=LIMIT)
    octets = compose(letter, seconds=0, message_id="a@b")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert len(octets) < letters.MAX_FIELDS * (letters.MAX_VALUE + 20) + 1000
