from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from mailtwist.config import Listener
from mailtwist.control import sockets
from mailtwist.control.listeners import FILE_NAME, Listeners
from mailtwist.errors import ConfigError
from tests.support.now import now


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


class Reactor:
    def __init__(self):
        self.ports = []

    def adoptStreamPort(self, descriptor, family, factory):
        port = Port(descriptor, family, factory)
        self.ports.append(port)
        return port

    @property
    def open(self):
        return [port for port in self.ports if not port.stopped]

    def seconds(self):
        return 0.0


class Factory:
    def __init__(self, listener):
        self.settings = [listener]
        self.started = 0
        self.drained = None
        self.sessions = {}

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


class Server:
    def __init__(self, folder):
        self.reactor = Reactor()
        self.path = folder / FILE_NAME
        self.made = []
        self.refuse = ""
        self.listeners = Listeners(
            self.reactor,
            make=self.make,
            configure=self.configure,
            creator=lambda listener: pytest.fail("no TLS here"),
            directory=folder,
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
    (_, bound) = server.listeners._bound_early["file/a"]
    (place,) = bound
    assert not answers(place.port)
    server.reconcile(at("file/a"))
    assert server.port("file/a") == place.port
    assert answers(place.port)


def test_somebody_who_listens_first_is_named_at_the_start(server):
    server.listeners.bind([at("file/a")])
    (place,) = server.listeners._bound_early["file/a"][1]
    other = sockets.bind("other", "127.0.0.1", place.port)
    sockets.listen(other.values())
    with pytest.raises(ConfigError, match=f"file/a.*127.0.0.1:{place.port}"):
        server.reconcile(at("file/a"))
    sockets.close(other.values())


def test_an_early_bind_that_fails_releases_the_others(server, taken):
    with pytest.raises(ConfigError, match="file/b"):
        server.listeners.bind([at("file/a"), at("file/b", port=taken)])
    assert not server.listeners._bound_early


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
    (_, bound) = server.listeners._bound_early["file/a"]
    with pytest.raises(ConfigError, match=str(taken)):
        server.reconcile(early, at("row/b", taken))
    server.reconcile(early)
    assert server.running()["file/a"].sockets is bound
    assert answers(server.port("file/a"))


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
