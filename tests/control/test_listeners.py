from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface import implementer

from mailtwist.config import Listener
from mailtwist.control import sockets
from mailtwist.control.listeners import FILE_NAME, LONGEST_WORK_S, Listeners
from mailtwist.control.serving import Unbindable
from mailtwist.errors import ConfigError
from tests.support.now import now
from tests.support.ports import free_port


class Port:
    """What the reactor would make of a socket: a view on it that accepts."""

    def __init__(self, descriptor, family, factory):
        self.socket = socket.socket(family, fileno=socket.dup(descriptor))
        self.factory = factory
        self.stopped = False
        factory.doStart()

    def stopListening(self):
        self.stopped = True
        self.socket.close()
        self.factory.doStop()
        return succeed(None)


class Reactor(Clock):
    def __init__(self):
        super().__init__()
        self.ports = []
        self.refuse_ports = False

    def adoptStreamPort(self, descriptor, family, factory):
        if self.refuse_ports:
            raise OSError("Too many open files")
        port = Port(descriptor, family, factory)
        self.ports.append(port)
        return port

    @property
    def open(self):
        return [port for port in self.ports if not port.stopped]


class Factory:
    def __init__(self, listener):
        self.settings = [listener]
        self.started = 0
        self.drained = None
        self.sessions = {}

    @property
    def is_busy(self):
        return bool(self.sessions)

    def doStart(self):
        self.started += 1

    def doStop(self):
        self.started -= 1

    def buildProtocol(self, addr):
        return None

    async def drain(self, seconds):
        self.drained = seconds
        if self.sessions:
            await Deferred(lambda _: None)


async def at_once(work, *arguments):
    return work(*arguments)


class Server:
    def __init__(self, folder):
        self.reactor = Reactor()
        self.path = folder / FILE_NAME
        self.made = []
        self.refuse = ""
        self.drain_time = 0.0
        self.listeners = Listeners(
            self.reactor,
            make=self.make,
            configure=self.configure,
            creator=lambda listener: pytest.fail("no TLS here"),
            directory=folder,
            drain_s=lambda: self.drain_time,
            in_thread=at_once,
        )

    def make(self, listener):
        if self.refuse and self.refuse in listener.name:
            raise ConfigError("refused")
        self.made.append(Factory(listener))
        return self.made[-1]

    def configure(self, factory: Any, listener):
        factory.settings.append(listener)

    def reconcile(self, *desired):
        now(self.listeners.reconcile(desired))

    @property
    def published(self):
        return json.loads(self.path.read_text())

    def port(self, name):
        return next(entry["port"] for entry in self.published if entry["name"] == name)

    def running(self):
        return {each.listener.name: each for each in self.listeners.running}


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    now(server.listeners.stop(0))
    assert not server.reactor.open
    assert all(factory.started == 0 for factory in server.made)


@pytest.fixture
def caplog_events():
    """What is logged, as text."""
    events = []

    def collect(event: Any) -> None:
        events.append(formatEvent(event))

    observe: Any = collect
    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def at(name, port=0, host="127.0.0.1", protocol="smtp", **more):
    return Listener(name=name, protocol=protocol, host=host, port=port, **more)


