"""AUTH over SMTP: challenges and responses in base64 (RFC 4954 §4).

What the mechanisms say is :mod:`mailtwist.policy.sasl`'s matter.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.mail.reply import Reply
from mailtwist.policy.passwords import Scram
from mailtwist.policy.sasl import MECHANISMS, Challenge, Channel, Exchange
from mailtwist.policy.scram import Proof
from mailtwist.smtp import replies
from mailtwist.smtp.extensions import mechanisms_of

if TYPE_CHECKING:
    from mailtwist.smtp.ports import Identity
    from mailtwist.smtp.session import Session

# Octets of one response in base64; tokens of known mechanisms are shorter.
MAX_RESPONSE = 8192


class _Door:
    """The logins, for the client of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def login(self, username: str, password: str) -> Identity:
        session = self._session
        return await session.logins.login(
            username, password, peer=session.client_address, service=session.terms.service
        )

    async def scram_keys(self, username: str) -> Scram:
        return await self._session.logins.scram_keys(username, peer=self._session.client_address)

    async def prove(self, username: str, proof: Proof) -> Identity:
        session = self._session
        return await session.logins.prove(
            username, proof, peer=session.client_address, service=session.terms.service
        )


def begin(session: Session, mechanism: str) -> Exchange:
    """Begin an exchange of a mechanism that is offered."""
    has_plus = any(MECHANISMS[name].needs_channel for name in mechanisms_of(session))
    # Octets are exported from TLS for nobody who does not ask.
    bindings = session.wire.channel_bindings() if MECHANISMS[mechanism].needs_channel else {}
    return MECHANISMS[mechanism].make(_Door(session), Channel(bindings, offers_plus=has_plus))


async def respond(session: Session, response: bytes | None) -> Reply:
    """Give the exchange a response. Raises: MailError for a refused login."""
    assert session.exchange is not None
    exchange, session.exchange = session.exchange, None
    try:
        outcome = await exchange.take(response)
    except ProtocolViolation:
        return replies.AUTH_BAD_RESPONSE
    except MailError:
        session.failed_logins += 1
        raise
    if isinstance(outcome, Challenge):
        session.exchange = exchange
        session.wire.start_exchange()
        # The blank behind 334 stays where no text follows (RFC 4954 §4).
        return Reply(334, "", binascii.b2a_base64(outcome.octets, newline=False).decode("ascii"))
    session.login = outcome
    session.failed_logins = 0
    return replies.AUTHENTICATED


def decoded(response: bytes) -> bytes | None:
    """Strict base64; None when it is none (RFC 4954 §4: such a response is refused)."""
    try:
        return binascii.a2b_base64(response, strict_mode=True)
    except ValueError:
        return None
