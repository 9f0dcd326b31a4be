"""What single lines can't show: loss, time, hostile input, faults, the store going away."""

from __future__ import annotations

import base64
import gc
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailtwist.errors import StoreUnavailable
from mailtwist.imap import protocol, sync
from mailtwist.imap.grammar import no_arguments
from mailtwist.imap.session import Session
from mailtwist.imap.table import ANY, Command, Completion, Sync
from mailtwist.imap.verbs import COMMANDS
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.passwords import make_verifiers
from mailtwist.store import accounts
from mailtwist.store.snapshot import Snapshot
from tests.support.imap import PASSWORD, USER, Server


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, allow_plaintext=True)
    yield server
    server.close()


def add_command(server: Server, name: str, run: Callable[[Session, None], Any]) -> None:
    """A command that only this test has."""
    services = server.factory.services
    row = Command(name, no_arguments, run, ANY)
    server.factory.services = replace(services, commands={**services.commands, name: row})


# -- hostile input --------------------------------------------------------------------------


@pytest.mark.mission("DAP-220")
def test_what_comes_behind_starttls_is_thrown_away(sqlite_url: str) -> None:
    server = Server(sqlite_url)
    peer = server.connect()
    peer.received()
    peer.send(
        b'a STARTTLS\r\nb LOGIN %b "se\\"cr\\\\et"\r\nc NOOP\r\nd LOGIN {5+}\r\n' % USER.encode()
    )
    assert peer.received() == b"a OK Begin TLS negotiation now\r\n"
    assert peer.wire.tls_starts == 1
    assert server.logins.attempts == []
    # The half command is forgotten too.
    assert peer.ask(b"e NOOP") == b"e OK NOOP completed\r\n"


def test_pipelined_octets_wait_in_vain_for_starttls_in_later_segments(sqlite_url: str) -> None:
    server = Server(sqlite_url)
    peer = server.connect()
    peer.received()
    for octet in b"a STARTTLS\r\n":
        peer.send(bytes([octet]))
    assert peer.received().startswith(b"a OK")
    assert peer.ask(b"b NOOP") == b"b OK NOOP completed\r\n"


