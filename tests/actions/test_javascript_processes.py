"""Who gets a process for expressions, when one is killed, and who is refused; no process runs."""

from __future__ import annotations

import json
import struct

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailtwist.actions.javascript import Script, worker
from mailtwist.actions.javascript.line import MAX_OF_ONE, MAX_WAITING, SLOW_S
from mailtwist.actions.javascript.processes import PAUSE_S
from mailtwist.actions.javascript.script import WAIT_S
from mailtwist.actions.javascript.worker import START_S
from mailtwist.errors import ExpressionError, ExpressionLimit, TemporaryFailure


class Process:
    """One process as the reactor would have started it; the test answers for it."""

    def __init__(self, protocol, arguments, environment):
        self.protocol, self.arguments, self.environment = protocol, arguments, environment
        self.received = b""
        self.is_killed = self.is_over = False

    def writeSequence(self, parts):
        self.received += b"".join(parts)

    def signalProcess(self, name):
        assert name == "KILL"
        if self.is_over:
            raise ProcessExitedAlready
        self.is_killed = True

    def says(self, document):
        data = json.dumps(document).encode()
        self.protocol.outReceived(struct.pack("!I", len(data)) + data)

    def starts(self):
        self.says([])

    def ends(self, signal=None, complaint=b""):
        self.is_over = True
        if complaint:
            self.protocol.errReceived(complaint)
        reason = ProcessTerminated(1, signal) if signal else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))

    def take(self):
        """The scope and expressions of the request that it got."""
        frames, rest = [], self.received
        while rest:
            end = 4 + struct.unpack("!I", rest[:4])[0]
            frames.append(json.loads(rest[4:end]))
            rest = rest[end:]
        self.received = b""
        return frames


class Reactor(Clock):
    def __init__(self):
        super().__init__()
        self.processes = []
        self.error = None

    def spawnProcess(self, protocol, _executable, arguments, env):
        if self.error:
            raise self.error
        process = Process(protocol, arguments, env)
        self.processes.append(process)
        protocol.makeConnection(process)


class Office:
    """A Script whose processes the test plays."""

    def __init__(self, processes=1):
        self.reactor = Reactor()
        self.script = Script(self.reactor, processes=processes)

    @property
    def processes(self):
        return self.reactor.processes

    def asks(self, *expressions, who="", scope=None, asker=None):
        asked = asker or self.script
        made = asked.evaluate(expressions, scope or {}, **({} if asker else {"who": who}))
        return Deferred.fromCoroutine(made)

    def working(self):
        return [each for each in self.processes if each.received]

    def serve(self):
        """Answer the one request at work with its first expression; give back that."""
        (process,) = self.working()
        expressions = process.take()[1]
        process.says([["=", each] for each in expressions])
        return expressions[0]


@pytest.fixture
def office():
    return Office()


def result_of(deferred):
    found: list = []
    deferred.addBoth(found.append)
    assert found, "it still waits"
    return found[0].value if isinstance(found[0], Failure) else found[0]


def test_nothing_runs_before_the_first_request_and_then_one_more_than_work(office):
    assert not office.processes
    asked = office.asks("1")
    assert len(office.processes) == 2
    assert not office.working()
    office.processes[0].starts()
    assert office.serve() == "1"
    assert result_of(asked) == ["1"]


def test_a_request_without_expressions_needs_no_process(office):
    assert result_of(office.asks()) == []
    assert not office.processes


def test_a_process_is_given_nothing_of_the_environment(office, monkeypatch):
    monkeypatch.setenv("MAILTWIST_SECRET", "s3cret")
    office.asks("1")
    process = office.processes[0]
    assert set(process.environment) == {"TZ", "LC_ALL"}
    assert process.arguments[1:3] == ["-I", "-S"]


def test_only_names_that_occur_are_sent(office):
    scope = {"name": 1, "na": 2, "secret": 3, "$x": 4}
    office.asks("name + 1", "$x", scope=scope)
    office.processes[0].starts()
    assert office.processes[0].take() == [{"name": 1, "$x": 4}, ["name + 1", "$x"]]


def test_all_names_are_sent_where_one_may_be_written_in_escapes(office):
    office.asks("n\\u0061me", scope={"name": 1, "other": 2})
    office.processes[0].starts()
    assert office.processes[0].take()[0] == {"name": 1, "other": 2}


def test_an_answer_may_come_in_pieces(office):
    asked = office.asks("1")
    process = office.processes[0]
    process.starts()
    data = json.dumps([["=", "value"]]).encode()
    for octet in struct.pack("!I", len(data)) + data:
        process.protocol.outReceived(bytes([octet]))
    assert result_of(asked) == ["value"]


