from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mailtwist.config import InvalidConfiguration, Settings, describe, documents, load
from mailtwist.config.declare import variable_of
from mailtwist.config.given import ALIASES, DECLARATIONS, SECTIONS
from mailtwist.errors import ConfigError

FILES = {
    "yaml": """
hostname: mx.example.com
domains: [example.com, Example.ORG]
limits: {recipients: 7, idle_timeout: 90s}
listeners:
  - {protocol: smtp, address: "127.0.0.1:0", max_clients: 3}
  - {protocol: imap, address: ":2143"}
""",
    "toml": """
hostname = "mx.example.com"
domains = ["example.com", "Example.ORG"]
[limits]
recipients = 7
idle_timeout = "90s"
[[listeners]]
protocol = "smtp"
address = "127.0.0.1:0"
max_clients = 3
[[listeners]]
protocol = "imap"
address = ":2143"
""",
}


def written(tmp_path: Path, text: str, suffix: str = "yaml") -> Path:
    path = tmp_path / f"mailtwist.{suffix}"
    path.write_text(text)
    return path


def settings(tmp_path: Path, text: str = "", **environ: str) -> Settings:
    return load(written(tmp_path, text), environ)


def problems(tmp_path: Path, text: str = "", **environ: str) -> tuple[str, ...]:
    with pytest.raises(InvalidConfiguration) as caught:
        settings(tmp_path, text, **environ)
    return caught.value.problems


@pytest.mark.parametrize("suffix", sorted(FILES))
def test_yaml_and_toml_say_the_same(tmp_path: Path, suffix: str) -> None:
    found = load(written(tmp_path, FILES[suffix], suffix), {})
    assert found.hostname == "mx.example.com"
    assert found.domains == ("example.com", "example.org")
    assert (found.limits.recipients, found.limits.idle_timeout) == (7, 90.0)
    assert [(each.name, each.host, each.port) for each in found.listeners] == [
        ("file/smtp-127.0.0.1:0", "127.0.0.1", 0),
        ("file/imap-:2143", "", 2143),
    ]
    assert found.listeners[0].max_clients == 3


def test_without_a_file_there_is_a_sandbox_on_loopback(tmp_path: Path) -> None:
    found = load(None, {}, {"data_dir": str(tmp_path / "data")})
    assert [(each.protocol, each.host, each.port) for each in found.listeners] == [
        ("smtp", "127.0.0.1", 2525),
        ("submission", "127.0.0.1", 2587),
        ("submissions", "127.0.0.1", 2465),
        ("imap", "127.0.0.1", 2143),
        ("imaps", "127.0.0.1", 2993),
        ("http", "127.0.0.1", 6336),
    ]
    assert found.database_url == f"sqlite:///{tmp_path}/data/mailtwist.db"
    assert found.max_message_size == 26_214_400
    assert found.allowed_relays == ("127.0.0.1", "::1")
    assert found.domains == ()
    assert found.hostname


