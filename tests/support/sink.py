"""A next hop that does what a test tells it: SMTP or LMTP, real TCP, one thread a connection.

It needs no reactor, so that it serves tests inside one and tests that drive a server process::

    with Sink(replies={"RCPT": ["451 4.7.1 try later"]}) as sink:   # later ones: 250
        ... deliver to 127.0.0.1, sink.port ...
    assert sink.mails[0].recipients == ["bob@example.net"]

``replies`` maps a verb (GREETING EHLO HELO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT END RSET
QUIT NOOP; END is what follows the content), or "RCPT bob@example.net", to one reply (for
ever) or a list (each once, over all connections; then as usual). A reply is "451 4.7.1 text",
several lines are joined by "\\n" ("250-a\\n250 b"), and it may be a fault:

    !hang           answer nothing more, until the client goes or the sink stops
    !reset          end the connection by RST
    !close          end it
    !garbage        octets that are no reply
    !long           a line that never ends (1 MiB)
    !lines          a reply of lines without end
    !raw TEXT       these octets, and no line end (backslash escapes are decoded)
    !then TEXT      the reply TEXT, then the connection ends
    !mute TEXT      the reply TEXT, then as !hang
    !deaf TEXT      the reply TEXT, then nothing more is read
    !early TEXT     354, and TEXT as soon as the first content comes; all the rest is ignored

``commands``, ``mails`` and the rest may be read at any time; ``wait`` awaits a condition of
them (in trial tests: ``await deferToThread(sink.wait, lambda: ...)``).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.support.sink_session import EXTENSIONS, Gone, Mail, Session, Visit

__all__ = ["EXTENSIONS", "PATIENCE_S", "Mail", "Sink", "Visit"]

PATIENCE_S = 30.0


class Sink:
    """Listens from the moment it is made; ``stop`` (or leaving ``with``) ends all."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        extensions: Sequence[str] = EXTENSIONS,
        replies: Mapping[str, str | Sequence[str]] | None = None,
        tls: ssl.SSLContext | None = None,
        is_implicit: bool = False,
        tls_garbage: bool = False,
        behind_starttls: bytes = b"",
        logins: Mapping[str, str] | None = None,
        mechanisms: str = "PLAIN LOGIN",
        ignores_initial: bool = False,
        is_lmtp: bool = False,
        is_byte_wise: bool = False,
        is_lenient: bool = False,
        delay: Callable[[str], float] | None = None,
        name: str = "sink.example.net",
    ) -> None:
        """``extensions`` are the lines of EHLO; STARTTLS and AUTH are added when ``tls`` and
        ``logins`` ask for them. ``tls_garbage``: STARTTLS is offered, then no TLS is spoken.
        ``ignores_initial``: AUTH PLAIN is asked for its response though it had brought it.
        ``is_lenient``: a lone LF ends lines too, as at servers that can be smuggled through.
        ``delay``: seconds to wait before the reply to a verb.
        """
        self.name = name
        self.extensions = list(extensions)
        self.replies: dict[str, str | list[str]] = {}
        self.script(replies or {})
        self.tls = tls
        self.is_implicit = is_implicit
        self.tls_garbage = tls_garbage
        self.behind_starttls = behind_starttls
        self.logins = logins
        self.mechanisms = mechanisms
        self.ignores_initial = ignores_initial
        self.is_lmtp = is_lmtp
        self.is_byte_wise = is_byte_wise
        self.is_lenient = is_lenient
        self.delay = delay
        self.visits: list[Visit] = []
        self.mails: list[Mail] = []
        self.faults: list[str] = []  # what the client did against the rules
        self.peak = 0  # most connections at once
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=200)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    # -- what tests say and ask ----------------------------------------------------------------

    def script(self, replies: Mapping[str, str | Sequence[str]]) -> None:
        """Change what is answered from now on; the verbs not named keep their replies."""
        for verb, reply in replies.items():
            self.replies[verb] = reply if isinstance(reply, str) else list(reply)

    @property
    def taken(self) -> list[Mail]:
        """The messages that were answered 250, at least for one recipient."""
        return [mail for mail in list(self.mails) if mail.is_taken]

    @property
    def is_hanging(self) -> bool:
        return any(visit.is_hanging for visit in list(self.visits))

    @property
    def commands(self) -> list[str]:
        return [command for visit in list(self.visits) for command in list(visit.commands)]

    def wait(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Block until the condition holds. Raises: AssertionError after the time-out."""
        with self.changed:
            if not self.changed.wait_for(condition, timeout_s):
                raise AssertionError(f"not so after {timeout_s} s; the sink saw {self.commands}")

    def wait_for_mails(self, count: int = 1, timeout_s: float = PATIENCE_S) -> list[Mail]:
        """Block until so many messages were taken."""
        self.wait(lambda: len(self.taken) >= count, timeout_s)
        return self.taken

    def stop_listening(self) -> None:
        """Refuse further connections; those that are there go on."""
        # accept() in the other thread wakes up only by shutdown.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stop(self) -> None:
        self.stopping.set()
        self.stop_listening()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def hang_up(self) -> None:
        """End the connections that are there."""
        with self.changed:
            for connection in list(self._sockets):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    # -- the inside ----------------------------------------------------------------------------

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self._sockets.add(connection)
                visit = Visit(peer)
                self.visits.append(visit)
                self.peak = max(self.peak, sum(visit.is_open for visit in self.visits))
                self.changed.notify_all()
            self._start(self._serve, connection, visit)

    def _serve(self, connection: socket.socket, visit: Visit) -> None:
        session = Session(self, connection, visit)
        try:
            session.run()
        except (Gone, OSError):
            pass
        finally:
            with self.changed:
                visit.is_open = False
                self._sockets.discard(connection)
                self._sockets.discard(session.socket)
                self.changed.notify_all()
            with contextlib.suppress(OSError):
                session.socket.close()
            connection.close()

    def swap(self, old: socket.socket, new: socket.socket) -> None:
        with self.changed:
            self._sockets.discard(old)
            self._sockets.add(new)
        if self.stopping.is_set():
            raise Gone

    def reply_for(self, verb: str, subject: str = "") -> str:
        with self.changed:
            for key in (f"{verb} {subject}", verb):
                scripted = self.replies.get(key)
                if isinstance(scripted, str):
                    return scripted
                if scripted:
                    return scripted.pop(0)
        return ""

    def note(self, change: Callable[[], None]) -> None:
        with self.changed:
            change()
            self.changed.notify_all()