def answers(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def taken():
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_what_is_bound_is_published_after_it_is_up(server):
    server.reconcile(at("file/a"), at("file/b", protocol="imap"))
    entries = server.published
    assert [(e["name"], e["protocol"], e["address"], e["tls"]) for e in entries] == [
        ("file/a", "smtp", "127.0.0.1", False),
        ("file/b", "imap", "127.0.0.1", False),
    ]
    assert all(answers(entry["port"]) for entry in entries)
    assert list(entries[0]) == ["name", "protocol", "address", "port", "tls"]
    assert [path.name for path in server.path.parent.iterdir()] == [FILE_NAME]


def test_nothing_is_a_fine_set_too(server):
    server.reconcile()
    assert server.published == []


def test_without_host_every_interface_is_bound_on_one_port(server):
    server.reconcile(at("file/a", host=""))
    entries = server.published
    assert entries[0]["address"] == "0.0.0.0"
    assert len({entry["port"] for entry in entries}) == 1
    assert answers(entries[0]["port"])
    if len(entries) == 2:
        assert entries[1]["address"] == "::"
        assert answers(entries[1]["port"], "::1")


def test_a_host_name_is_resolved(server):
    server.reconcile(at("file/a", host="localhost"))
    assert "127.0.0.1" in [entry["address"] for entry in server.published]


def test_an_unchanged_listener_is_not_touched(server):
    server.reconcile(at("file/a"))
    before = server.running()["file/a"]
    port = server.reactor.ports[0]
    server.reconcile(at("file/a"), at("file/b"))
    assert server.running()["file/a"] is before
    assert before.factory.settings == [at("file/a")]
    assert server.reactor.ports[0] is port
    assert not port.stopped


def test_other_settings_reach_the_factory_in_place(server):
    server.reconcile(at("file/a"))
    bound = server.port("file/a")
    server.reconcile(at("file/a", max_clients=7))
    assert server.port("file/a") == bound
    assert len(server.made) == 1
    assert server.made[0].settings[-1].max_clients == 7
    assert len(server.reactor.ports) == 1


def test_another_protocol_gets_a_new_factory_on_the_same_socket(server):
    server.reconcile(at("file/a"))
    bound = server.port("file/a")
    server.reconcile(at("file/a", protocol="imap"))
    assert server.port("file/a") == bound
    old, new = server.made
    assert (old.started, new.started) == (0, 1)
    assert server.reactor.open[0].factory is new
    assert old.drained is None


def test_a_removed_listener_refuses_the_next_and_leaves_its_sessions_alone(server):
    server.reconcile(at("file/a"), at("file/b"))
    gone, kept = server.port("file/a"), server.port("file/b")
    server.reconcile(at("file/b"))
    assert not answers(gone)
    assert answers(kept)
    assert server.made[0].drained is None
    assert [entry["name"] for entry in server.published] == ["file/b"]


def test_the_same_place_under_another_name_is_never_shut(server, tmp_path):
    server.reconcile(at("file/a"))
    bound = server.port("file/a")
    now(server.listeners.reconcile([at("file/a", port=bound)]))
    again = server.port("file/a")
    assert again == bound
    server.reconcile(at("file/new", port=bound))
    assert answers(bound)
    server.reconcile(at("file/wide", host="127.0.0.1", port=bound), at("file/more"))
    assert answers(bound)


# -- all or nothing -------------------------------------------------------------------------


def test_an_address_in_use_names_listener_and_address(server, taken):
    with pytest.raises(ConfigError) as caught:
        server.reconcile(at("file/a"), at("file/b", port=taken))
    assert "file/b" in caught.value.text
    assert f"127.0.0.1:{taken}" in caught.value.text
    assert "in use" in caught.value.text
    assert not server.reactor.ports
    assert not server.path.exists()


def test_a_full_disk_takes_nothing_back_that_is_bound(server, caplog_events):
    server.reconcile(at("file/a"))
    before = server.published
    # Nobody can write where a folder is.
    occupied = server.path.with_name(FILE_NAME + ".new")
    occupied.mkdir()
    server.reconcile(at("file/a"), at("file/b"))
    assert set(server.running()) == {"file/a", "file/b"}
    assert server.published == before
    assert any("was not written" in each for each in caplog_events)
    occupied.rmdir()
    server.reconcile(at("file/b"))
    assert [each["name"] for each in server.published] == ["file/b"]


def test_one_failing_bind_leaves_the_old_set_alone(server, taken):
    server.reconcile(at("file/a"), at("file/b"))
    before = server.published
    with pytest.raises(ConfigError):
        server.reconcile(at("file/a", max_clients=3), at("file/c"), at("file/d", port=taken))
    assert server.published == before
    assert set(server.running()) == {"file/a", "file/b"}
    assert all(answers(entry["port"]) for entry in before)
    assert server.made[0].settings == [at("file/a")]
    assert len(server.reactor.ports) == 2


def test_one_failing_factory_leaves_the_old_set_alone(server):
    server.reconcile(at("file/a"))
    server.refuse = "bad"
    with pytest.raises(ConfigError):
        server.reconcile(at("file/good"), at("file/bad"))
    assert set(server.running()) == {"file/a"}
    server.refuse = ""
    server.reconcile(at("file/good"), at("file/bad"))


def test_two_listeners_on_one_address_are_a_conflict(server):
    server.reconcile(at("file/a"))
    bound = server.port("file/a")
    with pytest.raises(ConfigError, match=r"file/b.*file/a"):
        server.reconcile(at("file/a"), at("file/b", port=bound))
    with pytest.raises(ConfigError, match="file/c"):
        server.reconcile(at("file/a"), at("file/b"), at("file/c", host="", port=bound))
    assert answers(bound)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_named(server, host):
    with pytest.raises(ConfigError, match=f"file/a.*{host}"):
        server.reconcile(at("file/a", host=host))


# -- start and stop -------------------------------------------------------------------------


def test_bound_early_means_reserved_and_not_yet_open(server):
    server.listeners.bind([at("file/a")])
    (given,) = server.listeners.lend()
    place = given.place
    assert not answers(place.port)
    server.reconcile(at("file/a"))
    assert server.port("file/a") == place.port
    assert answers(place.port)


def test_somebody_who_listens_first_is_named_at_the_start(server):
    server.listeners.bind([at("file/a")])
    (given,) = server.listeners.lend()
    place = given.place
    other = sockets.bind("other", sockets.resolve("127.0.0.1"), place.port)
    sockets.listen(other.values())
    with pytest.raises(ConfigError, match=f"file/a.*127.0.0.1:{place.port}"):
        server.reconcile(at("file/a"))
    sockets.close(other.values())


def test_an_early_bind_that_fails_releases_the_others(server, taken):
    with pytest.raises(ConfigError, match="file/b"):
        server.listeners.bind([at("file/a"), at("file/b", port=taken)])
    assert not server.listeners.lend()


def test_a_stop_accepts_nothing_more_and_drains_every_factory(tmp_path):
    server = Server(tmp_path)
    server.reconcile(at("file/a"), at("file/b"))
    server.made[1].sessions = {"one": ""}
    server.reconcile(at("file/a"))
    bound = server.port("file/a")
    stopping = Deferred.fromCoroutine(server.listeners.stop(10))
    assert not server.path.exists()
    assert not answers(bound)
    # The sessions of a listener removed before end cleanly too.
    assert [factory.drained for factory in server.made] == [10, 10]
    assert not stopping.called
    stopping.addErrback(lambda _: None)
    stopping.cancel()


def test_sockets_bound_early_outlive_a_plan_that_fails(server, taken):
    early = at("file/a")
    server.listeners.bind([early])
    (given,) = server.listeners.lend()
    with pytest.raises(ConfigError, match=str(taken)):
        server.reconcile(early, at("row/b", taken))
    server.reconcile(early)
    assert server.port("file/a") == given.place.port
    assert answers(given.place.port)
    server.listeners.settle()
    assert answers(given.place.port)
    server.reconcile()
    assert not answers(given.place.port)


def test_a_listener_is_published_under_what_people_call_it(server, taken):
    server.reconcile(at("row/0199", label="mail.example.com"))
    assert [entry["name"] for entry in server.published] == ["mail.example.com"]
    with pytest.raises(ConfigError, match=r"other\.example\.com.*127\.0\.0\.1"):
        server.reconcile(at("row/0200", taken, label="other.example.com"))


def test_all_listeners_get_the_settings_of_the_moment(server):
    server.reconcile(at("file/a"), at("file/b"))
    ports = [entry["port"] for entry in server.published]
    server.listeners.refresh()
    assert [len(factory.settings) for factory in server.made] == [2, 2]
    assert [entry["port"] for entry in server.published] == ports


# -- moving ---------------------------------------------------------------------------------


def test_a_listener_that_moves_keeps_its_factory(server):
    server.reconcile(at("row/a"))
    old = server.port("row/a")
    moved = at("row/a", port=free_port(), max_clients=3)
    server.reconcile(moved)
    assert not answers(old)
    assert answers(moved.port)
    (factory,) = server.made
    assert factory.settings == [at("row/a"), moved]
    assert factory.drained is None


WILD = "0.0.0.0"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(WILD, "127.0.0.1", id="from-all-to-one"),
        pytest.param("127.0.0.1", WILD, id="from-one-to-all"),
        pytest.param("::", "::1", id="from-all-to-one-ipv6"),
        pytest.param("::1", "::", id="from-one-to-all-ipv6"),
        pytest.param("", "127.0.0.1", id="from-both-versions-to-one"),
        pytest.param("127.0.0.1", "", id="from-one-to-both-versions"),
        pytest.param("", WILD, id="from-both-versions-to-all-of-one"),
        pytest.param("127.0.0.1", "::1", id="from-ipv4-to-ipv6"),
    ],
)
def test_a_listener_moves_between_addresses_of_its_port(server, one, other):
    bound = free_port()
    for host in (one, other, one):
        listener = at("row/a", port=bound, host=host)
        server.reconcile(listener)
        hosts = {entry["address"] for entry in server.published}
        assert hosts == ({WILD, "::"} if host == "" else {host})
        assert answers(bound, "::1" if ":" in host else "127.0.0.1")
    # Nobody else may bind what is ours.
    with socket.socket(socket.AF_INET6 if ":" in one else socket.AF_INET) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind((one or WILD, bound))


