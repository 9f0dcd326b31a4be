"""Whole messages that the server itself writes: the welcome, the test mail."""

from __future__ import annotations

from collections.abc import Sequence

from mailtwist.mail.address import Address
from mailtwist.mail.header import encode_words, format_field
from mailtwist.mail.trace import date_time


def compose(
    *,
    sender: Address,
    recipients: Sequence[Address],
    subject: str,
    text: str,
    seconds: float,
    message_id: str,
    sender_name: str = "",
) -> bytes:
    """A plain text message with CRLF line ends.

    ``message_id`` without brackets; ``seconds`` since 1970. Raises:
    ProtocolViolation when a value holds a line break.
    """
    # The library knows how to encode a body; it is not loaded before someone composes.
    from email.message import EmailMessage
    from email.policy import SMTP

    name = sender_name.replace('"', "").replace("\\", "")
    # RFC 2047 §5: an encoded word never stands inside quotes.
    name = f'"{name}"' if name.isascii() and name else encode_words(name)
    message = EmailMessage(policy=SMTP)
    message.set_content(text, charset="utf-8", cte=None if text.isascii() else "quoted-printable")
    header = b"".join(
        (
            format_field("Date", date_time(seconds)),
            format_field("From", f"{name} <{sender}>" if name else str(sender)),
            format_field("To", ", ".join(map(str, recipients))),
            format_field("Subject", subject),
            format_field("Message-ID", f"<{message_id}>"),
        )
    )
    return header + message.as_bytes()
