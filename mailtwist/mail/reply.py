"""One SMTP reply: code, enhanced status code and text (RFC 5321 §4.2; RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailtwist.errors import MailError

# RFC 5321 §4.5.3.1.5: a reply line is at most 512 octets, code and CRLF included.
_MAX_TEXT = 490

_UNPRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of one line, or of several when ``text`` is a tuple.

    ``status`` is empty where no enhanced code belongs (220, 334, 354, the lines
    of EHLO). Text may quote what the peer said: octets outside printable ASCII
    leave as ``?``, so that no text can forge a line.
    """

    code: int
    status: str
    text: str | tuple[str, ...]

    @classmethod
    def of(cls, error: MailError) -> Reply:
        """The reply that says what this error means."""
        return cls(error.code, error.status, error.text)

    @property
    def is_error(self) -> bool:
        return self.code >= 400

    def encode(self) -> bytes:
        """The octets for the wire, each line ended by CRLF."""
        lines = (self.text,) if isinstance(self.text, str) else self.text or ("",)
        # RFC 2034 §4: every line of a reply repeats the enhanced code.
        status = f"{self.status} " if self.status else ""
        last = len(lines) - 1
        return "".join(
            f"{self.code}{' ' if n == last else '-'}{status}{_printable(line)}\r\n"
            for n, line in enumerate(lines)
        ).encode("ascii")


def _printable(line: str) -> str:
    return _UNPRINTABLE.sub("?", line[:_MAX_TEXT])
