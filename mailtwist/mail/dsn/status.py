"""The part for programs: message/delivery-status (RFC 3464 §2), or its kin of RFC 6533."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from mailtwist.mail.dsn.values import Action, Fate, Kind, Report, printable, to_ascii
from mailtwist.mail.header import fold_line
from mailtwist.mail.trace import clean_helo, date_time

# Of one field's value; RFC 5322 §2.1.1 allows lines of 998.
_MAX_OCTETS: Final = 900

_STATUS = re.compile(r"([245])\.\d{1,3}\.\d{1,3}")
# RFC 3464 §2.3.4 with §2.3.3: which classes go with what was done. A message that is given up
# after temporary failures failed with a status of class 4 (RFC 3463 §3.5, X.4.7).
_CLASSES: Final = {
    Action.FAILED: "54",
    Action.DELAYED: "4",
    Action.DELIVERED: "2",
    Action.RELAYED: "2",
}
EXPIRED: Final = "4.4.7"

# RFC 6533 §3: what is written as \x{..} in an address of type utf-8.
_NOT_UNITEXT = re.compile(r"[\x00-\x20\\+=\x7f]")
_NOT_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")
_EMBEDDED = re.compile(r"\\x\{(0?[0-9A-Fa-f]{2,5}|10[0-9A-Fa-f]{4})\}")
_NOT_IN_TYPE = re.compile(r"[^A-Za-z0-9.-]")


def status_fields(report: Report) -> bytes:
    """The fields of the message, then those of each recipient, blank lines between."""
    groups = [_of_message(report)]
    groups += [_of_recipient(report, fate) for fate in report.fates]
    return b"\r\n".join(b"".join(_lines(group, report.is_global)) for group in groups)


def _lines(fields: Iterable[tuple[str, str]], is_global: bool) -> Iterator[bytes]:
    for name, value in fields:
        line = f"{name}: {value if is_global else to_ascii(value)}".encode("utf-8", "replace")
        if len(line) > _MAX_OCTETS:
            line = line[:_MAX_OCTETS].decode("utf-8", "ignore").encode()
        yield fold_line(line)


def _of_message(report: Report) -> Iterator[tuple[str, str]]:
    if report.envid:
        yield "Original-Envelope-Id", printable(report.envid)
    yield "Reporting-MTA", f"dns; {clean_helo(report.hostname)}"
    yield "Arrival-Date", date_time(report.received_at / 1_000_000)
    if report.queue_id:
        yield "X-Mailtwist-Queue-Id", printable(report.queue_id)


def _of_recipient(report: Report, fate: Fate) -> Iterator[tuple[str, str]]:
    # RFC 3461 §6.3: without an ORCPT there is no Original-Recipient.
    if fate.orcpt:
        yield "Original-Recipient", _original_recipient(fate.orcpt, report.is_global)
    # RFC 3464 §2.3.2: the address as it was when we accepted the message.
    yield "Final-Recipient", typed_address(fate.address, report.is_global)
    yield "Action", str(fate.action)
    yield "Status", status_of(fate)
    if fate.remote:
        yield "Remote-MTA", f"dns; {clean_helo(fate.remote)}"
    if diagnostic := _diagnostic(fate):
        yield "Diagnostic-Code", diagnostic
    if fate.attempted_at:
        yield "Last-Attempt-Date", date_time(fate.attempted_at / 1_000_000)
    if report.kind is Kind.DELAY and report.retry_until:
        yield "Will-Retry-Until", date_time(report.retry_until / 1_000_000)


def status_of(fate: Fate) -> str:
    """The enhanced status that agrees with the action, whatever a server said."""
    if fate.is_expired:
        return EXPIRED
    classes = _CLASSES[fate.action]
    match = _STATUS.fullmatch(fate.status)
    if match is not None and match[1] in classes:
        return fate.status
    return f"{classes[0]}.0.0"


def says_nothing(status: str) -> bool:
    """Whether a status holds no more than the first digit of the code."""
    return not status or status.endswith(".0.0")


def quoted_reply(fate: Fate) -> str:
    """The reply on one line, as it was said."""
    # The status of the expiry is ours; the reply that is kept beside it had another.
    is_own = not (fate.is_expired and fate.status == EXPIRED)
    # Nor is one without a meaning worth a quotation: most of these servers said none.
    status = fate.status if is_own and not says_nothing(fate.status) else ""
    text = fate.text.strip()
    words = (str(fate.code) if fate.code else "", "" if text.startswith(status) else status, text)
    return printable(" ".join(word for word in words if word))


def _diagnostic(fate: Fate) -> str:
    if fate.action in {Action.DELIVERED, Action.RELAYED} and fate.is_ours:
        return ""
    if not fate.is_ours and fate.code:
        return f"smtp; {quoted_reply(fate)}"
    # RFC 3464 §2.3.6: type smtp is for replies of SMTP servers; this text is our own.
    text = printable(fate.text)
    return f"X-Mailtwist; {text}" if text else ""


def typed_address(address: str, is_global: bool) -> str:
    """An address with its type: rfc822, or utf-8 in the form that the report can carry."""
    address = printable(address)
    if address.isascii():
        return f"rfc822; {address}"
    return f"utf-8; {_embed(address, is_global)}"


def _embed(address: str, is_global: bool) -> str:
    outside = _NOT_UNITEXT if is_global else _NOT_XTEXT
    return outside.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)


def _original_recipient(orcpt: str, is_global: bool) -> str:
    kind, separator, value = orcpt.partition(";")
    if not separator:
        kind, value = "rfc822", orcpt
    kind = _NOT_IN_TYPE.sub("", kind.strip())[:40] or "rfc822"
    if kind.lower() == "utf-8":
        value = _EMBEDDED.sub(_character, value)
        return f"utf-8; {_embed(printable(value), is_global)}"
    if value.isascii():
        return f"{kind}; {printable(value)}"
    return typed_address(value, is_global)


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return "?" if 0xD800 <= code < 0xE000 else chr(code)
