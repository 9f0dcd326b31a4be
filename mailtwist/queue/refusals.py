"""What intake answers to addresses and messages that it does not take."""

from __future__ import annotations

from mailtwist.errors import Refusal
from mailtwist.mail.reply import Reply

USER_UNKNOWN = Reply(550, "5.1.1", "User unknown")
RELAY_DENIED = Reply(554, "5.7.1", "Relay access denied")
TOO_MANY_HOPS = Reply(554, "5.4.6", "Too many hops, this message loops")


def refusal(reply: Reply) -> Refusal:
    """The error that is told as this reply."""
    assert isinstance(reply.text, str)
    return Refusal(reply.text, code=reply.code, status=reply.status)


def suppressed(bounces: int) -> Refusal:
    """For an address that refused mail for good so often that it is not tried any more."""
    return Refusal(f"Address suppressed after {bounces} hard bounces", code=550, status="5.1.1")
