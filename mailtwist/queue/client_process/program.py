"""The client process: holds the sessions that the server asks for, and does what it is told.

It has no store, no settings and no names; what it is given over the channel is all that it
knows. It ends with the channel, that is with the server, and not by the signals that are
meant for the server: what is under way may end first.

Verbs that come: connect, mail, block, quit, abort, end; ping. Verbs that go: connected, failed,
replies, more, closed, ended, stumbled; pong. All but the last of each carry a number.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from mailtwist.net.transport import open_pair
from mailtwist.queue.client_process import values
from mailtwist.queue.client_process.channel import Channel
from mailtwist.queue.client_process.values import Words
from mailtwist.queue.client_session import ClientSession
from mailtwist.queue.smtp_client import Connector, Timeouts
from mailtwist.queue.values import Undeliverable

log = Logger()

# The channel, as the process finds it.
CHANNEL_FD: Final = 0
# Sent to the whole group by a terminal or a service manager.
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Sessions:
    """All sessions that the other end of a channel has asked for."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.send: Callable[..., None] = lambda words, data=b"": None
        self._sessions: dict[int, _Session] = {}

    def received(self, words: Words, data: bytes) -> None:
        """Take one frame."""
        verb, *rest = words
        if verb == "ping":
            self.send(["pong"])
            return
        number, *rest = rest
        session = self._sessions.get(number)
        if session is None and verb == "connect":
            session = self._sessions[number] = _Session(self, number)
        # What is said of a forgotten one has crossed our last word on it.
        if session is not None:
            _VERBS[verb](session, data, *rest)

    def forget(self, number: int) -> None:
        self._sessions.pop(number, None)

    def end(self) -> None:
        """The other end is gone."""
        for session in tuple(self._sessions.values()):
            session.end(b"")


class _Session:
    """One of them; it has one task at a time."""

    def __init__(self, sessions: Sessions, number: int) -> None:
        self._sessions = sessions
        self._number = number
        self._session: ClientSession | None = None
        self._task: Deferred[None] | None = None
        self._is_busy = False
        self._block: Deferred[bytes | None] | None = None

    def _say(self, verb: str, *words: object) -> None:
        self._sessions.send([verb, self._number, *words])

    def _begin(self, task: Coroutine[Any, Any, None]) -> None:
        self._is_busy = True
        self._task = Deferred.fromCoroutine(task)
        self._task.addBoth(self._done)

    def _done(self, result: Failure | None) -> None:
        self._is_busy = False
        self._task = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            log.failure("a session stumbled", result)
            self._say("stumbled", result.getErrorMessage()[:500])
            self.end(b"")

    # -- what is asked --------------------------------------------------------------------------

    def connect(self, _data: bytes, *wishes: Any) -> None:
        self._begin(self._connect([*wishes]))

    async def _connect(self, wishes: Words) -> None:
        try:
            session = await self._sessions.connector.connect(**values.to_wishes(wishes))
        except Undeliverable as failure:
            self._sessions.forget(self._number)
            self._say("failed", values.of_reply(failure.reply), failure.tls)
            return
        self._session = session
        session.when_broken(self._broken)
        self._say("connected", session.tls, session.is_verified, dict(session.capabilities))
        if not session.is_open:
            self._say("closed", values.of_reply(session.lost))

    def mail(self, data: bytes, is_whole: bool, *words: Any) -> None:
        self._begin(self._deliver([*words], data if is_whole else None))

    async def _deliver(self, words: Words, whole: bytes | None) -> None:
        session = self._session
        assert session is not None
        mail = values.to_mail(words, self._asked if whole is None else lambda: _once(whole))
        replies = await session.deliver(mail)
        if not session.is_open:
            self._sessions.forget(self._number)
        self._say("replies", session.is_open, [values.of_reply(reply) for reply in replies])

    async def _asked(self) -> AsyncIterator[bytes]:
        """The blocks of a large content, each asked for when it is wanted."""
        is_first = True
        while True:
            block: Deferred[bytes | None] = Deferred()
            self._block = block
            self._say("more", is_first)
            is_first = False
            data = await block
            if data is None:
                return
            yield data

    def block(self, data: bytes, is_end: bool) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.callback(None if is_end else data)

    def quit(self, _data: bytes) -> None:
        self._begin(self._quit())

    async def _quit(self) -> None:
        if self._session is not None:
            await self._session.quit()
        self._sessions.forget(self._number)
        self._say("ended")

    def abort(self, _data: bytes) -> None:
        """The task goes on, and says what came of it."""
        if self._session is not None:
            self._session.abort()

    def end(self, _data: bytes) -> None:
        """Nobody wants to hear of it any more."""
        self._sessions.forget(self._number)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self.abort(b"")

    def _broken(self) -> None:
        # A task tells it by its answer.
        if not self._is_busy and self._session is not None:
            self._say("closed", values.of_reply(self._session.lost))


async def _once(whole: bytes) -> AsyncIterator[bytes]:
    yield whole


_VERBS: Final[Mapping[str, Callable[..., None]]] = {
    "connect": _Session.connect,
    "mail": _Session.mail,
    "block": _Session.block,
    "quit": _Session.quit,
    "abort": _Session.abort,
    "end": _Session.end,
}


def main() -> None:
    """Run it: ``program CONNECT_TIMEOUT``, with the channel as standard input."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    warnings = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    from twisted.internet import reactor

    timeouts = Timeouts(connect=float(sys.argv[1]))
    sessions = Sessions(Connector(reactor, timeouts=timeouts))
    given: Any = reactor
    channel = Channel(reactor, sessions.received, given.stop)
    sessions.send = channel.send
    open_pair(reactor, socket.socket(fileno=CHANNEL_FD), channel)
    channel.send(["pong"])
    gc.collect()
    gc.freeze()
    given.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
