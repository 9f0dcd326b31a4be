"""What senders are told of their messages: bounces, delay warnings, reports of success.

The runner asks :meth:`Reports.of` what it owes for the attempts that it is about to record,
and records the answer with them in one transaction: no bounce is lost and none leaves twice.
A report is a letter like any other; it comes into a local mailbox or into the queue.

RFC 3461 §5.2, §6; RFC 3464; RFC 8689 §5.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from twisted.logger import Logger

from mailtwist.errors import ProtocolViolation, StoreUnavailable
from mailtwist.mail import dsn
from mailtwist.mail.address import Address, parse_path
from mailtwist.mail.dsn import MAX_HEADER, MAX_RETURNED, Action, Fate, Kind, Report
from mailtwist.mail.dsn.original import header_of, may_return_whole
from mailtwist.store import content
from mailtwist.store.deliver import Acceptance
from mailtwist.store.engine import Connection
from mailtwist.store.ids import now_us
from mailtwist.store.queue.values import (
    BINARYMIME,
    LOCAL,
    Attempt,
    Message,
    Notify,
    Outcome,
    Recipient,
)

log = Logger()

# What the sender must have asked for, and whether silence asks for it (RFC 3461 §4.1).
_ASKED: Final = {
    Kind.FAILURE: (Notify.FAILURE, True),
    Kind.DELAY: (Notify.DELAY, True),
    Kind.SUCCESS: (Notify.SUCCESS, False),
}
# Where no server was spoken to, whatever an attempt says of hosts.
_ALONE: Final = frozenset({"", "dns", "connect"})

# Shorter local parts are words of every reply, and tell nobody anything.
_TELLING: Final = 3

Due = dict[Kind, list[Fate]]


class Settings(Protocol):
    @property
    def hostname(self) -> str: ...


class Intake(Protocol):
    async def prepare(
        self,
        letter: bytes,
        *,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        hostname: str = "",
        notify: Notify = Notify.UNSET,
        smtputf8: bool = False,
        requiretls: bool = False,
        is_report: bool = False,
    ) -> Acceptance | None:
        """A letter of our own, ready to be written; None: nobody would get it."""

    async def is_local(self, domain: str) -> bool:
        """Whether mail for a domain stays here."""


class Store(Protocol):
    async def read(self, work: Callable[[Connection], Any]) -> Any: ...


class Reports:
    """``token``: makes letters and digits that nobody can guess."""

    def __init__(
        self,
        database: Store,
        intake: Intake,
        *,
        settings: Settings,
        now: Callable[[], int] = now_us,
        token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._database = database
        self._intake = intake
        self._now = now
        self._token = token
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take other settings for the reports to come."""
        self._hostname = settings.hostname

    async def of(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        *,
        relayed_to_dsn: bool = False,
        header: bytes | None = None,
    ) -> tuple[Acceptance, ...]:
        """The reports that are owed for these attempts, at most one of a kind.

        ``relayed_to_dsn``: the next hop announced DSN, so that reports of success are its duty.
        ``header``: the start of a message whose content is not stored yet. Raises: MailError
        when the store cannot be read; then nothing is owed less than before.
        """
        due = _due(message, attempts, relayed_to_dsn)
        if not due:
            return ()
        sender = _sender(message)
        if sender is None:
            _log_unreported(message, due)
            return ()
        reports = []
        for kind, fates in due.items():
            acceptance = await self._report(message, sender, kind, fates, header)
            if acceptance is not None:
                reports.append(acceptance)
        return tuple(reports)

    async def _report(
        self,
        message: Message,
        sender: Address,
        kind: Kind,
        fates: list[Fate],
        header: bytes | None,
    ) -> Acceptance | None:
        report = Report(
            kind,
            message.hostname or self._hostname,
            sender,
            tuple(fates),
            self._token(),
            now=self._now(),
            received_at=message.received_at,
            queue_id=str(message.queue_id),
            retry_until=message.expires_at,
            envid=message.envid,
            is_global=message.smtputf8,
        )
        original = await self._original(message, sender, kind, header)
        letter = _compose(report, *original)
        # RFC 3461 §6.1: from the null reverse-path, and never reported on in turn.
        acceptance = await self._intake.prepare(
            letter,
            reverse_path=None,
            recipients=[sender],
            hostname=message.hostname,
            notify=Notify.NEVER,
            smtputf8=not str(sender).isascii(),
            # RFC 8689 §5: a report leaves as its message was to.
            requiretls=message.requiretls,
            is_report=True,
        )
        self._log(message, report, acceptance)
        return acceptance

    def _log(self, message: Message, report: Report, acceptance: Acceptance | None) -> None:
        log.info(
            "report made" if acceptance is not None else "report has no recipient",
            queue_id=str(message.queue_id),
            report=str(report.kind),
            reverse_path=message.reverse_path,
            recipients=len(report.fates),
        )

    # -- the original -----------------------------------------------------------------------

    async def _original(
        self, message: Message, sender: Address, kind: Kind, header: bytes | None
    ) -> tuple[bytes, bytes | None]:
        """Its header, and the whole of it when that is to be returned."""
        may_be_whole = _returns_whole(message, kind)
        end = message.octets if may_be_whole else MAX_HEADER
        start = header if header is not None else await self._read(message, end)
        if start is None:  # the content is gone: the rest of the report still tells
            return message.prefix, None
        whole = message.prefix + start
        may_be_whole = may_be_whole and header is None and may_return_whole(whole)
        if may_be_whole and await self._arrives_whole(message, sender, whole):
            return header_of(whole), whole
        return header_of(whole), None

    async def _arrives_whole(self, message: Message, sender: Address, whole: bytes) -> bool:
        # RFC 6152 §3: on its way a host without 8BITMIME may refuse it, and nobody is told of a
        # report that was refused.
        if whole.isascii() or message.ret == "FULL":
            return True
        return await self._intake.is_local(sender.domain)

    async def _read(self, message: Message, end: int) -> bytes | None:
        def work(connection: Connection) -> bytes | None:
            try:
                return content.read(connection, message.content_id, 0, end)
            except StoreUnavailable:
                return None  # said by content.read itself: there is no such content

        found: bytes | None = await self._database.read(work) if message.content_id else None
        return found


