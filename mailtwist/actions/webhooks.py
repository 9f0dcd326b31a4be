"""Posts events to webhooks: signed, again and again until one is taken, on one node at a time.

Whoever gets a delivery checks ``Mailtwist-Signature: t=<seconds>,v1=<hex>``: the HMAC-SHA256 of
``<seconds>.<body>`` under his secret. It may come twice, under the same ``Mailtwist-Delivery``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailtwist.actions.turns import Turn
from mailtwist.errors import MailError
from mailtwist.store import events, lease, webhooks
from mailtwist.store.entities.webhooks import KIND
from mailtwist.store.event_feed import MAX_READ, Cursor, read_after
from mailtwist.store.secrets import Secrets
from mailtwist.store.webhooks import Delivery, Webhook

log = Logger()

LEASE: Final = "webhooks"
LEASE_S: Final = 30.0
EVERY_S: Final = 10.0
# Events that come together become one write.
PAUSE_S: Final = 0.1
TIMEOUT_S: Final = 10.0
MAX_BODY: Final = 64 << 10
AT_ONCE: Final = 32
AT_ONCE_EACH: Final = 4
# Webhooks that fail hold no more of the turns than this, all together and each.
FAILING_AT_ONCE: Final = 16
FAILING_EACH: Final = 1
# Between attempts to note what came of a delivery; meanwhile it is not posted again.
NOTE_S: Final = 5.0
PURPOSE: Final = "webhook.secret"
SECOND: Final = 1_000_000


class Web(Protocol):
    """:class:`mailtwist.net.web.Web`."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Any = None,
        body: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        max_body: int = MAX_BODY,
    ) -> Any: ...


