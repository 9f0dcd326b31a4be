"""The inbox of a server, for coroutines in the reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailtwist.testing.wanted import DEFAULT_TIMEOUT_S, Text, Wanted, is_for

if TYPE_CHECKING:
    from mailtwist.testing.arrivals import Arrivals
    from mailtwist.testing.message import Message


class AsyncInbox:
    """All mail that came, whoever it was for; called with a name, that of one recipient.

    A message is here before its sender hears 250.
    """

    def __init__(self, arrivals: Arrivals, recipient: str = "") -> None:
        self._arrivals = arrivals
        self._recipient = recipient

    def __call__(self, recipient: str) -> AsyncInbox:
        """What came for an address, or without a domain for this name in any domain."""
        return AsyncInbox(self._arrivals, recipient)

    async def messages(self) -> list[Message]:
        """Those that are there, oldest first."""
        found = await self._arrivals.all()
        return [message for message in found if is_for(self._recipient, message)]

    async def wait(
        self,
        *,
        subject: Text | None = None,
        sender: Text | None = None,
        to: Text | None = None,
        text: Text | None = None,
        where: Any = None,
        after: Message | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Message:
        """The newest message that fits, or the first that comes within ``timeout`` seconds.

        A text fits as a part, in whatever case; a pattern where it is found. ``text`` is looked
        for in text and HTML; ``where`` is asked about what fits else; ``after``: only what came
        later. Raises: NoMessage, which lists what did come.
        """
        wanted = Wanted(subject, sender, to, text, where, after, self._recipient)
        return await self._arrivals.wait(wanted, timeout)

    async def clear(self) -> None:
        """Remove all mail from all mailboxes of all accounts."""
        await self._arrivals.clear()
