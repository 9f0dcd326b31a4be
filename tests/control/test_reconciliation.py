from __future__ import annotations

from typing import Any, cast

import pytest
from sqlalchemy import text
from twisted.internet.task import Clock

from mailtwist.config import load
from mailtwist.control.plan import Problem
from mailtwist.control.reconciliation import Reconciliation, Refused
from mailtwist.control.serving import Unbindable
from mailtwist.errors import ConfigError, Conflict, TemporaryFailure
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
        hosts = [listener.host] if listener.host else ["0.0.0.0", "::"]
        self.sockets = [Place(host, listener.port) for host in hosts]


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
        problems = [
            Problem((each.name,), f"listener {each.title}: cannot bind {each.host}:{each.port}")
            for each in desired
            if each.port in self.taken
        ]
        if problems:
            raise Unbindable(problems)
        self.running = tuple(Running(each) for each in desired)

    def settle(self):
        self.settled = True


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


def test_an_order_that_comes_during_the_start_is_followed(node):
    expect = node.expect

    async def order_once(listeners):
        await expect(listeners)
        if len(node.expected) == 1:
            add(node.database, "mail.example.com", "127.0.0.1:4650")
            now(node.database.write(listener_states.order))

    node.reconciliation._expect = order_once
    node.start()
    assert node.running == [FILE, "mail.example.com"]
    calls = node.listeners.calls
    now(node.reconciliation._follow())
    assert node.listeners.calls == calls


def test_a_stopped_server_takes_no_orders(node):
    node.start()
    other = Node(node.database).start()
    now(other.reconciliation.stop())
    assert other.states() == {}
    add(node.database, "mail.example.com", "127.0.0.1:4650")
    node.apply()
    assert other.running == [FILE]


def test_an_order_that_comes_while_the_server_ends_opens_nothing_again(node):
    node.start()
    now(node.reconciliation.stop())
    calls = node.listeners.calls
    with pytest.raises(TemporaryFailure):
        node.apply()
    assert node.listeners.calls == calls
    assert node.states() == {}


# -- what is told ---------------------------------------------------------------------------


def report_of(steps):
    return {each.listener.title: (each.action, each.reason) for each in steps}


def nodes(node):
    found = now(node.reconciliation.listing())
    return found, {each.node_id: each for each in found.nodes}


def change(database, sql, **values):
    now(database.write(lambda connection: connection.execute(text(sql), values)))


def test_an_order_reports_on_every_listener(node):
    node.start()
    add(node.database, "a.example", "127.0.0.1:4650")
    assert report_of(now(node.reconciliation.apply())) == {
        FILE: ("kept", ""),
        "a.example": ("opened", ""),
    }
    change(node.database, "UPDATE mail_server SET max_clients = 3")
    (_, step) = now(node.reconciliation.apply())
    assert (step.action, step.changed) == ("changed", ("max_clients",))
    change(node.database, "DELETE FROM mail_server")
    assert report_of(now(node.reconciliation.apply()))["a.example"] == ("closed", "")


def test_a_plan_moves_nothing(node):
    node.start()
    add(node.database, "a.example", "127.0.0.1:4650")
    calls = node.listeners.calls
    found = now(node.reconciliation.plan())
    assert [each.title for each in found.opens] == ["a.example"]
    assert not found.conflicts
    assert node.running == [FILE]
    assert node.listeners.calls == calls
    add(node.database, "b.example", "127.0.0.1:4650", at=2)
    (conflict,) = now(node.reconciliation.plan()).conflicts
    assert conflict.names == ("row/a.example", "row/b.example")


def test_a_refused_order_reports_on_every_listener_and_is_remembered(node):
    node.start()
    node.listeners.taken |= {4650, 4651}
    for n, name in enumerate(("busy.example", "full.example", "good.example")):
        add(node.database, name, f"127.0.0.1:{4650 + n}", at=n)
    add(node.database, "odd.example", "nonsense", at=9)
    with pytest.raises(Refused, match=r"odd\.example") as caught:
        node.apply()
    assert "odd.example" in report_of(caught.value.report)
    change(node.database, "DELETE FROM mail_server WHERE hostname = 'odd.example'")
    with pytest.raises(Refused, match=r"busy\.example.*4650.*full\.example.*4651") as caught:
        node.apply()
    report = report_of(caught.value.report)
    assert {title: action for title, (action, _) in report.items()} == {
        FILE: "kept",
        "busy.example": "failed",
        "full.example": "failed",
        "good.example": "failed",
    }
    assert "4650" in report["busy.example"][1]
    assert "4650" not in report["full.example"][1]
    states = node.states()
    assert states["row/busy.example"].state == FAILED
    assert states[FILE].state == LISTENING
    assert "row/good.example" not in states
    (told,) = nodes(node)[1].values()
    assert "4650" in told.error
    assert [each.name for each in node.reconciliation.broken] == [
        "row/busy.example",
        "row/full.example",
    ]
    node.listeners.taken.clear()
    node.apply()
    assert node.reconciliation.broken == ()
    # The next one that can be carried out ends it.
    node.listeners.taken.clear()
    node.apply()
    (told,) = nodes(node)[1].values()
    assert told.error == ""
    assert {each.state for each in node.states().values()} == {LISTENING}


