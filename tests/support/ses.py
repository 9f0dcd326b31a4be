"""Amazon SES on loopback: one that says what a test wants and keeps what it was asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

_GOOD = """<{action}Response xmlns="http://ses.amazonaws.com/doc/2010-12-01/">
<{action}Result><MessageId>0100-{n}</MessageId></{action}Result>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"""
_BAD = """<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/">
<Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>
<RequestId>1</RequestId></ErrorResponse>"""


@dataclass(frozen=True)
class Asked:
    """One request: its header and the parameters of its form."""

    headers: dict[str, str]
    form: dict[str, str]

    @property
    def action(self) -> str:
        return self.form["Action"]

    def list(self, name: str) -> list[str]:
        """``Destination.ToAddresses`` and its like, in order."""
        values: list[str] = []
        while (value := self.form.get(f"{name}.member.{len(values) + 1}")) is not None:
            values.append(value)
        return values


@dataclass
class FakeSes:
    """``answers``: (HTTP status, code, text) each once, then all is taken; "hang" waits."""

    answers: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> FakeSes:
        self.changed = threading.Condition()
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                octets = self.rfile.read(int(self.headers["Content-Length"]))
                form = {name: values[0] for name, values in parse_qs(octets.decode()).items()}
                status, text = fake._answer(Asked(dict(self.headers), form))
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def wait(self, count: int = 1) -> list[Asked]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, 30)
        return self.asked

    def release(self) -> None:
        """Let go of those that hang."""
        self.released.set()

    def _answer(self, asked: Asked) -> tuple[int, str]:
        with self.changed:
            self.asked.append(asked)
            self.changed.notify_all()
            answer = self.answers.pop(0) if self.answers else None
        if answer == "hang":
            self.released.wait(30)
            answer = None
        if answer is None:
            return 200, _GOOD.format(action=asked.action, n=len(self.asked))
        status, code, text = answer
        return status, _BAD.format(code=code, text=text)
