"""An HTTPS server in the place of an authority: it says what a test tells it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.authority import Authority as Signer
from tests.support.authority import server_context

PROBLEM = "application/problem+json"
Said = tuple[int, dict[str, str], bytes]


class Facade:
    """An HTTPS server that answers each path as it is told, nonces included."""

    def __init__(self, folder: Path) -> None:
        self.signer = Signer(folder)
        self.answers: dict[str, Said | Callable[[], Said]] = {}
        self.asked: list[str] = []
        self.bodies: list[Any] = []
        facade = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                facade.asked.append(f"{self.command} {self.path}")
                length = int(self.headers.get("Content-Length") or 0)
                facade.bodies.append(json.loads(self.rfile.read(length)) if length else None)
                found = facade.answers.get(self.path, (404, {}, b""))
                status, headers, body = found() if callable(found) else found
                self.send_response(status)
                self.send_header("Replay-Nonce", f"nonce{len(facade.asked):03}")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *arguments: object) -> None:
                pass  # the client hung up, as it should

        self._server = Server(("127.0.0.1", 0), Handler)
        context = server_context(self.signer.issue("127.0.0.1"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        self.offer()

    def offer(self, **more: Any) -> None:
        """The directory: what every authority has, and more."""
        names = ("newNonce", "newAccount", "newOrder", "revokeCert")
        found = {name: f"{self.url}/{name}" for name in names}
        self.say("/dir", {**found, **more})
        self.say("/newNonce", {})

    def say(self, path: str, value: Any, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): each for name, each in headers.items()}
        self.answers[path] = (
            status,
            {"Content-Type": "application/json", **named},
            json.dumps(value).encode(),
        )

    def refuse(self, path: str, kind: str, detail: str, status: int = 400, **headers: str) -> None:
        problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}
        self.say(path, problem, status, **{"Content_Type": PROBLEM, **headers})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
