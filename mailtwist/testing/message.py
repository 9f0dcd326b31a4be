"""A message as a test reads it: decoded, with nothing left to parse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import EmailMessage


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a message. ``name`` is "" where it has none; ``data`` is decoded."""

    name: str
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came.

    ``number``: counts up in the order of arrival. ``id``: what the server said in ``queued as``.
    ``sender``: the address of MAIL FROM, "" for a bounce; ``recipients``: those of RCPT TO, Bcc
    too; of several that lead to one mailbox the first. ``subject``, ``text`` and ``html`` are
    decoded; a part that is not there is "". ``links``: of text and HTML, each once; ``codes``:
    what looks like a one-time code, the likeliest first. ``headers``: decoded, in their order.
    ``received_at``: seconds since 1970. ``raw``: the octets as they were sent; ``trace``: the
    fields that the server put before them.
    """

    number: int = field(repr=False)
    id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str
    html: str = field(repr=False)
    links: tuple[str, ...] = field(repr=False)
    codes: tuple[str, ...] = field(repr=False)
    attachments: tuple[Attachment, ...]
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    received_at: float = field(repr=False)
    raw: bytes = field(repr=False)
    trace: bytes = field(repr=False)

    @property
    def to(self) -> str:
        """The recipient; of several the first."""
        return self.recipients[0]

    def header(self, name: str, default: str = "") -> str:
        """The value of the first field of this name, in whatever case."""
        return next(iter(self.all_of(name)), default)

    def all_of(self, name: str) -> list[str]:
        """The values of all fields of this name."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def as_email(self) -> EmailMessage:
        """The message as :mod:`email` has it."""
        from email import message_from_bytes, policy

        return message_from_bytes(self.raw, policy=policy.default)

    @property
    def line(self) -> str:
        """The message in one line, for people."""
        return f"{self.sender or '<>'} to {', '.join(self.recipients)}: {self.subject!r}"


def listed(messages: Iterable[Message]) -> str:
    """Messages as indented lines."""
    return "\n".join(f"  {each.line}" for each in messages)
