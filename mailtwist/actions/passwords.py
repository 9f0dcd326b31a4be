"""A forgotten password: a code is mailed, and whoever gives it back sets another one.

What is answered to the first step, and when, does not depend on whether the address belongs to
anybody: all that does happens behind the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.actions.allowances import Allowance
from mailtwist.actions.buffer import Buffer
from mailtwist.actions.inputs import refusal
from mailtwist.actions.letters import Letter
from mailtwist.actions.made_up import password as new_password
from mailtwist.actions.mailboxes import Mailbox
from mailtwist.actions.mailing import Mailing
from mailtwist.actions.one_time_codes import LIFE_US, RESET, OneTimeCodes, make
from mailtwist.actions.registry import (
    FOR_GUESTS,
    Context,
    Input,
    Operation,
    Response,
    notify,
    redirect,
)
from mailtwist.errors import MailError, ProtocolViolation, TemporaryFailure
from mailtwist.mail.address import parse_address
from mailtwist.mail.permissions import SYSTEM
from mailtwist.net.counters import network_of
from mailtwist.policy.identities import TooManyTries
from mailtwist.store import failures
from mailtwist.store.engine import Connection
from mailtwist.store.entities.model import Item
from mailtwist.store.identities import User

log = Logger()

SUBJECT: Final = "Request for password reset"
CODE_TEXT: Final = """\
Your verification code is: {code}

Somebody, probably you, asked for another password for {email}.
The code is good for {minutes} minutes. If it was not you, do nothing: your password stays.
"""
NEW_TEXT: Final = """\
Your new password is: {password}