@pytest.mark.parametrize(
    "options, environ, text, expected, source",
    [
        ({}, {}, "", "./var", "default"),
        ({}, {}, "data_dir: /file", "/file", "file"),
        ({}, {"ELEMTA_DATA_DIR": "/elemta"}, "data_dir: /file", "/elemta", "environment"),
        (
            {},
            {"MAILTWIST_DATA_DIR": "/own", "ELEMTA_DATA_DIR": "/elemta"},
            "data_dir: /file",
            "/own",
            "environment MAILTWIST_DATA_DIR",
        ),
        (
            {"data_dir": "/option"},
            {"MAILTWIST_DATA_DIR": "/own"},
            "data_dir: /file",
            "/option",
            "command line",
        ),
    ],
)
def test_the_nearest_source_wins_and_is_known(
    tmp_path: Path,
    options: dict[str, str],
    environ: dict[str, str],
    text: str,
    expected: str,
    source: str,
) -> None:
    found = load(written(tmp_path, text), environ, options)
    assert found.data_dir == str(Path(expected).absolute())
    assert describe.source_of(found, "data_dir").startswith(source)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("hostnam: x", "hostnam: unknown key; did you mean hostname?"),
        (
            "limits: {recipient: 5}",
            "limits.recipient: unknown key; did you mean limits.recipients?",
        ),
        ("recipients: 5", "recipients: unknown key; did you mean max_recipients?"),
        (
            "listeners: [{protocl: smtp, address: ':1'}]",
            "listeners[0].protocl: unknown key; did you mean protocol?",
        ),
        ("zzz: 1", "zzz: unknown key; the nearest known one is "),
        (
            "tls: {lets_encrypt_us: {enabled: true}}",
            "tls.lets_encrypt_us: unknown key; the nearest known one is tls.",
        ),
        ("listeners: [{tls: true}]", "listeners[0].tls: unknown key; the nearest known one is "),
        ("limits: 5", "limits: must be a group of keys"),
        ("limits: {recipients: 0}", "limits.recipients: must be from 1 to 100000, not 0"),
        (
            "limits: {recipients: many}",
            'limits.recipients: must be a whole number, not "many"',
        ),
        (
            "limits: {idle_timeout: 5y}",
            'limits.idle_timeout: must be a time such as 90, "90s", "24h" or "5d", not "5y"',
        ),
        (
            "max_message_size: 5X",
            'max_message_size: must be a size such as 26214400 or "25M", not "5X"',
        ),
        ("max_message_size: 10", "max_message_size: must be from 1K to 4G, not 10"),
        ("hostname: 'a b'", 'hostname: is no domain name: "a b"'),
        ("domains: [a.example, 'b..c']", 'domains: item 2 is no domain name: "b..c"'),
        ("allowed_relays: [10.0.0.0/33]", "allowed_relays: item 1 is no IP address or network"),
        ("tls: {required: maybe}", 'tls.required: must be true or false, not "maybe"'),
        ("outbound: {tls: sometimes}", "outbound.tls: must be one of none, opportunistic, verify"),
        ("tls: {cert_file: a.pem}", "tls.key_file: is missing"),
        ("listeners: [{protocol: smtp}]", "listeners[0].address: is missing"),
        ("listeners: {protocol: smtp}", "listeners: must be a list"),
        ("listeners: [5]", "listeners[0]: must be a group of keys"),
        ("listeners: [{protocol: pop3, address: ':110'}]", "pop3 is not there yet"),
        (
            "listeners: [{protocol: smtp, address: ':25'}, {protocol: imap, address: ':25'}]",
            "listeners[1].address: :25 is taken by listeners[0]",
        ),
        ("listeners: [{protocol: smtp, address: '::1:25'}]", "in brackets, as [::1]:25"),
        ("max_size: 1M\nmax_message_size: 2M", "says something else under another name"),
        ("aliases: {postmaster: nobody}", "aliases: postmaster: must be a mail address"),
        ("redis_url: redis://:hunter2@host/x", "must end in the number of a database"),
        ("database_url: mysql://x/y", "database_url: must be a URL that starts with sqlite"),
    ],
)
def test_a_fault_is_refused_with_its_key(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert expected in problem
    assert problem.startswith(str(tmp_path)) or "is missing" in problem


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "limits: {recipients: 0}\nnonsense: 1", MAILTWIST_DEV_MODE="perhaps")
    assert len(found) == 3
    assert any(each.startswith("MAILTWIST_DEV_MODE (dev_mode): ") for each in found)


@pytest.mark.parametrize(
    "text, suffix, expected",
    [
        ("a: [1", "yaml", ":1:6: "),
        ("hostname: a\nhostname: b", "yaml", "stands here a second time"),
        ("? [1, 2]\n: 3", "yaml", ":1:3: a list or a group is no key"),
        ("- 1", "yaml", "must hold keys and values"),
        ("a = ", "toml", "at end of document"),
        ("a: 1", "json", "the suffix must be"),
        ("!!python/object/apply:os.system [true]", "yaml", "could not determine a constructor"),
        ("a: " + "[" * 5000, "yaml", ".yaml: "),
    ],
)
def test_an_unreadable_file_is_refused(
    tmp_path: Path, text: str, suffix: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match="mailtwist") as caught:
        load(written(tmp_path, text, suffix), {})
    assert expected in caught.value.text


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml", {})
    path = written(tmp_path, "")
    path.write_bytes(b"hostname: \xff")
    with pytest.raises(ConfigError, match="no UTF-8"):
        load(path, {})


