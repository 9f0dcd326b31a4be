"""A web server that is posted to: takes, refuses, hangs or redirects, as it is told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Posted:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """``answer(posted)``: a status, or (status, headers, body); it may block or raise."""

    def __init__(
        self, answer: Callable[[Posted], Any] = lambda posted: 200, *, pem: Path | None = None
    ) -> None:
        self.answer = answer
        self.posted: list[Posted] = []
        self._came = threading.Condition()
        self.released = threading.Event()  # what hangs waits for this
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                receiver._serve(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # a client that must call again waits a second

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # Clients break off on purpose.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.scheme = "http" if pem is None else "https"
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(0.01,),  # close() waits that long
            daemon=True,
        )
        self._thread.start()

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def hang(self, posted: Posted) -> int:
        """An answer that does not come."""
        self.released.wait(PATIENCE_S)
        return 200

    def wait(self, count: int) -> list[Posted]:
        """What was posted, as soon as it is so many."""
        with self._came:
            came = self._came.wait_for(lambda: len(self.posted) >= count, PATIENCE_S)
        assert came, self.posted
        return list(self.posted)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        posted = Posted(handler.command, handler.path, headers, handler.rfile.read(length))
        with self._came:
            self.posted.append(posted)
            self._came.notify_all()
        answer = self.answer(posted)
        status, more, body = answer if isinstance(answer, tuple) else (answer, {}, b"thanks")
        handler.send_response(status)
        for name, value in more.items():
            handler.send_header(name, value)
        if "Transfer-Encoding" not in more:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
