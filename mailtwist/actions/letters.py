"""Letters that actions send: read from what an outcome gives, made into whole messages.

Nothing that is given reaches a header field with a character in it that any program takes for
the end of a line: it is refused, and the refusal names the field.

RFC 5322; RFC 2045; RFC 2047; RFC 2231.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_qp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailtwist.actions import mailboxes
from mailtwist.actions.mailboxes import Mailbox
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address
from mailtwist.mail.header import fold_line, format_field
from mailtwist.mail.trace import date_time

MAX_RECIPIENTS: Final = 100
MAX_ATTACHMENTS: Final = 100
MAX_FIELDS: Final = 50
# A field of this many characters keeps below the 998 octets of a line wherever it is folded.
MAX_VALUE: Final = 900
MAX_FILENAME: Final = 255

# Fields that a letter may be given beside those that it has by itself. None of them names
# somebody who gets it, says how its body is to be read, or was written by a server on its way.
FIELDS: Final = frozenset({
    "auto-submitted", "comments", "feedback-id", "importance", "in-reply-to", "keywords",
    "list-archive", "list-help", "list-id", "list-owner", "list-post", "list-subscribe",
    "list-unsubscribe", "list-unsubscribe-post", "organization", "precedence", "priority",
    "references", "sensitivity",
})  # fmt: skip
OCTETS: Final = "application/octet-stream"

_FIELD_NAME = re.compile(r"[A-Za-z0-9-]{1,76}")
_MEDIA_TYPE = re.compile(r"([a-z0-9][a-z0-9!#$&^_.+-]{0,126})/([a-z0-9][a-z0-9!#$&^_.+-]{0,126})")
# What a page names with `cid:` and a field with brackets around it, without any escape.
_CONTENT_ID = re.compile(r"[A-Za-z0-9._-]{1,100}(?:@[A-Za-z0-9._-]{1,100})?")
# RFC 2046 §5: these have parts and encodings of their own, which octets do not.
_COMPOSITE: Final = frozenset({"multipart", "message"})
# What a body may not hold as it is (RFC 5322 §2.1.1, §2.3), line ends aside.
_NOT_PLAIN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[^\r\n]{990}")
_LINE_END = re.compile("\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Attachment:
    filename: str
    content_type: str  # type/subtype in lower case
    data: bytes
    content_id: str = ""  # without brackets; "": it is not shown inside the HTML


@dataclass(frozen=True, slots=True)
class Letter:
    """``text`` and ``html`` None: there is no such part. ``bcc`` is in no field."""

    sender: Mailbox
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def recipients(self) -> list[Address]:
        """Everybody who gets it, each once."""
        everybody = (*self.to, *self.cc, *self.bcc)
        return list({each.address.folded: each.address for each in everybody}.values())

    @property
    def is_utf8(self) -> bool:
        """Whether an address in it is beyond ASCII (RFC 6531)."""
        everybody = (self.sender, *self.to, *self.cc, *self.bcc, *self.reply_to)
        return not all(str(each.address).isascii() for each in everybody)


# -- what is given --------------------------------------------------------------------------


def read(given: Mapping[str, Any], *, limit: int, max_recipients: int = MAX_RECIPIENTS) -> Letter:
    """The letter that attributes of an outcome describe; all of it has ``limit`` octets at most.

    Raises: ProtocolViolation, which names the field.
    """
    sender = mailboxes.read("from", given.get("from"))
    if not sender:
        raise ProtocolViolation("missing required field: from")
    if len(sender) > 1:
        raise invalid("from", "one address is expected")
    to, cc, bcc = (mailboxes.read(name, given.get(name)) for name in ("to", "cc", "bcc"))
    if not (to or cc or bcc):
        raise ProtocolViolation("missing required field: to")
    if len(to) + len(cc) + len(bcc) > max_recipients:
        raise invalid("to", f"{max_recipients} recipients at most")
    letter = Letter(
        sender[0],
        to,
        cc,
        bcc,
        reply_to=mailboxes.read("reply_to", given.get("reply_to")),
        subject=in_header("subject", text_of("subject", given.get("subject")) or ""),
        text=_body("body", given) if given.get("body") is not None else _body("text", given),
        html=_body("html", given),
        attachments=_attachments(given.get("attachments"), limit),
        fields=_fields(given.get("headers")),
    )
    size = sum(len(part) for part in (letter.text or "", letter.html or ""))
    if size + sum(len(each.data) for each in letter.attachments) > limit:
        raise ProtocolViolation(f"The message is too large: {limit} octets at most")
    return letter


def invalid(name: str, why: str) -> ProtocolViolation:
    return ProtocolViolation(f"invalid value for {name}: {why}")


def text_of(name: str, value: Any) -> str | None:
    """A value as text; None and numbers are what expressions yield. Raises: ProtocolViolation."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise invalid(name, "a text is expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(name, "it is no valid Unicode") from error
    return value


