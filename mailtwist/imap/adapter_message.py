"""One stored message behind `IMessage` of twisted.mail; see :mod:`mailtwist.imap.adapter`."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from io import BytesIO

from twisted.mail.imap4 import IMessage, IMessageFile, IMessagePart
from zope.interface import implementer

from mailtwist.mail import flags as bits
from mailtwist.mail.header import split_fields
from mailtwist.mail.parts import Part, decode
from mailtwist.store.keywords import Keywords


def flag_names(value: int, keywords: Keywords) -> list[str]:
    """The flags of a message as the stock classes take them."""
    system = [name for name, bit in bits.SYSTEM.items() if value & bit]
    return system + keywords.spelled(value)


@implementer(IMessagePart)
class StoredPart:
    """A part: ``data`` is the whole message, ``content`` the offset that its parts count from."""

    def __init__(self, data: bytes, content: int, part: Part) -> None:
        self._data = data
        self._content = content
        self._part = part

    def _header(self) -> bytes:
        return self._data[self._content + self._part.start : self._content + self._part.header_end]

    def getHeaders(self, negate: bool, *names: str | bytes) -> dict[str, str]:  # noqa: N802
        """The chosen fields by lower-case name; of several of one name the first."""
        wanted = {_text(name).lower() for name in names}
        found: dict[str, str] = {}
        for name, raw in split_fields(self._header()):
            key = _text(name).lower()
            if key and (key in wanted) != bool(negate):
                value = raw.partition(b":")[2].translate(None, b"\r\n").strip()
                # The stock server dies of anything but ASCII.
                found.setdefault(key, value.decode("ascii", "replace").replace("\ufffd", "?"))
        return found

    def getBodyFile(self) -> BytesIO:  # noqa: N802
        start, end = self._part.header_end, self._part.end
        return BytesIO(self._data[self._content + start : self._content + end])

    def getSize(self) -> int:  # noqa: N802
        return self._part.end - self._part.start

    def isMultipart(self) -> bool:  # noqa: N802
        return bool(self._part.children) and not self._part.is_message

    def getSubPart(self, part: int) -> StoredPart:  # noqa: N802
        if not self.isMultipart():
            raise TypeError("no multipart")
        return StoredPart(self._data, self._content, self._part.children[part])


@dataclass(frozen=True, slots=True)
class Stored:
    """The columns of a message that the stock server asks for."""

    uid: int
    flags: int
    internaldate: int
    parts: bytes
    prefix: bytes
    content: bytes


@implementer(IMessage, IMessageFile)
class StoredMessage(StoredPart):
    """A whole message, its octets in memory: the stock server reads it synchronously."""

    def __init__(
        self, stored: Stored, mailbox_id: int, keywords: Keywords, *, recent: bool = False
    ) -> None:
        super().__init__(stored.prefix + stored.content, len(stored.prefix), decode(stored.parts))
        self.stored = stored
        self.mailbox_id = mailbox_id
        self._flags = flag_names(stored.flags, keywords) + (["\\Recent"] if recent else [])

    def _header(self) -> bytes:
        return self._data[: self._content + self._part.header_end]

    def getSize(self) -> int:  # noqa: N802
        return len(self._data)

    def getUID(self) -> int:  # noqa: N802
        return self.stored.uid

    def getFlags(self) -> list[str]:  # noqa: N802
        return self._flags

    def getInternalDate(self) -> str:  # noqa: N802
        return formatdate(self.stored.internaldate / 1_000_000)

    def open(self) -> BytesIO:
        """All octets, as BODY[] gives them."""
        return BytesIO(self._data)


def _text(name: str | bytes) -> str:
    return name.decode("ascii", "replace") if isinstance(name, bytes) else name
