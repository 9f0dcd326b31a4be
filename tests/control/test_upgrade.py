"""One process in the place of another: what each says, keeps and does when the other fails."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailtwist.control import handover, pid_file, systemd
from mailtwist.control.pid_file import PidFile
from mailtwist.control.sockets import Given, Place
from mailtwist.control.upgrade import (
    READY_S,
    NotReplaced,
    Outcome,
    Program,
    Upgrade,
    read_outcome,
    write_outcome,
)
from mailtwist.errors import ConfigError
from mailtwist.tap import TwistdPidFile


class Transport:
    """The reactor's side of a socket, which moves when :meth:`Reactor.turn` says so."""

    disconnecting = False

    def __init__(self, end, protocol):
        self.end, self.protocol, self.is_open = end, protocol, True

    def write(self, data):
        if self.is_open:
            try:
                self.end.sendall(data)
            except BrokenPipeError:
                self.close()

    def writeSequence(self, parts):
        self.write(b"".join(parts))

    def loseConnection(self):
        self.close()

    def close(self):
        if self.is_open:
            self.is_open = False
            self.end.close()
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def read(self):
        while self.is_open:
            try:
                data = self.end.recv(65536)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            self.protocol.dataReceived(data)


class Reactor(Clock):
    """Runs what is for a thread at once."""

    def __init__(self):
        super().__init__()
        self.transports = []

    def getThreadPool(self):
        return self

    def callInThreadWithCallback(self, tell, work, *arguments, **named):
        try:
            result = work(*arguments, **named)
        except Exception:
            tell(False, Failure())
        else:
            tell(True, result)

    def callFromThread(self, work, *arguments):
        work(*arguments)

    def adoptStreamConnection(self, descriptor, family, factory):
        protocol = factory.buildProtocol(None)
        end = socket.socket(fileno=os.dup(descriptor))
        end.setblocking(False)
        self.transports.append(Transport(end, protocol))
        protocol.makeConnection(self.transports[-1])

    def turn(self):
        for transport in list(self.transports):
            transport.read()

    def close(self):
        for transport in self.transports:
            transport.close()


class Old:
    """The server that is replaced."""

    def __init__(self, given):
        self.given = given
        self.events = []
        self.sessions: Deferred[None] = Deferred()
        self.refusal: Exception | None = None
        self.free = None
        self.lock = None

    async def pause(self):
        self.events.append("pause")
        if self.refusal is not None:
            raise self.refusal
        return self.given

    def resume(self):
        self.events.append("resume")

    def hand_on(self):
        self.events.append("hand on")

    async def retire(self, free):
        self.events.append("retire")
        self.free = free
        await self.sessions


class Child:
    """The process that was started: it has what it inherits, and is moved by the test."""

    pid = 4711

    def __init__(self, environ, numbers, errors):
        self.errors = errors
        self.environ = dict(environ)
        # What exec leaves open in it.
        kept = json.loads(self.environ[handover.VARIABLE])
        wanted = [kept["control"], *(number for number, *_ in kept["sockets"])]
        assert {kept["errors"], *wanted} == set(numbers)
        moved = {number: os.dup(number) for number in wanted}
        kept["control"] = moved[kept["control"]]
        kept["errors"] = None
        kept["sockets"] = [[moved[number], *rest] for number, *rest in kept["sockets"]]
        self.environ[handover.VARIABLE] = json.dumps(kept)
        self.ended = []

    def terminate(self):
        self.ended.append("terminate")

    def kill(self):
        self.ended.append("kill")

    def wait(self, timeout=None):
        if "kill" not in self.ended and self.hangs:
            raise subprocess.TimeoutExpired("child", timeout)
        return 1

    hangs = False


