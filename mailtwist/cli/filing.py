"""Files messages into a mailbox of the store, in batches: what import and dev do."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mailtwist.cli.archives import Archived
from mailtwist.errors import MailError, Refusal

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mailtwist.store.content import Spooled
    from mailtwist.store.database import Inline
    from mailtwist.store.engine import Engine

T = TypeVar("T")

# As the server's own batches: a running server never waits long for the writer.
BATCH_MESSAGES = 64
BATCH_OCTETS = 4 << 20
BLOCK = 1 << 18
DAY_US = 86_400_000_000


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over :class:`Inline`, which never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("a coroutine over the inline database was suspended")


@contextmanager
def inline(engine: Engine) -> Iterator[Inline]:
    """The store as the parts of the server know it, running in this thread."""
    from mailtwist.store.database import Inline

    database = Inline(engine)
    try:
        yield database
    finally:
        database.release()


@dataclass(slots=True)
class Filing:
    """Appends to one mailbox; :meth:`flush` writes what is still waiting."""

    database: Inline
    account_id: int
    mailbox: str
    limit: int
    messages: int = 0
    octets: int = 0
    _waiting: list[tuple[Archived, Spooled]] = field(default_factory=list)
    _waiting_octets: int = 0

    def add(self, message: Archived) -> None:
        """Take one message. Raises ``MailError`` that names it when it cannot be stored."""
        try:
            spooled = run_now(self._spool(message.data))
        except Refusal as refusal:
            raise MailError(f"{message.origin}: {refusal.text}") from None
        self._waiting.append((message, spooled))
        self._waiting_octets += spooled.octets
        if len(self._waiting) >= BATCH_MESSAGES or self._waiting_octets >= BATCH_OCTETS:
            self.flush()

    async def _spool(self, data: bytes) -> Spooled:
        from mailtwist.store.content import Spool

        spool = Spool(self.database, limit=self.limit)
        view = memoryview(data)
        for start in range(0, len(data), BLOCK):
            await spool.write(bytes(view[start : start + BLOCK]))
        return await spool.finish()

    def flush(self) -> None:
        if not self._waiting:
            return
        batch, self._waiting, self._waiting_octets = self._waiting, [], 0
        run_now(self.database.write(lambda c: self._write(c, batch), accounts=(self.account_id,)))
        self.messages += len(batch)
        self.octets += sum(spooled.octets for _, spooled in batch)

    def _write(self, connection: Connection, batch: list[tuple[Archived, Spooled]]) -> None:
        from mailtwist.store.deliver import Acceptance, Entry, deliver

        now = time.time_ns() // 1000
        acceptances = []
        for message, spooled in batch:
            entry = Entry(
                self.account_id,
                self.mailbox,
                flags=message.flags,
                keywords=message.keywords,
                internaldate=_arrival(message, spooled, now),
            )
            acceptances.append(Acceptance(spooled, (entry,), None, now))
        for answer, (message, _) in zip(deliver(connection, acceptances), batch, strict=True):
            if isinstance(answer, MailError):
                # The whole batch is rolled back: what was counted before is what is stored.
                raise MailError(f"{message.origin}: {answer.text}") from answer


def _arrival(message: Archived, spooled: Spooled, now: int) -> int:
    if message.arrived_at is not None:
        return message.arrived_at
    sent_at = spooled.structure.sent_at
    # A Date before 1970 or from the future says nothing.
    return sent_at if sent_at is not None and 0 < sent_at < now + DAY_US else now
