"""A body that is written bit by bit, as far as the client takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Drain:
    """A :class:`mailtwist.http.exchange.Sink` over a request of Twisted's."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._is_full = False
        self._callback: Callable[[], object] = lambda: None
        self._is_open = True
        request.registerProducer(self, True)

    @property
    def is_full(self) -> bool:
        return self._is_full

    def write(self, data: bytes) -> None:
        if self._is_open:
            self._request.write(data)

    def on_drain(self, callback: Callable[[], object]) -> None:
        self._callback = callback

    def close(self) -> None:
        """Nothing more is written."""
        if self._is_open:
            self._is_open = False
            self._request.unregisterProducer()

    def pauseProducing(self) -> None:  # noqa: N802
        self._is_full = True

    def resumeProducing(self) -> None:  # noqa: N802
        self._is_full = False
        self._callback()

    def stopProducing(self) -> None:  # noqa: N802
        # The connection is lost: the request tells whoever answers it.
        self._is_full, self._is_open = True, False
