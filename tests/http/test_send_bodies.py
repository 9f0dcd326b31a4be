"""Bodies of ``/send``: what becomes a letter, and what is refused with the name of the member."""

from __future__ import annotations

import base64
import email
import email.policy
import json

import pytest

from mailtwist.actions import letters
from mailtwist.errors import MailError
from mailtwist.http.send import answers, bodies

GOOD = {"to": "bob@far.example", "subject": "Hello", "body": "How are you?"}
FROM = {"from": "anna@example.com"}
LINE_ENDS = ["\r\n", "\r", "\n", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x7f"]


def read(body, content_type="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bodies.letter(
        {**FROM, **bodies.read(data, content_type, is_strict=False)}, limit=1 << 20
    )


def message(body):
    octets = letters.compose(read(body), seconds=0, message_id="1@example.com")
    return email.message_from_bytes(octets, policy=email.policy.default)


def refused(body, content_type="application/json"):
    with pytest.raises(MailError) as caught:
        read(body, content_type)
    answer = answers.refuse(caught.value)
    found = json.loads(answer.body)
    assert answer.status == 400
    assert found["success"] is False
    assert set(found) == {"success", "message", "error", "details"}
    return found["message"]


# -- the letter -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("bob@far.example", ["bob@far.example"]),
        ("bob@far.example, eve@far.example", ["bob@far.example", "eve@far.example"]),
        (["bob@far.example", "Eve <eve@far.example>"], ["bob@far.example", "eve@far.example"]),
        ([{"email": "bob@far.example", "name": "Bob"}], ["bob@far.example"]),
        ({"address": "bob@far.example"}, ["bob@far.example"]),
        ('"Bob, the" <bob@far.example>; eve@far.example', ["bob@far.example", "eve@far.example"]),
        (["bob@far.example", "BOB@FAR.example"], ["BOB@far.example"]),
    ],
)
@pytest.mark.mission("DIN-27")
def test_recipients_come_in_many_shapes(to, expected):
    assert [str(each) for each in read({**GOOD, "to": to}).recipients] == expected


@pytest.mark.parametrize(
    ("given", "types"),
    [
        ({}, ["text/plain"]),
        ({"html": False}, ["text/plain"]),
        ({"html": True}, ["text/html"]),
        ({"html": "true"}, ["text/html"]),
        ({"html": "<p>Hi</p>"}, ["multipart/alternative", "text/plain", "text/html"]),
        ({"html": True, "text": "Hi"}, ["multipart/alternative", "text/plain", "text/html"]),
    ],
)
@pytest.mark.mission("DIN-04")
def test_html_is_a_flag_or_the_page_itself(given, types):
    found = message({**GOOD, **given})
    assert [part.get_content_type() for part in found.walk()] == types
    for part in found.walk():
        if not part.is_multipart():
            assert part.get_content_charset() == "utf-8"


@pytest.mark.parametrize("name", ["reply_to", "replyTo", "Reply-To", "REPLYTO"])
def test_names_are_taken_as_programs_write_them(name):
    assert message({**GOOD, name: "carl@far.example"})["Reply-To"] == "carl@far.example"


@pytest.mark.mission("DIN-26")
def test_a_letter_has_all_the_fields_that_it_needs():
    found = message({**GOOD, "subject": "Grüße", "body": "Schöne Grüße\n", "bcc": "x@far.example"})
    assert found["Subject"] == "Grüße"
    assert found["MIME-Version"] == "1.0"
    assert found["Date"].datetime is not None
    assert found["Message-ID"] == "<1@example.com>"
    assert found["Bcc"] is None
    assert found.get_content().strip() == "Schöne Grüße"
    assert not found.defects


def test_attachments_and_a_picture_inside_the_page():
    data = base64.b64encode(b"\x89PNG").decode()
    found = message(
        {
            **GOOD,
            "html": '<img src="cid:logo">',
            "attachments": [
                {"filename": "Übersicht.txt", "content": data, "contentType": "text/csv"},
                {"filename": "logo.png", "content": data, "content_type": "image/png",
                 "content_id": "logo"},
            ],
        }
    )  # fmt: skip
    (attachment,) = found.iter_attachments()
    assert attachment.get_filename() == "Übersicht.txt"
    assert attachment.get_content_type() == "text/csv"
    (picture,) = [part for part in found.walk() if part["Content-ID"]]
    assert picture["Content-ID"] == "<logo>"
    assert picture.get_content() == b"\x89PNG"


def test_what_is_not_known_is_passed_over():
    assert read({**GOOD, "phone": "+49 30 1", "test": True, "captcha": {"x": 1}}).subject == "Hello"


# -- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Recipient (to) is required"),
        (b"", "Recipient (to) is required"),
        ({"subject": "x", "body": "x"}, "Recipient (to) is required"),
        ({**GOOD, "to": ""}, "Recipient (to) is required"),
        ({**GOOD, "to": []}, "Recipient (to) is required"),
        ({**GOOD, "to": ["", None, {}]}, "Recipient (to) is required"),
        ({**GOOD, "to": " , ;", "cc": "x@far.example"}, "Recipient (to) is required"),
        ({**GOOD, "to": None}, "Recipient (to) is required"),
        ({"to": "bob@far.example"}, "Subject is required"),
        ({**GOOD, "subject": " "}, "Subject is required"),
        ({"to": "bob@far.example", "subject": "x"}, "Email body is required"),
        ({**GOOD, "body": ""}, "Email body is required"),
        ({**GOOD, "body": "", "html": True}, "Email body is required"),
    ],
)
@pytest.mark.mission("DIN-05")
def test_what_every_letter_needs(body, text):
    assert refused(body) == text