HOSTILE = {
    "10 000 parentheses in SEARCH": b"a SEARCH " + b"(" * 10_000 + b"ALL" + b")" * 10_000,
    "10 000 parentheses in LIST": b'a LIST "" ' + b"(" * 10_000 + b")" * 10_000,
    "10 000 parentheses in FETCH": b"a FETCH 1 " + b"(" * 10_000 + b")" * 10_000,
    "10 000 NOTs": b"a SEARCH " + b"NOT " * 10_000 + b"ALL",
    "a set of 16 000": b"a UID FETCH " + b",".join(b"%d" % n for n in range(1, 32000, 3)) + b" UID",
    "a set of ranges": b"a UID FETCH " + b",".join([b"1:4294967295"] * 4500) + b" UID",
    "a set of stars": b"a UID FETCH " + b",".join([b"*"] * 30_000) + b" UID",
    "a wild pattern": b'a LIST "" "*%*%*%*%*%*%z"',
    "a wilder pattern": b'a LIST "" "' + b"*a%a" * 12 + b'z"',
    "16 wild patterns": b'a LIST "" (' + b" ".join([b"*a*a*a*a*z"] * 16) + b")",
    "a long quoted string": b'a SELECT "' + rb"\"" * 30_000 + b'"',
    "a long tag": b"a" * 60_000 + b" NOOP",
    "many flags": b"a STORE 1 FLAGS (" + b" ".join(b"k%d" % n for n in range(10_000)) + b")",
    "a long line": b"a " + b"x" * 200_000,
    "a long ID": b"a ID (" + b" ".join([b'"a"'] * 8000) + b")",
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_hostile_commands_are_answered_in_milliseconds(server: Server, line: bytes) -> None:
    for n in range(30):
        server.make(f"{'a' * 20}{n}/{'a' * 200}")
    server.deliver(3)
    peer = server.login(b"0 SELECT INBOX")
    began = time.perf_counter()
    for start in range(0, len(line) + 2, 65536):
        peer.send((line + b"\r\n")[start : start + 65536])
    elapsed = time.perf_counter() - began
    answer = peer.received()
    assert answer.splitlines()[-1].split(b" ")[1] in {b"OK", b"NO", b"BAD"}
    assert elapsed < 0.5
    assert peer.ask(b"z NOOP").endswith(b"z OK NOOP completed\r\n")


def test_search_with_a_negative_literal_is_bad(server: Server) -> None:
    peer = server.login(b"0 SELECT INBOX")
    assert peer.ask(b"a SEARCH {-100}") == b"a BAD Invalid literal\r\n"
    assert peer.ask(b"b NOOP") == b"b OK NOOP completed\r\n"


def test_before_the_login_little_is_held(server: Server) -> None:
    peer = server.connect()
    peer.received()
    assert peer.ask(b"a LOGIN {9000}") == b"a BAD [TOOBIG] Literal too long\r\n"
    peer.send(b"b LOGIN {60000+}\r\n" + b"x" * 60000 + b"\r\n")
    assert peer.received() == b"b BAD [TOOBIG] Literal too long\r\n"
    assert peer.ask(b"c LOGIN {70000+}") == (
        b"c BAD [TOOBIG] Literal too long\r\n* BYE Too much data\r\n"
    )
    assert peer.closed


@pytest.mark.parametrize("mark", [b"", b"+"])
def test_append_before_the_login_reads_no_message(server: Server, mark: bytes) -> None:
    peer = server.connect()
    peer.received()
    assert b"a BAD" in peer.ask(b"a APPEND INBOX {100000%b}" % mark)


# -- messages -------------------------------------------------------------------------------

MAIL = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.mark.mission("DAP-232")
def test_append_waits_for_the_server(server: Server) -> None:
    peer = server.login(b"0 SELECT INBOX")
    assert peer.ask(b"a APPEND INBOX (\\Seen) {%d}" % len(MAIL)).startswith(b"+ ")
    peer.send(MAIL)
    assert peer.received() == b""
    peer.send(b"\r\n")
    lines = peer.received().splitlines()
    assert lines[:2] == [b"* 1 EXISTS", b"* 1 RECENT"]
    assert lines[2].startswith(b"a OK [APPENDUID ")


def test_append_to_nowhere_is_refused_before_the_message(server: Server) -> None:
    peer = server.login()
    answer = peer.ask(b"a APPEND Nowhere {100000}")
    assert answer.startswith(b"a NO [TRYCREATE]")
    peer.send(b"b APPEND Nowhere {10+}\r\nc LOGOUT\r\n\r\nd NOOP\r\n")
    answer = peer.received()
    assert answer.startswith(b"b NO [TRYCREATE]")
    assert answer.endswith(b"\r\nd OK NOOP completed\r\n")


def test_a_message_above_the_limit_is_refused_and_skipped(sqlite_url: str) -> None:
    server = Server(sqlite_url, allow_plaintext=True)
    server.factory.configure(replace(server.listener, max_size=1000), server.parts)
    peer = server.login()
    assert peer.ask(b"a APPEND INBOX {1001}") == b"a NO [TOOBIG] Message too large\r\n"
    peer.send(b"b APPEND INBOX {1001+}\r\n" + b"x" * 1001 + b"\r\nc NOOP\r\n")
    assert peer.received() == b"b NO [TOOBIG] Message too large\r\nc OK NOOP completed\r\n"


def test_text_behind_a_message_is_bad_and_nothing_is_stored(server: Server) -> None:
    peer = server.login()
    peer.send(b"a APPEND INBOX {2+}\r\nhi (\\Seen)\r\nb STATUS INBOX (MESSAGES)\r\n")
    answer = peer.received()
    assert answer.startswith(b"a BAD Unexpected text behind the message\r\n")
    assert b"* STATUS INBOX (MESSAGES 0)" in answer


def test_a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing(server: Server) -> None:
    peer = server.login()
    peer.send(b"a APPEND INBOX {3000000+}\r\n")
    for _ in range(30):
        peer.send(b"x" * 65536)
    peer.hang_up()
    with server.engine.read() as connection:
        uploads = connection.exec_driver_sql("SELECT count(*) FROM upload").scalar()
        contents = connection.exec_driver_sql("SELECT count(*) FROM content").scalar()
    # One chunk went ahead; the sweeper finds it by its upload row.
    assert (uploads, contents) == (1, 0)


def test_half_a_literal_is_acknowledged_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket:
        options: list[tuple[int, ...]] = []  # noqa: RUF012

        def setsockopt(self, *option: int) -> None:
            self.options.append(option)

    peer = server.login()
    monkeypatch.setattr(peer.wire, "socket", Socket(), raising=False)
    peer.ask(b"a NOOP")
    assert Socket.options == []
    peer.send(b"a APPEND INBOX {%d+}\r\n" % len(MAIL) + MAIL)
    assert Socket.options == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)]


