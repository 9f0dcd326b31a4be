"""What one write holds for the queue, on its way to the runner."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mailtwist.store.deliver import Acceptance
from mailtwist.store.queue.values import Lease

if TYPE_CHECKING:
    from mailtwist.queue.intake import Outbound


class HandingOver:
    """Room at the runner for messages that are about to be written together.

    :meth:`reserve` each, write, then :meth:`take`; or :meth:`give_back` when nothing was written.
    """

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._held: list[tuple[Acceptance, Lease]] = []
        self._waits = False

    def reserve(self, acceptance: Acceptance) -> Acceptance:
        """The acceptance as it is to be written."""
        message = acceptance.queue
        if message is None:
            return acceptance
        lease = self._outbound.reserve(message, acceptance.content.octets)
        if lease is None:
            self._waits = True
            return acceptance
        self._held.append((acceptance, lease))
        return replace(acceptance, lease=lease)

    def leave(self, acceptance: Acceptance) -> None:
        """One that goes into its rows and waits there."""
        self._waits = self._waits or acceptance.queue is not None

    def give_back(self) -> None:
        for acceptance, _ in self._held:
            assert acceptance.queue is not None
            self._outbound.give_back(acceptance.queue)

    def take(self) -> None:
        """It is committed."""
        for acceptance, lease in self._held:
            assert acceptance.queue is not None
            self._outbound.take(acceptance.queue, acceptance.content.data, lease)
        if self._waits:
            self._outbound.wake()
