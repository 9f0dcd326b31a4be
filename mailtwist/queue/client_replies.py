"""The replies of a next hop, cut from whatever octets it sends, under bounds.

Lines may end in a bare LF, and may be longer than RFC 5321 §4.5.3.1.5 allows; what is no
reply at all is a `problem`, after which nothing more is read. Work is linear.

RFC 5321 §4.2; RFC 2034; RFC 3463.
"""

from __future__ import annotations

import re
from typing import Final

from mailtwist.queue.values import RemoteReply

MAX_LINE: Final = 2048  # octets; the RFC says 512
MAX_LINES: Final = 128  # of one reply; long EHLO lists have 30
MAX_TEXT: Final = 500  # characters that we keep

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_STATUS = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?:\s+|$)")
_UNPRINTABLE = re.compile(r"[^ -~]+")


class Reply:
    """One reply: its code and the texts of its lines, as they came."""

    __slots__ = ("code", "lines")

    def __init__(self, code: int, lines: tuple[bytes, ...]) -> None:
        self.code = code
        self.lines = lines

    @property
    def is_good(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_error(self) -> bool:
        return self.code >= 400

    def said(self, stage: str) -> RemoteReply:
        """The reply as others keep and show it: one printable line, its status code apart."""
        status, texts = "", []
        for line in self.lines:
            text = line.decode("utf-8", "replace")
            found = _STATUS.match(text)
            if found is not None:
                # RFC 3463 §2: a class that contradicts the reply code is a mistake of the peer.
                if not status and found[1] == str(self.code)[0]:
                    status = found[0].strip()
                text = text[found.end() :]
            texts.append(text)
        return RemoteReply(
            self.code, status or f"{self.code // 100}.0.0", one_line(" ".join(texts)), stage
        )


def one_line(text: str) -> str:
    """Text of a stranger as one printable ASCII line of bounded length."""
    # Cut first: the rest need not be looked at.
    return _UNPRINTABLE.sub("?", text[: 2 * MAX_TEXT].strip())[:MAX_TEXT]


class ReplyParser:
    """Feed it octets; it gives whole replies. `problem` says what ended the conversation."""

    __slots__ = ("_buffer", "_code", "_lines", "problem")

    def __init__(self) -> None:
        self.problem = ""
        self._buffer = b""
        self._code = b""
        self._lines: list[bytes] = []

    @property
    def is_empty(self) -> bool:
        """Whether no octet waits for the rest of its reply."""
        return not self._buffer and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that these octets complete. With a problem: those before it."""
        replies: list[Reply] = []
        if self._buffer:
            data = self._buffer + data
        start = 0
        while not self.problem:
            end = data.find(b"\n", start)
            if end < 0:
                break
            self._line(data[start:end].removesuffix(b"\r"), replies)
            start = end + 1
        self._buffer = data[start:]
        if len(self._buffer) > MAX_LINE:
            self.problem = "an over-long line"
        if self.problem:
            self._buffer = b""
        return replies

    def _line(self, line: bytes, replies: list[Reply]) -> None:
        found = _LINE.fullmatch(line)
        if found is None or len(line) > MAX_LINE:
            self.problem = "a line that is no reply" if found is None else "an over-long line"
            return
        code, separator, text = found.groups(b"")
        lines = self._lines
        if not lines and separator != b"-":
            replies.append(Reply(int(code), (text,)))
            return
        if lines and code != self._code:
            self.problem = "a reply of two codes"
            return
        lines.append(text)
        self._code = code
        if separator != b"-":
            replies.append(Reply(int(code), tuple(lines)))
            lines.clear()
        elif len(lines) >= MAX_LINES:
            self.problem = "a reply of too many lines"
