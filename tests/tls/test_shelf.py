from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from mailtwist.errors import StoreUnavailable
from mailtwist.tls import shelf
from mailtwist.tls.contexts import MAX_HELD, Certificates, make_context
from mailtwist.tls.shelf import Entry, Shelf
from tests.support.chains import sign
from tests.support.now import now
from tests.tls.test_contexts import DEFAULT, shake_hands


def context(name="a.example"):
    signed = sign(name, names=(name,))
    return make_context(signed.pem.encode(), signed.key_pem.encode())


class Loader:
    """Gives contexts at once, or when :meth:`give` is called."""

    def __init__(self, *, is_slow=False):
        self.is_slow = is_slow
        self.loaded: list[Any] = []
        self.waiting: list[Any] = []
        self.creator: Any = None

    async def __call__(self, number):
        self.loaded.append(number)
        if self.is_slow:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            await waiting
        return self.creator.adopt(context(f"{number}.example"))

    def give(self):
        for each in self.waiting:
            each.callback(None)
        self.waiting = []


def certificates(loader, *entries, **more):
    made = Shelf(loader, **more)
    made.put(entries)
    found = Certificates(*DEFAULT, shelf=made)
    loader.creator = found.creator
    return made, found


def presented(found):
    """The certificate of a handshake for the first entry."""
    _, client = shake_hands(found.creator, b"1.example")
    return client.get_peer_certificate(as_cryptography=True)


def entry(number, *names, version=1, own=()):
    return Entry(number, names or (f"{number}.example",), version, frozenset(own))


# -- what is in memory ------------------------------------------------------------------------


def test_a_certificate_is_loaded_at_the_first_handshake_that_asks_for_it():
    loader = Loader()
    _, found = certificates(loader, entry(1), entry(2))
    assert loader.loaded == []
    for _ in range(3):
        assert shake_hands(found.creator, b"1.example")[0] == "1.example"
    assert loader.loaded == [1]
    assert shake_hands(found.creator, b"3.example")[0] == "mx.example.com"
    assert shake_hands(found.creator)[0] == "mx.example.com"
    assert loader.loaded == [1]


def test_the_least_used_one_makes_room():
    loader = Loader()
    kept, found = certificates(loader, *(entry(n) for n in range(1, 5)), size=2)
    for asked in (1, 2, 1, 3):
        shake_hands(found.creator, f"{asked}.example".encode())
    assert kept.contexts == 2
    loader.loaded.clear()
    for asked in (1, 3, 2):
        assert shake_hands(found.creator, f"{asked}.example".encode())[0] == f"{asked}.example"
    assert loader.loaded == [2]


def test_what_is_kept_makes_no_room():
    loader = Loader()
    kept, found = certificates(loader, *(entry(n) for n in range(1, 6)), size=2)
    kept.keep({1})
    for asked in (1, 2, 3, 4, 5):
        shake_hands(found.creator, f"{asked}.example".encode())
    loader.loaded.clear()
    shake_hands(found.creator, b"1.example")
    assert loader.loaded == []
    assert kept.contexts == 3


def test_another_version_is_loaded_by_the_next_handshake():
    loader = Loader()
    kept, found = certificates(loader, entry(1))
    before = presented(found)
    kept.put([entry(1)])
    assert presented(found) == before
    kept.put([entry(1, version=2)])
    assert presented(found) != before
    assert loader.loaded == [1, 1]


def test_names_come_and_go_with_their_entries():
    loader = Loader()
    kept, found = certificates(loader, entry(1, "a.example", "*.b.example"))
    assert shake_hands(found.creator, b"x.b.example")[0] == "1.example"
    kept.put([entry(1, "a.example", version=2)])
    assert shake_hands(found.creator, b"x.b.example")[0] == "mx.example.com"
    kept.remove([1, 7])
    assert (len(kept), kept.contexts) == (0, 0)
    assert shake_hands(found.creator, b"a.example")[0] == "mx.example.com"


def test_of_two_for_one_name_the_one_that_was_asked_for_it_comes_first():
    loader = Loader()
    kept, found = certificates(
        loader, entry(1, "a.example", "b.example"), entry(2, "a.example", own=("a.example",))
    )
    assert shake_hands(found.creator, b"a.example")[0] == "2.example"
    assert shake_hands(found.creator, b"b.example")[0] == "1.example"
    kept.remove([2])
    assert shake_hands(found.creator, b"a.example")[0] == "1.example"


# -- what cannot be loaded --------------------------------------------------------------------


class Failing(Loader):
    def __init__(self, error):
        super().__init__()
        self.error = error

    async def __call__(self, number):
        self.loaded.append(number)
        if self.error is not None:
            raise self.error
        self.loaded.pop()
        return await super().__call__(number)


def test_one_that_cannot_be_used_is_tried_once_and_the_one_before_stays():
    loader = Failing(None)
    kept, found = certificates(loader, entry(1))
    assert shake_hands(found.creator, b"1.example")[0] == "1.example"
    loader.error = ValueError("broken")
    kept.put([entry(1, version=2)])
    for _ in range(2):
        assert shake_hands(found.creator, b"1.example")[0] == "1.example"
    assert loader.loaded == [1, 1]