@pytest.mark.parametrize(
    "given, seconds",
    [
        ("5d", 432_000.0),
        ("24h", 86_400.0),
        ("1h30m", 5_400.0),
        ("90", 90.0),
        (90, 90.0),
        ("2m", 120.0),
    ],
)
def test_times_have_units(tmp_path: Path, given: Any, seconds: float) -> None:
    assert settings(tmp_path, f"queue: {{max_queue_time: {given}}}").queue.max_queue_time == seconds


@pytest.mark.parametrize(
    "given, octets",
    [
        ("25M", 25 << 20),
        ("25MB", 25 << 20),
        ("25MiB", 25 << 20),
        ("64k", 64 << 10),
        ("26214400", 26_214_400),
        ("1.5M", 3 << 19),
    ],
)
def test_sizes_have_units(tmp_path: Path, given: str, octets: int) -> None:
    assert settings(tmp_path, f"max_message_size: {given}").max_message_size == octets


@pytest.mark.parametrize("key", ["max_size", "max_message_size"])
def test_both_names_of_the_size_limit_work(tmp_path: Path, key: str) -> None:
    assert settings(tmp_path, f"{key}: 1048576").max_message_size == 1_048_576
    assert settings(tmp_path).max_message_size == 26_214_400


@pytest.mark.parametrize(
    "environ, key, expected",
    [
        ({"MAIL_HOSTNAME": "mail.example.com"}, "hostname", "mail.example.com"),
        ({"ELEMTA_HOSTNAME": "e.example.com"}, "hostname", "e.example.com"),
        ({"MAIL_DOMAIN": "example.com"}, "domains", ("example.com",)),
        ({"ALLOWED_HOSTS": "https://a.example, https://b.example"}, "send.allowed_hosts",
         ("https://a.example", "https://b.example")),
        ({"SMTP_RELAY_HOST": "smtp.example.net"}, "relay.host", "smtp.example.net"),
        ({"RELAY_HOST": "old.example.net"}, "relay.host", "old.example.net"),
        ({"USE_TLS": "no"}, "relay.tls", False),
        ({"TLS_VERIFY": "no"}, "relay.verify", False),
        ({"API_KEY": "k1,k2"}, "inbox.api_keys", ("k1", "k2")),
        ({"DOMAIN": "inbox.example"}, "inbox.domain", "inbox.example"),
        ({"REDIS_ADDR": "localhost:6379"}, "redis_url", "redis://localhost:6379/0"),
        ({"ENVIRONMENT": "development"}, "dev_mode", True),
        ({"ENVIRONMENT": "development"}, "log_level", "debug"),
        ({"ENVIRONMENT": "production"}, "dev_mode", False),
        ({"DAPTIN_DISABLE_SMTP": "true"}, "disable_smtp", True),
        ({"DAPTIN_DISABLE_SMTP": "1"}, "disable_smtp", False),
        ({"DAPTIN_LOG_LEVEL": "trace"}, "log_level", "debug"),
        ({"DAPTIN_DB_CONNECTION_STRING": "/x/daptin.db"}, "database_url", "sqlite:////x/daptin.db"),
        ({"DAPTIN_DB_TYPE": "postgres", "DAPTIN_DB_CONNECTION_STRING":
          "host=db user=u password='p w' dbname=d port=5433 sslmode=disable"}, "database_url",
         "postgresql+psycopg://u:p%20w@db:5433/d?sslmode=disable"),
        ({"FORWARD_EMAIL": "me@example.net"}, "aliases", {"*": "me@example.net"}),
        ({"MAILTWIST_SEND_API_KEY": "a", "MAILTWIST_SEND_KEY": "b"}, "send.api_key", "a"),
        ({"MAILTWIST_SEND_KEY": "b"}, "send.api_key", "b"),
        ({"MAILTWIST_OUTBOUND_MX_OVERRIDE": "a.example=127.0.0.1:2526,*=[::1]:25"},
         "outbound.mx_override", {"a.example": "127.0.0.1:2526", "*": "[::1]:25"}),
        ({"MAIL_HOSTNAME": ""}, "log_format", "json"),
    ],
)  # fmt: skip
def test_variables_of_the_seeds_are_understood(
    tmp_path: Path, environ: dict[str, str], key: str, expected: object
) -> None:
    found = load(None, {"MAILTWIST_DATA_DIR": str(tmp_path), **environ})
    assert describe.value_of(found, key) == expected