It takes the place of the old one for {email}. Change it when you have signed in.
"""
SENT: Final = "If the address belongs to a user, a verification code was sent to it"
WRONG: Final = "The code is wrong, or it has expired"

# Of codes asked for, by whoever asks; and sent, to one address: a guess hits with one in a
# million, so that 50 guesses a day find nothing in a lifetime.
PEER: Final = (20, 600.0)
ADDRESS_HOUR: Final = (3, 3600.0)
ADDRESS_DAY: Final = (10, 86_400.0)
# Sent at the same time; beyond that all are told to come back.
MAX_AT_ONCE: Final = 64

# Wrong codes of one network address, in rows as those of sign-ins are.
_SCOPE: Final = "reset"
_WINDOW_US: Final = 300 * 1_000_000
_LIMIT: Final = 10
REDIRECT_MS: Final = 2000


class Shown(Enum):
    """What a code turned out to be."""

    RIGHT = 1
    WRONG = 2
    TOO_OFTEN = 3


class PasswordResets:
    """One in a process."""

    def __init__(
        self, database: Any, intake: Any, resources: Any, mailing: Mailing, codes: OneTimeCodes
    ) -> None:
        self._database = database
        self._intake = intake
        self._resources = resources
        self._mailing = mailing
        self._codes = codes
        self._peers, self._hours, self._days = (
            Allowance(*bound, mailing.clock) for bound in (PEER, ADDRESS_HOUR, ADDRESS_DAY)
        )
        self._sending: set[Deferred[None]] = set()

    # -- the first step ---------------------------------------------------------------------

    def begin(self, email: str, *, peer: str) -> None:
        """Send a code, soon. Raises: TooManyTries, TemporaryFailure, for any address alike."""
        if not self._peers.take(network_of(peer[:64])):
            raise TooManyTries
        if len(self._sending) >= MAX_AT_ONCE:
            raise TemporaryFailure
        # Not before the caller has his answer.
        sending: Deferred[None] = Deferred()
        sending.addCallback(lambda _: Deferred.fromCoroutine(self._send_code(email)))
        self._sending.add(sending)
        sending.addErrback(_log_failure)
        sending.addBoth(lambda _: self._sending.discard(sending))
        self._mailing.clock.callLater(0, sending.callback, None)

    async def _send_code(self, email: str) -> None:
        user = await self._codes.find(email)
        if user is None:
            log.info("a password reset for an address that is nobody's")
            return
        if not (self._hours.take(user.email) and self._days.take(user.email)):
            log.info("too many password resets for one user", user=user.email)
            return
        code = make()
        text = CODE_TEXT.format(code=code, email=user.email, minutes=LIFE_US // 60_000_000)
        buffer = Buffer(self._database, self._intake)
        buffer.add(
            partial(self._codes.putting, purpose=RESET, subject=user.reference_id, code=code)
        )
        await self._add_letter(buffer, user, text)
        await buffer.commit()

    async def _add_letter(self, buffer: Buffer, user: User, text: str) -> None:
        sender = await self._mailing.default_sender()
        letter = Letter(
            Mailbox(sender),
            to=(Mailbox(parse_address(user.email)),),
            subject=SUBJECT,
            text=text,
            fields=(("Auto-Submitted", "auto-generated"),),
        )
        prepared = await self._mailing.prepare(letter, sent_copy=False)
        buffer.mail(prepared.acceptance)

    async def settle(self) -> None:
        """Wait for all that is being sent."""
        for sending in tuple(self._sending):
            waiting: Deferred[None] = Deferred()
            sending.chainDeferred(waiting)
            await waiting

    # -- the second -------------------------------------------------------------------------

    async def finish(self, email: str, code: str, password: str, *, peer: str) -> None:
        """Set a password, or with "" mail a new one; tokens of the old one are good no more.

        Raises: ProtocolViolation for a code that does not count, TooManyTries.
        """
        user = await self._codes.find(email)
        shown = await self._database.write(partial(self._check, user=user, code=code, peer=peer))
        if shown is Shown.TOO_OFTEN:
            raise TooManyTries
        if user is None or shown is Shown.WRONG:
            raise ProtocolViolation(WRONG)
        buffer = Buffer(self._database, self._intake)
        if not password:
            password = new_password()
            text = NEW_TEXT.format(password=password, email=user.email)
            await self._add_letter(buffer, user, text)
        planned = await self._resources.updating(
            SYSTEM, "user_account", user.reference_id, {"password": password}, {}
        )
        # With the letter or not at all: nobody else knows a password that was made here.
        buffer.add(planned.unit, accounts=planned.accounts)
        await buffer.commit()
        log.info("a password was reset", user=user.email, peer=peer)

    def _check(self, connection: Connection, *, user: User | None, code: str, peer: str) -> Shown:
        now, network = self._codes.now, network_of(peer[:64])
        if failures.locked(connection, _SCOPE, network, now=now):
            return Shown.TOO_OFTEN
        # For nobody it takes the same statements, and a wrong code is a row in either case.
        subject = "" if user is None else user.reference_id
        if self._codes.taking(connection, purpose=RESET, subject=subject, code=code):
            return Shown.RIGHT
        bounds = {"window": _WINDOW_US, "limit": _LIMIT, "lock": _WINDOW_US}
        failures.record(connection, _SCOPE, network, now=now, **bounds)
        return Shown.WRONG


def _log_failure(failure: Any) -> None:
    if failure.check(MailError):
        log.warn("a code was not sent: {detail}", detail=str(failure.value))
    else:
        log.failure("a code was not sent", failure)


# -- as operations --------------------------------------------------------------------------


async def reset_password(
    context: Context, attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Answers the same for every address. Raises: TooManyTries."""
    _resets(context).begin(attributes["email"], peer=context.peer)
    return (notify(SENT),)


async def reset_password_verify(
    context: Context, attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Raises: ProtocolViolation, TooManyTries."""
    password = attributes.get("password") or ""
    if password and attributes.get("passwordConfirm", password) != password:
        raise refusal("eqfield", "password")
    await _resets(context).finish(
        attributes["email"], attributes["otp"], password, peer=context.peer
    )
    told = "Your password was changed" if password else "Your new password was sent to you"
    return notify(told), redirect("/auth/signin", REDIRECT_MS)


def _resets(context: Context) -> PasswordResets:
    resets = context.services.resets
    assert resets is not None, "there are such wherever these operations are"
    return resets


OPERATIONS: Final = (
    Operation(
        "user_account",
        "reset-password",
        "Reset password",
        reset_password,
        inputs=(Input("email", "email", is_required=True, tags=("email",)),),
        permission=FOR_GUESTS,
    ),
    Operation(
        "user_account",
        "reset-password-verify",
        "Reset password, with the code",
        reset_password_verify,
        inputs=(
            Input("email", "email", is_required=True, tags=("email",)),
            Input("otp", is_required=True, tags=("max=20",)),
            Input("password", "password", tags=("min=8", "max=1024")),
            Input("passwordConfirm", "password", label="Confirm password"),
        ),
        permission=FOR_GUESTS,
    ),
)
