"""Real-looking messages; each differs, and says what it is."""

from __future__ import annotations

import random
from email.message import EmailMessage
from email.policy import SMTP


def simple(text: str, *, to: str = "someone@example.com", octets: int = 0) -> bytes:
    """A plain message without trace fields; ``octets``: about how large."""
    body = f"This is {text}.\r\n"
    if octets:
        line = "The quick brown fox jumps over the lazy dog, and again.\r\n"
        body += line * (octets // len(line) + 1)
    return (
        f"From: Sender <sender@elsewhere.example>\r\nTo: <{to}>\r\n"
        f"Subject: {text}\r\nMessage-ID: <{text.replace(' ', '.')}@elsewhere.example>\r\n"
        f"Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\n{body}"
    ).encode()


def mime(*, octets: int = 20_000, to: str = "someone@example.com") -> bytes:
    """Text, HTML, an inline picture and an attachment, in several charsets and encodings."""
    chance = random.Random(octets)
    message = EmailMessage(policy=SMTP)
    message["From"] = "Zoë Ångström <zoe@elsewhere.example>"
    message["To"] = to
    message["Cc"] = '"Last, First" <other@elsewhere.example>, =?utf-8?q?J=C3=BCrgen?= <j@x.example>'
    message["Subject"] = "Größe, naïve café — 漢字 and a rather long subject that has to be folded"
    message["Date"] = "Fri, 20 Nov 2026 10:00:00 +0100"
    message["Message-ID"] = "<mime-test@elsewhere.example>"
    message.set_content("Häuser\n.\n..\n.leading dots\nFrom the start\n" * 20)
    message.add_alternative("<p>Häuser <img src='cid:a'></p>" * 20, subtype="html")
    message.add_attachment(
        chance.randbytes(octets), "application", "octet-stream", filename="größe.bin"
    )
    message.add_attachment("text\nin latin\n", charset="iso-8859-1", filename="a.txt")
    inner = EmailMessage(policy=SMTP)
    inner["Subject"] = "inside"
    inner.set_content("a message within")
    message.add_attachment(inner)
    return message.as_bytes()
