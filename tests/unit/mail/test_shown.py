"""What of a message is shown, and what is attached to it."""

from __future__ import annotations

import pytest

from mailtwist.mail.shown import MAX_PARTS, MAX_TEXT, Shown, show
from mailtwist.mail.structure import Parser


def shown(message: bytes, **options: int) -> Shown:
    message = message.replace(b"\n", b"\r\n")
    parser = Parser()
    parser.feed(message)
    return show(parser.close().parts, lambda start, end: message[start:end], **options)


def multipart(*parts: bytes, kind: bytes = b"mixed") -> bytes:
    body = b"".join(b"--=_\n%b\n" % part for part in parts)
    return b'Content-Type: multipart/%b; boundary="=_"\n\n%b--=_--\n' % (kind, body)


PLAIN = b"Content-Type: text/plain; charset=utf-8\n\nplain\n"
HTML = b"Content-Type: text/html; charset=utf-8\n\n<p>html</p>\n"


def part(header: bytes, body: bytes = b"x") -> bytes:
    return header + b"\n\n" + body + b"\n"


BODIES = [
    (b"\nhello\n", "hello\n", ""),
    (b"Subject: x\n\nl1\nl2\n", "l1\nl2\n", ""),
    (b"Content-Type: text/html\n\n<b>x</b>\n", "", "<b>x</b>\n"),
    (multipart(PLAIN, HTML, kind=b"alternative"), "plain\n", "<p>html</p>\n"),
    (multipart(PLAIN, PLAIN), "plain\n\nplain\n", ""),
    (part(b"Content-Type: text/plain; charset=iso-8859-2", b"\xb1\xb3"), "ął\n", ""),
    (part(b"Content-Type: text/plain; charset=nobody-knows", "ä".encode()), "ä\n", ""),
    (part(b"Content-Transfer-Encoding: base64", b"w6TDtg=="), "äö", ""),
    (part(b"Content-Transfer-Encoding: quoted-printable", b"a=C3=A4=\nb"), "aäb\n", ""),
    (part(b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64", b"%%"),
     "", ""),
    (b"", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("message", "text", "html"), BODIES)
def test_the_bodies_of_a_message(message, text, html):
    found = shown(message)
    assert (found.text, found.html) == (text, html)
    assert found.attachments == ()


PDF = b"Content-Type: application/pdf"
ATTACHED = [
    (PDF + b'; name="a.pdf"', "a.pdf", "application/pdf"),
    (PDF + b"\nContent-Disposition: attachment; filename=b.pdf", "b.pdf", "application/pdf"),
    (PDF + b"\nContent-Disposition: attachment; filename*=utf-8''%C3%A4.pdf", "ä.pdf",
     "application/pdf"),
    (PDF + b'; name="=?utf-8?q?=C3=A4.pdf?="', "ä.pdf", "application/pdf"),
    (PDF, "part-2.pdf", "application/pdf"),
    (b"Content-Type: text/plain\nContent-Disposition: attachment", "part-2.txt", "text/plain"),
    (b'Content-Type: text/plain; name="notes.txt"', "notes.txt", "text/plain"),
    (b"Content-Type: text/html\nContent-Disposition: attachment; filename=x.html", "x.html",
     "text/html"),
    (b"Content-Type: text/calendar", "part-2.ics", "text/calendar"),
    (b"Content-Type: message/rfc822", "part-2.eml", "message/rfc822"),
    (b'Content-Type: image/png; name="../../etc/passwd"', "../../etc/passwd", "image/png"),
    (b'Content-Type: image/png; name="a\tb\x7f.png"', "ab.png", "image/png"),
    (b"Content-Type: x", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("header", "name", "content_type"), ATTACHED)
def test_what_is_attached_has_its_name_and_type(header, name, content_type):
    found = shown(multipart(PLAIN, part(header, b"Subject: inside\n\ninside")))
    named = [(each.filename, each.content_type) for each in found.attachments]
    assert named == ([(name, content_type)] if name else [])
    assert "inside" not in found.text or not name


def test_other_forms_of_the_same_text_are_neither():
    amp = part(b"Content-Type: text/x-amp-html", b"<html amp4email>")
    found = shown(multipart(PLAIN, amp, HTML, kind=b"alternative"))
    assert found == Shown("plain\n", "<p>html</p>\n", ())


def test_of_a_text_only_so_much_is_decoded():
    found = shown(part(b"Subject: x", b"a" * (MAX_TEXT + 10)))
    assert len(found.text) == MAX_TEXT


def test_of_many_parts_only_so_many_are_looked_at():
    found = shown(multipart(*[part(PDF)] * (MAX_PARTS + 10)))
    assert len(found.attachments) == MAX_PARTS


def test_without_texts_nothing_of_them_is_read():
    found = shown(multipart(PLAIN, part(PDF)), max_text=0)
    assert (found.text, len(found.attachments)) == ("", 1)
