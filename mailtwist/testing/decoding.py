"""From the copies in the store to the message of a test, read as ``/emails`` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mailtwist.testing.message import Attachment, Message

if TYPE_CHECKING:
    from mailtwist.mail.shown import Attachment as Shown
    from mailtwist.store.arrivals import Arrival


def messages(arrivals: Iterable[Arrival]) -> list[Message]:
    """Each message once, however many copies of it there are, in the order of their arrival."""
    copies: dict[int, list[Arrival]] = {}
    for arrival in arrivals:
        copies.setdefault(arrival.queue_id, []).append(arrival)
    return [_message(each) for each in copies.values()]


def _message(copies: Sequence[Arrival]) -> Message:
    from mailtwist.mail.found_codes import codes
    from mailtwist.mail.found_links import links
    from mailtwist.mail.shown import show
    from mailtwist.mail.text import lines

    first = copies[0]
    data = first.data
    shown = show(first.parts, lambda start, end: data[start:end], max_text=len(data))
    # What HTML says to a reader, where there is no text.
    said = shown.text or lines(shown.html)
    return Message(
        number=first.event_id,
        id=str(first.queue_id),
        sender=first.reverse_path,
        recipients=tuple(dict.fromkeys(name for each in copies for name in each.recipients)),
        subject=first.subject,
        text=shown.text,
        html=shown.html,
        links=tuple(links(said, shown.html)),
        codes=tuple(codes(first.subject, said)),
        attachments=tuple(_attachment(each, data) for each in shown.attachments),
        headers=tuple(_fields(data[: first.header_octets])),
        received_at=first.received_at / 1_000_000,
        raw=data,
        trace=first.prefix,
    )


def _attachment(found: Shown, data: bytes) -> Attachment:
    from mailtwist.mail.transfer import decoder

    undone = decoder(found.part.encoding)
    octets = undone.feed(data[found.part.body]) + undone.close()
    return Attachment(found.filename, found.content_type, octets)


def _fields(block: bytes) -> Iterator[tuple[str, str]]:
    from mailtwist.mail.header import split_fields
    from mailtwist.mail.words import decode_words

    for name, raw in split_fields(block):
        if name:
            value = raw.partition(b":")[2].translate(None, b"\r\n").strip()
            yield name.decode("ascii", "replace"), decode_words(value)