def test_a_narrower_address_of_somebody_else_is_refused(server):
    bound = free_port()
    server.reconcile(at("row/a", port=bound))
    with socket.create_server(("127.0.0.2", bound)):
        with pytest.raises(ConfigError, match=rf"row/a.*0\.0\.0\.0:{bound}.*in use"):
            server.reconcile(at("row/a", port=bound, host=WILD))
        assert answers(bound)
    server.reconcile(at("row/a", port=bound, host=WILD))
    assert answers(bound, "127.0.0.2")


def test_two_listeners_exchange_their_ports(server):
    one, other = at("row/a", port=free_port()), at("row/b", port=free_port(), protocol="imap")
    server.reconcile(one, other)
    swapped = (at("row/a", port=other.port), at("row/b", port=one.port, protocol="imap"))
    server.reconcile(*swapped)
    assert (server.port("row/a"), server.port("row/b")) == (other.port, one.port)
    assert len(server.made) == 2
    by_port = {port.socket.getsockname()[1]: port.factory for port in server.reactor.open}
    assert by_port == {other.port: server.made[0], one.port: server.made[1]}
    assert answers(one.port)
    assert answers(other.port)


def test_a_port_that_one_frees_is_another_s_at_once(server):
    first, second = free_port(), free_port()
    server.reconcile(at("row/a", port=first))
    server.reconcile(at("row/b", port=first), at("row/a", port=second))
    assert (server.port("row/a"), server.port("row/b")) == (second, first)
    # And from all addresses to one of them, by another listener.
    server.reconcile(at("row/b", port=first, host=WILD), at("row/a", port=second))
    server.reconcile(
        at("row/c", port=first), at("row/b", port=second), at("row/a", port=free_port())
    )
    assert (server.port("row/c"), server.port("row/b")) == (first, second)
    assert answers(first)


