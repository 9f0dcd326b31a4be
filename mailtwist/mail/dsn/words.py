"""The part for people: what happened, to whom, why, and what they can do.

Whoever reads a bounce is worried and no engineer. So the first sentence says what happened;
the reason comes in plain words, then what the other server really said, for who can use it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Final

from mailtwist.mail.dsn.reasons import reason_for
from mailtwist.mail.dsn.status import EXPIRED, quoted_reply, says_nothing, status_of
from mailtwist.mail.dsn.values import Action, Fate, Report, printable
from mailtwist.mail.trace import clean_helo, date_time

_WIDTH: Final = 72
# Of a reply that is told with the status of the expiry instead of its own.
_OWN_STATUS = re.compile(r"4\.\d{1,3}\.\d{1,3}\b")
_UNREACHED: Final = "4.4.0"
_BY_COMMAND: Final = {
    ("rcpt", 450): "4.2.0",
    ("rcpt", 452): "4.3.1",
    ("rcpt", 550): "5.1.0",
    ("rcpt", 551): "5.1.6",
    ("rcpt", 552): "5.2.2",
    ("rcpt", 553): "5.1.3",
    ("mail", 552): "5.3.4",
    ("data", 552): "5.3.4",
    ("end", 552): "5.3.4",
}
_MAX_GROUPS: Final = 20
_RULE: Final = "-" * 24
_US_SECOND: Final = 1_000_000
_UNITS: Final = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))

_FIRST: Final = {
    Action.FAILED: "Your message was NOT delivered to {whom}:",
    Action.DELAYED: "Your message has not been delivered YET to {whom}:",
    Action.DELIVERED: "As you asked to be told: your message was delivered to {whom}:",
    Action.RELAYED: "As you asked to be told: your message was handed on towards {whom}:",
}


def write(report: Report, *, subject: str = "") -> str:
    """The whole text, lines of up to 72 characters where words allow it, ended by LF."""
    paragraphs: list[str] = []
    groups = _groups(report)
    for group in groups[:_MAX_GROUPS]:
        paragraphs += [*_of_group(report, group), _RULE]
    if rest := groups[_MAX_GROUPS:]:
        paragraphs += [_of_rest(rest), _RULE]
    paragraphs += _about_message(report, subject)
    return "\n\n".join(paragraphs) + "\n"


def _groups(report: Report) -> list[tuple[Fate, ...]]:
    """Recipients of whom the same is to be said, together."""
    groups: dict[tuple[object, ...], list[Fate]] = {}
    for fate in report.fates:
        reason = reason_for(_cause(fate))
        # Where the words name the domain, those of one domain stand together.
        domain = _domain(fate) if "{domain}" in "".join(reason) else ""
        key = (fate.action, reason, domain, fate.code, fate.text, fate.remote, fate.is_expired)
        groups.setdefault(key, []).append(fate)
    return [tuple(group) for group in groups.values()]


def _domain(fate: Fate) -> str:
    if fate.is_forwarded:
        # Where an alias leads is its owner's secret.
        return "the place it is forwarded to"
    return printable(fate.address.rpartition("@")[2]) or "the recipient"


def _of_group(report: Report, group: tuple[Fate, ...]) -> Iterator[str]:
    fate = group[0]
    # An alias that leads to several others may have failed at each of them.
    addresses = tuple(dict.fromkeys(printable(each.address) for each in group))
    whom = "this recipient" if len(addresses) == 1 else f"these {len(addresses)} recipients"
    yield _FIRST[fate.action].format(whom=whom)
    yield "\n".join(f"    {address}" for address in addresses)
    yield from _SAYINGS[fate.action](report, fate)


def _of_rest(groups: list[tuple[Fate, ...]]) -> str:
    """The others in short: nobody reads a hundred explanations, and they take time to write."""
    lines = [
        f"    {printable(fate.address)}: {quoted_reply(fate)}" for group in groups for fate in group
    ]
    return "\n".join(["The same happened with these:", "", *lines])


def _failed(report: Report, fate: Fate) -> Iterator[str]:
    reason = reason_for(_cause(fate))
    yield _wrap("Why: ", reason.why.format(domain=_domain(fate)))
    if fate.is_expired:
        yield _wrap("", _gave_up(report, fate))
    yield from _quotation(fate)
    yield _wrap("What you can do: ", reason.advice.format(domain=_domain(fate)))


def _delayed(report: Report, fate: Fate) -> Iterator[str]:
    reason = reason_for(_cause(fate))
    yield "You need not do anything. Please do not send the message again."
    yield _wrap("Why: ", reason.why.format(domain=_domain(fate)))
    yield from _quotation(fate)
    until = f" until {_moment(report.retry_until)}" if report.retry_until else ""
    promise = f"We go on trying{until}, and tell you when we have to give up."
    yield _wrap("What happens next: ", promise)


def _delivered(report: Report, fate: Fate) -> Iterator[str]:
    yield "It lies in the mailbox now. Whether it was read is not known."


def _relayed(report: Report, fate: Fate) -> Iterator[str]:
    host = f" {clean_helo(fate.remote)}" if fate.remote else ""
    text = (
        f"The mail server{host} took it and is responsible for it now. It sends no reports of"
        " success, so this is the last that you hear of it, unless it fails there."
    )
    yield _wrap("", text)


_SAYINGS: Final = {
    Action.FAILED: _failed,
    Action.DELAYED: _delayed,
    Action.DELIVERED: _delivered,
    Action.RELAYED: _relayed,
}


def _cause(fate: Fate) -> str:
    """The status that tells why: of a message that was given up, the last server's own."""
    if not fate.code and not fate.status:
        return _UNREACHED
    status = status_of(fate)
    if fate.is_expired:
        match = _OWN_STATUS.match(fate.text)
        status = match[0] if match is not None else fate.status or EXPIRED
    # Of a server that says no status the code and the command tell as much.
    return _BY_COMMAND.get((fate.stage, fate.code), status) if says_nothing(status) else status


