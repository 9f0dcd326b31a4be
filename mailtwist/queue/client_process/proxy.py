"""The way to the client process: sessions are asked for, and it is watched.

Nothing here knows how the process came to be; what is at the other end of the channel may as
well be in this one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailtwist.queue.client_process import values
from mailtwist.queue.client_process.channel import Channel
from mailtwist.queue.client_process.session import ProcessEnded, ProxySession
from mailtwist.queue.client_process.values import Words
from mailtwist.queue.values import Host, Login, TlsPolicy

log = Logger()

# A process that says nothing from one look to the next, though it was asked, is given up.
WATCH_S: Final = 30.0
# Looks in a row without a session, after which it is not worth its memory.
IDLE_LOOKS: Final = 10


class ProxyConnector:
    """As ports.Connector. ``ready()`` is called when it can be asked, ``ended()`` when it no
    longer can. ``channel`` is to be opened by whoever makes it.
    """

    def __init__(
        self, reactor: Any, *, ready: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self.channel = Channel(reactor, self._received, self._lost)
        self._ready = ready
        self._ended = ended
        self._sessions: dict[int, ProxySession] = {}
        self._numbers = count(1)
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor
        self._is_heard = True
        self._idle_looks = 0
        self.is_ready = False

    def watch(self) -> None:
        """Look now and then whether it still speaks, and is still wanted."""
        self._watch.start(WATCH_S, now=False).addErrback(
            lambda failure: log.failure("the client process is not watched", failure)
        )

    async def connect(
        self, host: Host, *, hostname: str, policy: TlsPolicy, login: Login | None, is_lmtp: bool
    ) -> ProxySession:
        """As ports.Connector. Raises: ProcessEnded too."""
        if not self.is_ready:
            raise ProcessEnded
        number = next(self._numbers)
        session = self._sessions[number] = ProxySession(self, number, host)
        await session.connect(values.of_wishes(host, hostname, policy, login, is_lmtp))
        return session

    # -- for its sessions -------------------------------------------------------------------------

    def send(self, words: Words, data: bytes = b"") -> None:
        self.channel.send(words, data)

    def forget(self, number: int) -> None:
        self._sessions.pop(number, None)

    # -- the channel ------------------------------------------------------------------------------

    def _received(self, words: Words, _data: bytes) -> None:
        self._is_heard = True
        verb, *rest = words
        if verb != "pong":
            number, *rest = rest
            session = self._sessions.get(number)
            # None: what it says has crossed our last word to it.
            if session is not None:
                session.received(verb, *rest)
        elif not self.is_ready:
            self.is_ready = True
            self._ready()

    def _look(self) -> None:
        if not self._is_heard:
            log.error("the client process is silent and is ended")
            self.channel.close()
            return
        self._idle_looks = 0 if self._sessions else self._idle_looks + 1
        if self._idle_looks >= IDLE_LOOKS:
            self.channel.close()
            return
        self._is_heard = False
        self.send(["ping"])

    def _lost(self) -> None:
        """The channel is gone, and with it the sessions."""
        self.is_ready = False
        if self._watch.running:
            self._watch.stop()
        sessions, self._sessions = self._sessions, {}
        self._ended()
        for session in sessions.values():
            session.lost()
