"""What answers say of captured messages, as JSON that is made in reading threads.

A message never changes, so what was decoded once is remembered: the last few here, and all of
them in Redis, where there is one, as long as the message is kept. Which messages there are, and
in which order, is always the store's to say: without Redis answers are slower, never wrong.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

from mailtwist.errors import MailError
from mailtwist.http.exchange import encoded
from mailtwist.http.inbox.content import Octets, decoded_size
from mailtwist.http.inbox.sharing import Shared
from mailtwist.mail.found_codes import codes
from mailtwist.mail.found_links import links
from mailtwist.mail.header import decode_words, split_fields
from mailtwist.mail.shown import Attachment, show
from mailtwist.mail.text import lines
from mailtwist.store.engine import Connection
from mailtwist.store.inbox import Captured

# Octets of the items of one answer; a list ends early rather than grow beyond.
MAX_ANSWER: Final = 16 << 20
# Octets of content that one read decodes, roughly.
MAX_READ: Final = 4 << 20
MAX_REMEMBERED: Final = 4 << 20
# Octets that are remembered of one message, here and in Redis: those of a whole list are then few
# enough to come in one reply, and in time.
MAX_KEPT: Final = 256 << 10
MAX_FIELDS: Final = 1_000
MAX_HEADER: Final = 65_536
# Changed whenever the form is: nodes of two versions may share one Redis.
FORM: Final = "email1"


class Redis(Protocol):
    """What is asked of :class:`mailtwist.net.redis.Redis`."""

    @property
    def is_up(self) -> bool: ...
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]: ...
    async def set_many(self, items: Sequence[tuple[str, bytes, int]]) -> None: ...


class Documents:
    """``since``: microseconds; what came before is no longer kept."""

    def __init__(
        self, database: Any, *, since: Callable[[], int], redis: Redis | None = None
    ) -> None:
        self._database = database
        self._since = since
        self._redis = redis
        self._remembered: OrderedDict[int, bytes] = OrderedDict()
        self._octets = 0
        self._singles: Shared[bytes] = Shared()

    async def items(self, messages: Sequence[Captured]) -> list[bytes]:
        """The items of a list, of as many messages as fit into one answer, at least one."""
        decoded = await self._decoded(messages)
        items: list[bytes] = []
        octets = 0
        for each in messages:
            found = decoded.get(each.email_id)
            octets += len(found or b"")
            if found is None or (octets > MAX_ANSWER and items):
                break
            items.append(_item(each, found))
        return items

    async def single(self, captured: Captured, path: str) -> bytes:
        """The document of one message; ``path``: its own, escaped."""

        def work(connection: Connection) -> bytes:
            return _single(captured, Octets(captured, connection), path)

        async def make() -> bytes:
            document: bytes = await self._database.read(work, account_id=captured.account_id)
            return document

        # All who waited for this message ask at once.
        return await self._singles.get((captured.email_id, captured.address, path), make)

    # -- what is remembered -------------------------------------------------------------------

    async def _decoded(self, messages: Sequence[Captured]) -> Mapping[int, bytes]:
        """What was decoded of the messages, by e-mail, up to the bound of an answer."""
        wanted = {each.email_id: each for each in messages}
        found = {}
        for number in wanted.keys() & self._remembered.keys():
            self._remembered.move_to_end(number)
            found[number] = self._remembered[number]
        missing = [each for number, each in wanted.items() if number not in found]
        if missing:
            found |= await self._from_redis(missing)
            missing = [each for each in missing if each.email_id not in found]
        octets = 0
        for group in _groups(missing):
            if octets > MAX_ANSWER:
                break
            made = await self._read(group)
            octets += sum(map(len, made.values()))
            found |= made
            await self._to_redis(group, made)
        for number, fragment in found.items():
            self._remember(number, fragment)
        return found

    async def _read(self, group: Sequence[Captured]) -> dict[int, bytes]:
        def work(connection: Connection) -> dict[int, bytes]:
            return {each.email_id: _fragment(each, Octets(each, connection)) for each in group}

        made: dict[int, bytes] = await self._database.read(work, account_id=group[0].account_id)
        return made

    def _remember(self, number: int, fragment: bytes) -> None:
        if number in self._remembered or len(fragment) > MAX_KEPT:
            return
        self._remembered[number] = fragment
        self._octets += len(fragment)
        while self._octets > MAX_REMEMBERED:
            _, gone = self._remembered.popitem(last=False)
            self._octets -= len(gone)

    async def _from_redis(self, messages: Sequence[Captured]) -> dict[int, bytes]:
        redis = self._redis
        if redis is None or not redis.is_up:
            return {}
        try:
            values = await redis.get_many([_key(each) for each in messages])
        except MailError:
            return {}
        opened = zip(messages, map(_opened, values), strict=False)
        return {each.email_id: fragment for each, fragment in opened if fragment is not None}

    async def _to_redis(self, messages: Sequence[Captured], made: Mapping[int, bytes]) -> None:
        redis = self._redis
        if redis is None or not redis.is_up:
            return
        since = self._since()
        items = [
            (_key(each), _sealed(made[each.email_id]), (each.received_at - since) // 1000)
            for each in messages
            if len(made[each.email_id]) <= MAX_KEPT
        ]
        try:
            await redis.set_many(items)
        except MailError:
            pass  # it is away; the next answer is as good


def _groups(messages: Iterable[Captured]) -> Iterator[list[Captured]]:
    """Parted so that no read takes long."""
    group: list[Captured] = []
    octets = 0
    for each in messages:
        if group and octets + each.octets > MAX_READ:
            yield group
            group, octets = [], 0
        group.append(each)
        octets += each.octets
    if group:
        yield group


def _key(captured: Captured) -> str:
    # The queue id is a time: a store that was restored from a copy counts its messages anew.
    return f"{FORM}:{captured.account_id}:{captured.email_id}:{captured.queue_id}"


def _sealed(fragment: bytes) -> bytes:
    return zlib.crc32(fragment).to_bytes(4, "big") + fragment


def _opened(value: bytes | None) -> bytes | None:
    """What was sealed; None for anything else that may lie there."""
    if value is None or len(value) < 6:
        return None
    fragment = value[4:]
    return fragment if value[:4] == zlib.crc32(fragment).to_bytes(4, "big") else None


# -- documents ------------------------------------------------------------------------------


def _fragment(captured: Captured, octets: Octets) -> bytes:
    """What decoding takes: the same for every address that a message was for."""
    shown = show(captured.parts, octets.read)
    return encoded(
        {
            "subject": captured.subject,
            "body_text": shown.text,
            "body_html": shown.html,
            "attachments": [each.filename for each in shown.attachments],
        }
    )


def _item(captured: Captured, fragment: bytes) -> bytes:
    """An item of a list: eight members, in the order of old."""
    head = encoded(
        {
            "id": str(captured.queue_id),
            "from": captured.return_path or "",
            "to": captured.address,
        }
    )
    tail = b',"received_at":%d}' % (captured.received_at // 1_000_000)
    return head[:-1] + b"," + fragment[1:-1] + tail


def _single(captured: Captured, octets: Octets, path: str) -> bytes:
    shown = show(captured.parts, octets.read)
    fields = _fields(captured, octets)
    # Addresses that stand in HTML as plain text are links to a reader as well.
    text = shown.text or lines(shown.html)
    return encoded(
        {
            "id": str(captured.queue_id),
            "from": captured.return_path or "",
            "to": captured.address,
            "subject": captured.subject,
            "body_text": shown.text,
            "body_html": shown.html,
            "attachments": [each.filename for each in shown.attachments],
            "received_at": captured.received_at // 1_000_000,
            "size": captured.octets,
            "message_id": captured.message_id,
            "reply_to": next((text for name, text in fields if name.lower() == "reply-to"), ""),
            "links": links(text, shown.html),
            "codes": codes(captured.subject, text),
            "headers": fields,
            "attachment_details": [
                _details(each, number, octets, path)
                for number, each in enumerate(shown.attachments, 1)
            ],
        }
    )


def _fields(captured: Captured, octets: Octets) -> list[tuple[str, str]]:
    block = captured.prefix + octets.read(0, min(captured.header_octets, MAX_HEADER))
    return [
        (name.decode("ascii", "replace"), decode_words(_value(raw)))
        for name, raw in split_fields(block)[:MAX_FIELDS]
        if name
    ]


def _value(raw: bytes) -> bytes:
    """The unfolded value of a field."""
    return raw.partition(b":")[2].translate(None, b"\r\n").replace(b"\t", b" ").strip()


def _details(each: Attachment, number: int, octets: Octets, path: str) -> Mapping[str, Any]:
    return {
        "filename": each.filename,
        "content_type": each.content_type,
        "size": decoded_size(octets, each.part),
        "url": f"{path}/attachments/{number}",
    }


def path_of(name: str, queue_id: int) -> str:
    """The path of a message, escaped."""
    return f"/emails/{quote(name, safe='@+')}/{queue_id}"


def joined(items: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"
