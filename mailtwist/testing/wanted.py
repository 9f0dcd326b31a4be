"""Which message a test waits for, and what it hears when that does not come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mailtwist.testing.message import Message, listed

DEFAULT_TIMEOUT_S: Final = 5.0
MAX_LISTED: Final = 20

# A part of the value, in whatever case, or a pattern that is found in it.
Text = str | re.Pattern[str]


class NoMessage(AssertionError):
    """The message did not come; ``messages``: what did, for whomever."""

    def __init__(self, wanted: Wanted, timeout: float, messages: Sequence[Message]) -> None:
        self.messages = tuple(messages)
        there = f"what came ({len(messages)}):" if messages else "nothing came at all"
        lines = [f"no message{wanted.description} came within {timeout:g} s; {there}"]
        if messages:
            lines.append(listed(messages[-MAX_LISTED:]))
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that is given must fit. ``after``: only what came later than this message.

    ``inbox``: whose; "": everybody's.
    """

    subject: Text | None = None
    sender: Text | None = None
    to: Text | None = None
    text: Text | None = None
    where: Callable[[Message], bool] | None = None
    after: Message | None = None
    inbox: str = ""

    def fits(self, message: Message) -> bool:
        if not is_for(self.inbox, message) or not self._is_later(message):
            return False
        if not all(_fits_any(wanted, values) for wanted, values in self._given(message)):
            return False
        return self.where is None or self.where(message)

    def _is_later(self, message: Message) -> bool:
        after = self.after
        # The number of one that lies in several mailboxes goes up when its first copy is deleted.
        return after is None or (message.number > after.number and message.id != after.id)

    def _given(self, message: Message) -> Iterable[tuple[Text, Sequence[str]]]:
        pairs = (
            (self.subject, (message.subject,)),
            (self.sender, (message.sender,)),
            (self.to, message.recipients),
            (self.text, (message.text, message.html)),
        )
        return ((wanted, values) for wanted, values in pairs if wanted is not None)

    @property
    def description(self) -> str:
        said = []
        for name in ("subject", "sender", "to", "text"):
            wanted = getattr(self, name)
            if wanted is not None:
                said.append(f"{name} {_spelled(wanted)}")
        if self.where is not None:
            said.append("that fits where=")
        if self.after is not None:
            said.append(f"after {self.after.line}")
        place = f" in inbox({self.inbox!r})" if self.inbox else ""
        return place + (f" with {', '.join(said)}" if said else "")


def is_for(recipient: str, message: Message) -> bool:
    """Whether it is for an address, a local part in any domain, or "": anybody."""
    wanted = recipient.casefold()
    return not wanted or any(
        wanted in {name.casefold(), name.casefold().rpartition("@")[0]}
        for name in message.recipients
    )


def _fits_any(wanted: Text, values: Iterable[str]) -> bool:
    if isinstance(wanted, str):
        folded = wanted.casefold()
        return any(folded in value.casefold() for value in values)
    return any(wanted.search(value) for value in values)


def _spelled(wanted: Text) -> str:
    return repr(wanted) if isinstance(wanted, str) else f"/{wanted.pattern}/"
