"""The one error tree, with what each leaf means on the wire.

===================  ===============  =======================  =====
class                SMTP             IMAP                     HTTP
===================  ===============  =======================  =====
Refusal              5xx              NO                       4xx
  NotFound           550 5.1.1        NO [NONEXISTENT]         404
  Conflict           550 5.5.0        NO [ALREADYEXISTS]       409
TemporaryFailure     4xx              NO [UNAVAILABLE]         503
  OverQuota          452 4.2.2        NO [OVERQUOTA]           507
  StoreUnavailable   451 4.3.0        NO [UNAVAILABLE]         503
  StoreFull          452 4.3.1        NO [UNAVAILABLE]         507
ProtocolViolation    50x              BAD                      400
ExpressionError      554 5.6.0        NO                       400
ConfigError          (start refused: the text names the key)
===================  ===============  =======================  =====

``text`` is public: it goes to the peer. ``detail`` goes to the log only. Any
exception outside this tree that reaches the top of a command is our bug.
"""

from __future__ import annotations

from typing import ClassVar


class MailError(Exception):
    """The root. Codes default to the class's own and can be set per instance."""

    code: int = 451
    status: str = "4.3.0"
    imap_code: str = ""
    http_status: int = 500
    default_text: ClassVar[str] = "Internal error"

    def __init__(
        self,
        text: str = "",
        *,
        detail: str = "",
        code: int | None = None,
        status: str | None = None,
        imap_code: str | None = None,
    ) -> None:
        self.text = text or self.default_text
        self.detail = detail
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        if imap_code is not None:
            self.imap_code = imap_code
        super().__init__(f"{self.text} ({detail})" if detail else self.text)


class Refusal(MailError):
    """The peer may not, for good."""

    code = 550
    status = "5.7.1"
    http_status = 403
    default_text = "Refused"


class NotFound(Refusal):
    """What was named does not exist."""

    status = "5.1.1"
    imap_code = "NONEXISTENT"
    http_status = 404
    default_text = "Not found"


class Conflict(Refusal):
    """What was to be made exists already, or the change contradicts what is there."""

    status = "5.5.0"
    imap_code = "ALREADYEXISTS"
    http_status = 409
    default_text = "Already exists"


class TemporaryFailure(MailError):
    """Not now; the same request may succeed later."""

    imap_code = "UNAVAILABLE"
    http_status = 503
    default_text = "Try again later"


class OverQuota(TemporaryFailure):
    """The account's limit of octets or messages would be passed."""

    code = 452
    status = "4.2.2"
    imap_code = "OVERQUOTA"
    http_status = 507
    default_text = "Mailbox full"


class StoreUnavailable(TemporaryFailure):
    """The database cannot be read or written: locked, read-only, gone."""

    default_text = "Store unavailable, try again later"


class StoreFull(TemporaryFailure):
    """No room on the disk, or the write-ahead log is at its bound."""

    code = 452
    status = "4.3.1"
    http_status = 507
    default_text = "Insufficient system storage"


class ProtocolViolation(MailError):
    """The peer broke the grammar or the order of commands."""

    code = 501
    status = "5.5.4"
    http_status = 400
    default_text = "Syntax error"


class ExpressionError(MailError):
    """An expression of an action is wrong; the text says which and why."""

    code = 554
    status = "5.6.0"
    http_status = 400
    default_text = "Wrong expression"


class ExpressionLimit(ExpressionError):
    """An expression went beyond a bound or reached for what it may not have."""


class ConfigError(MailError):
    """The configuration cannot be used; the text names the key."""

    http_status = 400
    default_text = "Configuration error"