def test_a_plan_that_fails_after_the_ports_were_made_changes_nothing(server):
    one, other = at("row/a", port=free_port()), at("row/b", port=free_port())
    server.reconcile(one, other)
    server.reactor.refuse_ports = True
    with pytest.raises(OSError, match="open files"):
        server.reconcile(at("row/a", port=other.port), at("row/b", port=one.port))
    server.reactor.refuse_ports = False
    assert [each.listener for each in server.listeners.running] == [one, other]
    assert answers(one.port)
    assert answers(other.port)
    assert len(server.reactor.open) == 2


def test_a_wide_and_a_narrow_listener_of_one_port_are_a_conflict(server):
    bound = free_port()
    server.reconcile(at("row/a", port=bound, host=WILD))
    with pytest.raises(ConfigError, match=r"row/b.*row/a is there"):
        server.reconcile(at("row/a", port=bound, host=WILD), at("row/b", port=bound))
    assert len(server.reactor.open) == 1


def test_every_listener_at_fault_is_named(server, taken):
    server.reconcile(at("row/a"))
    with pytest.raises(Unbindable) as caught:
        server.reconcile(
            at("row/a"), at("row/b", port=taken), at("row/c", host="192.0.2.1"), at("row/d")
        )
    named = {name: each.text for each in caught.value.problems for name in each.names}
    assert set(named) == {"row/b", "row/c"}
    assert all(text in caught.value.text for text in named.values())
    assert len(server.reactor.open) == 1


