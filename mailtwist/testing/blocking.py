"""The server and its inbox for programs that block: every call waits for the reactor's thread."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, overload

from mailtwist.testing import loop
from mailtwist.testing.inbox import AsyncInbox
from mailtwist.testing.server import ADDRESS, AsyncMailServer, Place
from mailtwist.testing.wanted import DEFAULT_TIMEOUT_S, NoMessage, Text

if TYPE_CHECKING:
    import ssl

    from mailtwist.testing.message import Message


class MailServer:
    """A server in this process: ``with MailServer() as mail: ...``.

    See :class:`AsyncMailServer` for what it is made from. What still runs when the process ends
    is stopped then.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        address: str = ADDRESS,
        password: str = "",
    ) -> None:
        self._server = AsyncMailServer(settings, address=address, password=password)
        self.inbox: Inbox

    # -- life -------------------------------------------------------------------------------

    def start(self) -> Self:
        """Serve on return. Raises: ConfigError for settings that cannot be used."""
        self._pid = os.getpid()
        # Before: it goes on in the reactor when this thread is interrupted.
        atexit.register(self._end)
        try:
            loop.call(self._server.start)
        except Exception:
            atexit.unregister(self._end)
            raise
        self.inbox = Inbox(self._server.inbox)
        return self

    def stop(self) -> None:
        """End all sessions, and remove all there is. A second call does nothing."""
        atexit.unregister(self._end)
        loop.call(self._server.stop)

    def _end(self) -> None:
        # A child that was forked has the list of what to do at exit, and not the server.
        if os.getpid() == self._pid:
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def reset(self) -> None:
        """Be as after the start: no mail, no accounts added, no refusals, no bad logins."""
        loop.call(self._server.reset)

    # -- what there is ----------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The account that there is from the start."""
        return self._server.address

    @property
    def password(self) -> str:
        return self._server.password

    @property
    def api_key(self) -> str:
        """Opens ``/emails``, as ``X-API-KEY``."""
        return self._server.api_key

    @property
    def smtp(self) -> Place:
        """Takes mail as an MX does, without a login."""
        return self._server.smtp

    @property
    def submission(self) -> Place:
        """Takes mail after a login."""
        return self._server.submission

    @property
    def submissions(self) -> Place:
        """The same under TLS from the start."""
        return self._server.submissions

    @property
    def imap(self) -> Place:
        return self._server.imap

    @property
    def imaps(self) -> Place:
        return self._server.imaps

    @property
    def http(self) -> Place:
        return self._server.http

    @property
    def http_url(self) -> str:
        """Where HTTP is served, without a slash at the end."""
        return self._server.http_url

    def tls_context(self) -> ssl.SSLContext:
        """A context for clients, which trusts the certificate of this server alone."""
        return self._server.tls_context()

    def add_account(self, address: str, password: str) -> None:
        """Make an account, with its default mailboxes. Raises: Conflict when there is one."""
        loop.call(lambda: self._server.add_account(address, password))

    # -- what goes wrong on purpose -----------------------------------------------------------

    def refuse(self, recipient: str, reply: str, *, at: str = "rcpt") -> None:
        """Answer RCPT of an address, or with ``at="data"`` the message, with a reply.

        ``reply`` is such as ``550 5.1.1 User unknown``; ``recipient`` may have ``*`` and ``?`` in
        it. It holds for connections that are opened from now on. Raises: ValueError.
        """
        self._go_wrong("refuse", recipient, reply, at=at)

    def delay(self, recipient: str, seconds: float, *, at: str = "rcpt") -> None:
        """Keep an answer back."""
        self._go_wrong("delay", recipient, seconds, at=at)

    def drop(self, recipient: str, *, at: str = "rcpt") -> None:
        """Cut the connection in place of an answer."""
        self._go_wrong("drop", recipient, at=at)

    def _go_wrong(self, how: str, *values: Any, at: str) -> None:
        async def change() -> None:
            getattr(self._server, how)(*values, at=at)

        loop.call(change)


class Inbox:
    """All mail that came, whoever it was for; called with a name, that of one recipient.

    A message is here before its sender hears 250.
    """

    def __init__(self, inbox: AsyncInbox) -> None:
        self._inbox = inbox

    def __call__(self, recipient: str) -> Inbox:
        """What came for an address, or without a domain for this name in any domain."""
        return Inbox(self._inbox(recipient))

    def messages(self) -> list[Message]:
        """Those that are there, oldest first."""
        return loop.call(self._inbox.messages)

    def __len__(self) -> int:
        return len(self.messages())

    def __bool__(self) -> bool:
        """An inbox without mail is one too."""
        return True

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages())

    @overload
    def __getitem__(self, at: int) -> Message: ...
    @overload
    def __getitem__(self, at: slice) -> list[Message]: ...
    def __getitem__(self, at: int | slice) -> Message | list[Message]:
        return self.messages()[at]

    def wait(
        self,
        *,
        subject: Text | None = None,
        sender: Text | None = None,
        to: Text | None = None,
        text: Text | None = None,
        where: Any = None,
        after: Message | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Message:
        """The newest message that fits, or the first that comes within ``timeout`` seconds.

        A text fits as a part, in whatever case; a pattern where it is found. ``text`` is looked
        for in text and HTML; ``where`` is asked about what fits else; ``after``: only what came
        later. Raises: NoMessage, which lists what did come.
        """
        # pytest shows the line of the test then, and nothing of ours.
        __tracebackhide__ = True
        try:
            return loop.call(
                lambda: self._inbox.wait(
                    subject=subject,
                    sender=sender,
                    to=to,
                    text=text,
                    where=where,
                    after=after,
                    timeout=timeout,
                )
            )
        except NoMessage as error:
            # It has come through the reactor, which tells nobody anything.
            raise error.with_traceback(None) from None

    async def arrival(self, **wanted: Any) -> Message:
        """:meth:`wait` for programs on asyncio, which runs on meanwhile."""
        return await asyncio.to_thread(self.wait, **wanted)

    def clear(self) -> None:
        """Remove all mail from all mailboxes of all accounts."""
        loop.call(self._inbox.clear)