# -- faults ---------------------------------------------------------------------------------


def test_a_bug_is_answered_and_logged_and_the_session_goes_on(server: Server) -> None:
    async def broken(session: Session, arguments: None) -> Completion:
        raise ZeroDivisionError("one of ours")

    add_command(server, "BROKEN", broken)
    peer = server.login()
    reports: list[str] = []
    peer.protocol.report = lambda text, error: reports.append(f"{text}: {error!r}")
    assert peer.ask(b"a BROKEN") == b"a NO [SERVERBUG] Internal error\r\n"
    assert reports == ["bug in an IMAP command: ZeroDivisionError('one of ours')"]
    assert peer.ask(b"b NOOP") == b"b OK NOOP completed\r\n"


def test_a_store_that_is_gone_is_told_and_the_session_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = server.login(b"0 SELECT INBOX")
    peer.protocol.report = lambda text, error: None

    async def unavailable(*args: Any, **options: Any) -> None:
        raise StoreUnavailable()

    with monkeypatch.context() as patch:
        patch.setattr(server.database, "read", unavailable)
        patch.setattr(server.database, "write", unavailable)
        assert peer.ask(b'a LIST "" *').startswith(b"a NO [UNAVAILABLE] ")
        assert peer.ask(b"b CREATE x").startswith(b"b NO [UNAVAILABLE] ")
        # Nothing can be announced, but nothing failed either.
        assert peer.ask(b"c NOOP") == b"c OK NOOP completed\r\n"
    server.deliver(1)
    assert peer.ask(b"d NOOP").startswith(b"* 1 EXISTS\r\n")


def test_mail_can_be_read_when_the_store_cannot_be_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deliver(1)

    async def full(*args: Any, **options: Any) -> None:
        raise StoreUnavailable()

    monkeypatch.setattr(server.database, "write", full)
    peer = server.login()
    assert b"a OK [READ-WRITE]" in peer.ask(b"a SELECT INBOX")
    assert b"b OK" in peer.ask(b"b UNSELECT")


def test_the_answer_is_one_line_whatever_is_in_it(server: Server) -> None:
    async def chatty(session: Session, arguments: None) -> Completion:
        return Completion("a\r\n* BYE b\x00")

    add_command(server, "CHATTY", chatty)
    assert server.login().ask(b"a CHATTY") == b"a OK a??* BYE b?\r\n"


# -- order ----------------------------------------------------------------------------------


