"""Files and variables of an older server: used, or named in a warning, never refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailtwist.config import InvalidConfiguration, load
from mailtwist.config.predecessors import RETIRED_KEYS
from mailtwist.errors import ConfigError

REFERENCE = """
hostname: mail.example.com
listen_addr: "0.0.0.0:25"
queue_dir: /var/spool/elemta/queue
log_level: info
max_recipients: 70
banner: Some SMTP Server
tls: {enabled: true, cert_file: /c.pem, key_file: /k.pem, required: true, client_auth: false}
auth: {enabled: true, required: true, methods: [plain], backend: file, file_path: /users.json}
queue:
  max_workers: 10
  max_retries: 5
  max_queue_time: 172800
  retry_schedule: [60, 300, 900]
  keep_delivered_messages: true
  keep_message_data: true
  queue_priority_enabled: true
plugins: {enabled: true, directory: ./plugins, config_directory: ./config/plugins}
queue_processor: {enabled: true, interval: 10, workers: 5, debug: false}
"""
GROUPED = """
[server]
hostname = "mail.example.com"
listen = ":2525"
listen_submission = ":587"
max_size = 1000000
local_domains = ["example.com", "localhost"]
dev_mode = true
[queue]
dir = "/app/queue"
[delivery]
mode = "lmtp"
host = "dovecot"
port = 2424
timeout = 30
[logging]
level = "info"
options = { index = "x" }
[auth]
enabled = true
datasource_type = "ldap"
datasource_pass = "secret"
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.mission("ELE-01")
def test_every_documented_key_is_used_or_named(tmp_path: Path) -> None:
    found = load(written(tmp_path, "elemta.yaml", REFERENCE), {})
    assert [(each.protocol, each.host, each.port) for each in found.listeners] == [
        ("smtp", "0.0.0.0", 25)
    ]
    assert found.limits.recipients == 70
    assert (found.tls.required, found.tls.cert_file) == (True, "/c.pem")
    assert (found.auth.required, found.auth.methods) == (True, ("plain",))
    assert (found.auth.backend, found.auth.file_path) == ("file", "/users.json")
    queue = found.queue
    assert (queue.max_workers, queue.max_retries, queue.max_queue_time) == (10, 5, 172800)
    assert queue.retry_schedule == (60, 300, 900)
    assert queue.keep_delivered_messages
    warnings = "\n".join(found.warnings)
    for key in (
        "queue_dir",
        "banner",
        "tls.client_auth",
        "queue.keep_message_data",
        "queue.queue_priority_enabled",
        "plugins",
        "queue_processor",
    ):
        assert f"{key}: " in warnings


@pytest.mark.mission("ELE-02")
def test_keys_in_a_server_group_mean_the_same(tmp_path: Path) -> None:
    found = load(written(tmp_path, "elemta.toml", GROUPED), {})
    assert found.hostname == "mail.example.com"
    assert [(each.protocol, each.host, each.port) for each in found.listeners] == [
        ("smtp", "", 2525)
    ]
    assert found.max_message_size == 1_000_000
    assert found.domains == ("example.com", "localhost")
    assert found.dev_mode
    assert (found.delivery.host, found.delivery.port) == ("dovecot", 2424)
    assert not any("secret" in warning for warning in found.warnings)


@pytest.mark.mission("ELE-04")
def test_variables_beat_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "elemta.yaml", REFERENCE)
    environ = {
        "ELEMTA_HOSTNAME": "other.example.org",
        "ELEMTA_TLS_REQUIRED": "false",
        "ELEMTA_QUEUE_MAX_WORKERS": "3",
        "ELEMTA_AUTH_METHODS": "login",
        "ELEMTA_ALLOWED_RELAYS": "10.0.0.0/8, ::1",
        "ELEMTA_QUEUE_RETRY_SCHEDULE": "1,2",
    }
    for found in (load(path, environ), load(None, {**environ, "ELEMTA_CONFIG_PATH": str(path)})):
        assert found.hostname == "other.example.org"
        assert not found.tls.required
        assert found.queue.max_workers == 3
        assert found.auth.methods == ("login",)
        assert found.allowed_relays == ("10.0.0.0/8", "::1")
        assert found.queue.retry_schedule == (1, 2)
        assert found.limits.recipients == 70


@pytest.mark.parametrize("key", sorted(RETIRED_KEYS))
def test_each_retired_key_is_named_once_at_any_depth(tmp_path: Path, key: str) -> None:
    group, _, name = key.replace("*", "type").rpartition(".")
    text = f"{group}: {{{name}: {{a: {{b: 1}}}}}}\n" if group else f"{name}: {{a: {{b: 1}}}}\n"
    found = load(written(tmp_path, "elemta.yaml", text), {})
    named = f"{group}.{name}".lstrip(".")
    assert [each for each in found.warnings if f": {named}: is not read; " in each]


@pytest.mark.mission("ELE-05")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hostnam: x", "hostnam: unknown key; did you mean hostname?"),
        (
            "queue: {max_worker: 5}",
            "queue.max_worker: unknown key; did you mean queue.max_workers?",
        ),
        ("server: {hostnam: x}", "server.hostnam: unknown key; did you mean server.hostname?"),
        ("max_size: big", "max_message_size: must be a size"),
        ("max_size: 1000\nmax_message_size: 2000", "says something else under another name"),
        ("allowed_relays: [300.1.2.3]", "allowed_relays: item 1 is no IP address or network"),
        ("auth: {methods: [cram-md5]}", "auth.methods: item 1 must be one of plain, login"),
        ("queue: {retry_schedule: [soon]}", "queue.retry_schedule: item 1 must be a time"),
        ('listen_addr: ":99999"', "listen_addr: must be"),
        ("dev_mode: perhaps", "dev_mode: must be true or false"),
        ("hostname: [", ""),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_wrong_is_told_with_its_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "elemta.yaml", text), {})
    assert problem in str(caught.value)
    assert "elemta.yaml" in str(caught.value)
    if problem:
        assert isinstance(caught.value, InvalidConfiguration)
