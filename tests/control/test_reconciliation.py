from __future__ import annotations

from typing import Any, cast

import pytest
from sqlalchemy import text
from twisted.internet.task import Clock

from mailtwist.config import load
from mailtwist.control.reconciliation import Reconciliation
from mailtwist.errors import ConfigError, Conflict
from mailtwist.store import listener_states
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.listener_states import FAILED, LISTENING
from mailtwist.store.secrets import Secrets
from tests.support.now import now

ADD = text(
    "INSERT INTO mail_server (hostname, is_enabled, listen_interface, max_size, max_clients,"
    " xclient_on, always_on_tls, authentication_required, reference_id, permission, created_at,"
    " updated_at) VALUES (:hostname, 1, :address, 10000, 20, 0, 0, 1, :hostname, 0, :at, :at)"
)


class Running:
    def __init__(self, listener):
        self.listener = listener
        self.sockets = [Place(listener.host, listener.port)]


class Place:
    def __init__(self, host, port):
        self.host, self.port = host, port


class Listeners:
    """What `control.listeners` does, without sockets; addresses in `taken` cannot be bound."""

    def __init__(self):
        self.running: tuple[Running, ...] = ()
        self.taken: set[int] = set()
        self.calls = 0

    async def reconcile(self, desired):
        self.calls += 1
        for each in desired:
            if each.port in self.taken:
                raise ConfigError(f"listener {each.title}: cannot bind {each.host}:{each.port}")
        self.running = tuple(Running(each) for each in desired)


class Node:
    def __init__(self, database):
        self.database = database
        self.clock = Clock()
        self.listeners = cast("Any", Listeners())
        self.expected = []
        settings = load(
            None, {"MAILTWIST_HOSTNAME": "mx.example.com", "MAILTWIST_LISTENERS": "smtp=:2525"}
        )
        self.values = ConfigValues(database, settings, Secrets(bytes(32)), now=lambda: 0)
        self.reconciliation = Reconciliation(
            database, self.listeners, self.values, expect=self.expect, reactor=self.clock
        )

    async def expect(self, listeners):
        self.expected.append([each.title for each in listeners])

    def start(self):
        now(self.reconciliation.start())
        return self

    def apply(self):
        now(self.reconciliation.apply())

    @property
    def running(self) -> list[str]:
        return [each.listener.title for each in self.listeners.running]

    def states(self):
        node_id = self.database.ids.node_id
        found = now(self.database.read(lambda c: listener_states.of_node(c, node_id)))
        return {each.name: each for each in found}


@pytest.fixture
def node(database):
    return Node(database)


def add(database, hostname, address, at=1):
    values = {"hostname": hostname, "address": address, "at": at}
    now(database.write(lambda connection: connection.execute(ADD, values)))


FILE = "file/smtp-:2525"


def test_at_the_start_file_and_rows_are_served(node):
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    node.start()
    assert node.running == [FILE, "mail.example.com"]
    assert node.expected == [node.running]
    states = node.states()
    assert states[FILE].state == LISTENING
    assert (states["row/mail.example.com"].port, states[FILE].port) == (4650, 2525)


def test_rows_move_nothing_by_themselves(node):
    node.start()
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    assert node.running == [FILE]
    node.apply()
    assert node.running == [FILE, "mail.example.com"]
    assert "row/mail.example.com" in node.states()


def test_keys_move_nothing_by_themselves_either(node):
    node.start()
    now(node.values.put("imap.enabled", "true"))
    assert node.running == [FILE]
    node.apply()
    assert node.running == [FILE, "config/imap"]


def test_a_contradiction_is_told_and_nothing_moves(node):
    node.start()
    add(node.database, "a.example", "127.0.0.1:4650")
    add(node.database, "b.example", "127.0.0.1:4650", at=2)
    calls = node.listeners.calls
    with pytest.raises(Conflict, match=r"a\.example.*b\.example"):
        node.apply()
    assert node.listeners.calls == calls
    assert node.running == [FILE]


def test_an_address_that_cannot_be_bound_is_told_and_nothing_moves(node):
    node.start()
    node.listeners.taken.add(4650)
    add(node.database, "a.example", "127.0.0.1:4650")
    with pytest.raises(Conflict, match=r"a\.example.*127\.0\.0\.1:4650"):
        node.apply()
    assert node.running == [FILE]


def test_after_an_error_the_next_order_is_heard(node):
    node.start()
    add(node.database, "a.example", "nonsense")
    with pytest.raises(Conflict):
        node.apply()
    sql = text("UPDATE mail_server SET listen_interface = '127.0.0.1:4651'")
    now(node.database.write(lambda connection: connection.execute(sql)))
    node.apply()
    assert node.running == [FILE, "a.example"]


def test_a_bad_row_keeps_neither_the_file_nor_good_rows_from_starting(node, capfd):
    node.listeners.taken.add(4650)
    add(node.database, "bad.example", "127.0.0.1:4650")
    add(node.database, "worse.example", "nonsense", at=2)
    add(node.database, "good.example", "127.0.0.1:4651", at=3)
    node.start()
    assert node.running == [FILE, "good.example"]
    states = node.states()
    assert states["row/bad.example"].state == FAILED
    assert "127.0.0.1:4650" in states["row/bad.example"].error


def test_the_files_own_listeners_must_start(node):
    node.listeners.taken.add(2525)
    with pytest.raises(ConfigError, match="2525"):
        node.start()


def test_other_nodes_follow_an_order(node):
    node.start()
    other = Node(node.database).start()
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    node.apply()
    assert other.running == [FILE, "mail.example.com"]


def test_nobody_follows_himself(node):
    node.start()
    calls = node.listeners.calls
    node.apply()
    assert node.listeners.calls == calls + 1


def test_a_node_that_cannot_follow_goes_on(node):
    node.start()
    other = Node(node.database).start()
    other.listeners.taken.add(4650)
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    node.apply()
    assert other.running == [FILE]


def test_a_restart_comes_after_the_answer(node):
    node.start()
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    node.reconciliation.restart()
    assert node.running == [FILE]
    node.clock.advance(1)
    assert node.running == [FILE, "mail.example.com"]


def test_a_stopped_server_takes_no_orders(node):
    node.start()
    other = Node(node.database).start()
    now(other.reconciliation.stop())
    assert other.states() == {}
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    node.apply()
    assert other.running == [FILE]
