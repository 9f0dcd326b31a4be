"""What sites of Dinky Server have in their code, run as it is: Node, and a page in a browser."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.server import Server, run, tool

pytestmark = pytest.mark.real

# Enough of a web framework for the handler of a contact form.
NODE = """
const handlers = {};
const app = {post: (path, handler) => { handlers[path] = handler; }};
const MAIL_API = process.argv[2];

app.post('/contact', async (req, res) => {
  try {
    const response = await fetch(`${MAIL_API}/send`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        to: "hello@example.com",
        subject: "Contact Form Submission",
        body: `Name: ${req.body.name}\\nEmail: ${req.body.email}\\nMessage: ${req.body.message}`,
        html: false
      })
    });

    const result = await response.json();
    if (result.success) {
      res.status(200).send({ message: "Message sent successfully" });
    } else {
      res.status(500).send({ message: "Failed to send message" });
    }
  } catch (error) {
    res.status(500).send({ message: "An error occurred" });
  }
});

const res = {
  status(code) { this.code = code; return this; },
  send(body) { console.log(JSON.stringify({code: this.code, body})); },
};
handlers['/contact'](
  {body: {name: "Zoë", email: "zoe@site.example", message: "Hello, how are you?"}}, res);
"""

PAGE = """<!DOCTYPE html>
<title>Contact</title>
<p id="outcome">waiting</p>
<script>
const say = (text) => { document.getElementById("outcome").textContent = text; };
fetch("%s/send", {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify({to: "hello@example.com", subject: "From a page", body: location.origin}),
}).then(async (answer) => say(JSON.stringify([answer.status, await answer.json()])),
        () => say("kept from us"));
</script>
"""


class _Site:
    """One page, served at every path."""

    def __init__(self) -> None:
        site = self
        self.page = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = site.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def site() -> Iterator[_Site]:
    found = _Site()
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, site: _Site) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("dinky"))
    for known_by_environment in ("domains", "hostname"):
        del running.settings[known_by_environment]
    running.environment = {
        "MAIL_DOMAIN": "example.com",
        "MAIL_HOSTNAME": "mail.example.com",
        "DEFAULT_FROM": "noreply@example.com",
        "ALLOWED_HOSTS": f"yourdomain.com, localhost:{site.port}",
        "ENVIRONMENT": "production",
        "TRAEFIK_ENTRYPOINT": "https",
        "ENABLE_TLS": "true",
    }
    running.account("hello")
    with running:
        yield running


def api(server: Server) -> str:
    return f"http://127.0.0.1:{server.ports['http']}"


def newest(server: Server) -> str:
    found = server.mails("hello@example.com")
    return found[max(found)].decode() if found else ""


@pytest.mark.mission("DIN-01", "GEN-06")
def test_the_contact_form_of_a_site_in_node_is_sent(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "contact.js"
    script.write_text(NODE)
    said = run(tool("node"), str(script), api(server)).stdout
    assert json.loads(said) == {"code": 200, "body": {"message": "Message sent successfully"}}
    arrived = newest(server)
    assert "Subject: Contact Form Submission" in arrived
    assert "From: noreply@example.com" in arrived


def browse(url: str, profile: Path) -> str:
    """The page as a browser shows it once its scripts have run."""
    program = tool("chromium")
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-extensions", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
        "--virtual-time-budget=20000", "--dump-dom", url,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.mission("DIN-18", "DIN-19")
def test_a_page_of_a_listed_site_sends_and_another_one_does_not(
    server: Server, site: _Site, tmp_path: Path
) -> None:
    site.page = PAGE % api(server)
    shown = browse(f"http://localhost:{site.port}/contact", tmp_path / "profile")
    assert '[200,{"success":true,"message":"Email sent successfully"}]' in shown
    assert f"http://localhost:{site.port}" in newest(server)
    # The same page under another name, which is not in ALLOWED_HOSTS.
    shown = browse(f"http://127.0.0.1:{site.port}/contact", tmp_path / "profile")
    assert "kept from us" in shown
    assert f"http://localhost:{site.port}" in newest(server), "and nothing was sent"
