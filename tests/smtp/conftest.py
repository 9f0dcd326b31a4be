from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from tests.support.smtp_server import Server
from tests.support.stores import violations


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Inline]:
    """A fresh SQLite store; what is wrong with it at the end fails the test."""
    engine = open_engine(sqlite_url)
    database = Inline(engine)
    yield database
    try:
        assert violations(engine) == []
    finally:
        database.release()
        engine.dispose()


@pytest.fixture
def serve(store: Inline) -> Callable[..., Server]:
    return lambda *given, **parts: Server(store, given, **parts)


@implementer(ILogObserver)
class Events:
    """Log events, in the order in which they came."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def __call__(self, event: LogEvent) -> None:
        self.found.append(event)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.found)

    @property
    def failures(self) -> list[str]:
        """The tracebacks among them."""
        return [
            each["log_failure"].getTraceback()
            for each in self.found
            if each.get("log_failure") is not None
        ]


@pytest.fixture
def logged() -> Iterator[Events]:
    """What is logged during the test."""
    found = Events()
    globalLogPublisher.addObserver(found)
    yield found
    globalLogPublisher.removeObserver(found)