def test_a_slow_command_holds_back_those_behind_it(server: Server) -> None:
    waiting: Deferred[None] = Deferred()

    async def slow(session: Session, arguments: None) -> Completion:
        await waiting
        return Completion("SLOW completed")

    add_command(server, "SLOW", slow)
    peer = server.login()
    peer.send(b"a SLOW\r\nb NOOP\r\nc CAPABILITY\r\n")
    assert peer.received() == b""
    waiting.callback(None)
    answers = peer.received().splitlines()
    assert [line.split(b" ")[0] for line in answers] == [b"a", b"b", b"*", b"c"]


def test_a_chunk_of_input_is_answered_by_one_write(server: Server) -> None:
    peer = server.login()
    before = len(peer.wire.writes)
    peer.send(b'a NOOP\r\nb STATUS INBOX (MESSAGES)\r\nc LIST "" *\r\n')
    # LIST lets its lines out as soon as they are there.
    assert len(peer.wire.writes) - before <= 2
    assert peer.wire.no_delay


def test_a_client_that_reads_slowly_is_waited_for(server: Server) -> None:
    server.deliver(2500)
    peer = server.login(b"0 SELECT INBOX")
    server.flag(",".join(map(str, range(1, 2501))), 4)
    peer.protocol.pump.pauseProducing()
    peer.send(b"a NOOP\r\n")
    assert peer.received() == b""
    peer.protocol.pump.resumeProducing()
    peer.run()
    answer = peer.received()
    assert answer.count(b" FETCH (UID ") == 2500
    assert answer.endswith(b"a OK NOOP completed\r\n")


def test_a_slow_reader_that_leaves_is_no_fault_of_ours(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Any] = []
    monkeypatch.setattr(protocol.log, "failure", lambda *args, **fields: faults.append(args))
    server.deliver(2500)
    peer = server.login(b"0 SELECT INBOX")
    server.flag(",".join(map(str, range(1, 2501))), 4)
    peer.protocol.pump.pauseProducing()
    peer.send(b"a NOOP\r\n")
    peer.hang_up()
    assert faults == []
    assert not server.database.changes._accounts


# -- time -----------------------------------------------------------------------------------


def test_a_silent_client_is_sent_away(server: Server) -> None:
    peer = server.connect()
    peer.received()
    server.advance(310)
    assert peer.received() == b"* BYE Idle for too long\r\n"
    assert peer.closed


def test_who_sends_octet_by_octet_does_not_stay_for_ever(server: Server) -> None:
    peer = server.connect()
    peer.received()
    for _ in range(11):
        peer.send(b"x")
        server.advance(60)
    assert peer.received() == b"* BYE Idle for too long\r\n"
    assert peer.closed


def test_a_login_earns_half_an_hour(server: Server) -> None:
    peer = server.login()
    server.advance(29 * 60)
    assert peer.ask(b"a IDLE") == b"+ idling\r\n"
    server.advance(29 * 60)
    assert not peer.closed
    server.advance(3 * 60)
    assert peer.received() == b"* BYE Idle for too long\r\n"
    assert peer.closed


def test_a_stop_says_bye(server: Server) -> None:
    silent, idling = server.login(), server.login(b"0 SELECT INBOX", b"a IDLE")
    done = Deferred.fromCoroutine(server.factory.drain(5))
    for peer in (silent, idling):
        assert peer.received() == b"* BYE Server shutting down\r\n"
        peer.run()
    assert done.called


def test_a_stop_lets_the_running_command_end(server: Server) -> None:
    waiting: Deferred[None] = Deferred()

    async def slow(session: Session, arguments: None) -> Completion:
        await waiting
        return Completion("SLOW completed")

    add_command(server, "SLOW", slow)
    peer = server.login()
    peer.send(b"a SLOW\r\nb NOOP\r\n")
    Deferred.fromCoroutine(server.factory.drain(5))
    assert peer.received() == b""
    waiting.callback(None)
    assert peer.received() == b"a OK SLOW completed\r\n* BYE Server shutting down\r\n"


def test_a_stop_lets_a_message_end(server: Server) -> None:
    peer = server.login()
    peer.send(b"a APPEND INBOX {4+}\r\nab")
    Deferred.fromCoroutine(server.factory.drain(5))
    assert peer.received() == b""
    peer.send(b"cd\r\n")
    assert peer.received().startswith(b"a OK [APPENDUID")
    assert peer.closed


