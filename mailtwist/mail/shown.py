"""What of a message a reader is shown: its text, its HTML, its attachments.

Texts without a file name are shown, everything else is attached: files, pictures inside HTML,
a message inside the message. Octets come by ``read(start, end)``, counted from the start of the
content, and as few as are needed; each count has a bound.

RFC 2046 §5.1; RFC 2183 §2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mailtwist.mail.fields import read_fields
from mailtwist.mail.mediatype import (
    Parameters,
    decoded_parameter,
    parse_media_type,
    parse_word,
)
from mailtwist.mail.parts import Kind, Part, decode
from mailtwist.mail.text import decoded

MAX_TEXT: Final = 1 << 20  # octets of a message's texts, as they were sent
MAX_PARTS: Final = 200
MAX_HEADER: Final = 16_384  # octets of one part's header
MAX_NAME: Final = 255

Read = Callable[[int, int], bytes]

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
# Other forms of what is shown already.
_SHOWN_ELSEWHERE: Final = frozenset(
    ("text/x-amp-html", "text/watch-html", "text/enriched", "text/richtext", "text/rfc822-headers")
)
_ENDINGS: Final = {
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/svg+xml": ".svg",
    "image/webp": ".webp",
    "message/rfc822": ".eml",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/plain": ".txt",
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """``filename``: as the sender wrote it, or made up of its place; it may hold a slash."""

    filename: str
    content_type: str
    part: Part


@dataclass(frozen=True, slots=True)
class Shown:
    """``text`` and ``html``: all of that kind, with line feeds alone."""

    text: str
    html: str
    attachments: tuple[Attachment, ...]


def show(parts: bytes, read: Read, *, max_text: int = MAX_TEXT) -> Shown:
    """Decode what is shown of a message; with ``max_text`` 0 its attachments alone."""
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attached: list[Attachment] = []
    left = max_text
    for number, part in enumerate(_leaves(parts)):
        name, is_attached = _name(part, read)
        shown = texts.get(part.content_type)
        if name or is_attached or shown is None:
            if name or is_attached or part.content_type not in _SHOWN_ELSEWHERE:
                attached.append(_attachment(part, name, number))
        elif left > 0:
            octets = read(part.header_end, min(part.end, part.header_end + left))
            left -= len(octets)
            shown.append(decoded(octets, part).replace("\r\n", "\n"))
    return Shown(_joined(texts["text/plain"]), _joined(texts["text/html"]), tuple(attached))


def _leaves(parts: bytes) -> Iterator[Part]:
    """The parts that hold something, a message inside the message as one of them."""
    waiting = [decode(parts)] if parts else []
    left = MAX_PARTS
    while waiting and left:
        part = waiting.pop()
        if part.kind is Kind.MULTIPART:
            waiting.extend(reversed(part.children))
        else:
            left -= 1
            yield part


def _name(part: Part, read: Read) -> tuple[str, bool]:
    """The file name of a part, "" without one, and whether it says that it is attached."""
    header = read(part.start, min(part.header_end, part.start + MAX_HEADER))
    fields, _ = read_fields(header)
    disposition = parse_word(fields.get(b"content-disposition", b""))
    word, parameters = disposition or (b"", ())
    media = parse_media_type(fields.get(b"content-type"))
    name = _file_name(parameters, b"filename") or _file_name(media.parameters, b"name")
    return name, word.lower() == b"attachment"


def _file_name(parameters: Parameters, name: bytes) -> str:
    return _CONTROLS.sub("", decoded_parameter(parameters, name)).strip()[:MAX_NAME]


def _attachment(part: Part, name: str, number: int) -> Attachment:
    content_type = part.content_type
    if _TYPE.fullmatch(content_type) is None:
        content_type = "application/octet-stream"
    ending = _ENDINGS.get(content_type, "")
    return Attachment(name or f"part-{number + 1}{ending}", content_type, part)


def _joined(texts: list[str]) -> str:
    return "\n".join(texts)
