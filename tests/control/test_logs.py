from __future__ import annotations

import io
import json

import pytest
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from mailtwist.config import load
from mailtwist.control import logs
from mailtwist.net.session_id import session_id


class Log:
    """A logger whose lines end up in ``text``."""

    def __init__(self, formatter=logs.json_line, lowest=LogLevel.debug):
        self.stream = io.StringIO()
        self.logger = Logger(
            namespace="test", observer=logs.observer(self.stream, formatter, lowest)
        )

    @property
    def text(self):
        return self.stream.getvalue()

    @property
    def lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


def test_a_line_is_an_event_with_its_fields():
    log = Log()
    log.logger.info("message accepted", queue_id="1f", recipients=2, octets=1024, tls=True)
    (line,) = log.lines
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "message accepted",
        "queue_id": "1f",
        "recipients": 2,
        "octets": 1024,
        "tls": True,
    }


@pytest.mark.parametrize(
    ("log_time", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_599.0015, "2025-12-31T23:59:59.001Z"),
        (1_767_225_599.0019997, "2025-12-31T23:59:59.002Z"),
        (1_767_225_599.9999996, "2026-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_cut_to_the_millisecond_of_their_microsecond(log_time, shown):
    line = json.loads(logs.json_line({"log_format": "ready", "log_time": log_time}))
    assert line["time"] == shown


@pytest.mark.mission("ELE-61")
def test_what_a_session_causes_bears_its_id():
    log = Log()
    token = session_id.set("a1b2c3")
    try:
        log.logger.info("login", username="alice")
        log.logger.info("closed", session="other")
    finally:
        session_id.reset(token)
    log.logger.info("ready")
    assert [line.get("session") for line in log.lines] == ["a1b2c3", "other", None]


@pytest.mark.mission("ELE-61", "GEN-05")
@pytest.mark.parametrize("formatter", [logs.json_line, logs.human_line])
@pytest.mark.parametrize(
    "name", ["password", "api_key", "PASSWORD", "client_secret", "access_token", "credentials"]
)
def test_a_secret_is_dropped_whoever_logs_it(formatter, name):
    log = Log(formatter)
    log.logger.info("login", username="alice", **{name: "hunter2"})
    assert "alice" in log.text
    assert "hunter2" not in log.text


@pytest.mark.parametrize("formatter", [logs.json_line, logs.human_line])
@pytest.mark.parametrize("value", ["a\nforged line", "\x1b[2J", "\u2028x", b"\xff\n", "{x}"])
def test_what_a_peer_sends_forges_no_line(formatter, value):
    log = Log(formatter)
    log.logger.info("refused", helo=value)
    assert len(log.text.splitlines()) == 1 or formatter is logs.json_line
    assert log.text.count("\n") == 1
    assert "\x1b" not in log.text


def test_values_are_cut_and_odd_ones_spelled():
    log = Log()
    log.logger.info("odd", long="x" * 10_000, many=list(range(1000)), nothing=None, thing=object)
    (line,) = log.lines
    assert len(line["long"]) == logs.MAX_VALUE
    assert len(line["many"]) == logs.MAX_ITEMS
    assert "nothing" not in line
    assert "object" in line["thing"]


def test_a_failure_is_told_with_its_traceback():
    for formatter in (logs.json_line, logs.human_line):
        log = Log(formatter)
        try:
            raise ValueError("boom")
        except ValueError:
            log.logger.failure("command failed", Failure())
        assert "command failed" in log.text
        assert "ValueError: boom" in log.text
        assert "test_logs.py" in log.text


def test_lines_below_the_level_are_left_out():
    log = Log(lowest=LogLevel.info)
    log.logger.debug("C: NOOP")
    log.logger.warn("look here")
    assert [line["event"] for line in log.lines] == ["look here"]


def test_what_twisted_says_of_its_ports_is_left_out_but_not_its_errors():
    log = Log()
    legacy = Logger(namespace="log_legacy", observer=log.logger.observer)
    legacy.info("Port starting on 25")
    legacy.emit(LogLevel.critical, "Unhandled error", isError=1)
    assert [line["event"] for line in log.lines] == ["Unhandled error"]


def test_the_human_form_is_one_readable_line():
    log = Log(logs.human_line)
    log.logger.info("message accepted", recipients=["a@x", "b@x"], session="a1")
    log.logger.warn("disk nearly full")
    first, second = log.text.splitlines()
    assert first[9:] == "message accepted recipients=a@x,b@x session=a1"
    assert second[9:] == "WARN disk nearly full"


def test_a_log_that_cannot_be_written_disturbs_nobody():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    observer = logs.observer(Full(), logs.json_line, LogLevel.info)
    Logger(namespace="test", observer=observer).info("ready")


def test_the_settings_choose_form_level_and_file(tmp_path):
    path = tmp_path / "log"
    values = {"log_file": str(path), "log_level": "warn", "log_format": "text"}
    settings = load(None, {}, values)
    with logs.open_stream(settings) as stream:
        logger = Logger(namespace="test", observer=logs.make_observer(settings, stream))
        logger.info("not this")
        logger.warn("but this")
    assert path.read_text().endswith("WARN but this\n")
    assert "not this" not in path.read_text()
