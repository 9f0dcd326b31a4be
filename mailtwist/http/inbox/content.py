"""The octets of captured messages: read in ranges, and sent as they are or decoded.

What a stranger wrote is never shown as a page of ours: it is for saving, has no script, and no
browser guesses another type for it.
"""

from __future__ import annotations

import re
from copy import copy
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred

from mailtwist.errors import NotFound, TemporaryFailure
from mailtwist.http.exchange import Answer, Sink
from mailtwist.mail.parts import Part
from mailtwist.mail.shown import Attachment, show
from mailtwist.mail.transfer import Decoder, decoder
from mailtwist.store import content
from mailtwist.store.engine import Connection
from mailtwist.store.inbox import Captured

# Octets of a message that are read to tell how large its attachments are.
MAX_COUNTED: Final = 8 << 20
# Octets that are read for a few of them: headers of parts stand close together, or far apart.
AHEAD: Final = 1 << 16
# A client that takes nothing for so long is gone, or might as well be.
STUCK_S: Final = 60.0

_SAFE: Final = (
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)
# What parts folders, and what turns the direction of writing: "gpj.exe" seems to end in ".jpg".
_NOT_IN_FILE = re.compile("[/\\\\\u202a-\u202e\u2066-\u2069]")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9 ._()+=@,-]")


class Stuck(TemporaryFailure):
    """A client takes nothing of its answer."""

    default_text: ClassVar[str] = "The client takes nothing"


class Octets:
    """The content of one message inside one read; what was read last is kept."""

    def __init__(self, captured: Captured, connection: Connection) -> None:
        self._content_id = captured.content_id
        self._end = captured.content_octets
        self._connection = connection
        self._start = 0
        self._block = b""
        self.left = MAX_COUNTED

    def read(self, start: int, end: int) -> bytes:
        """Octets [start, end), at most 1 MiB of them."""
        end = min(end, start + content.CHUNK, self._end)
        if end <= start:
            return b""
        if not self._start <= start <= end <= self._start + len(self._block):
            self._start = start
            stop = min(max(end, start + AHEAD), self._end)
            self._block = content.read(self._connection, self._content_id, start, stop)
        return self._block[start - self._start : end - self._start]


def decoded_size(octets: Octets, part: Part) -> int:
    """How many octets a part has once its encoding is undone; of what is very large, about."""
    encoded = part.end - part.header_end
    if part.encoding not in ("base64", "quoted-printable"):
        return encoded
    if encoded > octets.left:
        # Lines of 76 characters and their ends.
        return encoded * 57 // 78 if part.encoding == "base64" else encoded
    octets.left -= encoded
    undone = decoder(part.encoding)
    size = 0
    for start in range(part.header_end, part.end, content.CHUNK):
        size += len(undone.feed(octets.read(start, min(start + content.CHUNK, part.end))))
    return size + len(undone.close())


# -- answers --------------------------------------------------------------------------------


def disposition(filename: str) -> str:
    """For saving under a name, which leads into no other folder. RFC 6266 §4.3."""
    filename = _NOT_IN_FILE.sub("_", filename)
    plain = _NOT_IN_NAME.sub("_", filename)
    value = f'attachment; filename="{plain}"'
    if plain != filename:
        value += f"; filename*=UTF-8''{quote(filename.encode('utf-8', 'replace'), safe='')}"
    return value


class Contents:
    """Answers that hold octets of messages. ``clock``: IReactorTime."""

    def __init__(self, database: Any, *, clock: Any) -> None:
        self._database = database
        self._clock = clock

    def raw(self, captured: Captured) -> Answer:
        """The message as it is stored."""
        return Answer(
            content_type="message/rfc822",
            headers=(
                ("Content-Length", str(captured.octets)),
                ("Content-Disposition", disposition(f"{captured.queue_id}.eml")),
                *_SAFE,
            ),
            stream=partial(self._send_raw, captured),
        )

    async def attachment(self, captured: Captured, name: str) -> Answer:
        """An attachment by its number, from 1, or by its name. Raises: NotFound."""

        def work(connection: Connection) -> tuple[Attachment, ...]:
            return show(captured.parts, Octets(captured, connection).read, max_text=0).attachments

        found = _chosen(await self._database.read(work, account_id=captured.account_id), name)
        return Answer(
            content_type=found.content_type,
            headers=(("Content-Disposition", disposition(found.filename)), *_SAFE),
            stream=partial(self._send_part, captured, found.part),
        )

    async def _send_raw(self, captured: Captured, sink: Sink) -> None:
        sink.write(captured.prefix)
        await self._send(captured, 0, captured.content_octets, decoder(""), sink)

    async def _send_part(self, captured: Captured, part: Part, sink: Sink) -> None:
        await self._send(captured, part.header_end, part.end, decoder(part.encoding), sink)

    async def _send(
        self, captured: Captured, start: int, end: int, undone: Decoder, sink: Sink
    ) -> None:
        """Write a range of the content, decoded, as fast as the client takes it."""
        for at in range(start, end, content.CHUNK):
            stop = min(at + content.CHUNK, end)

            def work(
                connection: Connection, at: int = at, stop: int = stop, before: Decoder = undone
            ) -> tuple[bytes, Decoder]:
                block = content.read(connection, captured.content_id, at, stop)
                after = copy(before)  # a read may run twice
                return after.feed(block), after

            octets, undone = await self._database.read(work, account_id=captured.account_id)
            sink.write(octets)
            await self._drained(sink)
        sink.write(undone.close())

    async def _drained(self, sink: Sink) -> None:
        """Wait until the client took what was written. Raises: Stuck."""
        if not sink.is_full:
            return
        drained: Deferred[bool] = Deferred()

        def end(is_drained: bool) -> None:
            if not drained.called:
                drained.callback(is_drained)

        timer = self._clock.callLater(STUCK_S, end, False)
        sink.on_drain(lambda: end(True))
        try:
            if not await drained:
                raise Stuck()
        finally:
            if timer.active():
                timer.cancel()


def _chosen(attachments: tuple[Attachment, ...], name: str) -> Attachment:
    if name.isascii() and name.isdigit() and len(name) < 5 and 1 <= int(name) <= len(attachments):
        return attachments[int(name) - 1]
    for each in attachments:
        if each.filename == name:
            return each
    raise NotFound("No such attachment")