@pytest.fixture
def reactor():
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def replacing(reactor, listening, tmp_path):
    host, port = listening.getsockname()
    given = (Given("file/smtp", Place(socket.AF_INET, host, port), listening, is_kept=False),)
    made = SimpleNamespace(
        old=Old(given), children=[], told=[], ended=[], files=[], error=None, folder=tmp_path
    )

    def start(environ, numbers, errors):
        if made.error is not None:
            raise made.error
        made.children.append(Child(environ, numbers, errors))
        return made.children[-1]

    upgrade = made.upgrade = Upgrade(
        made.old,
        reactor=reactor,
        data_dir=tmp_path,
        end=lambda: made.ended.append(True),
        start=start,
        environ={"PATH": "/bin", "LISTEN_PID": "1", "LISTEN_FDS": "2", "NOTIFY_SOCKET": "@x"},
        notify=lambda *lines: made.told.append(lines),
        own_files=made.files.append,
    )
    yield made
    Deferred.fromCoroutine(upgrade.stop())


def outcome(replacing):
    found = read_outcome(replacing.folder)
    assert found is not None
    return found


def take_over(replacing):
    taken = handover.announced(replacing.children[-1].environ)
    assert taken is not None
    return taken


def test_the_new_process_takes_over_and_the_old_one_ends_with_its_sessions(replacing, reactor):
    old = replacing.old
    replacing.upgrade.begin()
    assert outcome(replacing).state == "running"
    assert replacing.told[0][0] == "RELOADING=1"
    taken = take_over(replacing)
    freed: list[bool] = []
    ready = Deferred.fromCoroutine(taken.ready(reactor, lambda: freed.append(True)))
    assert old.events == ["pause"]
    reactor.turn()
    # It accepts no more before the new one hears that it is alone.
    assert old.events == ["pause", "hand on", "retire"]
    assert replacing.files == [False]
    assert not ready.called or taken.is_ours
    reactor.turn()
    assert taken.is_ours
    assert ready.called
    assert replacing.told[-1] == (f"MAINPID={os.getpid()}", "READY=1")
    done = outcome(replacing)
    assert (done.state, done.old, done.new) == ("done", os.getpid(), os.getpid())
    assert freed == []
    old.free()
    reactor.turn()
    assert freed == [True]
    assert replacing.ended == []
    old.sessions.callback(None)
    assert replacing.ended == [True]
    assert replacing.children[0].ended == []


def test_the_new_process_gets_the_sockets_and_none_of_our_own_variables(replacing, listening):
    replacing.upgrade.begin()
    (child,) = replacing.children
    assert set(child.environ) == {"PATH", "NOTIFY_SOCKET", handover.VARIABLE}
    taken = take_over(replacing)
    assert handover.VARIABLE not in child.environ
    (given,) = taken.given()
    assert (given.name, given.is_kept) == ("file/smtp", False)
    assert given.socket.getsockname() == listening.getsockname()
    assert not given.socket.get_inheritable()
    assert taken.given() == ()
    given.socket.close()
    taken.failed("enough")


def went_on(replacing, reason):
    assert replacing.old.events[-1] == "resume"
    assert "retire" not in replacing.old.events
    assert replacing.told[-1] == ("READY=1",)
    assert replacing.ended == []
    found = outcome(replacing)
    assert found.state == "failed"
    assert reason in found.reason
    # And it can be tried again.
    replacing.old.refusal = NotReplaced("second")
    replacing.upgrade.begin()
    assert outcome(replacing).reason == "second"


def test_a_new_process_that_tells_why_it_cannot_start_changes_nothing(replacing, reactor):
    replacing.upgrade.begin()
    take_over(replacing).failed("listener x: cannot bind 127.0.0.1:25")
    reactor.turn()
    went_on(replacing, "listener x: cannot bind 127.0.0.1:25")
    assert replacing.children[0].ended == ["terminate"]


