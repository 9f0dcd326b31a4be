"""The real server as a process of its own, and the mails and clients that go at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.relaying import going_to
from tests.e2e.server import Server
from tests.support.sink import EXTENSIONS, Sink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One running server for the tests of a file; each test takes an account of its own."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running
    running.check()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers that one test may stop, kill and start again."""
    made: list[Server] = []

    def make(**settings: Any) -> Server:
        made.append(Server(tmp_path / f"server{len(made)}", **settings))
        return made[-1]

    yield make
    # All of them first: a store that is wrong must leave no process behind.
    for each in made:
        each.stop()
    for each in made:
        each.check()


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """A next hop for the tests of a file; it takes everything."""
    with Sink(extensions=[*EXTENSIONS, "CHUNKING"]) as running:
        yield running
    assert running.faults == []


@pytest.fixture(scope="module")
def relay(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server whose foreign mail goes to the sink."""
    folder = tmp_path_factory.mktemp("relay")
    with Server(folder, outbound=going_to(sink)) as running:
        yield running
    running.check()
