"""What the queue's rows are to everybody else: frozen values.

Times are integer microseconds, addresses are in their wire form, an empty
``reverse_path`` is the null path.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

# The destination of local recipients that an LMTP server takes (delivery.mode).
LOCAL: Final = "@local"
# What begins the destination of recipients that leave by SES; the rest is the reference id of
# the credential.
SES: Final = "ses:"
# A body of any octets, which may have no lines (RFC 3030 §3).
BINARYMIME: Final = "BINARYMIME"


class State(IntEnum):
    """Of a recipient. From DELIVERED on it is finished."""

    WAITING = 0
    LEASED = 1  # a node is at work on it
    HELD = 2
    DELIVERED = 3
    FAILED = 4


class Notify(IntFlag):
    """RFC 3461 §4.1; UNSET: the sender said nothing."""

    UNSET = 0
    SUCCESS = 1
    FAILURE = 2
    DELAY = 4
    NEVER = 8


class Priority(IntEnum):
    """Which of the due recipients of a destination go first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message in the queue.

    ``address``: whom the next hop is told. ``destination``: what is looked up and backs off as
    a whole: the address's domain in A-labels, its literal (``[192.0.2.1]``), :data:`LOCAL`, or
    a credential's behind :data:`SES`.
    ``original``: the forward-path that the client gave, where it is another address.
    ``forwarded_by``: the local address whose alias leads here; the reverse-path is rewritten
    (SRS) for such a one. ``orcpt``: decoded, with its type (``rfc822;user@example.com``).
    """

    n: int
    address: str
    destination: str
    original: str = ""
    forwarded_by: str = ""
    orcpt: str = ""
    notify: Notify = Notify.UNSET
    attempts: int = 0
    was_warned: bool = False
    # What the last attempt came to, for a report about one that is not tried again:
    code: int = 0
    status: str = ""
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Rows that are leased to a node from the moment they are written."""

    node_id: int
    until: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message in the queue, with those of its recipients that are meant.

    ``queue_id`` is what the client was told ("queued as"). ``prefix`` stands before the
    content. ``hostname``: the name to greet the next hop with ("": the server's). ``account_id``
    is the submitter's (0: none). ``ret`` is "", FULL or HDRS; ``body`` is 7BIT, 8BITMIME or
    BINARYMIME. ``attend_at``: when a delay must be reported or the message expires, whichever
    is first; ``expires_at``: when it is returned.
    """

    queue_id: int
    reverse_path: str
    recipients: tuple[Recipient, ...]
    received_at: int
    expires_at: int
    attend_at: int
    prefix: bytes = b""
    hostname: str = ""
    account_id: int = 0
    envid: str = ""
    ret: str = ""
    body: str = "7BIT"
    smtputf8: bool = False
    requiretls: bool = False
    priority: Priority = Priority.NORMAL
    # Known once it is stored:
    content_id: int = 0
    octets: int = 0  # of the content, without the prefix
    header_octets: int = 0  # of the content's header block, its blank line counted


class Outcome(IntEnum):
    """What an attempt came to, for one recipient."""

    DELIVERED = 1
    DEFERRED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried for one recipient, and what the other side said.

    ``code`` 0: nobody answered. ``stage``: where it ended (dns, connect, greeting, ehlo,
    starttls, auth, mail, rcpt, data, end). ``tls``: facts for people ("TLSv1.3
    TLS_AES_256_GCM_SHA384 verified"), "" without TLS. ``due_at``: of the next attempt, when
    DEFERRED. ``is_counted`` False: nothing was tried (shutdown); attempts are not raised and no
    row tells of it. ``is_warned``: a delay report leaves with this. ``is_ours``: the text is
    our own, the other side said nothing (as in queue.values.RemoteReply).
    """

    n: int
    outcome: Outcome
    code: int
    status: str
    text: str
    stage: str = ""
    host: str = ""
    address: str = ""  # "192.0.2.1:25", "[2001:db8::1]:25"
    tls: str = ""
    started_at: int = 0
    ended_at: int = 0
    due_at: int = 0
    is_counted: bool = True
    is_warned: bool = False
    is_ours: bool = False
