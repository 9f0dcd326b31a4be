"""Where a session is held: here, or in the client process once there is much to send."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.queue.client_process.process import ClientProcess
from mailtwist.queue.client_process.session import ProcessEnded
from mailtwist.queue.client_session import ClientSession
from mailtwist.queue.ports import Session
from mailtwist.queue.smtp_client import Connector, Timeouts
from mailtwist.queue.values import Host, Login, TlsPolicy

log = Logger()

# So many sessions at once are a load; a few letters now and then are none.
BUSY: Final = 4
# After a process that could not be had, or ended, the next one is tried.
AGAIN_S: Final = 60.0
# A process that was killed is gone by then.
END_S: Final = 2.0

MakeProcess = Callable[..., ClientProcess]


class ChoosingConnector:
    """As ports.Connector. ``busy``: sessions held here at which a process is started; 0: never."""

    def __init__(
        self,
        reactor: Any,
        *,
        timeouts: Timeouts,
        busy: int | None = None,
        make_process: MakeProcess = ClientProcess,
        clock: Any = None,
    ) -> None:
        self._reactor = reactor
        self._clock = reactor if clock is None else clock
        self._timeouts = timeouts
        self._here = Connector(reactor, timeouts=timeouts)
        self._make_process = make_process
        self._busy = (BUSY if processors() > 1 else 0) if busy is None else busy
        self._sessions: list[ClientSession] = []
        self._process: ClientProcess | None = None
        self._not_before = 0.0
        self._is_closed = False

    async def connect(
        self,
        host: Host,
        *,
        hostname: str,
        policy: TlsPolicy,
        login: Login | None = None,
        is_lmtp: bool = False,
    ) -> Session:
        """Raises: Undeliverable."""
        wishes: dict[str, Any] = {
            "hostname": hostname,
            "policy": policy,
            "login": login,
            "is_lmtp": is_lmtp,
        }
        process = self._process
        if process is not None and process.proxy.is_ready:
            try:
                return await process.proxy.connect(host, **wishes)
            except ProcessEnded:
                pass  # no message was offered: it can as well be done here
        session = await self._here.connect(host, **wishes)
        self._note(session)
        return session

    def _note(self, session: ClientSession) -> None:
        """One more session here: is it time for the process?"""
        self._sessions = [each for each in self._sessions if each.is_open]
        self._sessions.append(session)
        if self._process is not None or self._is_closed or not self._busy:
            return
        if len(self._sessions) >= self._busy and self._clock.seconds() >= self._not_before:
            self._start()

    def _start(self) -> None:
        self._not_before = self._clock.seconds() + AGAIN_S
        process = self._make_process(
            self._reactor,
            connect_timeout=self._timeouts.connect,
            ready=self._ready,
            ended=self._ended,
        )
        try:
            process.start()
        except OSError as error:
            log.warn("the client process cannot be started: {error}", error=str(error))
        else:
            self._process = process

    def _ready(self) -> None:
        """What is sent from here on is sent there."""
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.retire()

    def _ended(self) -> None:
        self._process = None

    async def close(self) -> None:
        """End the process, if there is one; sessions in it are lost."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.close()
            # Where the reactor leaves signals alone nobody tells us that it has ended.
            process.gone.addTimeout(END_S, self._clock, lambda _, __: None)
            await process.gone


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
