"""A letter that came over HTTP on its way into the queue, and what is told of it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from mailtwist.actions import letters
from mailtwist.actions.admitting import Admitted, admit, reply_of
from mailtwist.actions.letters import Letter
from mailtwist.actions.mailing import Mailing
from mailtwist.actions.sending import allowed_account, captured_in
from mailtwist.errors import MailError, NotFound, OverQuota, Refusal
from mailtwist.http.send.access import Asker
from mailtwist.http.send.answers import Failed
from mailtwist.mail.address import Address
from mailtwist.queue.awaited import Awaited, Waiter
from mailtwist.store import send_requests, senders
from mailtwist.store.deliver import Acceptance
from mailtwist.store.queue.values import Attempt
from mailtwist.store.send_requests import CAPTURED, Expected, Key, SendRequest

if TYPE_CHECKING:
    from mailtwist.config import Settings

log = Logger()

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Author:
    """By whose name a letter leaves, and where it is kept instead if it does not leave."""

    hostname: str = ""
    account_id: int = 0
    is_captured: bool = False
    captured_in: int = 0


class Sending:
    """One in a process. ``awaited``: None where nothing leaves from here just now."""

    def __init__(
        self,
        database: Any,
        intake: Any,
        mailing: Mailing,
        *,
        settings: Callable[[], Settings],
        awaited: Callable[[], Awaited | None],
    ) -> None:
        self._database = database
        self._intake = intake
        self._mailing = mailing
        self._settings = settings
        self._awaited = awaited

    async def send(self, letter: Letter, asker: Asker, *, client: str, key: Key | None) -> int:
        """Commit a letter, and wait for what is said of it at first; its queue id.

        Raises: Refusal (403) for a sender that is not his, Failed (500) when every recipient is
        refused for good, KeyTaken, and what the store raises.
        """
        author = await self._author(asker, letter.sender.address)
        domain = letter.sender.address.domain.strip("[]")
        message_id = f"{self._database.ids.next():x}@{domain}"
        octets = letters.compose(
            letter, seconds=self._mailing.clock.seconds(), message_id=message_id
        )
        admitted = await self._admit(letter.recipients, author, len(octets))
        acceptance = await self._prepare(letter, octets, author, admitted)
        request = SendRequest(
            acceptance.received_as or 0,
            asker.scope,
            str(letter.sender.address),
            letter.subject,
            message_id,
            admitted.expected,
            acceptance.now,
            key,
        )
        acceptance = replace(acceptance, request=request)
        waiter = self._waiter(acceptance)
        try:
            await self._commit(acceptance)
            self._log(request, letter, acceptance, client)
            if waiter is not None:
                await self._wait(waiter, request)
        finally:
            if waiter is not None:
                waiter.close()
        return request.queue_id

    def _log(
        self, request: SendRequest, letter: Letter, acceptance: Acceptance, client: str
    ) -> None:
        disclosed: dict[str, Any] = {}
        if self._settings().dev_mode:
            forward_paths = [each.address for each in request.recipients]
            disclosed = {"forward_paths": forward_paths, "subject": letter.subject}
        log.info(
            "message accepted",
            queue_id=str(request.queue_id),
            reverse_path=request.sender,
            recipients=len(request.recipients),
            octets=acceptance.content.octets,
            message_id=f"<{request.message_id}>",
            client=client,
            **disclosed,
        )

    # -- who ------------------------------------------------------------------------------------

    async def _author(self, asker: Asker, sender: Address) -> Author:
        """Raises: Refusal."""
        viewer = asker.viewer
        project = await captured_in(self._database, viewer)
        if project:
            return Author(is_captured=True, captured_in=project)
        if viewer.is_guest:
            await self._check_sender(sender)
            leaving = await self._mailing.leaving("", sender)
            return await self._by(leaving.hostname, leaving.account_id)
        account_id = await allowed_account(self._database, viewer, sender)
        hostname = await self._database.read(partial(senders.hostname_of, account_id=account_id))
        if viewer.is_test:
            return Author(hostname, account_id, is_captured=True)
        return await self._by(hostname, account_id)

    async def _by(self, hostname: str, account_id: int) -> Author:
        """An account as author: what a project's sends is captured, whoever asks for it."""
        if await self._intake.captures(account_id):
            return Author(hostname, account_id, is_captured=True, captured_in=account_id)
        return Author(hostname, account_id)

    async def _check_sender(self, sender: Address) -> None:
        """Raises: Refusal for a sender of somebody else's domain."""
        domains = {name.lower() for name in self._settings().send.sender_domains}
        if ANY in domains or sender.domain in domains:
            return
        if await self._intake.is_local(sender.domain):
            return
        default = await self._mailing.default_sender()
        if sender.folded != default.folded:
            shown = ascii(str(sender))[1:-1]
            raise Refusal(
                f"from: {shown} is of no domain that this server sends for; "
                "name it in reply_to, or its domain in send.sender_domains"
            )

    # -- for whom -------------------------------------------------------------------------------

    async def _admit(self, addresses: Sequence[Address], author: Author, octets: int) -> Admitted:
        """Raises: Failed when nobody is left."""
        if author.is_captured:
            # Where it is kept, intake knows.
            return Admitted([], tuple(Expected(str(each), CAPTURED) for each in addresses))
        admitted = await admit(
            self._intake, addresses, octets, is_sandbox=self._settings().dev_mode
        )
        if not admitted.taken:
            raise Failed(admitted.first_reply)
        return admitted

    async def _prepare(
        self, letter: Letter, octets: bytes, author: Author, admitted: Admitted
    ) -> Acceptance:
        acceptance: Acceptance | None = await self._intake.prepare(
            octets,
            reverse_path=letter.sender.address,
            recipients=letter.recipients,
            hostname=author.hostname,
            account_id=author.account_id,
            smtputf8=letter.is_utf8,
            is_captured=author.is_captured,
            captured_in=author.captured_in,
            admitted=admitted.taken,
        )
        if acceptance is None:
            raise Failed(admitted.first_reply)
        return acceptance

    async def _commit(self, acceptance: Acceptance) -> None:
        try:
            await self._intake.commit(acceptance)
        except (OverQuota, NotFound) as error:
            # An account that had room, or was there, a moment ago.
            raise Failed(reply_of(error), detail=error.detail) from error

    # -- what is said of it ---------------------------------------------------------------------

    def _waiter(self, acceptance: Acceptance) -> Waiter | None:
        """Somebody to hear of the first attempts, where all might be refused."""
        awaited = self._awaited()
        if awaited is None or acceptance.queue is None or acceptance.entries:
            return None
        return awaited.expect(acceptance.queue) if self._settings().send.wait else None

    async def _wait(self, waiter: Waiter, request: SendRequest) -> None:
        """Raises: Failed."""
        refused = await waiter.outcome(self._settings().send.wait)
        if refused is None:
            return
        error = Failed(_said(refused.attempt))
        error.queue_id = request.queue_id
        if request.key is not None:
            await self._keep(request, error)
        raise error

    async def _keep(self, request: SendRequest, failed: Failed) -> None:
        """Let the key give the same answer again."""
        try:
            await self._database.write(
                lambda connection: send_requests.keep(
                    connection, request, status=failed.http_status, details=failed.text
                )
            )
        except MailError as error:
            # He is told all the same; only who asks again hears that it was sent.
            log.warn("an answer was not kept: {detail}", detail=error.detail or error.text)


def _said(attempt: Attempt) -> str:
    return " ".join(
        word for word in (str(attempt.code or ""), attempt.status, attempt.text) if word
    )
