"""The documented configuration of an older server, and its session, through the real process."""

from __future__ import annotations

import re
import smtplib
import socket
from pathlib import Path

import pytest
import yaml

from tests.e2e.relaying import until
from tests.e2e.server import Server, trusting

pytestmark = pytest.mark.real

YAML = """\
hostname: "mail.example.com"
listen_addr: "127.0.0.1:0"
queue_dir: "./queue"
max_message_size: 26214400
dev_mode: true
allowed_relays:
  - "127.0.0.1"
  - "::1"
  - "192.168.65.1"

auth:
  enabled: true
  required: false
  methods:
    - "plain"
    - "login"

tls:
  enabled: true
  cert_file: "{cert}"
  key_file: "{key}"

queue:
  max_workers: 5
  max_retries: 3
  max_queue_time: 3600
  retry_schedule: [60, 300, 900]
"""
TOML = """\
hostname = "mail.example.com"
listen_addr = "127.0.0.1:0"
queue_dir = "./queue"
max_message_size = 26214400
dev_mode = true
allowed_relays = ["127.0.0.1", "::1", "192.168.65.1"]

[auth]
enabled = true
required = false
methods = ["plain", "login"]

[tls]
enabled = true
cert_file = "{cert}"
key_file = "{key}"

[queue]
max_workers = 5
max_retries = 3
max_queue_time = 3600
retry_schedule = [60, 300, 900]
"""
EXTENSIONS = {
    "size", "8bitmime", "smtputf8", "enhancedstatuscodes", "chunking", "dsn", "starttls", "help",
}  # fmt: skip


class Written(Server):
    """A server on a file that is written by hand."""

    def __init__(self, folder: Path, text: str, name: str = "elemta.yaml") -> None:
        from datetime import UTC, datetime

        from mailtwist.tls.selfsigned import load_or_make

        super().__init__(folder)
        certificates = folder / "certs"
        certificates.mkdir()
        chain, key = load_or_make(certificates, ["mail.example.com"], datetime.now(UTC))
        (folder / "cert.pem").write_bytes(chain)
        (folder / "key.pem").write_bytes(key)
        self.config = folder / name
        self.text = text.replace("{cert}", str(folder / "cert.pem"))
        self.text = self.text.replace("{key}", str(folder / "key.pem"))
        self.environment = {"MAILTWIST_DATA_DIR": str(self.data_dir)}


@pytest.fixture
def write(tmp_path, monkeypatch):
    made: list[Written] = []

    def make(text: str, name: str = "elemta.yaml", **environment: str) -> Server:
        server = Written(tmp_path / f"server{len(made)}", text, name)
        server.environment.update(environment)
        # The process reads what stands in the file, and nothing that the harness would write.
        monkeypatch.setattr(yaml, "safe_dump", lambda _: server.text)
        made.append(server)
        return server.start()

    yield make
    for each in made:
        each.stop()


@pytest.mark.mission("ELE-01", "ELE-02", "ELE-07")
@pytest.mark.parametrize(("name", "text"), [("elemta.yaml", YAML), ("elemta.toml", TOML)])
def test_the_documented_file_gives_the_documented_server(write, name, text):
    server = write(text, name)
    assert set(server.ports) == {"smtp"}
    with server.smtp() as client:
        assert client.ehlo("example.com")[0] == 250
        assert client.esmtp_features["size"] == "26214400"
        assert set(client.esmtp_features) >= EXTENSIONS
        assert "requiretls" not in client.esmtp_features
        client.starttls(context=trusting())
        client.ehlo("example.com")
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        assert "requiretls" in client.esmtp_features


@pytest.mark.mission("ELE-06")
def test_the_documented_session_is_answered_as_documented(write):
    server = write(YAML)
    dialogue = [
        (None, r"220 \S+ ESMTP .*ready"),
        ("EHLO example.com", r"250-mail\.example\.com Hello example\.com"),
        ("MAIL FROM:<sender@example.com>", r"250 2\.1\.0 OK"),
        ("RCPT TO:<recipient@example.com>", r"250 2\.1\.5 OK"),
        ("DATA", r"354 Start mail input; end with <CRLF>\.<CRLF>"),
        (
            "Subject: Test Email\r\n\r\nThis is a test email.\r\n.",
            r"250 2\.0\.0 Message accepted for delivery.*",
        ),
        ("QUIT", r"221 2\.0\.0 Bye"),
    ]
    with socket.create_connection(("127.0.0.1", server.ports["smtp"]), 60) as connection:
        file = connection.makefile("rb")
        for sent, wanted in dialogue:
            if sent is not None:
                connection.sendall(sent.encode() + b"\r\n")
            first = line = file.readline().decode().rstrip("\r\n")
            while line[3:4] == "-":
                line = file.readline().decode().rstrip("\r\n")
            assert re.fullmatch(wanted, first), (sent, first)
        assert file.read() == b""


@pytest.mark.mission("ELE-03")
@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("max_message_size: 26214400", "max_message_size: 1000000", "1000000"),
        ("max_message_size: 26214400", "max_size: 2000000", "2000000"),
        ("max_message_size: 26214400\n", "", "26214400"),
    ],
    ids=["max_message_size", "max_size", "neither"],
)
def test_both_names_of_the_size_count(write, old, new, size):
    with write(YAML.replace(old, new)).smtp() as client:
        client.ehlo()
        assert client.esmtp_features["size"] == size


@pytest.mark.mission("ELE-04")
def test_a_variable_beats_the_file(write):
    server = write(YAML, ELEMTA_HOSTNAME="other.example.org", ELEMTA_MAX_SIZE="3000000")
    with server.smtp() as client:
        assert client.ehlo("c")[1].startswith(b"other.example.org Hello c")
        assert client.esmtp_features["size"] == "3000000"


@pytest.mark.mission("ELE-52")
def test_the_queue_folder_is_refused_in_words(write):
    server = write(YAML)
    until(lambda: '"ready"' in server.log)
    assert "queue_dir: accepted for old files; the queue is in the database" in server.log


def test_keys_that_say_nothing_here_are_named_and_do_no_harm(write):
    more = (
        "queue_processor: {enabled: true, interval: 10, workers: 5}\n"
        "metrics: {enabled: true}\n"
        "plugins: {directory: /x}\n"
    )
    text = YAML.replace("tls:\n", "tls:\n  client_auth: none\n  letsencrypt: {enabled: true}\n")
    text = text.replace("auth:\n", "auth:\n  datasource_type: file\n  datasource_path: /x\n")
    server = write(text + more)
    until(lambda: '"ready"' in server.log)
    for key in (
        "queue_processor",
        "metrics",
        "plugins",
        "tls.client_auth",
        "tls.letsencrypt",
        "auth.datasource_type",
        "auth.datasource_path",
    ):
        assert f"{key}: is not read; " in server.log
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        assert client.noop()[0] == 250
