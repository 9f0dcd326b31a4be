"""Letters on their way from an action to the queue: by whose name, for whom, within what limits."""

from __future__ import annotations

import secrets as chance
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from twisted.logger import Logger

from mailtwist.actions import letters
from mailtwist.actions.allowances import Allowance, Clock
from mailtwist.actions.letters import Letter
from mailtwist.config import Settings
from mailtwist.config.overlay import DEFAULT_SERVER
from mailtwist.errors import ProtocolViolation, Refusal, TemporaryFailure
from mailtwist.mail.address import Address, fold_domain, parse_address
from mailtwist.mail.permissions import Viewer
from mailtwist.net.counters import network_of
from mailtwist.store import domains, mail_servers, senders
from mailtwist.store.deliver import Acceptance
from mailtwist.store.secrets import Secrets

log = Logger()

# What guests may cause to be sent, from one network address.
GUEST_LETTERS: Final = 30
GUEST_WINDOW_S: Final = 60.0
MAX_KNOWN: Final = 1000


class TooManyLetters(TemporaryFailure):
    http_status = 429
    default_text: ClassVar[str] = "Too many letters, try again later"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A letter that only has to be written. ``message_id`` without brackets."""

    acceptance: Acceptance
    message_id: str

    @property
    def queue_id(self) -> str:
        return str(self.acceptance.received_as)


class Mailing:
    """One in a process. ``settings``: as they are now; ``value``: of a key of ``_config``."""

    def __init__(
        self,
        database: Any,
        intake: Any,
        *,
        settings: Callable[[], Settings],
        value: Callable[[str], str],
        secrets: Secrets,
        clock: Clock,
    ) -> None:
        self.secrets = secrets
        self.clock = clock
        self._database = database
        self._intake = intake
        self._settings = settings
        self._value = value
        self._guests = Allowance(GUEST_LETTERS, GUEST_WINDOW_S, clock)
        # By server's name and sender, until a row changes that matters. None: no such server.
        self._known: dict[tuple[str, str], senders.Sending | None] = {}
        for kind in ("account", "address", mail_servers.KIND):
            database.changes.watch(kind, self._forget)

    def _forget(self) -> None:
        # Another one: a read that is under way adds to the old one.
        self._known = {}

    @property
    def limit(self) -> int:
        """How many octets a message may have."""
        return self._settings().max_message_size

    def allow(self, viewer: Viewer, peer: str) -> None:
        """Count a letter that is about to be sent. Raises: TooManyLetters for a guest's.

        Who has signed in is known; an action that guests may execute is open to the whole world.
        """
        if viewer.is_guest and not self._guests.take(network_of(peer[:64])):
            raise TooManyLetters

    async def prepare(
        self,
        letter: Letter,
        *,
        hostname: str = "",
        destination: str = "",
        is_captured: bool = False,
        captured_in: int = 0,
        sent_copy: bool = True,
    ) -> Prepared:
        """What writes the letter.

        ``hostname``: that of a mail_server row. ``destination``: a way out of its own.
        ``captured_in``: the account that keeps it, whoever it is for; 0: as ``is_captured`` says.
        Raises: ProtocolViolation when no such row is there, Refusal when none of the recipients
        can be had, and what the store raises.
        """
        sender = letter.sender.address
        leaving = await self.leaving(hostname, sender)
        message_id = f"{chance.token_hex(12)}@{sender.domain.strip('[]')}"
        octets = letters.compose(letter, seconds=self.clock.seconds(), message_id=message_id)
        refused: list[Refusal] = []
        acceptance = await self._intake.prepare(
            octets,
            reverse_path=sender,
            recipients=letter.recipients,
            hostname=leaving.hostname,
            account_id=leaving.account_id,
            smtputf8=letter.is_utf8,
            # Signed by the service, which writes some of the fields anew.
            sign=not destination,
            is_captured=is_captured,
            captured_in=captured_in,
            sent_copy=sent_copy and bool(leaving.account_id) and not (is_captured or captured_in),
            destination=destination,
            refused=refused,
        )
        if acceptance is None:
            raise refused[0] if refused else ProtocolViolation("missing required field: to")
        if refused:
            log.info("letter without some of its recipients", reasons=[e.text for e in refused])
        return Prepared(acceptance, message_id)

    async def leaving(self, hostname: str, sender: Address) -> senders.Sending:
        """By whose name mail of a sender leaves. Raises: ProtocolViolation: no such server."""
        name = hostname or self._value(DEFAULT_SERVER)
        key, known = (name, sender.folded), self._known
        if key in known:
            found = known[key]
        else:
            found = await self._read(name, sender)
            if len(known) >= MAX_KNOWN:
                known.clear()
            known[key] = found
        if found is None:
            shown = ascii(name)[1:-1][:255]
            raise ProtocolViolation(f"failed to get mail server details for sending as: {shown}")
        return found

    async def _read(self, name: str, sender: Address) -> senders.Sending | None:
        try:
            folded = fold_domain(name) if name else ""
        except ProtocolViolation:
            return None
        found: senders.Sending | None = await self._database.read(
            partial(senders.sending, hostname=folded, sender=sender)
        )
        return found

    async def default_sender(self) -> Address:
        """Whom letters of the server itself come from."""
        settings = self._settings()
        if settings.send.default_from:
            return parse_address(settings.send.default_from)
        domain = (
            settings.domains[0] if settings.domains else await self._database.read(domains.first)
        )
        return Address("postmaster", fold_domain(domain or settings.hostname))
