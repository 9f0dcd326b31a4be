"""Letting go what was captured: one message goes to its real recipients after all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.actions.admitting import Admitted, admit
from mailtwist.actions.sending import allowed_account
from mailtwist.config import Settings
from mailtwist.errors import Conflict, MailError, ProtocolViolation, Refusal
from mailtwist.mail.address import Address, parse_address
from mailtwist.mail.authors import authors
from mailtwist.mail.permissions import Viewer
from mailtwist.queue.client_content import BareLineEnd, LineEnds
from mailtwist.store import content, inbox, senders
from mailtwist.store.deliver import Acceptance
from mailtwist.store.engine import Connection
from mailtwist.store.inbox import Captured
from mailtwist.store.send_requests import CAPTURED, REFUSED, Expected, SendRequest

log = Logger()

MAX_RECIPIENTS: Final = 100
_BLANK_LINE: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Released:
    """``queue_id``: also of the request that tells what becomes of it."""

    queue_id: str
    recipients: tuple[Expected, ...]


class Releasing:
    """One in a process. ``settings``: as they are now."""

    def __init__(self, database: Any, intake: Any, *, settings: Callable[[], Settings]) -> None:
        self._database = database
        self._intake = intake
        self._settings = settings

    async def release(
        self, viewer: Viewer, captured: Captured, recipients: Sequence[Address] = ()
    ) -> Released:
        """Send a captured message as it came, without our trace fields; it stays captured.

        It goes to ``recipients``, or without any to those that it was for. Nothing is remembered:
        a second time sends it again.

        Raises: Conflict where nothing or not this may leave, Refusal when the viewer may not send
        as its sender or its authors, ProtocolViolation when nobody can tell who these are,
        NotFound when it is gone; what the store raises.
        """
        self._check(viewer)
        letter: bytes = await self._database.read(partial(_octets, content_id=captured.content_id))
        header = letter[: letter.find(_BLANK_LINE) + 2] if _BLANK_LINE in letter else letter
        sender = parse_address(captured.return_path) if captured.return_path else None
        account_id = await self._account(viewer, sender, header)
        targets = tuple(recipients) or await self._recipients(captured)
        admitted = await admit(self._intake, targets, len(letter), is_bounce=sender is None)
        _check_leaves(admitted)
        acceptance: Acceptance = await self._intake.prepare(
            letter,
            reverse_path=sender,
            recipients=targets,
            hostname=await self._database.read(partial(senders.hostname_of, account_id=account_id)),
            account_id=account_id,
            smtputf8=not (header.isascii() and all(str(each).isascii() for each in targets)),
            admitted=admitted.taken,
        )
        request = SendRequest(
            acceptance.received_as or 0,
            f"user:{viewer.user_id}",
            captured.return_path or "",
            captured.subject,
            captured.message_id.strip("<>"),
            admitted.expected,
            acceptance.now,
        )
        await self._intake.commit(replace(acceptance, request=request))
        _log(request, captured, viewer)
        return Released(str(request.queue_id), request.recipients)

    def _check(self, viewer: Viewer) -> None:
        if self._settings().dev_mode:
            raise Conflict("Nothing leaves this server: dev_mode is on")
        if viewer.is_test:
            raise Refusal("What a test key sends never leaves, so it releases nothing")
        if viewer.is_guest:
            raise Refusal("A message is released by a token, or by an API key that may send")

    async def _account(self, viewer: Viewer, sender: Address | None, header: bytes) -> int:
        """The account it is sent by; everybody whom it names as sender is the viewer's."""
        found = authors(header)
        first = found[0] if sender is None else sender
        account_id = await allowed_account(self._database, viewer, first)
        for author in {each.folded: each for each in found if each.folded != first.folded}.values():
            await allowed_account(self._database, viewer, author)
        if account_id and await self._intake.captures(account_id):
            raise Refusal(f"Sender address rejected: what {first} sends is captured")
        return account_id

    async def _recipients(self, captured: Captured) -> tuple[Address, ...]:
        spelled: list[str] = await self._database.read(
            lambda connection: inbox.addresses(connection, captured.account_id, captured.entry_id)
        )
        return tuple(parse_address(each) for each in spelled)


def read_recipients(given: Any) -> tuple[Address, ...]:
    """The recipients that a body names; none without ``to``. Raises: ProtocolViolation."""
    if not isinstance(given, dict) or given.keys() - {"to"}:
        raise ProtocolViolation('invalid body: {"to": [address, ...]} or nothing is expected')
    to = given.get("to")
    if to is None:
        return ()
    listed = [to] if isinstance(to, str) else to
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_RECIPIENTS:
        raise ProtocolViolation(f"invalid value for to: 1 to {MAX_RECIPIENTS} addresses are needed")
    return tuple({each.folded: each for each in map(_address, listed)}.values())


def _address(given: Any) -> Address:
    try:
        found = parse_address(given.strip()) if isinstance(given, str) else None
    except MailError as error:
        raise ProtocolViolation(f"invalid value for to: {ascii(given)[:100]}") from error
    if found is None or not found.domain or not found.local_part:
        raise ProtocolViolation(f"invalid value for to: {ascii(given)[:100]}")
    return found


def _check_leaves(admitted: Admitted) -> None:
    """Raises: Refusal when all are refused, Conflict when it would only be captured again."""
    if not admitted.taken:
        raise Refusal(f"Nobody takes it: {admitted.first_reply}")
    if all(each.state in {CAPTURED, REFUSED} for each in admitted.expected):
        raise Conflict("It would only be captured again: name recipients elsewhere")


def _log(request: SendRequest, captured: Captured, viewer: Viewer) -> None:
    log.info(
        "captured message released",
        queue_id=str(request.queue_id),
        captured_as=str(captured.queue_id),
        by=viewer.email,
        recipients=len(request.recipients),
        refused=sum(each.state == REFUSED for each in request.recipients),
    )


def _octets(connection: Connection, *, content_id: int) -> bytes:
    """A whole message without what we put above it.

    Raises: Conflict for one with bare line ends, which may come as BINARYMIME: who reads its
    header may see another author than we do.
    """
    blocks: list[bytes] = []
    ends = LineEnds()
    at = 0
    try:
        while block := content.read(connection, content_id, at, at + content.CHUNK):
            ends.check(block)
            blocks.append(block)
            at += len(block)
        ends.close()
    except BareLineEnd as error:
        raise Conflict("The message holds a bare CR or LF and may not be sent") from error
    return b"".join(blocks)
