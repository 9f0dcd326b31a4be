"""What a report says, as values; and foreign text made fit to be quoted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailtwist.mail.address import Address

# Of a reply that is quoted; what mail servers say to people is shorter.
MAX_TEXT: Final = 500

_NOT_ASCII = re.compile(r"[^ -~]")


class Kind(StrEnum):
    """One report has one kind, whatever the number of its recipients."""

    FAILURE = "failure"
    DELAY = "delay"
    SUCCESS = "success"


class Action(StrEnum):
    """RFC 3464 §2.3.3. EXPANDED is never said: an alias hands its NOTIFY on."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"  # to a server that will not report


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one recipient.

    ``address``: the one that we accepted. ``orcpt``: as in store.queue.values.Recipient.
    ``code``, ``status``, ``text``: the last reply; ``is_ours``: nobody said it but we;
    ``stage``: where, as in store.queue.values.Attempt.
    ``remote``: the name of the server that is spoken of, ``remote_address`` its address, both
    empty when there was none. ``attempts`` counts all; ``attempted_at``: the last, in
    microseconds, 0 when there was none. ``is_expired``: given up after temporary failures.
    ``is_forwarded``: an alias led elsewhere, and nothing here may say where to.
    """

    address: str
    action: Action
    code: int = 0
    status: str = ""
    text: str = ""
    is_ours: bool = False
    stage: str = ""
    orcpt: str = ""
    remote: str = ""
    remote_address: str = ""
    attempts: int = 0
    attempted_at: int = 0
    is_expired: bool = False
    is_forwarded: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All that one notification is made of.

    Times in microseconds. ``token``: letters and digits that nobody can guess; Message-ID and
    boundary are made of it. ``header``: the original's header block, what the queue puts
    before it included; ``whole``: the original message, None when only its header is to be
    returned. ``is_global``: the original came with SMTPUTF8, so may the report.
    """

    kind: Kind
    hostname: str
    sender: Address
    fates: tuple[Fate, ...]
    token: str
    now: int
    received_at: int
    queue_id: str = ""
    retry_until: int = 0
    envid: str = ""
    is_global: bool = False
    header: bytes = b""
    whole: bytes | None = None


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """Text on one line, without anything invisible; at most ``limit`` characters.

    Controls, line breaks of any alphabet and marks that turn the direction of writing are gone:
    what is read is what was said.
    """
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def to_ascii(text: str) -> str:
    """The same with ``?`` for what is not printable ASCII."""
    return _NOT_ASCII.sub("?", text)
