"""Both ends of the client process's channel in one reactor, so that its time is the test's."""

from __future__ import annotations

import socket
from typing import Any

from mailtwist.net.transport import open_pair
from mailtwist.queue.client_process.channel import Channel
from mailtwist.queue.client_process.program import Sessions
from mailtwist.queue.client_process.proxy import ProxyConnector
from mailtwist.queue.client_process.session import ProxySession
from mailtwist.queue.client_session import ClientSession
from mailtwist.queue.smtp_client import Connector


class Pair:
    """``proxy``: this end. ``sessions``: what the process would hold. ``frames``: what it was told
    and said, verbs alone.
    """

    def __init__(self, reactor: Any, connector: Connector) -> None:
        self.frames: list[str] = []
        self.events: list[str] = []
        self.proxy = ProxyConnector(
            reactor,
            ready=lambda: self.events.append("ready"),
            ended=lambda: self.events.append("ended"),
        )
        self.sessions = Sessions(connector)
        self.far = Channel(reactor, self._received, self.sessions.end)
        self.sessions.send = self._send
        ours, theirs = socket.socketpair()
        open_pair(reactor, ours, self.proxy.channel)
        open_pair(reactor, theirs, self.far)
        self._send(["pong"])

    def _received(self, words: list[Any], data: bytes) -> None:
        self.frames.append(words[0])
        self.sessions.received(words, data)

    def _send(self, words: list[Any], data: bytes = b"") -> None:
        self.frames.append(words[0])
        self.far.send(words, data)

    def held(self, session: ProxySession) -> ClientSession:
        """What the process has for a session."""
        found = self.sessions._sessions[session._number]._session
        assert found is not None
        return found

    def close(self) -> None:
        """End the channel, as the death of either process does."""
        self.proxy.channel.close()
        self.far.close()
