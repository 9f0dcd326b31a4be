"""The parts of ``/send``, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mailtwist.actions.mailing import Mailing
from mailtwist.http.send.access import Access
from mailtwist.http.send.routes import Send
from mailtwist.http.send.sending import Sending
from mailtwist.queue.assembly import Mail
from mailtwist.queue.awaited import Awaited

if TYPE_CHECKING:
    from mailtwist.config import Settings


def build(database: Any, *, mail: Mail, mailing: Mailing, settings: Callable[[], Settings]) -> Send:
    """One in a process. ``settings``: as they are now."""

    def awaited() -> Awaited | None:
        # Where another process runs the queue, nobody here hears of attempts.
        runner = mail.runner
        return runner.awaited if runner is not None and runner.is_leader else None

    sending = Sending(database, mail.intake, mailing, settings=settings, awaited=awaited)
    return Send(database, sending, Access(settings, mail.rates), mailing, settings=settings)