@pytest.mark.parametrize("kind, error", [("?", ExpressionError), ("!", ExpressionLimit)])
def test_the_error_tells_which_expression_failed_and_why(office, kind, error):
    asked = office.asks("first", "second" * 100, "third")
    office.processes[0].starts()
    office.processes[0].says([["=", 1], [kind, "why not"]])
    found = result_of(asked)
    assert type(found) is error
    assert found.http_status == 400
    assert found.text.startswith("Expression 'secondsecond")
    assert found.text.endswith("why not")
    assert len(found.text) < 120


def test_no_more_work_at_once_than_allowed_and_the_spare_helps_after_a_bomb(office):
    bomb, honest = office.asks("bomb", who="a"), office.asks("2", who="b")
    first, second = office.processes
    first.starts()
    second.starts()
    assert office.working() == [first]
    first.received = b""
    office.reactor.advance(0.81)
    assert first.is_killed
    assert isinstance(result_of(bomb), ExpressionLimit)
    # Nobody waits for the end of the killed process.
    assert office.working() == [second]
    assert office.serve() == "2"
    assert result_of(honest) == ["2"]
    first.ends(signal=9)
    assert len(office.processes) == 3


@pytest.mark.parametrize(
    "signal, text", [(14, "takes too long"), (27, "takes too long"), (11, "memory")]
)
def test_a_process_that_ends_itself_fails_its_request_only(office, signal, text):
    bomb = office.asks("bomb")
    office.processes[0].starts()
    office.processes[0].received = b""
    office.processes[0].ends(signal=signal)
    assert text in result_of(bomb).text
    asked = office.asks("2")
    office.processes[1].starts()
    office.serve()
    assert result_of(asked) == ["2"]


def test_an_answer_beyond_all_bounds_ends_the_process(office, monkeypatch):
    monkeypatch.setattr(worker, "MAX_ANSWER", 100)
    asked = office.asks("1")
    process = office.processes[0]
    process.starts()
    process.protocol.outReceived(struct.pack("!I", 1 << 30) + b"x" * 100)
    assert process.is_killed
    process.ends(signal=9)
    assert isinstance(result_of(asked), ExpressionLimit)


def test_users_take_turns(office):
    for number in range(3):
        office.asks(f"a{number}", who="a")
    for number in range(2):
        office.asks(f"b{number}", who="b")
    office.asks("c0", who="c")
    office.processes[0].starts()
    assert [office.serve() for _ in range(6)] == ["a0", "b0", "c0", "a1", "b1", "a2"]


def test_one_user_waits_with_a_few_and_all_together_with_many(office):
    asked = [office.asks("1", who="a") for _ in range(MAX_OF_ONE)]
    assert not any(each.called for each in asked)
    assert isinstance(result_of(office.asks("1", who="a")), TemporaryFailure)
    for number in range(MAX_WAITING - MAX_OF_ONE):
        assert not office.asks("1", who=f"u{number}").called
    assert result_of(office.asks("1", who="z")).http_status == 503


def bombed(office, who):
    """A bomb of this user has just been ended."""
    asked = office.asks("bomb", who=who)
    (process,) = office.working()
    process.received = b""
    office.reactor.advance(0.81)
    assert isinstance(result_of(asked), ExpressionLimit)
    process.ends(signal=9)
    office.processes[-1].starts()


def test_users_of_bombs_get_one_process_and_others_the_rest():
    office = Office(processes=2)
    office.asks("0")
    for process in office.processes:
        process.starts()
    office.serve()
    for who in ("mallory", "trudy"):
        bombed(office, who)
    bombs = [office.asks("bomb", who=who) for who in ("mallory", "trudy", "mallory")]
    assert len(office.working()) == 1
    asked = office.asks("1", who="bob")
    bomb, honest = office.working()
    assert honest.take()[1] == ["1"]
    honest.says([["=", 1]])
    assert result_of(asked) == [1]
    # One after the other they have their turns.
    bomb.take()
    bomb.says([["=", 2]])
    assert result_of(bombs[0]) == [2]
    assert len(office.working()) == 1


def test_with_one_process_users_of_bombs_and_others_take_turns(office):
    office.asks("0")
    office.processes[0].starts()
    office.processes[1].starts()
    office.serve()
    bombed(office, "mallory")
    office.asks("a", who="alice")
    for number in range(2):
        office.asks(f"m{number}", who="mallory")
        office.asks(f"b{number}", who="bob")
    assert [office.serve() for _ in range(5)] == ["a", "m0", "b0", "m1", "b1"]


def test_a_user_of_bombs_is_forgiven_by_time():
    office = Office(processes=2)
    office.asks("0")
    for process in office.processes:
        process.starts()
    office.serve()
    bombed(office, "mallory")
    office.asks("good", who="mallory")
    assert office.serve() == "good"
    for _ in range(2):
        office.asks("x", who="mallory")
    assert len(office.working()) == 1
    office.serve()
    office.serve()
    office.reactor.advance(SLOW_S)
    for _ in range(2):
        office.asks("x", who="mallory")
    assert len(office.working()) == 2


