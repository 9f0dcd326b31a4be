"""One part of BODYSTRUCTURE and BODY, from the fields of its header (RFC 9051 §7.5.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailtwist.mail.fields import Fields
from mailtwist.mail.mediatype import (
    MESSAGE,
    TEXT_PLAIN,
    MediaType,
    Parameters,
    parameter,
    parse_media_type,
    parse_token,
    parse_word,
)
from mailtwist.mail.parts import Kind
from mailtwist.mail.wire import NIL, nstring, string, strings

# RFC 2046 §5.1.1 allows 70; anything longer than this is no boundary.
MAX_BOUNDARY: Final = 256

# What stands in place of the parts of a multipart that has none: the grammar
# wants at least one.
_NO_PARTS: Final = (
    b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)',
    b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)',
)
_OCTET_STREAM: Final = MediaType(b"application", b"octet-stream", ())
# Fields that seldom repeat from mail to mail.
_RARE: Final = frozenset(
    (
        b"content-id",
        b"content-description",
        b"content-md5",
        b"content-disposition",
        b"content-language",
        b"content-location",
    )
)
_NOT_IN_WORD = re.compile(rb"[^!-~]")
_LANGUAGE = re.compile(rb"[^\s,()]++")
_MAX_LANGUAGES: Final = 20


@dataclass(slots=True)
class Description:
    """What the header of a part says, some of it ready for the wire. Shared, never changed."""

    kind: Kind
    is_text: bool
    is_digest: bool
    is_attachment: bool
    boundary: bytes  # empty unless it is a multipart that has one
    content_type: str
    encoding: str
    charset: str
    head: bytes  # up to the encoding; of a multipart its subtype
    tail: bytes  # the extension data


def describe(fields: Fields, *, in_digest: bool, may_nest: bool) -> Description:
    """Read one header; where nesting has gone deep enough a container is a leaf."""
    content_type = fields.get(b"content-type", b"")
    if _RARE.isdisjoint(fields) and len(content_type) <= 80:
        # Most texts: the same few answers from mail to mail.
        encoding = fields.get(b"content-transfer-encoding", b"")[:80]
        return _describe_common(content_type, encoding, in_digest, may_nest)
    return _describe(fields, in_digest, may_nest)


@lru_cache(maxsize=256)
def _describe_common(
    content_type: bytes, encoding: bytes, in_digest: bool, may_nest: bool
) -> Description:
    fields = {b"content-transfer-encoding": encoding}
    if content_type:
        fields[b"content-type"] = content_type
    return _describe(fields, in_digest, may_nest)


def _describe(fields: Fields, in_digest: bool, may_nest: bool) -> Description:
    get = fields.get
    # RFC 2046 §5.1.5: inside a digest the default is a message.
    media = parse_media_type(get(b"content-type"), MESSAGE if in_digest else TEXT_PLAIN)
    main, sub = media.main.lower(), media.sub.lower()
    kind = _kind(main, sub)
    if kind is not Kind.LEAF and not may_nest:
        kind, media, main, sub = Kind.LEAF, _OCTET_STREAM, b"application", b"octet-stream"
    encoding = parse_token(get(b"content-transfer-encoding")) or b"7bit"
    word, details = _disposition(get(b"content-disposition"))
    has_filename = bool(parameter(details, b"filename") or parameter(details, b"filename*"))
    is_multipart = kind is Kind.MULTIPART
    boundary = media.get(b"boundary").rstrip() if is_multipart else b""
    return Description(
        kind,
        main == b"text",
        is_multipart and sub == b"digest",
        not is_multipart and _is_attachment(kind, main, media, word, has_filename),
        boundary if len(boundary) <= MAX_BOUNDARY else b"",
        f"{main.decode('ascii')}/{sub.decode('ascii')}",
        encoding.lower().decode("ascii"),
        _NOT_IN_WORD.sub(b"", media.get(b"charset"))[:40].lower().decode("ascii"),
        string(media.sub) if is_multipart else _head(fields, media, encoding),
        b"%b %b %b %b"
        % (
            _parameters(media.parameters) if is_multipart else nstring(get(b"content-md5")),
            b"(%b %b)" % (string(word), _parameters(details)) if word else NIL,
            _language(get(b"content-language")),
            nstring(get(b"content-location")),
        ),
    )


def _kind(main: bytes, sub: bytes) -> Kind:
    if main == b"multipart":
        return Kind.MULTIPART
    # message/global has the same form only for clients of RFC 9051; for those of
    # RFC 3501 it must look like any other type.
    if main == b"message" and sub == b"rfc822":
        return Kind.MESSAGE
    return Kind.LEAF


def render(
    part: Description,
    octets: int,
    lines: int,
    inside: Sequence[tuple[bytes, bytes]],
    envelope: bytes,
) -> tuple[bytes, bytes]:
    """BODYSTRUCTURE and BODY of a part whose end is known, ``inside`` those of its children.

    ``envelope`` is that of the message inside a message.
    """
    if part.kind is Kind.LEAF:
        basic = b"%b %d" % (part.head, octets)
        if part.is_text:
            basic = b"%b %d" % (basic, lines)
        return b"(%b %b)" % (basic, part.tail), b"(%b)" % basic
    full = b"".join([answer[0] for answer in inside])
    body = b"".join([answer[1] for answer in inside])
    if part.kind is Kind.MESSAGE:
        full, body = (
            b"%b %d %b %b %d" % (part.head, octets, envelope, nested, lines)
            for nested in (full, body)
        )
        return b"(%b %b)" % (full, part.tail), b"(%b)" % body
    return (
        b"(%b %b %b)" % (full or _NO_PARTS[0], part.head, part.tail),
        b"(%b %b)" % (body or _NO_PARTS[1], part.head),
    )


def _head(fields: Fields, media: MediaType, encoding: bytes) -> bytes:
    return b"%b %b %b %b %b %b" % (
        string(media.main),
        string(media.sub),
        _parameters(media.parameters),
        nstring(fields.get(b"content-id")),
        nstring(fields.get(b"content-description")),
        string(encoding),
    )


def _parameters(parameters: Parameters) -> bytes:
    return strings(text for pair in parameters for text in pair) if parameters else NIL


def _disposition(value: bytes | None) -> tuple[bytes, Parameters]:
    """The word in lower case and its parameters."""
    found = parse_word(value) if value else None
    return (found[0].lower(), found[1]) if found else (b"", ())


def _is_attachment(kind: Kind, main: bytes, media: MediaType, word: bytes, named: bool) -> bool:
    if word == b"attachment":
        return True
    named = named or bool(media.get(b"name") or media.get(b"name*"))
    if word == b"inline":
        # Some clients mark every file so; pictures and texts they do show in place.
        return named and main not in (b"text", b"image")
    return named or kind is Kind.MESSAGE


def _language(value: bytes | None) -> bytes:
    languages = _LANGUAGE.findall(value)[:_MAX_LANGUAGES] if value else []
    if not languages:
        return NIL
    return string(languages[0]) if len(languages) == 1 else strings(languages)
