"""What goes wrong on purpose, so that a developer sees how his program takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailtwist.config.declare import setting
from mailtwist.config.kinds import Choice, Duration, Flag, Kind, Text, Whole, one_line, sort_of

_REPLY = re.compile(r"([45][0-9]{2}) (?:([45]\.[0-9]{1,3}\.[0-9]{1,3}) )?([ -~]{1,400})")
LONGEST_DELAY_S = 600


@dataclass(frozen=True, slots=True)
class RefusalText(Kind[str]):
    """A reply as it goes over the wire: code, enhanced code (or none), text; "" is none."""

    name = "reply such as `451 4.3.0 Try again later`"

    def parse(self, value: object) -> str:
        text = one_line(value)
        if text and not _REPLY.fullmatch(text):
            raise ValueError(f"must be a reply such as 451 4.3.0 Try again, not {sort_of(value)}")
        return text


def parts_of(reply: str) -> tuple[int, str, str]:
    """Code, enhanced code and text of a value of :class:`RefusalText` that is not empty."""
    found = _REPLY.fullmatch(reply)
    assert found is not None, "checked when it was read"
    return int(found[1]), found[2] or f"{reply[0]}.0.0", found[3]


@dataclass(frozen=True, slots=True)
class ChaosItem:
    """One item of ``chaos``; the first that fits a recipient and its luck acts."""

    recipient: str = setting(
        Text(), "*", "The addresses concerned; `*` stands for any characters, `?` for one."
    )
    percent: int = setting(Whole(0, 100), 100, "How often it happens.", unit="percent")
    at: str = setting(
        Choice(("rcpt", "data")),
        "rcpt",
        "Whether the answer to RCPT is concerned, or the message itself.",
    )
    delay: float = setting(
        Duration(0, LONGEST_DELAY_S), 0.0, "How long the answer is kept back.", unit="seconds"
    )
    reply: str = setting(
        RefusalText(), "", "What is answered; empty: what would be answered without chaos."
    )
    drop: bool = setting(
        Flag(), False, "Whether the connection is cut: at RCPT, or in the middle of the message."
    )