@pytest.mark.parametrize(
    "body",
    [b"{", b"not json", b"[1]", b'"x"', b"7", b"null", b'{"to": NaN}', b"\xff", b"[" * 9999],
)
@pytest.mark.mission("DIN-06")
def test_what_is_no_json_object(body):
    assert refused(body).startswith("Invalid request format: ")


def test_another_type_of_body():
    text = refused(GOOD, "text/xml")
    assert text == "Invalid request format: application/json is expected"


@pytest.mark.parametrize(
    ("member", "value", "named"),
    [
        ("to", 7, "to"),
        ("to", [7], "to"),
        ("to", "bob", "to"),
        ("to", ["bob@far.example", {}], "to"),
        ("to", [f"u{n}@far.example" for n in range(101)], "to"),
        ("cc", {"email": 7}, "cc"),
        ("from", ["a@example.com", "b@example.com"], "from"),
        ("subject", ["x"], "subject"),
        ("subject", "x" * 1000, "subject"),
        ("body", {"x": 1}, "body"),
        ("html", 1, "html"),
        ("text", "something else", "text"),
        ("headers", "X-A: b", "headers"),
        ("headers", {"X-A": 1}, "headers"),
        ("headers", {"Bcc": "x@far.example"}, "headers"),
        ("headers", {"Content-Type": "text/html"}, "headers"),
        ("attachments", {}, "attachments"),
        ("attachments", ["x"], "attachments"),
        ("attachments", [{"content": "***"}], "attachments.content"),
        ("attachments", [{"content": "eA==", "content_id": "a>b"}], "attachments.content_id"),
        ("attachments", [{"content": "eA==", "contnt_type": "x/y"}], "attachments.contnt_type"),
        ("subjcet", "x", "subjcet"),
        ("atachments", [], "atachments"),
        ("SUBJECT", "x", "subject"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(member, value, named):
    assert refused({**GOOD, member: value}).startswith(f"Invalid request format: {named}")


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
@pytest.mark.parametrize(
    ("member", "make", "named"),
    [
        ("to", lambda end: f"bob@far.example{end}Bcc: x@y.example", "to"),
        ("to", lambda end: [f"bob{end}@far.example"], "to"),
        ("to", lambda end: f"Bob{end}Bcc: x <bob@far.example>", "to"),
        ("to", lambda end: [{"email": "bob@far.example", "name": f"B{end}Bcc: x"}], "to"),
        ("to", lambda end: [{"email": f"bob@far.example{end}", "name": "B"}], "to"),
        ("cc", lambda end: f"bob@far.example{end}x: y", "cc"),
        ("bcc", lambda end: f"bob@far.example{end}x: y", "bcc"),
        ("from", lambda end: f"Anna{end}X: y <anna@example.com>", "from"),
        ("reply_to", lambda end: f"bob@far.example{end}Bcc: x@y.example", "reply_to"),
        ("subject", lambda end: f"Hello{end}Bcc: x@y.example", "subject"),
        ("headers", lambda end: {f"X-A{end}Bcc": "x@y.example"}, "headers"),
        ("headers", lambda end: {"X-A": f"b{end}Bcc: x@y.example"}, "headers.X-A"),
        ("attachments", lambda end: [{"filename": f"a{end}b", "content": ""}],
         "attachments.filename"),
        ("attachments", lambda end: [{"content": "", "content_type": f"a/b{end}X: y"}],
         "attachments.content_type"),
        ("attachments", lambda end: [{"content": "", "content_id": f"a{end}b"}],
         "attachments.content_id"),
    ],
)  # fmt: skip
@pytest.mark.mission("DIN-25")
def test_no_line_end_gets_into_a_header(member, make, named, end):
    text = refused({**GOOD, member: make(end)})
    # NUL is refused in any text before its member is looked at.
    assert text.startswith(f"Invalid request format: {named}") or end == "\x00"


@pytest.mark.parametrize(
    "word", ["=?utf-8?q?a=0D=0ABcc=3A_x?=", "=?utf-8?b?YQ0KWC1FdmlsOiAx?=", "=?utf-7?q?+AA0-?="]
)
@pytest.mark.parametrize(
    ("member", "make", "named"),
    [
        ("to", lambda word: f"{word} <bob@far.example>", "to"),
        ("to", lambda word: [{"email": "bob@far.example", "name": word}], "to"),
        ("cc", lambda word: f"{word}@far.example", "cc"),
        ("from", lambda word: f'"{word}" <anna@example.com>', "from"),
        ("subject", lambda word: f"Hello {word}", "subject"),
        ("headers", lambda word: {"X-A": word}, "headers.X-A"),
        ("attachments", lambda word: [{"filename": word, "content": ""}], "attachments.filename"),
        ("attachments", lambda word: [{"filename": "=?unicode_escape?q?=5Cn?=", "content": ""}],
         "attachments.filename"),
    ],
)  # fmt: skip
@pytest.mark.mission("DIN-25")
def test_no_line_end_hides_in_an_encoded_word(member, make, named, word):
    assert refused({**GOOD, member: make(word)}).startswith(f"Invalid request format: {named}")


def test_a_subject_may_come_encoded():
    assert message({**GOOD, "subject": "=?utf-8?q?Gr=C3=BC=C3=9Fe?="})["Subject"] == "Grüße"
