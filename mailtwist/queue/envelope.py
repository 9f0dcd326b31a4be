"""A transaction as intake sees it: what MAIL and RCPT said, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mailtwist.mail.address import Address
from mailtwist.policy.checks import PASS, Verdict
from mailtwist.store.directory import Foreign, Target
from mailtwist.store.queue.values import Notify


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: ``reverse_path`` None is the null path; ``size`` 0: none was declared.

    ``body`` is 7BIT, 8BITMIME or BINARYMIME, ``ret`` "", FULL or HDRS; ``envid`` is decoded.
    ``submitter``: AUTH=, decoded; "<>": unknown. ``is_extended``: it had parameters that only
    EHLO allows.
    """

    reverse_path: Address | None
    size: int = 0
    body: str = "7BIT"
    submitter: str | None = None
    ret: str = ""
    envid: str = ""
    smtputf8: bool = False
    requiretls: bool = False
    is_extended: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward-path that was accepted, and whom it stands for. ``orcpt``: type;address."""

    address: Address
    targets: Sequence[Target | Foreign]
    notify: Notify = Notify.UNSET
    orcpt: str = ""


@dataclass(slots=True)
class Envelope:
    """The transaction that MAIL began."""

    mail: Mail
    recipients: list[Recipient] = field(default_factory=list)

    @property
    def reverse_path(self) -> Address | None:
        return self.mail.reverse_path


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message came from: what the trace fields and the log say of it."""

    hostname: str
    session_id: str
    client_address: str
    helo: str
    protocol: str  # of the registry of RFC 3848: ESMTPSA and the like
    is_tls: bool
    is_sandbox: bool = False  # dev_mode: the log may say whom it is for and what about
    account_id: int = 0  # of the login, where it is one of ours
    is_authenticated: bool = False  # a submission (RFC 6409)
    may_relay: bool = False  # a login, or a client of allowed_relays: we vouch for its mail
    verdict: Verdict = PASS  # of the checks before the message


@dataclass(frozen=True, slots=True)
class Author:
    """Whose message it is: the name we greet with for it, the submitter, his wish for a copy."""

    hostname: str
    account_id: int = 0
    has_copy: bool = False
    is_login: bool = False  # known to own the reverse-path, and nothing of the header