def test_postgresql_urls_name_the_driver(tmp_path: Path) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        found = settings(tmp_path, f"database_url: {scheme}://u@h/d")
        assert found.database_url == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize(
    "text, environ, expected",
    [
        ("listen_addr: ':2525'", {}, ["file/smtp-:2525"]),
        ("listen_addr: 2525", {}, None),
        ("listeners: []", {}, []),
        (
            "listeners: [{protocol: imap, address: '[::1]:143'}]",
            {"DAPTIN_PORT": ":7000", "DAPTIN_HTTPS_PORT": "7443"},
            ["file/imap-[::1]:143", "file/http-:7000", "file/https-:7443"],
        ),
        (
            "listeners: [{protocol: http, address: '127.0.0.1:7000'}]",
            {"DAPTIN_PORT": ":7000"},
            ["file/http-:7000"],
        ),
        (
            "listeners: [{protocol: http, address: ':7000'}]",
            {"DAPTIN_PORT": "127.0.0.1:7000"},
            ["file/http-:7000"],
        ),
        (
            "listeners: [{protocol: http, address: '127.0.0.1:7000'}]",
            {"DAPTIN_PORT": "7001"},
            ["file/http-127.0.0.1:7000", "file/http-:7001"],
        ),
        ("listen_addr: ':2525'", {"DAPTIN_PORT": ":0"}, ["file/smtp-:2525", "file/http-:0"]),
        (
            "listeners: [{protocol: smtp, address: ':0'}, {protocol: smtp, address: ':0'}]",
            {},
            ["file/smtp-:0", "file/smtp-:0-2"],
        ),
        (
            "",
            {"MAILTWIST_LISTENERS": "smtp=127.0.0.1:25,imap=:143"},
            ["file/smtp-127.0.0.1:25", "file/imap-:143"],
        ),
        (
            "",
            {"MAILTWIST_LISTENERS": '[{"protocol": "smtp", "address": ":25"}]'},
            ["file/smtp-:25"],
        ),
        (
            "listeners: [{protocol: smtp, address: ':25'}, {protocol: http, address: ':80'}]",
            {"DAPTIN_DISABLE_SMTP": "true"},
            ["file/http-:80"],
        ),
    ],
)
def test_listeners_come_from_every_source(
    tmp_path: Path, text: str, environ: dict[str, str], expected: list[str] | None
) -> None:
    if expected is None:
        assert "listen_addr" in problems(tmp_path, text)[0]
        return
    assert [each.name for each in settings(tmp_path, text, **environ).listeners] == expected


def test_the_port_variable_replaces_the_port_of_the_sandbox() -> None:
    found = load(None, {"DAPTIN_PORT": "127.0.0.1:7000"})
    http = [each.port for each in found.listeners if each.protocol == "http"]
    assert http == [7000]
    assert len(found.listeners) == 6