def test_a_new_process_that_ends_without_a_word_changes_nothing(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    taken._control.close()
    reactor.turn()
    went_on(replacing, "the new process ended before it was ready")


def test_what_a_broken_program_says_at_its_end_is_told(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    replacing.children[0].errors.write(b"Traceback:\n" * 1000 + b"ImportError: no \xff\n\n")
    replacing.children[0].errors.flush()
    taken._control.close()
    reactor.turn()
    went_on(replacing, "before it was ready: ImportError: no \ufffd")


def test_a_new_process_that_takes_too_long_is_ended(replacing, reactor, monkeypatch):
    monkeypatch.setattr(Child, "hangs", True)
    replacing.upgrade.begin()
    taken = take_over(replacing)
    reactor.advance(READY_S - 1)
    assert outcome(replacing).state == "running"
    reactor.advance(1)
    went_on(replacing, "was not ready in 60 s")
    assert replacing.children[0].ended == ["terminate", "kill"]
    taken.failed("too late")


def test_a_program_that_cannot_be_started_changes_nothing(replacing):
    replacing.error = FileNotFoundError(2, "No such file or directory", "/gone/python")
    replacing.upgrade.begin()
    went_on(replacing, "/gone/python")


def test_a_server_that_is_not_up_is_not_replaced(replacing):
    replacing.old.refusal = NotReplaced("the server is not up yet")
    replacing.upgrade.begin()
    went_on(replacing, "not up yet")
    assert replacing.children == []


def test_the_first_process_of_a_container_is_not_replaced(replacing, monkeypatch):
    monkeypatch.setattr("mailtwist.control.upgrade.os.getpid", lambda: 1)
    replacing.upgrade.begin()
    monkeypatch.undo()
    went_on(replacing, "container")
    assert replacing.children == []


def test_a_second_order_while_one_is_carried_out_is_none(replacing, reactor):
    replacing.upgrade.begin()
    replacing.upgrade.begin()
    assert len(replacing.children) == 1
    take_over(replacing).failed("x")
    reactor.turn()


def test_a_stop_ends_a_new_process_that_does_not_serve_yet(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    Deferred.fromCoroutine(replacing.upgrade.stop())
    assert replacing.children[0].ended == ["terminate"]
    assert "stopped" in outcome(replacing).reason
    taken.failed("x")


def test_a_stop_while_the_new_process_is_being_started_ends_it_as_well(replacing, reactor):
    pausing: Deferred[None] = Deferred()
    pause = replacing.old.pause

    async def slowly():
        await pausing
        return await pause()

    replacing.old.pause = slowly
    replacing.upgrade.begin()
    stopped = Deferred.fromCoroutine(replacing.upgrade.stop())
    assert not stopped.called
    pausing.callback(None)
    assert stopped.called
    assert replacing.children[0].ended == ["terminate"]
    assert "stopped" in outcome(replacing).reason


def test_a_stop_while_a_failure_is_told_waits_for_it(replacing, reactor, monkeypatch):
    later = []
    monkeypatch.setattr(Child, "wait", lambda child, timeout=None: 1)
    replacing.upgrade.begin()
    real = reactor.callInThreadWithCallback
    monkeypatch.setattr(reactor, "callInThreadWithCallback", lambda *a, **k: later.append((a, k)))
    take_over(replacing).failed("no")
    reactor.turn()
    stopped = Deferred.fromCoroutine(replacing.upgrade.stop())
    assert not stopped.called
    while later:
        arguments, named = later.pop()
        real(*arguments, **named)
    assert stopped.called
    assert outcome(replacing).reason == "no"


def test_a_stop_after_the_handover_leaves_the_new_process_alone(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    ready = Deferred.fromCoroutine(taken.ready(reactor, lambda: None))
    reactor.turn()
    reactor.turn()
    stopped = Deferred.fromCoroutine(replacing.upgrade.stop())
    assert stopped.called
    assert ready.called
    assert replacing.children[0].ended == []


def test_a_process_whose_predecessor_is_killed_serves_alone(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    replacing.upgrade._replacing.addErrback(lambda failure: None)
    reactor.transports[0].is_open = False
    reactor.transports[0].end.close()
    freed: list[bool] = []
    ready = Deferred.fromCoroutine(taken.ready(reactor, lambda: freed.append(True)))
    reactor.turn()
    assert ready.called
    assert (taken.is_ours, freed) == (True, [True])


def test_a_process_that_stops_before_it_is_alone_waits_for_nothing(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    ready = Deferred.fromCoroutine(taken.ready(reactor, lambda: None))
    taken.let_go()
    assert ready.called
    assert not taken.is_ours


def test_a_process_that_is_stopped_before_it_serves_is_given_nothing(replacing, reactor):
    replacing.upgrade.begin()
    taken = take_over(replacing)
    taken.let_go()
    assert Deferred.fromCoroutine(taken.ready(reactor, lambda: None)).called
    reactor.turn()
    went_on(replacing, "ended before it was ready")


@pytest.mark.parametrize(
    "value",
    ["x", "[]", "{}", '{"control": 99999, "lock": null, "sockets": []}', '{"control": "a"}'],
)
def test_a_variable_that_is_not_ours_is_refused(value):
    environ = {handover.VARIABLE: value}
    with pytest.raises(ConfigError, match=handover.VARIABLE):
        handover.announced(environ)
    assert environ == {}


def test_without_the_variable_there_is_nothing_to_take_over():
    assert handover.announced({}) is None


def test_a_program_is_started_as_this_process_was():
    program = Program.of_this_process()
    assert program.arguments == (sys.executable, *sys.orig_argv[1:])
    code = "import os; assert os.getcwd() == '/'; assert 'A' in os.environ; os.fstat(%d)"
    with socket.socket() as passed:
        number = passed.fileno()
        again = Program((sys.executable, "-c", code % number), "/")
        with tempfile.TemporaryFile() as errors:
            assert again.start({"A": "b"}, [number], errors).wait(60) == 0
            assert again.start({"A": "b"}, [], errors).wait(60) != 0
            errors.seek(0)
            assert b"Bad file descriptor" in errors.read()


def test_until_it_serves_a_process_speaks_to_the_one_before_it():
    code = (
        "import os; from mailtwist.control.handover import Takeover\n"
        "import socket; a, b = socket.socketpair()\n"
        "taken = Takeover(a.detach(), None, (), errors=%d)\n"
        "os.write(2, b'before'); taken._take_standard_error(); os.write(2, b'after')"
    )
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as standard_error:
        number = standard_error.fileno()
        program = Program((sys.executable, "-c", code % number), os.getcwd())
        assert program.start(os.environ, [number], errors).wait(60) == 0
        errors.seek(0)
        standard_error.seek(0)
        assert (errors.read(), standard_error.read()) == (b"before", b"after")


def test_an_outcome_that_cannot_be_read_is_none(tmp_path):
    assert read_outcome(tmp_path) is None
    write_outcome(tmp_path, Outcome("done", 1, 2))
    assert read_outcome(tmp_path).is_over
    (tmp_path / "upgrade.json").write_text('{"state": 1')
    assert read_outcome(tmp_path) is None
    (tmp_path / "upgrade.json").write_text('{"more": 1}')
    assert read_outcome(tmp_path) is None


# -- the pid file -----------------------------------------------------------------------------


def running(folder):
    return pid_file.running(folder, sleep=lambda seconds: None)


def test_a_process_is_known_while_it_holds_the_file(tmp_path):
    assert running(tmp_path) is None
    file = PidFile(tmp_path / pid_file.FILE_NAME)
    file.take()
    assert running(tmp_path) is None  # it is not ready yet
    file.write()
    assert running(tmp_path) == os.getpid()
    file.end()
    assert running(tmp_path) is None
    file.end()


def test_the_number_of_a_process_that_was_killed_means_nothing(tmp_path):
    (tmp_path / pid_file.FILE_NAME).write_text("1\n")
    assert running(tmp_path) is None


def test_a_second_server_on_the_folder_leaves_the_file_alone(tmp_path):
    first, second = (PidFile(tmp_path / pid_file.FILE_NAME) for _ in range(2))
    first.take()
    first.write()
    second.take()
    second.write()
    assert second.descriptor is None
    second.end()
    assert running(tmp_path) == os.getpid()
    first.end()


def test_who_asks_for_the_server_while_one_starts_does_not_keep_it_from_the_file(
    tmp_path, monkeypatch
):
    path = tmp_path / pid_file.FILE_NAME
    path.touch()
    asking = path.open()
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("mailtwist.control.pid_file.time.sleep", lambda _: asking.close())
    file = PidFile(path)
    file.take()
    file.write()
    assert running(tmp_path) == os.getpid()
    file.end()


def test_the_lock_is_never_free_while_it_is_handed_on(tmp_path):
    first, second = (PidFile(tmp_path / pid_file.FILE_NAME) for _ in range(2))
    first.take()
    first.write()
    assert first.descriptor is not None
    second.take(os.dup(first.descriptor))
    first.hand_on()
    assert (tmp_path / pid_file.FILE_NAME).read_text() == f"{os.getpid()}\n"
    assert running(tmp_path) == os.getpid()
    second.write()
    second.end()
    assert running(tmp_path) is None


def test_a_full_disk_is_no_reason_not_to_serve(tmp_path, monkeypatch):
    def full(descriptor, length):
        raise OSError(28, "No space left on device")

    lines = []
    monkeypatch.setattr("mailtwist.control.pid_file.log.error", lambda *a, **k: lines.append(k))
    file = PidFile(tmp_path / pid_file.FILE_NAME)
    file.take()
    monkeypatch.setattr("mailtwist.control.pid_file.os.ftruncate", full)
    file.write()
    assert len(lines) == 1
    assert running(tmp_path) is None
    file.end()


class Twistd(dict[str, object]):
    """The options of twistd itself."""


def test_the_pid_file_of_twistd_names_who_serves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    twistd = Twistd(pidfile="twistd.pid")
    file = TwistdPidFile(twistd)
    monkeypatch.chdir("/")
    file.own(False)
    assert twistd["pidfile"] == ""  # twistd removes no file that is another's
    file.own(True)
    assert twistd["pidfile"] == str(tmp_path / "twistd.pid")
    assert (tmp_path / "twistd.pid").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("twistd", [None, Twistd(pidfile="")])
def test_without_a_pid_file_of_twistd_none_is_written(tmp_path, monkeypatch, twistd):
    monkeypatch.chdir(tmp_path)
    TwistdPidFile(twistd).own(True)
    assert list(tmp_path.iterdir()) == []


def test_a_pid_file_that_is_roots_is_left_alone(tmp_path):
    file = TwistdPidFile(Twistd(pidfile=str(tmp_path / "missing" / "twistd.pid")))
    file.own(True)
    assert list(tmp_path.iterdir()) == []


# -- systemd ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told_over_its_socket(tmp_path, kind):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"mailtwist-test-{os.getpid()}-{tmp_path.name}"
        path = str(tmp_path / "s") if kind == "path" else f"@{name}"
        listening.bind(path if kind == "path" else f"\0{name}")
        assert systemd.notify("MAINPID=7", "READY=1", environ={"NOTIFY_SOCKET": path})
        assert listening.recv(100) == b"MAINPID=7\nREADY=1"


@pytest.mark.parametrize("value", [None, "", "relative", "/nowhere/at/all"])
def test_without_systemd_nothing_happens(value):
    environ = {} if value is None else {"NOTIFY_SOCKET": value}
    assert systemd.notify("READY=1", environ=environ) is False


def test_a_reload_says_when_it_began():
    first, second = systemd.reloading()
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
