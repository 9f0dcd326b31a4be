"""Listeners that move while sessions go on: nothing fails that need not."""

from __future__ import annotations

import socket
import statistics
import time
from collections import Counter

import pytest

from benchmarks import sync
from tests.e2e import mails
from tests.e2e.relaying import until
from tests.e2e.server import PASSWORD, Server, Talk
from tests.support.ports import free_address
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

PLAIN = {"Content-Type": "text/plain"}
OTHERS = [
    {"protocol": protocol, "address": "127.0.0.1:0"}
    for protocol in ("smtp", "imap", "imaps", "http")
]


def talk(address: str) -> Talk:
    host, _, port = address.rpartition(":")
    return Talk(socket.create_connection((host, int(port)), timeout=60))


def refuses(address: str) -> bool:
    try:
        talk(address).close()
    except ConnectionRefusedError:
        return True
    return False


class Moving:
    """A server with one row and one IMAP listener by keys, both to be moved."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = Rest(server.ports["http"]).become_administrator()
        self.smtp, self.imap = free_address(), free_address()
        self.row = self.admin.make(
            "mail_server",
            {
                "hostname": "mx.moving.example",
                "is_enabled": True,
                "listen_interface": self.smtp,
                "always_on_tls": False,
                "authentication_required": False,
                "max_size": 32 << 20,
            },
        )["id"]
        self.key("imap.listen_interface", self.imap)
        self.key("imap.enabled", "true")
        self.apply()

    def key(self, name: str, value: str) -> None:
        answer = self.admin.post(f"/_config/backend/{name}", value.encode(), headers=PLAIN)
        assert answer.status == 200, answer

    def apply(self) -> None:
        answer = self.admin.post("/listeners/apply", {})
        assert answer.status == 200, answer

    def move(self) -> None:
        self.admin.change("mail_server", self.row, listen_interface=free_address(), max_clients=9)
        self.key("imap.listen_interface", free_address())
        self.apply()

    def close(self) -> None:
        self.admin.change("mail_server", self.row, is_enabled=False)
        self.key("imap.enabled", "false")
        self.apply()

    def talk_smtp(self) -> Talk:
        client = talk(self.smtp)
        assert client.reply().startswith(b"220")
        assert client.say(b"EHLO client.example").startswith(b"250")
        return client

    def talk_imap(self, mailbox: str) -> Talk:
        client = talk(self.imap)
        assert client.line().startswith(b"* OK")
        client.send(f'a LOGIN {mailbox} "{PASSWORD}"\r\nb SELECT INBOX\r\n'.encode())
        while not (line := client.line()).startswith(b"b "):
            assert line
        assert line.startswith(b"b OK"), line
        return client


@pytest.fixture
def make_moving(make_server):
    def make(**settings) -> Moving:
        auth = {"allow_plaintext": True}
        return Moving(make_server(listeners=OTHERS, auth=auth, **settings).start())

    return make


@pytest.mark.slow
def test_nothing_fails_while_listeners_move_under_load(make_server):
    server = make_server(listeners=OTHERS, auth={"allow_plaintext": True}).start()
    admin = Rest(server.ports["http"]).become_administrator()
    for name, value in (("limit.rate", '{"default": 0}'), ("limit.max_connections", "0")):
        admin.post(f"/_config/backend/{name}", value.encode(), headers=PLAIN)

    def ask(method, path, attributes):
        if method == "PATCH":
            return admin.change("mail_server", path.rpartition("/")[2], **attributes)
        if attributes is not None:
            return {"data": admin.make("mail_server", attributes)}
        answer = admin.post(path, {})
        assert answer.status == 200, answer
        return answer

    accounts = [server.account() for _ in range(4)]
    seen, took = sync.run(server.ports, accounts, ask, listeners=12, connections=12, orders=15)
    assert Counter(seen.failures) == Counter()
    assert set(seen.sessions) == {"smtp", "imap", "http"}
    assert min(seen.sessions.values()) > 10
    # The goal is 200 ms at the 99th percentile; the tests of others run beside this one.
    assert statistics.median(took) < 2


@pytest.mark.mission("DAP-081", "GEN-03")
@pytest.mark.parametrize("change", ["move", "close"])
def test_sessions_go_on_while_their_listener_is_moved_or_closed(make_moving, change):
    moving = make_moving()
    server = moving.server
    alice, bob, carol = (server.account() for _ in range(3))
    server.send(carol, mails.simple("large", octets=20_000_000))
    between, inside = moving.talk_smtp(), moving.talk_smtp()
    for client, mailbox in ((between, alice), (inside, bob)):
        assert client.say(b"MAIL FROM:<x@elsewhere.example>").startswith(b"250")
        assert client.say(f"RCPT TO:<{mailbox}>".encode()).startswith(b"250")
    assert inside.say(b"DATA").startswith(b"354")
    inside.send(b"Subject: half\r\n\r\nfirst half\r\n")
    idle, fetching = moving.talk_imap(alice), moving.talk_imap(carol)
    idle.send(b"c IDLE\r\n")
    assert idle.line().startswith(b"+")
    fetching.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    fetching.send(b"c FETCH 1 BODY[]\r\n")
    head = fetching.line()
    octets = int(head[head.rindex(b"{") + 1 : head.rindex(b"}")])
    old = (moving.smtp, moving.imap)
    getattr(moving, change)()
    assert all(refuses(each) for each in old)
    inside.send(b"second half\r\n")
    assert inside.say(b".").startswith(b"250")
    assert between.say(b"DATA").startswith(b"354")
    assert between.say(b"Subject: whole\r\n\r\nx\r\n.").startswith(b"250")
    assert idle.line() == b"* 1 EXISTS\r\n"
    content = fetching.file.read(octets)
    assert len(content) == octets
    assert content.endswith(b"\r\n")
    while not (line := fetching.line()).startswith(b"c OK"):
        assert line
    for client in (between, inside):
        assert client.say(b"QUIT").startswith(b"221")
        client.close()
    (half,) = server.mails(bob).values()
    assert half.endswith(b"first half\r\nsecond half\r\n")
    idle.close()
    fetching.close()


def test_after_the_drain_time_sessions_of_closed_listeners_are_sent_away(make_moving):
    moving = make_moving(drain_time="2s")
    server = moving.server
    alice = server.account()
    silent, inside, stays = moving.talk_smtp(), moving.talk_smtp(), server.raw("smtp")
    assert stays.reply().startswith(b"220")
    assert inside.say(b"MAIL FROM:<x@elsewhere.example>").startswith(b"250")
    assert inside.say(f"RCPT TO:<{alice}>".encode()).startswith(b"250")
    assert inside.say(b"DATA").startswith(b"354")
    idle = moving.talk_imap(alice)
    idle.send(b"c IDLE\r\n")
    assert idle.line().startswith(b"+")
    begin = time.monotonic()
    moving.close()
    assert silent.say(b"NOOP").startswith(b"250")
    assert silent.reply().startswith(b"421")
    assert silent.line() == b""
    assert time.monotonic() - begin > 1.9
    until(lambda: idle.line().startswith(b"* BYE"))
    assert idle.line() == b""
    # Who is in the midst of a message may end it.
    assert inside.say(b"Subject: late\r\n\r\nx\r\n.").startswith(b"250")
    assert inside.reply().startswith(b"421")
    assert len(server.mails(alice)) == 1
    assert stays.say(b"NOOP").startswith(b"250")
    for client in (silent, inside, stays, idle):
        client.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("127.0.0.1", "0.0.0.0", id="wider"),
        pytest.param("0.0.0.0", "127.0.0.1", id="narrower"),
        pytest.param("", "127.0.0.1", id="from-every-interface"),
    ],
)
def test_no_connection_is_refused_while_a_listener_changes_its_addresses(make_server, one, other):
    server = make_server(listeners=OTHERS).start()
    admin = Rest(server.ports["http"]).become_administrator()
    port = free_address().rpartition(":")[2]
    row = {"hostname": "mx.wide.example", "is_enabled": True, "always_on_tls": False}
    id = admin.make("mail_server", {**row, "listen_interface": f"{one}:{port}"})["id"]
    assert admin.post("/listeners/apply", {}).status == 200
    load = sync.Load()
    load.add("smtp", lambda: int(port), [(b"", b"220 "), (b"QUIT\r\n", b"221 ")], 5)
    with load:
        for n in range(10):
            address = f"{(other, one)[n % 2]}:{port}"
            admin.change("mail_server", id, listen_interface=address)
            (step,) = [
                each
                for each in admin.post("/listeners/apply", {}).json["report"]
                if each["action"] != "kept"
            ]
            assert (step["action"], step["address"]) == ("changed", address)
            seen = load.seen.sessions["smtp"]
            until(lambda before=seen: load.seen.sessions["smtp"] > before)  # type: ignore[misc]
    # None is refused. Whose handshake is half done in the very moment in which the old socket is
    # closed is reset by the kernel: seen once in many runs, and nothing in user space prevents it.
    resets = [each for each in load.seen.failures if "Connection reset by peer" in each]
    assert load.seen.failures == resets
    assert len(resets) <= 1


def test_two_rows_exchange_their_ports(make_server):
    server = make_server(listeners=OTHERS).start()
    admin = Rest(server.ports["http"]).become_administrator()
    one, other = free_address(), free_address()
    rows = {
        name: admin.make(
            "mail_server",
            {
                "hostname": name,
                "is_enabled": True,
                "always_on_tls": False,
                "listen_interface": address,
            },
        )["id"]
        for name, address in (("mx.one.example", one), ("mx.other.example", other))
    }
    assert admin.post("/listeners/apply", {}).status == 200
    kept = talk(one)
    assert kept.reply().startswith(b"220 mx.one.example")
    # Each alone would be refused: its address is taken.
    for name, address in (("mx.one.example", other), ("mx.other.example", one)):
        admin.change("mail_server", rows[name], listen_interface=address)
    report = admin.post("/listeners/apply", {}).json["report"]
    changed = {each["name"]: each["address"] for each in report if each["action"] == "changed"}
    assert changed == {"mx.one.example": other, "mx.other.example": one}
    for address, greeting in ((other, b"220 mx.one.example"), (one, b"220 mx.other.example")):
        with talk(address) as client:
            assert client.reply().startswith(greeting)
    assert kept.say(b"NOOP").startswith(b"250")
    kept.close()
