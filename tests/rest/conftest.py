"""Servers as processes, each on both databases; what is done to them is HTTP, SMTP and IMAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.relaying import going_to
from tests.e2e.server import Server
from tests.support import postgres
from tests.support.rest import Rest
from tests.support.sink import EXTENSIONS, Sink


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def module_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The ``database_url`` of a server for the tests of a file; empty: SQLite."""
    if request.param == "sqlite":
        yield ""
        return
    cluster: postgres.Server = request.getfixturevalue("postgresql_server")
    url = cluster.fresh()
    yield url
    cluster.drop(url)


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """A next hop for all foreign mail; it takes everything."""
    with Sink(extensions=EXTENSIONS) as running:
        yield running
    assert running.faults == []


@pytest.fixture(scope="module")
def server(
    module_url: str, sink: Sink, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One running server for the tests of a file, without users yet."""
    settings: dict[str, Any] = {"outbound": going_to(sink)}
    if module_url:
        settings["database_url"] = module_url
    with Server(tmp_path_factory.mktemp("rest"), **settings) as running:
        yield running
    faults = [each for each in running.events if "unhandled" in str(each).lower()]
    assert faults == []
    running.check()


@pytest.fixture(scope="module")
def nobody(server: Server) -> Rest:
    """A guest of that server."""
    return Rest(server.ports["http"])


@pytest.fixture(scope="module")
def admin(nobody: Rest) -> Rest:
    """Its administrator; the server is locked down."""
    return nobody.become_administrator()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers that one test may stop, kill and start again."""
    made: list[Server] = []

    def make(**settings: Any) -> Server:
        made.append(Server(tmp_path / f"server{len(made)}", **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        each.check()


@pytest.fixture
def make_fresh(
    fresh_url: dict[str, str], make_server: Callable[..., Server]
) -> Callable[..., Server]:
    """The same on one database after the other."""
    return partial(make_server, **fresh_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_url(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Settings of a server of one's own, on one database after the other."""
    if request.param == "sqlite":
        yield {}
        return
    cluster: postgres.Server = request.getfixturevalue("postgresql_server")
    url = cluster.fresh()
    yield {"database_url": url}
    cluster.drop(url)