def test_new_connections_are_refused_politely(server: Server) -> None:
    server.factory.max_clients = 1
    server.login()
    refused = server.connect()
    assert refused.received() == b"* BYE [LIMIT] Too many connections\r\n"


# -- sessions that go away ------------------------------------------------------------------


def test_a_lost_session_hears_nothing_more(server: Server) -> None:
    peer = server.login(b"0 SELECT INBOX", b"a IDLE")
    assert server.database.changes._accounts
    peer.hang_up()
    assert not server.database.changes._accounts
    assert not server.factory.sessions
    server.deliver(1)


def test_recent_is_claimed_when_a_session_ends(server: Server) -> None:
    peer = server.login(b"0 SELECT INBOX")
    server.deliver(2)
    assert b"* 2 RECENT" in peer.ask(b"a NOOP")
    peer.ask(b"b LOGOUT")
    assert b"* 0 RECENT" in server.login().ask(b"a SELECT INBOX")


def test_a_change_during_select_is_not_missed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deliver(1)
    peer = server.login()
    write = server.database.write

    async def meanwhile(work: Any, **options: Any) -> Any:
        monkeypatch.undo()
        server.deliver(1)
        return await write(work, **options)

    # SELECT takes \Recent by a write, after it has read the mailbox.
    monkeypatch.setattr(server.database, "write", meanwhile)
    assert b"* 1 EXISTS" in peer.ask(b"a SELECT INBOX")
    # FETCH announces only what it has heard of.
    assert b"* 2 EXISTS" in peer.ask(b"b FETCH 1 UID")


def test_ghosts_cost_nothing_while_nothing_changes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deliver(3)
    peer = server.login(b"0 SELECT INBOX")
    server.expunge("1")
    assert peer.ask(b"a FETCH 2 UID") == b"* 2 FETCH (UID 2)\r\na OK FETCH completed\r\n"
    merges: list[Snapshot] = []
    with_ghosts = sync.with_ghosts

    def merge(old: Snapshot, new: Snapshot) -> Snapshot:
        merges.append(new)
        return with_ghosts(old, new)

    monkeypatch.setattr(sync, "with_ghosts", merge)
    assert peer.ask(b"b FETCH 2 UID") == b"* 2 FETCH (UID 2)\r\nb OK FETCH completed\r\n"
    assert not merges
    server.deliver(1)
    assert b"* 4 EXISTS" in peer.ask(b"c FETCH 3 UID")
    assert merges
    assert peer.ask(b"d NOOP") == b"* 1 EXPUNGE\r\nd OK NOOP completed\r\n"
    assert peer.ask(b"e FETCH 3 UID") == b"* 3 FETCH (UID 4)\r\ne OK FETCH completed\r\n"


def test_no_command_with_numbers_may_announce_expunges() -> None:
    """RFC 9051 §7.5.1: not while FETCH, STORE or SEARCH is answered."""
    for row in COMMANDS.values():
        assert row.breaks_sequence is (row.sync is Sync.FULL), row.name
    for name in ("FETCH", "STORE", "SEARCH"):
        assert COMMANDS[name].sync is Sync.NO_EXPUNGE
    for name in ("NOOP", "CHECK", "IDLE", "EXPUNGE", "UID EXPUNGE", "MOVE"):
        assert COMMANDS[name].sync is Sync.FULL


@pytest.mark.mission("DAP-235")
def test_uidvalidity_stays_and_no_uid_comes_back(sqlite_url: str) -> None:
    server = Server(sqlite_url, allow_plaintext=True)
    server.deliver(3)
    server.expunge("2,3")
    question = b"a STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY)"
    before = server.login().ask(question)
    assert b"(MESSAGES 1 UIDNEXT 4 UIDVALIDITY " in before
    server.close()
    restarted = Server(sqlite_url, allow_plaintext=True)
    assert restarted.login().ask(question) == before
    restarted.deliver(1)
    peer = restarted.login(b"0 SELECT INBOX")
    assert peer.ask(b"b FETCH 2 UID").startswith(b"* 2 FETCH (UID 4)")
    restarted.close()


