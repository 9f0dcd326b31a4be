"""A mail server for tests: in the process of the test, on free ports, ready in a second.

``MailServer`` is for everybody; the pytest fixtures ``mailtwist`` and ``mailtwist_server`` come
with the package; ``MailTestCase`` is for unittest, :mod:`mailtwist.testing.trial` for trial.
Nothing is imported before it is used: pytest loads the fixtures into every run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailtwist.testing.blocking import Inbox, MailServer
    from mailtwist.testing.cases import MailTestCase
    from mailtwist.testing.inbox import AsyncInbox
    from mailtwist.testing.message import Attachment, Message
    from mailtwist.testing.server import AsyncMailServer, Place
    from mailtwist.testing.wanted import NoMessage

__all__ = [
    "AsyncInbox",
    "AsyncMailServer",
    "Attachment",
    "Inbox",
    "MailServer",
    "MailTestCase",
    "Message",
    "NoMessage",
    "Place",
]

_MODULES = {
    "AsyncInbox": "inbox",
    "AsyncMailServer": "server",
    "Attachment": "message",
    "Inbox": "blocking",
    "MailServer": "blocking",
    "MailTestCase": "cases",
    "Message": "message",
    "NoMessage": "wanted",
    "Place": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
