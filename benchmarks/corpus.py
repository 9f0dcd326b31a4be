"""Realistic MIME mail, the same in every run: plain, alternative, and with an attachment."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

WORDS = [
    "meeting",
    "invoice",
    "report",
    "harbour",
    "release",
    "schedule",
    "budget",
    "contract",
    "garden",
    "travel",
    "ticket",
    "system",
    "server",
    "mailbox",
    "delivery",
    "customer",
    "project",
    "review",
    "summer",
    "winter",
    "question",
    "answer",
]


def _text(chance: random.Random, octets: int) -> bytes:
    lines: list[str] = []
    size = 0
    while size < octets:
        line = " ".join(chance.choices(WORDS, k=9))
        lines.append(line)
        size += len(line) + 2
    return "\r\n".join(lines).encode() + b"\r\n"


def messages(count: int, seed: int = 1) -> Iterator[bytes]:
    """Make messages of about 10 KB on average."""
    chance = random.Random(seed)
    for n in range(count):
        received = b"".join(
            b"Received: from hop%d.example.org (hop%d.example.org [192.0.2.%d])\r\n"
            b"\tby mx.bench.test with ESMTPS id %x;\r\n"
            b"\tFri, 20 Nov 2026 12:00:%02d +0000\r\n" % (h, h, h + 1, n * 7 + h, h)
            for h in range(chance.randint(1, 5))
        )
        head = received + (
            b"From: =?utf-8?q?J=C3=BCrgen?= <j%d@example.org>\r\nTo: Ann <user@bench.test>\r\n"
            b"Subject: %s %d\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
            b"Message-ID: <%d.%d@example.org>\r\nMIME-Version: 1.0\r\n"
            % (n % 97, " ".join(chance.choices(WORDS, k=5)).encode(), n, seed, n)
        )
        text = _text(chance, chance.randint(500, 4000))
        if n % 3 == 0:
            yield head + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text
            continue
        html = b"<html><body><p>" + text + b"</p></body></html>\r\n"
        parts = [(b"text/plain; charset=utf-8", b"7bit", text), (b"text/html", b"7bit", html)]
        kind = b"alternative"
        if n % 3 == 2:
            kind = b"mixed"
            blob = base64.encodebytes(chance.randbytes(chance.randint(4000, 16000)))
            parts[1] = (
                b'application/pdf; name="paper %d.pdf"' % n,
                b"base64",
                blob.replace(b"\n", b"\r\n"),
            )
        boundary = b"=_%d_%d" % (seed, n)
        out = head + b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind, boundary)
        for content_type, encoding, data in parts:
            out += b"--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n%s\r\n" % (
                boundary,
                content_type,
                encoding,
                data,
            )
        yield out + b"--%s--\r\n" % boundary