# -- logins, for real -----------------------------------------------------------------------


@pytest.mark.mission("DAP-222")
def test_five_bad_logins_lock_the_account(sqlite_url: str) -> None:
    server = Server(sqlite_url, protocol="imaps")
    with server.engine.write() as connection:
        accounts.set_secrets(connection, server.account_id, make_verifiers(PASSWORD))
    authenticator = Authenticator(server.database, clock=server.clock)
    server.factory.services = replace(server.factory.services, authenticator=authenticator)
    peer = server.connect()
    peer.received()
    right = base64.b64encode(b"\0" + USER.encode() + b"\0" + PASSWORD.encode())
    assert b"a OK [CAPABILITY" in server.connect(b"x NOOP").ask(b"a AUTHENTICATE PLAIN " + right)
    for _ in range(5):
        answer = peer.ask(b"b LOGIN %b wrong" % USER.encode())
        assert answer.startswith(b"b NO [AUTHENTICATIONFAILED]")
    assert peer.ask(b"c AUTHENTICATE PLAIN " + right).startswith(b"c NO")


def test_ten_bad_logins_end_the_connection(server: Server) -> None:
    peer = server.connect()
    peer.received()
    for _ in range(9):
        assert peer.ask(b"a LOGIN x y").startswith(b"a NO [AUTHENTICATIONFAILED]")
    assert peer.ask(b"a LOGIN x y").endswith(b"* BYE Too many errors\r\n")
    assert peer.closed


# -- memory ---------------------------------------------------------------------------------


def test_an_idle_session_is_small(server: Server) -> None:
    server.deliver(10)
    warm = server.login(b"0 SELECT INBOX", b"a IDLE")
    count = 100
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    peers = [server.login(b"0 SELECT INBOX", b"a IDLE") for _ in range(count)]
    gc.collect()
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    grown = sum(
        entry.size_diff
        for entry in after.compare_to(before, "filename")
        if "tests/support" not in entry.traceback[0].filename
    )
    assert len(peers) == count
    assert not warm.closed
    # The transport in memory that the test brings is not counted, nor is a real one.
    assert grown / count < 12_000, f"{grown / count:.0f} octets a session"


# -- flags that come and go ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "before"),
    [
        (b"STORE 1 +FLAGS (\\Flagged)", ""),
        (b"FETCH 1 FLAGS", "1"),
        (b"FETCH 1:2 FLAGS", "1"),
        (b"FETCH 1 (FLAGS RFC822.SIZE)", "1"),
    ],
)
def test_flags_that_go_before_they_were_announced_are_told_again(
    sqlite_url: str, command: bytes, before: str
) -> None:
    server = Server(sqlite_url, allow_plaintext=True, delayed=True)
    assert server.delayed is not None
    server.deliver(2)
    peer = server.login(b"1 SELECT INBOX")
    if before:
        server.flag(before, 4)
    peer.send(b"a %b\r\n" % command)
    if not before:
        server.delayed.release()  # the write; what it answers is read now
    # Somebody takes the flag away while the answer is on its way.
    server.flag("1", 4, op="-")
    server.settle()
    lines = peer.received().splitlines()
    assert lines[0].startswith(b"* 1 FETCH (FLAGS (\\Recent \\Flagged)")
    assert lines[-2] == b"* 1 FETCH (UID 1 FLAGS (\\Recent))"
    assert lines[-1].startswith(b"a OK ")
    # Once is enough.
    peer.send(b"b NOOP\r\n")
    server.settle()
    assert peer.received() == b"b OK NOOP completed\r\n"
    server.close()