def in_header(name: str, value: str) -> str:
    """A text that may stand in one field. Raises: ProtocolViolation."""
    if mailboxes.breaks(value):
        raise invalid(name, "a header field holds no line breaks and no control characters")
    if len(value) > MAX_VALUE:
        raise invalid(name, f"{MAX_VALUE} characters at most")
    return value


def _body(name: str, given: Mapping[str, Any]) -> str | None:
    return text_of(name, given.get(name))


def _attachments(given: Any, limit: int) -> tuple[Attachment, ...]:
    if given is None or given == "":
        return ()
    items = given if isinstance(given, list) else [given]
    if len(items) > MAX_ATTACHMENTS:
        raise invalid("attachments", f"{MAX_ATTACHMENTS} at most")
    room, found = limit, []
    for item in items:
        if not isinstance(item, Mapping):
            raise invalid("attachments", "objects with filename, content and content_type")
        found.append(_attachment(item, room))
        room -= len(found[-1].data)
    return tuple(found)


def _attachment(item: Mapping[str, Any], room: int) -> Attachment:
    filename = text_of("attachments.filename", item.get("filename")) or "attachment"
    in_header("attachments.filename", filename)
    if "=?" in filename:
        # RFC 2047 §5: no parameter holds one. The library undoes it all the same, line ends too.
        raise invalid("attachments.filename", "it is not to be encoded")
    if len(filename) > MAX_FILENAME:
        raise invalid("attachments.filename", f"{MAX_FILENAME} characters at most")
    named = text_of("attachments.content_type", item.get("content_type")) or OCTETS
    in_header("attachments.content_type", named)
    # Parameters would speak of octets that nobody has checked against them.
    matched = _MEDIA_TYPE.fullmatch(named.partition(";")[0].strip().lower())
    if matched is None:
        raise invalid("attachments.content_type", "a media type such as image/png")
    content_type = OCTETS if matched[1] in _COMPOSITE else matched[0]
    content = text_of("attachments.content", item.get("content")) or ""
    if len(content) * 3 // 4 > room + 2:
        raise ProtocolViolation("The message is too large: its attachments")
    try:
        data = a2b_base64("".join(content.split()).encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise invalid("attachments.content", "base64 is expected") from error
    content_id = text_of("attachments.content_id", item.get("content_id")) or ""
    if content_id and _CONTENT_ID.fullmatch(content_id) is None:
        raise invalid("attachments.content_id", "letters, digits and .-_@ are expected")
    return Attachment(filename, content_type, data, content_id)


def _fields(given: Any) -> tuple[tuple[str, str], ...]:
    if given is None or given == "":
        return ()
    if not isinstance(given, Mapping):
        raise invalid("headers", "an object of names and values")
    if len(given) > MAX_FIELDS:
        raise invalid("headers", f"{MAX_FIELDS} at most")
    return tuple((_field_name(name), _field_value(name, value)) for name, value in given.items())


def _field_name(name: Any) -> str:
    folded = name.lower() if isinstance(name, str) else ""
    is_open = folded in FIELDS or folded.startswith("x-")
    if not is_open or _FIELD_NAME.fullmatch(name) is None:
        raise invalid("headers", f"{ascii(name)[:100]} cannot be given")
    return str(name)


def _field_value(name: str, value: Any) -> str:
    where = f"headers.{name}"
    return in_header(where, text_of(where, value) or "")


# -- a whole message ------------------------------------------------------------------------


def compose(letter: Letter, *, seconds: float, message_id: str) -> bytes:
    """A message with CRLF line ends; ``message_id`` without brackets, ``seconds`` since 1970.

    Raises: ProtocolViolation when a value holds a line break.
    """
    named = (("To", letter.to), ("Cc", letter.cc), ("Reply-To", letter.reply_to))
    header = [
        format_field("Date", date_time(seconds)),
        _addresses("From", (letter.sender,)),
        *(_addresses(name, found) for name, found in named if found),
        format_field("Subject", letter.subject),
        format_field("Message-ID", f"<{message_id}>"),
        *(format_field(name, value) for name, value in letter.fields),
    ]
    return b"".join(header) + _content(letter)


def _addresses(name: str, found: Sequence[Mailbox]) -> bytes:
    # Each value was read by `mailboxes`, which lets no break through; this holds even so.
    value = ", ".join(map(str, found))
    if mailboxes.BREAKS.search(value) is not None:
        raise ProtocolViolation("Header field with a line break")
    return fold_line(f"{name}: {value}".encode())


def _content(letter: Letter) -> bytes:
    """MIME-Version, the Content fields, and the body."""
    text, html = letter.text, letter.html
    if (text is not None and html is not None) or letter.attachments:
        return _parts(letter)
    return _single("plain", text or "") if html is None else _single("html", html)


def _single(subtype: str, text: str) -> bytes:
    """A text alone, as nearly all letters are: the library takes ten times as long for it."""
    encoding = _encoding(text)
    octets = _LINE_END.sub("\r\n", text).encode("utf-8")
    if not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    if encoding == "base64":
        octets = encodebytes(octets).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        # Its first line end tells what those that it adds are to be.
        octets = b2a_qp(octets, istext=True)
    header = (
        "MIME-Version: 1.0\r\n"
        f'Content-Type: text/{subtype}; charset="utf-8"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return header.encode("ascii") + octets


def _parts(letter: Letter) -> bytes:
    # The library knows how parts nest; it is not loaded before someone needs that.
    from email.message import EmailMessage
    from email.policy import SMTP

    message = EmailMessage(policy=SMTP)
    if letter.text is not None or letter.html is None:
        _set_text(message, letter.text or "", "plain")
        if letter.html is not None:
            message.add_alternative(letter.html, subtype="html", cte=_encoding(letter.html))
    else:
        _set_text(message, letter.html, "html")
    shown = message.get_body(("html",)) if letter.html is not None else None
    for each in letter.attachments:
        maintype, _, subtype = each.content_type.partition("/")
        if shown is not None and each.content_id:
            # RFC 2387: beside the HTML that names it.
            shown.add_related(
                each.data,
                maintype=maintype,
                subtype=subtype,
                cid=f"<{each.content_id}>",
                filename=each.filename,
                disposition="inline",
            )
    for each in letter.attachments:
        maintype, _, subtype = each.content_type.partition("/")
        if shown is None or not each.content_id:
            message.add_attachment(
                each.data, maintype=maintype, subtype=subtype, filename=each.filename
            )
    return message.as_bytes()


def _set_text(message: Any, text: str, subtype: str) -> None:
    message.set_content(text, subtype=subtype, charset="utf-8", cte=_encoding(text))


def _encoding(text: str) -> str:
    if not text.isascii():
        # Cheaper to read raw for western text, shorter for everything else.
        start = text[:2000]
        beyond = len(start) - len(start.encode("ascii", "ignore"))
        return "base64" if beyond * 3 > len(start) else "quoted-printable"
    # RFC 5322 §2.1.1: 998 characters in a line at most.
    return "7bit" if _NOT_PLAIN.search(text) is None else "quoted-printable"