def test_nobody_waits_for_ever(office):
    asked = office.asks("1")
    office.reactor.advance(WAIT_S + 0.1)
    assert isinstance(result_of(asked), TemporaryFailure)
    office.processes[0].starts()
    assert not office.working()


def test_who_gives_up_leaves_the_line(office):
    asked, other = office.asks("1"), office.asks("2")
    asked.cancel()
    assert isinstance(result_of(asked), CancelledError)
    office.processes[0].starts()
    assert office.serve() == "2"
    assert result_of(other) == ["2"]


def test_who_gives_up_while_a_process_works_leaves_it_usable(office):
    asked = office.asks("1")
    office.processes[0].starts()
    asked.cancel()
    assert isinstance(result_of(asked), CancelledError)
    office.serve()
    other = office.asks("2")
    assert office.serve() == "2"
    assert result_of(other) == ["2"]
    assert [each for each in office.reactor.getDelayedCalls() if each.getTime() < START_S] == []


def test_processes_that_do_not_start_are_not_tried_in_a_loop(office):
    asked = office.asks("1")
    for process in tuple(office.processes):
        process.ends(signal=None, complaint=b"ModuleNotFoundError: quickjs")
    assert len(office.processes) == 2
    assert isinstance(result_of(asked), TemporaryFailure)
    assert isinstance(result_of(office.asks("2")), TemporaryFailure)
    assert len(office.processes) == 2
    office.reactor.advance(PAUSE_S)
    asked = office.asks("3")
    office.processes[2].starts()
    office.serve()
    assert result_of(asked) == ["3"]


def test_a_process_that_hangs_at_its_start_is_ended(office):
    office.asks("1")
    office.reactor.advance(START_S)
    assert all(each.is_killed for each in office.processes)


def test_an_interpreter_that_is_not_there_is_no_bug_of_a_request(office):
    office.reactor.error = OSError("no such file")
    assert isinstance(result_of(office.asks("1")), TemporaryFailure)
    assert office.reactor.getDelayedCalls() == []


def test_a_process_that_has_served_often_makes_place(office, monkeypatch):
    monkeypatch.setattr(worker, "MAX_REQUESTS", 2)
    asked = office.asks("0")
    worn, fresh = office.processes
    worn.starts()
    office.serve()
    assert result_of(asked) == ["0"]
    assert not worn.is_killed
    asked = office.asks("1")
    office.serve()
    assert result_of(asked) == ["1"]
    assert worn.is_killed
    asked = office.asks("2")
    fresh.starts()
    assert office.serve() == "2"
    worn.ends(signal=9)
    assert len(office.processes) == 3


def test_a_call_has_so_long_for_all_its_expressions(office):
    allowance = office.script.allowance("a", seconds=1.5)
    office.asks("0")
    office.processes[0].starts()
    office.serve()
    for number in range(2):
        asked = office.asks(str(number), asker=allowance)
        office.reactor.advance(0.79)
        office.serve()
        assert result_of(asked) == [str(number)]
    refused = result_of(office.asks("3", asker=allowance))
    assert isinstance(refused, ExpressionLimit)
    assert not office.working()


def test_waiting_is_not_counted_in_a_call(office):
    allowance = office.script.allowance("a", seconds=0.5)
    asked = office.asks("1", asker=allowance)
    office.reactor.advance(5)
    office.processes[0].starts()
    office.serve()
    assert result_of(asked) == ["1"]
    again = office.asks("2", asker=allowance)
    office.serve()
    assert result_of(again) == ["2"]


def test_stopping_ends_all_and_refuses_who_waits(office):
    asked = office.asks("1")
    stopped = Deferred.fromCoroutine(office.script.stop())
    assert isinstance(result_of(asked), TemporaryFailure)
    first, second = office.processes
    assert first.is_killed
    assert second.is_killed
    second.ends(signal=9)
    assert not stopped.called
    first.ends(signal=9)
    assert stopped.called
    assert len(office.processes) == 2
    assert office.reactor.getDelayedCalls() == []
    assert isinstance(result_of(office.asks("1")), TemporaryFailure)


@pytest.mark.parametrize(
    "expressions, scope",
    [
        (["x"] * 1001, {}),
        (["x" * 70_000], {}),
        (["x"], {"x": "é" * (1 << 20)}),
        (["x"], {"x": float("nan")}),
    ],
    ids=["many", "long", "scope", "nan"],
)
def test_what_is_too_much_is_not_sent(office, expressions, scope):
    assert isinstance(result_of(office.asks(*expressions, scope=scope)), ExpressionLimit)
    assert not office.processes


@pytest.mark.parametrize("depth", [150, 100_000])
def test_a_result_has_a_depth(office, depth):
    asked = office.asks("1")
    process = office.processes[0]
    process.starts()
    data = b'[["=",' + b"[" * depth + b"]" * depth + b"]]"
    process.protocol.outReceived(struct.pack("!I", len(data)) + data)
    assert "nested too deep" in result_of(asked).text