def _returns_whole(message: Message, kind: Kind) -> bool:
    # RFC 3461 §4.3: RET=FULL concerns failures only. RFC 8689 §5: what needed secrecy is not
    # sent back in a report.
    if kind is not Kind.FAILURE or message.ret == "HDRS" or message.requiretls:
        return False
    if message.body == BINARYMIME:
        return False
    return len(message.prefix) + message.octets <= MAX_RETURNED


def _compose(report: Report, header: bytes, whole: bytes | None) -> bytes:
    try:
        return dsn.compose(replace(report, header=header, whole=whole))
    except Exception:
        # Our bug; the sender is told all the same.
        log.failure("report made without the original", queue_id=report.queue_id)
        return dsn.compose(report)


# -- what is owed -------------------------------------------------------------------------------


def _due(message: Message, attempts: Sequence[Attempt], relayed_to_dsn: bool) -> Due:
    due: Due = {}
    recipients: dict[int, Recipient] = {}
    for attempt in attempts:
        kind = _kind(attempt)
        # Nearly every attempt ends here: delivered, and nobody asked to be told.
        if kind is None:
            continue
        recipients = recipients or {each.n: each for each in message.recipients}
        recipient = recipients.get(attempt.n)
        if recipient is None or not is_asked(kind, recipient.notify):
            continue
        # RFC 3461 §5.2.2: who announced DSN was handed NOTIFY, and reports by itself.
        if kind is Kind.SUCCESS and relayed_to_dsn:
            continue
        due.setdefault(kind, []).append(_fate(recipient, attempt, kind))
    return due


def _kind(attempt: Attempt) -> Kind | None:
    if attempt.outcome is Outcome.DELIVERED:
        return Kind.SUCCESS
    if attempt.outcome is Outcome.FAILED:
        return Kind.FAILURE
    return Kind.DELAY if attempt.is_warned else None


def is_asked(kind: Kind, notify: Notify) -> bool:
    """Whether a sender wants a report of this kind (RFC 3461 §4.1)."""
    flag, by_default = _ASKED[kind]
    return bool(notify & flag) if notify else by_default


def _fate(recipient: Recipient, attempt: Attempt, kind: Kind) -> Fate:
    is_forwarded = bool(recipient.forwarded_by)
    was_tried = attempt.is_counted and bool(attempt.stage)
    was_alone = attempt.stage in _ALONE
    address = recipient.original or recipient.address
    return Fate(
        address=address,
        action=_action(recipient, attempt, kind),
        code=attempt.code,
        status=attempt.status,
        text=_discreet(attempt.text, recipient, address) if is_forwarded else attempt.text,
        is_ours=attempt.is_ours or was_alone,
        stage=attempt.stage,
        orcpt=recipient.orcpt,
        # RFC 3464 §4.2: whom an alias leads to is not the sender's to know.
        remote="" if is_forwarded or was_alone else attempt.host,
        remote_address="" if is_forwarded or was_alone else attempt.address,
        attempts=recipient.attempts + was_tried,
        attempted_at=attempt.ended_at if was_tried else 0,
        is_expired=kind is Kind.FAILURE and attempt.code < 500,
        is_forwarded=is_forwarded,
    )


def _action(recipient: Recipient, attempt: Attempt, kind: Kind) -> Action:
    if kind is Kind.SUCCESS:
        # Behind LMTP lies the mailbox itself; every other next hop may have more of its own.
        is_final = not attempt.host or recipient.destination == LOCAL
        return Action.DELIVERED if is_final else Action.RELAYED
    return Action.FAILED if kind is Kind.FAILURE else Action.DELAYED


def _discreet(text: str, recipient: Recipient, address: str) -> str:
    """A reply without the address that an alias led to, nor its domain or local part."""
    local_part, _, domain = recipient.address.rpartition("@")
    names = [recipient.address, domain]
    if len(local_part) >= _TELLING:
        names.append(local_part)
    hidden = "|".join(map(re.escape, names))
    return re.sub(
        rf"(?<!\w)(?:{hidden})(?!\w)",
        lambda match: address if "@" in match[0] else "...",
        text,
        flags=re.IGNORECASE,
    )


def _sender(message: Message) -> Address | None:
    """Whom to tell; None: nobody (RFC 5321 §4.5.5)."""
    if not message.reverse_path:
        return None
    path = f"<{message.reverse_path}>".encode("utf-8", "replace")
    try:
        return parse_path(path, smtputf8=True)[0]
    except ProtocolViolation:
        return None


def _log_unreported(message: Message, due: Due) -> None:
    for fate in due.get(Kind.FAILURE, ()):
        log.warn(
            "double bounce",
            queue_id=str(message.queue_id),
            recipient=fate.address,
            code=fate.code,
            status=fate.status,
            reply=fate.text,
        )
