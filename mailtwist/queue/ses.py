"""The way out by Amazon SES: a next hop like any other, whose sessions are calls of its API.

A recipient with the destination ``ses:<reference id of a credential>`` leaves this way. Rows,
retries, bounces and limits are those of the queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.queue import ses_credentials
from mailtwist.queue.ses_credentials import Credential
from mailtwist.queue.values import Host, Outgoing, RemoteReply, Route, Undeliverable
from mailtwist.store import credentials
from mailtwist.store.queue.values import SES
from mailtwist.store.secrets import Secrets

# They wait for the network, and use little of a processor.
THREADS: Final = 8
# Of one call; what SES calls its quota for recipients of a message.
MAX_RECIPIENTS: Final = 50
# SES itself takes less from most; nothing larger is held in memory for it.
MAX_OCTETS: Final = 40 << 20
PORT: Final = 443

# RFC 3463 §3.4: message too big for system.
_TOO_BIG: Final = RemoteReply(
    552, "5.3.4", f"SES takes {MAX_OCTETS} octets at most", "end", is_ours=True
)


def destination(reference_id: str) -> str:
    """What a recipient's row says that leaves by this credential."""
    return SES + reference_id


def is_destination(name: str) -> bool:
    return name.startswith(SES)


def route(name: str) -> Route:
    return Route(name, port=PORT)


class Ses:
    """One in a process."""

    def __init__(self, database: Any, secrets: Secrets, *, reactor: Any) -> None:
        self._database = database
        self._secrets = secrets
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=THREADS, name="ses")
        # The module comes with the first message that leaves this way.
        self._clients: Any = None

    async def connect(self, destination: str) -> SesSession:
        """A session under the credential as it is now. Raises: Undeliverable, MailError."""
        reference_id = destination.removeprefix(SES)
        stored = await self._database.read(lambda c: credentials.find(c, reference_id))
        if stored is None:
            raise _unusable(f"There is no credential {reference_id} any more")
        try:
            text = self._secrets.open(stored.sealed, credentials.PURPOSE)
            credential = ses_credentials.read(stored.name, text, is_trusted=stored.is_trusted)
        except ProtocolViolation as error:
            raise _unusable(error.text) from error
        except MailError as error:
            raise _unusable(f"credential {stored.name}: {error.text}") from error
        return SesSession(self, credential)

    async def send(
        self, credential: Credential, sender: str, recipients: list[str], octets: bytes
    ) -> RemoteReply:
        """One call, in a thread."""
        from mailtwist.queue import ses_client

        if self._clients is None:
            self._clients = ses_client.Clients()
        if not self._pool.started:
            self._pool.start()
        reply: RemoteReply = await deferToThreadPool(
            self._reactor,
            self._pool,
            ses_client.send,
            self._clients,
            credential,
            sender,
            recipients,
            octets,
        )
        return reply

    async def close(self) -> None:
        """Wait, in a thread, for the calls under way."""
        if self._pool.started:
            pool = self._reactor.getThreadPool()
            await deferToThreadPool(self._reactor, pool, self._pool.stop)


class SesSession:
    """:class:`mailtwist.queue.ports.Session` over the calls of one credential."""

    is_verified = True
    capabilities: Mapping[str, str] = {}

    def __init__(self, ses: Ses, credential: Credential) -> None:
        self._ses = ses
        self._credential = credential
        self.host = Host(credential.host, credential.host, credential.port)
        self.tls = "" if credential.endpoint.startswith("http:") else "HTTPS, verified"
        self.is_open = True

    async def deliver(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        if mail.octets > MAX_OCTETS:
            return (_TOO_BIG,) * len(mail.recipients)
        octets = await _joined(mail.blocks())
        addresses = [recipient.address for recipient in mail.recipients]
        replies: list[RemoteReply] = []
        for start in range(0, len(addresses), MAX_RECIPIENTS):
            part = addresses[start : start + MAX_RECIPIENTS]
            reply = await self._ses.send(self._credential, mail.reverse_path, part, octets)
            replies += [reply] * len(part)
        # The next message looks at the row again, and so sees what was mended there.
        self.is_open = all(reply.code < 400 for reply in replies)
        return tuple(replies)

    async def quit(self) -> None:
        self.is_open = False

    def abort(self) -> None:
        self.is_open = False


async def _joined(blocks: AsyncIterator[bytes]) -> bytes:
    return b"".join([block async for block in blocks])


def _unusable(text: str) -> Undeliverable:
    """Whoever mends the row gets the mail sent that waits for it (RFC 3463 §3.4: 4.3.5)."""
    return Undeliverable(RemoteReply(451, "4.3.5", text[:500], "auth", is_ours=True))
