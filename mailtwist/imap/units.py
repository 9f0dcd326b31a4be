"""What the input machine hands to the session, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mailtwist.errors import MailError


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole command, without its last CRLF."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """What a continuation asked for, without CRLF."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Continue:
    """The client waits for ``+`` before it sends a literal that is within the bounds."""


@dataclass(frozen=True, slots=True)
class AppendStart:
    """A message of ``octets`` is announced.

    ``data`` is the command without the literal. The machine stands still until
    it is told to `accept` or to `decline`.
    """

    data: bytes
    octets: int
    synchronising: bool


@dataclass(frozen=True, slots=True)
class Block:
    """The next octets of the message that was accepted."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AppendEnd:
    """The message is complete; ``rest`` stood behind it on its last line."""

    rest: bytes


@dataclass(frozen=True, slots=True)
class Violation:
    """A command that was refused here; ``tag`` is ``*`` when it can't be told."""

    tag: bytes
    error: MailError
    is_fatal: bool = False


@dataclass(frozen=True, slots=True)
class Wake:
    """No input: an event concerns the client that we let wait (IDLE)."""


Unit: TypeAlias = Whole | Line | Continue | AppendStart | Block | AppendEnd | Violation | Wake