def signature(secret: str, seconds: int, body: bytes) -> str:
    """The value of the field ``Mailtwist-Signature``."""
    signed = str(seconds).encode("ascii") + b"." + body
    mac = hmac.new(secret.encode("utf-8"), signed, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={mac}"


class Webhooks:
    """One in a process; ``clock`` is the reactor's."""

    def __init__(self, database: Any, web: Web, secrets: Secrets, *, clock: Any) -> None:
        self._database = database
        self._web = web
        self._secrets = secrets
        self._clock = clock
        self._cursor: Cursor | None = None
        self._has_hooks = True  # until the first look
        self._is_leader = False
        self._ask_at = 0.0
        self._sending: dict[int, tuple[Webhook, Deferred[None]]] = {}
        self._turn = Turn("webhooks", self._look, every_s=EVERY_S, clock=clock, pause_s=PAUSE_S)

    def start(self) -> None:
        self._database.changes.watch(KIND, self._turn.wake)
        self._database.changes.watch(events.KIND, self._told)
        self._turn.start()

    def _told(self) -> None:
        """Something happened: with each batch of mail, which must not cost a look without need."""
        if self._has_hooks:
            self._turn.wake()

    async def stop(self) -> None:
        """Break off what is under way, which is posted again, and give the lease back."""
        await self._turn.stop()
        for _, sending in list(self._sending.values()):
            sending.cancel()
        node = self._database.ids.node_id
        try:
            await self._database.write(lambda connection: lease.release(connection, LEASE, node))
        except MailError:
            pass  # it runs out by itself

    # -- one look -----------------------------------------------------------------------------

    async def _look(self) -> float | None:
        # Without webhooks nothing is ever written, not even a lease.
        hooks = await self._database.read(webhooks.active)
        self._has_hooks = bool(hooks)
        if not hooks or not await self._is_ours():
            self._cursor = None
            return None
        try:
            has_more = await self._enqueue(hooks)
        except BaseException:
            # What was read and not written is read again.
            self._cursor = None
            raise
        later = await self._send_due(hooks)
        return 0.0 if has_more else later

    async def _is_ours(self) -> bool:
        """Take or renew the lease, now and then."""
        seconds = self._clock.seconds()
        if seconds < self._ask_at:
            return self._is_leader
        now, node = self._now(), self._database.ids.node_id
        self._is_leader = False
        self._is_leader = await self._database.write(
            lambda connection: lease.take_over(connection, LEASE, node, now=now, seconds=LEASE_S)
        )
        self._ask_at = seconds + EVERY_S
        return self._is_leader

    async def _enqueue(self, hooks: list[Webhook]) -> bool:
        """Make deliveries of what happened; True: there is more."""
        cursor = self._cursor
        if cursor is None:
            cursor = self._cursor = Cursor(min(hook.position for hook in hooks))
        limit, before = cursor.limit, cursor.settled
        reading = await self._database.read(partial(read_after, after=cursor.settled, limit=limit))
        new = cursor.new(reading)
        if new or cursor.settled != before:
            await self._database.write(
                partial(
                    webhooks.enqueue,
                    webhooks=hooks,
                    events=new,
                    settled=cursor.settled,
                    now=self._now(),
                )
            )
        return len(new) >= MAX_READ

    async def _send_due(self, hooks: list[Webhook]) -> float | None:
        """Begin to post what is due; in how many seconds there is more, None: nobody knows."""
        by_id = {hook.webhook_id: hook for hook in hooks}
        rooms = self._rooms(hooks)
        found, later = await self._database.read(
            partial(webhooks.due, rooms=rooms, busy=set(self._sending), now=self._now())
        )
        for delivery in self._chosen(found, by_id):
            self._send(by_id[delivery.webhook_id], delivery)
        return None if later is None else max(0.0, later / SECOND - float(self._clock.seconds()))

    def _rooms(self, hooks: list[Webhook]) -> dict[int, int]:
        busy = Counter(hook.webhook_id for hook, _ in self._sending.values())
        rooms = {}
        for hook in hooks:
            most = FAILING_EACH if hook.failing_since else AT_ONCE_EACH
            rooms[hook.webhook_id] = max(0, most - busy[hook.webhook_id])
        return rooms

    def _chosen(self, found: list[Delivery], by_id: dict[int, Webhook]) -> list[Delivery]:
        """Those that well webhooks wait for first, and no more than there are turns."""
        failing = [each for each in found if by_id[each.webhook_id].failing_since]
        well = [each for each in found if not by_id[each.webhook_id].failing_since]
        held = sum(1 for hook, _ in self._sending.values() if hook.failing_since)
        chosen = well + failing[: max(0, FAILING_AT_ONCE - held)]
        return chosen[: max(0, AT_ONCE - len(self._sending))]

    # -- one delivery -------------------------------------------------------------------------

    def _send(self, hook: Webhook, delivery: Delivery) -> None:
        sending = Deferred.fromCoroutine(self._deliver(hook, delivery))
        if not sending.called:
            self._sending[delivery.delivery_id] = (hook, sending)

        def ended(_: Any) -> None:
            self._sending.pop(delivery.delivery_id, None)
            self._turn.wake()

        sending.addErrback(lambda failure: failure.trap(CancelledError) and None)
        sending.addErrback(lambda failure: log.failure("a webhook stumbled", failure))
        sending.addCallback(ended)

    async def _deliver(self, hook: Webhook, delivery: Delivery) -> None:
        code, error = await self._post(hook, delivery)
        now = self._now()
        if error:
            note = partial(webhooks.failed, delivery=delivery, code=code, error=error, now=now)
        else:
            note = partial(webhooks.sent, delivery=delivery, code=code, now=now)
        while True:
            try:
                await self._database.write(note)
            except MailError as refusal:
                log.warn("a delivery to a webhook is not noted yet: {error}", error=refusal)
            else:
                break
            await deferLater(self._clock, NOTE_S)

    async def _post(self, hook: Webhook, delivery: Delivery) -> tuple[int, str]:
        """The status of the answer, and why it is none that counts."""
        body = delivery.body.encode("utf-8", "replace")
        try:
            secret = self._secrets.open(hook.secret, PURPOSE)
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "mailtwist",
                "Mailtwist-Event": delivery.kind,
                "Mailtwist-Delivery": delivery.reference_id,
                "Mailtwist-Signature": signature(secret, int(self._clock.seconds()), body),
            }
            answer = await self._web.request(
                "POST", hook.url, headers=headers, body=body, timeout_s=TIMEOUT_S, max_body=MAX_BODY
            )
        except MailError as error:
            log.info("webhook {number}: {error}", number=hook.webhook_id, error=error)
            return 0, error.text
        if answer.status // 100 == 2:
            return answer.status, ""
        return answer.status, f"The answer was {answer.status}"

    def _now(self) -> int:
        return int(self._clock.seconds() * SECOND)
