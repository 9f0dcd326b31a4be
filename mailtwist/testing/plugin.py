"""The pytest plug-in: loaded into every run where mailtwist is installed, so it imports nothing.

Under pytest-xdist each worker is a process and has a server of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mailtwist.testing.blocking import MailServer


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Leave the server as it is. Called before any conftest.py is loaded.

    pytest rewrites the asserts of every package that a plug-in comes with: here these are the
    server's own, and the first start in a process would take three times as long.
    """
    hook: Any = getattr(pluginmanager, "rewrite_hook", None)
    for name in ("_must_rewrite", "_marked_for_rewrite_cache"):
        # A pytest that has neither has changed how this works: slower, and no worse.
        known = getattr(hook, name, None)
        if isinstance(known, set):
            known.discard("mailtwist")
        elif isinstance(known, dict):
            known.clear()


@pytest.fixture(scope="session")
def mailtwist_settings() -> dict[str, Any]:
    """What the server is given, as in its configuration file. To be replaced in a conftest.py."""
    return {}


@pytest.fixture(scope="session")
def mailtwist_server(mailtwist_settings: dict[str, Any]) -> Iterator[MailServer]:
    """A mail server for the whole run: SMTP, IMAP and HTTP on free ports, and nothing leaves."""
    from mailtwist.testing.blocking import MailServer

    with MailServer(mailtwist_settings) as server:
        yield server


@pytest.fixture
def mailtwist(mailtwist_server: MailServer) -> MailServer:
    """The same server, emptied before the test."""
    mailtwist_server.reset()
    return mailtwist_server