def test_a_port_without_privileges_is_named(server, monkeypatch):
    def denied(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    with pytest.raises(ConfigError, match=r"mx\.example.*127\.0\.0\.1:25: Permission.*privileges"):
        server.reconcile(at("row/a", port=25, label="mx.example"))


def test_a_new_host_name_of_a_listener_under_tls_gets_its_certificate(tmp_path):
    server = Server(tmp_path)
    asked = []

    def creator(listener):
        asked.append(listener.hostname)
        return Creator()

    server.listeners._creator = creator
    server.reconcile(at("row/a", protocol="submissions", hostname="one.example"))
    (port,) = server.reactor.open
    first = port.factory
    server.reconcile(at("row/a", protocol="submissions", hostname="one.example", max_clients=3))
    assert port.factory is first
    server.reconcile(at("row/a", protocol="submissions", hostname="two.example"))
    assert server.reactor.open == [port]
    assert port.factory is not first
    assert asked == ["one.example", "two.example"]
    (factory,) = server.made
    assert factory.started == 1
    now(server.listeners.stop(0))
    assert factory.started == 0


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    def serverConnectionForTLS(self, protocol):
        raise AssertionError("nobody connects")


# -- sessions of listeners that are gone ----------------------------------------------------


def test_after_the_drain_time_sessions_of_a_closed_listener_are_sent_away(server):
    server.drain_time = 30.0
    server.reconcile(at("row/a"), at("row/b"))
    busy = server.made[0]
    busy.sessions = {"one": ""}
    server.reconcile(at("row/b"))
    server.reactor.advance(29)
    assert busy.drained is None
    server.reactor.advance(2)
    assert busy.drained == LONGEST_WORK_S
    assert server.made[1].drained is None
    busy.sessions = {}


def test_without_a_drain_time_they_end_by_themselves(server):
    server.reconcile(at("row/a"))
    server.made[0].sessions = {"one": ""}
    server.reconcile()
    server.reactor.advance(10 * 24 * 3600)
    assert server.made[0].drained is None
    server.made[0].sessions = {}


def test_sessions_of_a_moved_listener_are_never_sent_away(server):
    server.drain_time = 30.0
    server.reconcile(at("row/a", port=free_port()))
    server.made[0].sessions = {"one": ""}
    server.reconcile(at("row/a", port=free_port()))
    server.reactor.advance(3600)
    assert server.made[0].drained is None
    server.made[0].sessions = {}


def test_a_retired_process_accepts_nothing_and_leaves_the_file_to_the_next(server):
    server.drain_time = 30.0
    server.reconcile(at("row/a"))
    bound = server.port("row/a")
    server.made[0].sessions = {"one": ""}
    (lent,) = server.listeners.lend()
    other = lent.socket.dup()
    retiring = Deferred.fromCoroutine(server.listeners.retire())
    assert not server.reactor.open
    # The socket lives on in the other process.
    assert answers(bound)
    other.close()
    assert not answers(bound)
    assert server.published
    server.reactor.advance(31)
    assert server.made[0].drained == LONGEST_WORK_S
    assert not retiring.called
    server.made[0].sessions = {}
    server.reactor.advance(1)
    now(retiring)


# -- sockets of others ----------------------------------------------------------------------


def passed(host="127.0.0.1", family=socket.AF_INET, *, v6only=1):
    """A socket as systemd makes it; its number, which is not ours any more."""
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    made.bind((host, free_port()))
    made.listen()
    return made.getsockname()[1], made.detach()


def test_a_passed_socket_is_found_by_its_address_and_survives_its_listener(server):
    bound, descriptor = passed()
    server.listeners.inherit(sockets.adopt([descriptor], ["mail"]))
    listener = at("file/a", port=bound)
    server.listeners.bind([listener])
    server.reconcile(listener)
    server.listeners.settle()
    assert answers(bound)
    assert not os.get_inheritable(descriptor)
    assert not os.get_blocking(descriptor)
    server.reconcile()
    assert not answers(bound)
    # It could not be bound again, were it a port of the privileged.
    monitor = socket.socket(fileno=os.dup(descriptor))
    server.reconcile(listener)
    assert answers(bound)
    server.reconcile()
    now(server.listeners.stop(0))
    # Who has passed it finds it as it was.
    assert monitor.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    monitor.close()


def test_a_passed_socket_without_listener_is_told_and_closed(server, caplog_events):
    bound, descriptor = passed()
    server.listeners.inherit(sockets.adopt([descriptor], ["spare"]))
    server.reconcile(at("file/a"))
    assert answers(bound)
    server.listeners.settle()
    assert not answers(bound)
    (event,) = [each for each in caplog_events if "no listener" in each]
    assert "spare" in event
    assert str(bound) in event


@pytest.mark.parametrize("name", ["row/a", "mx.example", "smtp"])
def test_a_name_finds_a_listener_that_takes_any_port(server, name):
    bound, descriptor = passed()
    server.listeners.inherit(sockets.adopt([descriptor], [name]))
    server.reconcile(at("row/a", label="mx.example"))
    assert server.port("mx.example") == bound


def test_a_name_alone_does_not_change_an_address(server):
    bound, descriptor = passed()
    server.listeners.inherit(sockets.adopt([descriptor], ["smtp"]))
    wanted = free_port()
    server.reconcile(at("row/a", port=wanted))
    server.reconcile(at("row/a", port=wanted), at("row/b", host="127.0.0.2"))
    assert bound not in {entry["port"] for entry in server.published}


def test_one_socket_for_both_ip_versions_is_enough(server):
    bound, descriptor = passed("::", socket.AF_INET6, v6only=0)
    server.listeners.inherit(sockets.adopt([descriptor]))
    listener = at("file/a", port=bound, host="")
    server.listeners.bind([listener])
    server.reconcile(listener)
    server.listeners.settle()
    assert [entry["address"] for entry in server.published] == ["::"]
    assert answers(bound, "127.0.0.1")
    assert answers(bound, "::1")


def test_all_sockets_can_be_lent_and_taken_over(tmp_path):
    server = Server(tmp_path)
    listener = at("file/a")
    server.reconcile(listener)
    bound = server.port("file/a")
    (given,) = server.listeners.lend()
    assert (given.name, given.place.port) == ("file/a", bound)
    folder = tmp_path / "next"
    folder.mkdir()
    successor = Server(folder)
    descriptor = os.dup(given.socket.fileno())
    taken_over = sockets.adopt([descriptor], [given.name], is_kept=given.is_kept)
    successor.listeners.inherit(taken_over)
    successor.listeners.bind([listener])
    successor.reconcile(listener)
    successor.listeners.settle()
    now(server.listeners.retire())
    assert successor.port("file/a") == bound
    assert answers(bound)
    successor.reconcile()
    assert not answers(bound)
    now(successor.listeners.stop(0))


def test_what_is_no_listening_socket_is_refused():
    reading, writing = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as unbound:
        for descriptor in (reading, datagrams.fileno(), unbound.fileno()):
            with pytest.raises(ConfigError, match=f"descriptor {descriptor}"):
                sockets.adopt([descriptor])
            os.fstat(descriptor)  # still open: it is not ours
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_FDS": "2", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": "own"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": "own"},
    ],
    ids=["none", "no-pid", "of-another", "no-number", "negative"],
)
def test_sockets_that_are_not_meant_for_us_are_not_taken(environ):
    environ = {key: value.replace("own", str(os.getpid())) for key, value in environ.items()}
    assert sockets.activated(environ) == ()
    assert environ == {}