def test_the_file_of_the_third_seed_is_accepted(tmp_path: Path) -> None:
    text = """
hostname: mail.example.com
listen_addr: ":2525"
queue_dir: ./queue
max_size: 26214400
dev_mode: false
allowed_relays: [127.0.0.1, "::1", 192.168.1.0/24]
auth: {enabled: true, required: false, methods: [PLAIN, LOGIN], backend: file, file_path: u.json}
tls: {enabled: true, cert_file: c.pem, key_file: k.pem}
queue: {max_workers: 5, max_retries: 5, max_queue_time: 432000, retry_schedule: [60, 300, 900]}
"""
    found = settings(tmp_path, text)
    assert [each.name for each in found.listeners] == ["file/smtp-:2525"]
    assert found.auth.methods == ("plain", "login")
    assert found.queue.retry_schedule == (60.0, 300.0, 900.0)
    assert any("queue_dir" in each for each in found.warnings)


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    secret = "hunter2secret"
    text = f"""
relay: {{password: {secret}}}
inbox: {{api_keys: [{secret}]}}
send: {{api_key: {secret}}}
database_url: postgresql://u:{secret}@h/d?password={secret}
redis_url: redis://:{secret}@h/0
"""
    found = settings(tmp_path, text)
    assert secret not in repr(found)
    assert secret not in repr(list(describe.values(found)))
    for key in DECLARATIONS:
        assert secret not in repr(describe.explanation(found, key))
    assert found.relay.password == secret


def test_a_secret_is_not_repeated_by_an_error(tmp_path: Path) -> None:
    text = "send: {api_key: [hunter2]}\nredis_url: hunter2"
    assert "hunter2" not in " ".join(problems(tmp_path, text))


def test_every_variable_means_one_key() -> None:
    meant: dict[str, set[str]] = {}
    for key in (*DECLARATIONS, *ALIASES, *SECTIONS):
        meant.setdefault(variable_of(key), set()).add(ALIASES.get(key, key))
    assert [name for name, keys in meant.items() if len(keys) > 1] == []


def test_every_default_is_a_value_that_its_kind_takes() -> None:
    for key, declaration in DECLARATIONS.items():
        if declaration.default in ("", {"postmaster": ""}):
            continue
        shown = declaration.kind.show(declaration.default)
        assert declaration.kind.parse(shown) == declaration.default, key
        assert declaration.doc.endswith("."), key


def test_near_misses_in_the_environment_are_warned_of(tmp_path: Path) -> None:
    found = settings(tmp_path, "", MAILTWIST_HOSTNAM="x.example", MAILTWIST_CHECKOUT="/x")
    (warning,) = found.warnings
    assert "MAILTWIST_HOSTNAM" in warning
    assert "MAILTWIST_HOSTNAME" in warning


def test_the_sample_file_loads_with_all_its_lines(tmp_path: Path) -> None:
    found = settings(tmp_path, documents.sample())
    assert found.hostname == "mail.example.com"
    assert [each.protocol for each in found.listeners] == [
        protocol for protocol, _ in documents.SAMPLE_LISTENERS
    ]
    # Every commented key is one, with its default.
    lines = [
        line[1:] if re.match(r"#(?:  )?\w+:", line) else line
        for line in documents.sample().splitlines()
    ]
    everything = settings(tmp_path, "\n".join(lines))
    assert everything.limits == load(None, {}).limits
    assert everything.queue == load(None, {}).queue
    named = set(everything.sources)
    assert named == {*DECLARATIONS, "listeners", "chaos"}


@pytest.mark.parametrize(
    "asked, key",
    [
        ("max_size", "max_message_size"),
        ("limits.idle_timeout", "limits.idle_timeout"),
        ("MAILTWIST_LIMITS_RECIPIENTS", "limits.recipients"),
        ("listeners", "listeners"),
    ],
)
def test_explain_finds_a_key_under_any_name(tmp_path: Path, asked: str, key: str) -> None:
    about = describe.explanation(settings(tmp_path), asked)
    assert about["key"] == key
    assert about["meaning"]


def test_explain_suggests_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean limits\.idle_timeout"):
        describe.explanation(settings(tmp_path), "limits.idle_timout")
