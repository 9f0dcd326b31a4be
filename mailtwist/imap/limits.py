"""How much one client may send before anything is refused, with the reason for each figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one command, all in octets.

    Before the login a whole command, its literals included, is small: nobody
    needs more to log in, and anybody may connect.
    """

    # RFC 7162 §4 asks for at least 8192; long UID sets of some clients are near 64 KiB.
    line: int = 64 * 1024
    command: int = 256 * 1024
    # The message of APPEND; it is streamed and counts nowhere else.
    message: int = 25 * 1024 * 1024
    # What is thrown away to stay in step with the client before we rather hang up
    # (RFC 7888 §4 allows both).
    skip: int = 64 * 1024 * 1024
    # A bare line: what a continuation may send.
    answer: int = 16 * 1024
    # Bad commands before the connection is closed; 0: no bound.
    errors: int = 0


BEFORE_LOGIN = Limits(line=8192, command=8192, message=0, skip=65536, answer=8192, errors=10)
AFTER_LOGIN = Limits()

NESTING = 32
PATTERNS = 16
PATTERN_OCTETS = 1024
WILDCARDS = 64
TAG_OCTETS = 64
