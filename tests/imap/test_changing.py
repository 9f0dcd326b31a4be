"""STORE, COPY, MOVE, EXPUNGE and APPEND where they are large, refused, or meet a fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mailtwist.errors import StoreUnavailable
from mailtwist.imap.commands import expunge, store
from mailtwist.mail import flags as bits
from mailtwist.store import accounts, content
from mailtwist.store.content import CHUNK
from tests.imap.making import put
from tests.imap.responses import fetched
from tests.support.imap import Server


@pytest.fixture
def server(store_url: str) -> Iterator[Server]:
    made = Server(store_url, allow_plaintext=True)
    yield made
    made.database.release()


def append(peer, message: bytes, arguments: bytes = b"INBOX") -> bytes:
    peer.send(b"t APPEND %b {%d+}\r\n%b\r\n" % (arguments, len(message), message))
    return peer.received().splitlines()[-1]


@pytest.mark.mission("DAP-230", "DAP-231")
def test_large_sets_are_changed_in_steps(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "STEP", 7)
    monkeypatch.setattr(expunge, "STEP", 7)
    server.deliver(40)
    peer = server.login(b"0 SELECT INBOX")
    answer = peer.ask(b"t STORE 1:* +FLAGS (\\Flagged Label)")
    flagged = fetched(answer)
    assert sorted(flagged) == list(range(1, 41))
    assert all(b"\\Flagged Label" in items[b"FLAGS"] for items in flagged.values())
    peer.ask(b"t STORE 3:30,33 +FLAGS.SILENT (\\Deleted)")
    answer = peer.ask(b"t EXPUNGE")
    numbers = [int(line.split()[1]) for line in answer.splitlines()[:-1]]
    assert numbers == [33, *range(30, 2, -1)]
    rest = fetched(peer.ask(b"t UID FETCH 1:* FLAGS"))
    assert [int(items[b"UID"]) for items in rest.values()] == [1, 2, 31, 32, *range(34, 41)]


def test_uid_expunge_takes_a_large_set_in_steps(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expunge, "STEP", 4)
    server.deliver(30)
    server.flag(",".join(map(str, range(1, 31))), bits.DELETED)
    peer = server.login(b"0 SELECT INBOX")
    answer = peer.ask(b"t UID EXPUNGE 2:29")
    assert answer.count(b" EXPUNGE\r\n") == 28
    assert len(fetched(peer.ask(b"t FETCH 1:* UID"))) == 2


@pytest.mark.mission("DAP-232")
@pytest.mark.parametrize("octets", [1, 65_537, CHUNK, 3 * CHUNK + 5])
def test_an_appended_message_comes_back_octet_for_octet(server: Server, octets: int) -> None:
    message = (b"Subject: x\r\n\r\n" + bytes(range(1, 256)) * (octets // 255 + 1))[:octets]
    peer = server.login(b"0 SELECT INBOX")
    assert b" OK [APPENDUID " in append(peer, message)
    assert fetched(peer.ask(b"t FETCH 1 BODY.PEEK[]"))[1][b"BODY[]"] == message


def test_a_message_above_the_limit_is_refused_and_the_session_goes_on(server: Server) -> None:
    services = server.factory.services
    limits = replace(services.limits, message=100_000)
    server.factory.services = replace(services, limits=limits)
    peer = server.login(b"0 SELECT INBOX")
    assert append(peer, b"x" * 100_001).startswith(b"t NO [TOOBIG]")
    peer.send(b"t APPEND INBOX {100001}\r\n")
    assert peer.received().startswith(b"t NO [TOOBIG]")
    assert append(peer, b"x" * 100_000).startswith(b"t OK [APPENDUID")


def test_quota_is_answered_with_its_code(server: Server) -> None:
    peer = server.login(b"0 SELECT INBOX")
    assert append(peer, b"a: b\r\n\r\n" + b"x" * 500).startswith(b"t OK")
    with server.engine.write() as connection:
        connection.exec_driver_sql("UPDATE account SET quota_octets = 900")
    assert append(peer, b"a: b\r\n\r\n" + b"x" * 500).startswith(b"t NO [OVERQUOTA]")
    assert peer.ask(b"t COPY 1 Archive").startswith(b"t NO [OVERQUOTA]")
    assert b"t OK" in peer.ask(b"t MOVE 1 Archive")


def test_a_full_table_of_keywords_refuses_a_new_one(server: Server) -> None:
    server.deliver()
    peer = server.login(b"0 SELECT INBOX")
    names = b" ".join(b"k%d" % n for n in range(55))
    assert b"t OK" in peer.ask(b"t STORE 1 FLAGS.SILENT (%b)" % names)
    assert b"t NO [LIMIT]" in peer.ask(b"t STORE 1 +FLAGS (one-more)")
    assert b"t OK" in peer.ask(b"t STORE 1 -FLAGS (one-more K3)")


def test_a_message_whose_mailbox_is_missing_does_not_travel(server: Server) -> None:
    peer = server.login()
    peer.send(b"t APPEND Nowhere {1000000}\r\n")
    assert peer.received() == b"t NO [TRYCREATE] No such mailbox\r\n"
    assert peer.ask(b"u NOOP") == b"u OK NOOP completed\r\n"


def test_an_append_that_is_cut_off_leaves_nothing(server: Server) -> None:
    peer = server.login()
    peer.send(b"t APPEND INBOX {%d+}\r\n" % (3 * CHUNK) + b"x" * (2 * CHUNK + 5))
    peer.hang_up()
    later = server.login(b"0 SELECT INBOX")
    assert later.ask(b"t FETCH 1:* UID") == b"t OK FETCH completed\r\n"


def test_a_store_that_fails_amid_a_literal_ends_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server.database, server.account_id, b"a: b\r\n\r\n" + b"x" * (2 * CHUNK))
    peer = server.login(b"0 SELECT INBOX")

    def read(*arguments: object) -> bytes:
        raise StoreUnavailable

    monkeypatch.setattr(content, "read", read)
    peer.send(b"t FETCH 1 BODY.PEEK[]\r\n")
    assert peer.closed


def test_an_account_that_is_removed_is_told_so(server: Server) -> None:
    server.deliver()
    peer = server.login(b"0 SELECT INBOX")
    with server.engine.write() as connection:
        while not accounts.remove_step(connection, server.account_id, 100):
            pass
    answer = peer.ask(b"t STORE 1 +FLAGS (\\Seen)")
    assert b"t NO " in answer or b"* BYE" in answer
