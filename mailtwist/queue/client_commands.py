"""What we say to a next hop: MAIL and RCPT with the parameters that it announced.

RFC 5321 §4.1.1; RFC 1870; RFC 6152; RFC 3030; RFC 3461 §4; RFC 6531; RFC 6533; RFC 8689.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mailtwist.queue.values import Outgoing, OutgoingRecipient, RemoteReply
from mailtwist.store.queue.values import BINARYMIME, Notify

# RFC 5321 §4.5.3.1.8: so many a server must take.
MAX_RECIPIENTS: Final = 100

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 3461 §4: what stands for itself in xtext is "!" to "~" without "+" and "=".
_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")

NO_SMTPUTF8: Final = RemoteReply(
    553, "5.6.7", "The next hop does not take addresses or headers beyond ASCII", "mail", True
)
NO_8BITMIME: Final = RemoteReply(
    554, "5.6.3", "The next hop does not take 8-bit content, which would have to change", "mail",
    True,
)  # fmt: skip
NO_REQUIRETLS: Final = RemoteReply(
    550, "5.7.30", "REQUIRETLS support required by the sender, not given by the next hop", "mail",
    True,
)  # fmt: skip
BAD_ADDRESS: Final = RemoteReply(
    553, "5.1.3", "The address holds control characters", "rcpt", True
)  # fmt: skip
BAD_SENDER: Final = RemoteReply(
    553, "5.1.7", "The sender's address holds control characters", "mail", True
)
BARE_LINE_END: Final = RemoteReply(
    550, "5.6.11", "The content holds a bare CR or LF and may not be sent", "data", True
)
SHORT_CONTENT: Final = RemoteReply(
    451, "4.3.0", "The content could not be read whole", "data", True
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Features:
    """What a next hop announced, read once for all messages of a session."""

    pipelining: bool = False
    chunking: bool = False
    eightbit: bool = False
    binary: bool = False
    smtputf8: bool = False
    dsn: bool = False
    requiretls: bool = False
    size: int | None = None  # announced; 0: without a limit
    recipients: int = MAX_RECIPIENTS  # in one transaction

    @classmethod
    def of(cls, capabilities: Mapping[str, str]) -> Features:
        size = capabilities.get("SIZE")
        return cls(
            pipelining="PIPELINING" in capabilities,
            chunking="CHUNKING" in capabilities,
            eightbit="8BITMIME" in capabilities,
            binary="BINARYMIME" in capabilities and "CHUNKING" in capabilities,
            smtputf8="SMTPUTF8" in capabilities,
            dsn="DSN" in capabilities,
            requiretls="REQUIRETLS" in capabilities,
            size=None if size is None else _number(size),
            recipients=_recipients(capabilities.get("LIMITS", "")),
        )


def _number(text: str) -> int:
    """A number of a stranger; 0 where there is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _recipients(limits: str) -> int:
    """RFC 9422 §4.2"""
    for word in limits.upper().split():
        name, _, value = word.partition("=")
        if name == "RCPTMAX":
            return min(_number(value), MAX_RECIPIENTS) or MAX_RECIPIENTS
    return MAX_RECIPIENTS


def refusal(mail: Outgoing, features: Features, *, is_secure: bool) -> RemoteReply | None:
    """Why this next hop can't have this message, whoever its recipients are."""
    if has_controls(mail.reverse_path):
        return BAD_SENDER
    # RFC 8689 §4.2.1
    if mail.requiretls and not (is_secure and features.requiretls):
        return NO_REQUIRETLS
    # RFC 1870 §6.1
    if features.size and mail.octets > features.size:
        text = f"The message has {mail.octets} octets, the next hop takes {features.size}"
        return RemoteReply(552, "5.3.4", text, "mail", True)
    if not features.smtputf8 and (mail.smtputf8 or not mail.reverse_path.isascii()):
        return NO_SMTPUTF8
    # RFC 3030 §3: never converted, it would change what was signed.
    if mail.body == BINARYMIME and not features.binary:
        return NO_8BITMIME
    return None


def recipient_refusal(recipient: OutgoingRecipient, features: Features) -> RemoteReply | None:
    """Why this next hop can't have this recipient."""
    if has_controls(recipient.address):
        return BAD_ADDRESS
    if not features.smtputf8 and not recipient.address.isascii():
        return NO_SMTPUTF8
    return None


def has_controls(address: str) -> bool:
    """Whether the address could forge a command line."""
    return not address.isprintable() and _CONTROLS.search(address) is not None


def mail_command(mail: Outgoing, features: Features, *, is_8bit: bool, needs_utf8: bool) -> bytes:
    """``is_8bit``: of the content, as declared or seen; ``needs_utf8``: of any path or header."""
    words = [f"MAIL FROM:<{mail.reverse_path}>"]
    if features.size is not None:
        words.append(f"SIZE={mail.octets}")
    if mail.body == BINARYMIME:
        words.append("BODY=BINARYMIME")
    elif is_8bit and features.eightbit:
        words.append("BODY=8BITMIME")
    if needs_utf8:
        words.append("SMTPUTF8")
    if features.dsn:
        if mail.ret:
            words.append(f"RET={mail.ret}")
        if mail.envid:
            words.append(f"ENVID={xtext(mail.envid)}")
    if mail.requiretls:
        words.append("REQUIRETLS")
    return f"{' '.join(words)}\r\n".encode()


def rcpt_command(recipient: OutgoingRecipient, features: Features) -> bytes:
    if not features.dsn or not (recipient.notify or recipient.orcpt):
        return f"RCPT TO:<{recipient.address}>\r\n".encode()
    words = [f"RCPT TO:<{recipient.address}>"]
    if recipient.notify:
        words.append(f"NOTIFY={notify(recipient.notify)}")
    if recipient.orcpt:
        words.extend(orcpt(recipient.orcpt))
    return f"{' '.join(words)}\r\n".encode()


def notify(value: Notify) -> str:
    """RFC 3461 §4.1: NEVER stands alone."""
    if Notify.NEVER in value:
        return "NEVER"
    names = (Notify.SUCCESS, Notify.FAILURE, Notify.DELAY)
    return ",".join(name.name or "" for name in names if name in value)


def orcpt(value: str) -> list[str]:
    """The parameter for an original recipient, or nothing where none can be made."""
    kind, _, address = value.partition(";")
    if not address or _NOT_XCHAR.search(kind):
        return []
    if not address.isascii():
        if kind.lower() != "utf-8":
            return []
        # RFC 6533 §3: utf-8-addr-xtext, which every server can carry.
        address = _BEYOND_ASCII.sub(lambda found: rf"\x{{{ord(found[0]):X}}}", address)
    return [f"ORCPT={kind};{xtext(address)}"]


def xtext(text: str) -> str:
    """RFC 3461 §4"""
    if _NOT_XCHAR.search(text) is None:
        return text
    return _NOT_XCHAR.sub(lambda found: "".join(f"+{o:02X}" for o in found[0].encode()), text)