def test_what_no_listener_can_help_is_told_and_nothing_moves(node):
    node.start()
    add(node.database, "a.example", "127.0.0.1:4650")

    async def fail(listeners):
        raise ConfigError("data_dir: cannot make it")

    node.reconciliation._expect = fail
    with pytest.raises(Refused, match="cannot make it") as raised:
        node.apply()
    assert set(report_of(raised.value.report)) == {FILE, "a.example"}
    now(node.database.write(listener_states.order))
    found, told = nodes(node)
    assert {(each.generation, each.error) for each in told.values()} == {
        (found.generation, "data_dir: cannot make it")
    }
    assert node.running == [FILE]


def test_every_node_tells_which_order_it_has_carried_out(node):
    node.start()
    other = Node(node.database).start()
    node.apply()
    found, told = nodes(node)
    assert {each.generation for each in told.values()} == {found.generation} == {1}
    order = listener_states.order
    change(node.database, "DELETE FROM mail_server")
    now(node.database.write(order))
    found, told = nodes(node)
    assert {each.generation for each in told.values()} == {found.generation} == {2}
    assert other.listeners.calls == 3


def test_a_node_says_why_it_could_not_follow(node):
    node.start()
    node.listeners.taken.add(4650)
    add(node.database, "a.example", "127.0.0.1:4650")
    now(node.database.write(listener_states.order))
    found, told = nodes(node)
    (state,) = told.values()
    assert state.generation == found.generation
    assert "127.0.0.1:4650" in state.error
    # It does not try again and again.
    calls = node.listeners.calls
    node.reconciliation._hear()
    assert node.listeners.calls == calls


def test_an_order_that_comes_in_between_is_followed_too(node):
    node.start()
    reconcile = node.listeners.reconcile

    async def and_meanwhile(desired):
        node.listeners.reconcile = reconcile
        await reconcile(desired)
        # What was read for the first order does not have it.
        await node.database.write(
            lambda c: c.execute(ADD, {"hostname": "b.example", "address": ":4651", "at": 2})
        )
        await node.database.write(listener_states.order)

    node.listeners.reconcile = and_meanwhile
    node.apply()
    assert node.running == [FILE, "b.example"]
    found, told = nodes(node)
    assert {each.generation for each in told.values()} == {found.generation} == {2}


def test_a_node_without_listeners_is_a_node(node):
    node.listeners.running = ()
    node.start()
    node.listeners.running = ()
    node.apply()
    assert len(nodes(node)[1]) == 1
    now(node.reconciliation.stop())
    assert nodes(node)[1] == {}


# -- while another process is to take over ----------------------------------------------------


def test_nothing_moves_while_the_sockets_are_handed_over(node):
    node.start()
    now(node.reconciliation.pause())
    add(node.database, "a.example", "127.0.0.1:4650")
    with pytest.raises(TemporaryFailure):
        node.apply()
    now(node.database.write(listener_states.order))
    assert node.running == [FILE]
    node.reconciliation.resume()
    assert node.running == [FILE, "a.example"]
    node.apply()


# -- what the store alone tells ---------------------------------------------------------------


def stored_plan(node):
    settings = node.values.settings
    ((_, found),) = now(node.reconciliation.listing()).plans(settings).items()
    return found


def test_the_store_tells_what_an_order_would_do(node):
    node.start()
    add(node.database, "a.example", "127.0.0.1:4650")
    add(node.database, "all.example", ":4651", at=2)
    found = stored_plan(node)
    assert [each.name for each in found.opens] == ["row/a.example", "row/all.example"]
    assert [each.name for each in found.unchanged] == [FILE]
    node.apply()
    assert stored_plan(node).is_empty
    sql = "UPDATE mail_server SET listen_interface = :address, updated_at = :at"
    change(node.database, sql + " WHERE hostname = 'a.example'", address=":4660", at=1 << 60)
    change(node.database, "DELETE FROM mail_server WHERE hostname = 'all.example'")
    now(node.values.put("imap.enabled", "true"))
    found = stored_plan(node)
    assert found.changes == {"row/a.example": ("address", "settings")}
    assert [each.name for each in found.closes] == ["row/all.example"]
    assert [each.name for each in found.opens] == ["config/imap"]
    add(node.database, "z.example", ":2525", at=3)
    (conflict,) = stored_plan(node).conflicts
    assert "z.example" in conflict.text


def test_without_a_server_the_store_tells_what_one_would_open(node):
    add(node.database, "a.example", "127.0.0.1:4650")
    found = now(node.reconciliation.listing())
    assert not found.plans(node.values.settings)
    plan = found.plan_of_start(node.values.settings)
    assert [each.name for each in plan.opens] == [FILE, "row/a.example"]


def test_a_listing_names_rows_by_their_host(node):
    node.start()
    add(node.database, "a.example", "127.0.0.1:4650")
    node.apply()
    document = now(node.reconciliation.listing()).document()
    node_id = node.database.ids.node_id
    assert {
        "node": node_id,
        "name": "a.example",
        "source": "row/a.example",
        "protocol": "smtp",
        "address": "127.0.0.1",
        "port": 4650,
        "state": "listening",
        "error": "",
        "generation": 1,
    } in document["listeners"]
    assert document["generation"] == 1
    assert [each["node"] for each in document["nodes"]] == [node_id]