def test_a_store_that_fails_is_asked_again_by_the_next_handshake():
    loader = Failing(StoreUnavailable())
    _, found = certificates(loader, entry(1))
    assert shake_hands(found.creator, b"1.example")[0] == "mx.example.com"
    loader.error = None
    assert shake_hands(found.creator, b"1.example")[0] == "1.example"


# -- handshakes that wait ---------------------------------------------------------------------


class Client:
    """A TLS client in memory, before a server as Twisted runs it."""

    def __init__(self, creator, name):
        wrapped = TLSMemoryBIOFactory(creator, False, Factory.forProtocol(Protocol))
        self.server = wrapped.buildProtocol(None)
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.connection.set_connect_state()
        self.connection.set_tlsext_host_name(name)

    def talk(self, *, octets=1 << 16):
        """Carry what waits, in pieces; whether the handshake is done."""
        for _ in range(4):
            try:
                self.connection.do_handshake()
                return True
            except SSL.WantReadError:
                pass
            try:
                sent = self.connection.bio_read(1 << 16)
                for at in range(0, len(sent), octets):
                    self.server.dataReceived(sent[at : at + octets])
            except SSL.WantReadError:
                pass
            if self.transport.value():
                self.connection.bio_write(self.transport.value())
                self.transport.clear()
        return False

    @property
    def presented(self):
        subject = self.connection.get_peer_certificate(as_cryptography=True).subject
        return subject.rfc4514_string()


@pytest.mark.parametrize("octets", [1 << 16, 100, 1])
def test_a_handshake_waits_for_its_certificate_and_goes_on_by_itself(octets):
    loader = Loader(is_slow=True)
    _, found = certificates(loader, entry(1))
    client = Client(found.creator, b"1.example")
    assert not client.talk(octets=octets)
    assert loader.loaded == [1]
    loader.give()
    assert client.talk()
    assert client.presented == "CN=1.example"


def test_those_who_ask_for_one_certificate_load_it_once():
    loader = Loader(is_slow=True)
    _, found = certificates(loader, entry(1), entry(2))
    clients = [Client(found.creator, b"1.example") for _ in range(10)]
    other = Client(found.creator, b"nobody.example")
    assert not any(client.talk() for client in clients)
    assert other.talk(), "who asks for another waits for nobody"
    assert loader.loaded == [1]
    loader.give()
    assert all(client.talk() for client in clients)


def test_who_waits_too_long_gets_the_listeners_own():
    loader, clock = Loader(is_slow=True), Clock()
    _, found = certificates(loader, entry(1), clock=clock)
    client = Client(found.creator, b"1.example")
    client.talk()
    clock.advance(shelf.LOADING_S - 1)
    assert not client.talk()
    clock.advance(1)
    assert client.talk()
    assert client.presented == "CN=mx.example.com"
    # What came too late for him is there for the next.
    loader.give()
    assert shake_hands(found.creator, b"1.example")[0] == "1.example"


def test_who_says_more_than_a_hello_while_he_waits_fills_no_memory():
    loader = Loader(is_slow=True)
    _, found = certificates(loader, entry(1))
    client = Client(found.creator, b"1.example")
    client.talk()
    for _ in range(100):
        client.server.dataReceived(b"x" * (1 << 16))
    assert len(client.server.getHandle()._held) <= MAX_HELD
    loader.give()
    assert client.transport.disconnecting


def test_a_name_of_thousands_costs_no_more_than_theirs():
    kept = Shelf(Loader())
    asked = []

    class Own(frozenset[str]):
        def __contains__(self, name):
            asked.append(name)
            return False

    kept.put(Entry(n, ("shared.example",), 1, Own()) for n in range(1000))
    assert kept.number_of("shared.example") == 0
    # Ten steps each to find its place among a thousand, and a little.
    assert len(asked) < 15_000


def test_who_hangs_up_while_he_waits_is_forgotten():
    loader = Loader(is_slow=True)
    _, found = certificates(loader, entry(1))
    client = Client(found.creator, b"1.example")
    client.talk()
    client.server.connectionLost(Failure(ConnectionDone()))
    loader.give()
    assert shake_hands(found.creator, b"1.example")[0] == "1.example"


def test_a_listener_with_a_name_of_its_own_waits_for_that():
    loader = Loader(is_slow=True)
    _, found = certificates(loader, entry(1))
    client = Client(found.of("1.example"), b"nobody.example")
    assert not client.talk()
    loader.give()
    assert client.talk()
    assert client.presented == "CN=1.example"


def test_nothing_is_fetched_for_a_name_that_nobody_has():
    loader = Loader()
    kept, _ = certificates(loader, entry(1))
    now(kept.fetch("nobody.example"))
    now(kept.fetch("1.example"))
    now(kept.fetch("1.example"))
    assert loader.loaded == [1]