def _gave_up(report: Report, fate: Fate) -> str:
    waited = _duration(report.now - report.received_at)
    if not fate.attempts:
        return f"It waited for {waited} and could not be tried in that time."
    times = "once" if fate.attempts == 1 else f"{fate.attempts} times"
    return f"We tried {times} in {waited} and have given up; nothing further is tried."


def _quotation(fate: Fate) -> Iterator[str]:
    """What was said, and by whom."""
    said = quoted_reply(fate)
    if not fate.text:
        return
    server = f"The mail server {_host(fate)}" if fate.remote else "The other mail server"
    if not fate.is_ours and fate.code:
        yield _wrap("", f"{server} answered:")
    elif fate.remote:
        yield _wrap("", f"With the mail server {_host(fate)} our own met this:")
    else:
        yield "Our own mail server noted:"
    yield "\n".join(_indented(said))


def _host(fate: Fate) -> str:
    address = f" ({printable(fate.remote_address, 60)})" if fate.remote_address else ""
    return f"{clean_helo(fate.remote)}{address}"


def _indented(text: str) -> list[str]:
    # A long address or link stays whole: who copies it needs all of it.
    return [
        f"    {line}"
        for line in textwrap.wrap(text, _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    ]


def _about_message(report: Report, subject: str) -> Iterator[str]:
    rows = [("Subject", subject), ("Sent", _moment(report.received_at))]
    if report.envid:
        rows.append(("Your reference", printable(report.envid, 100)))
    if report.queue_id:
        rows.append(("Our reference", printable(report.queue_id, 40)))
    rows.append(("Our mail server", clean_helo(report.hostname)))
    about = "\n".join(f"    {f'{name}:':<17}{value}" for name, value in rows if value)
    yield f"The message that this is about:\n\n{about}"
    if report.whole is not None:
        yield "It is attached as it was."
    elif report.header:
        yield "Its header is attached."


def _wrap(start: str, text: str) -> str:
    return textwrap.fill(start + text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _moment(at: int) -> str:
    return date_time(at / _US_SECOND).replace("+0000", "UTC")


def _duration(length: int) -> str:
    """``3 days``, ``90 minutes``: the largest unit of which there are two, or one exactly."""
    seconds = max(length // _US_SECOND, 1)
    for name, unit in _UNITS:
        if seconds >= 2 * unit or seconds == unit:
            count = seconds // unit
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "a second"
