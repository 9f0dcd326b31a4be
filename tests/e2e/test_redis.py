"""A Redis that comes, goes, hangs and comes back empty, while mail and requests arrive."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailtwist.config import Settings
from mailtwist.config.outgoing import Inbox, Send
from mailtwist.net.redis import Redis
from mailtwist.policy.rates import Client, Event, Rates
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from tests.e2e import mails
from tests.e2e.server import Server, tool
from tests.support.redis import SERVER, RedisServer
from tests.support.stores import SqliteStores
from tests.support.turning import TurningReactor

pytestmark = pytest.mark.real

KEY = "one-key"
PATIENCE_S = 30
MAIL = mails.simple("to the inbox")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    tool(SERVER)
    with RedisServer(tmp_path / "redis") as running:
        yield running


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass"
        time.sleep(0.02)


def told(server: Server, text: str, level: str) -> int:
    return sum(text in str(each) for each in server.events if each.get("level") == level)


def warnings(server: Server) -> int:
    return told(server, "Redis", "warn")


def in_use(server: Server) -> int:
    return told(server, "Redis is in use", "info")


class Load:
    """Clients that do some work in each phase, all at the same time."""

    SENDERS = 3

    def __init__(self, server: Server) -> None:
        self.server = server
        self.mail: Counter[tuple[str, int]] = Counter()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.lock = threading.Lock()

    def phase(self, mails_each: int, requests: int) -> None:
        senders = [f"s{n}@elsewhere.example" for n in range(self.SENDERS)]
        with ThreadPoolExecutor(self.SENDERS + 2) as pool:
            working = [pool.submit(self.send, each, mails_each) for each in senders]
            working += [
                pool.submit(self.ask, method, path, requests)
                for method, path in (("GET", "/emails/bob"), ("POST", "/send"))
            ]
            for each in working:
                each.result()

    def send(self, sender: str, n: int) -> None:
        with self.server.smtp() as client:
            client.ehlo()
            for _ in range(n):
                code = client.mail(sender)[0]
                if code == 250:
                    assert client.rcpt("bob@inbox.example")[0] == 250
                    code = client.data(MAIL)[0]
                with self.lock:
                    self.mail[sender, code] += 1

    def ask(self, method: str, path: str, n: int) -> None:
        letter = {"to": "bob@inbox.example", "subject": "s", "body": "b"}
        body = json.dumps(letter) if method == "POST" else None
        headers = {"X-API-KEY": KEY, "Content-Type": "application/json"}
        client = http.client.HTTPConnection("127.0.0.1", self.server.ports["http"], timeout=30)
        for _ in range(n):
            client.request(method, path, body, headers)
            answer = client.getresponse()
            answer.read()
            with self.lock:
                self.requests[path, answer.status] += 1
            if answer.status == 429:
                assert 0 < int(answer.headers["Retry-After"]) <= 60
        client.close()


@pytest.mark.mission("ADG-09", "ADG-11", "ADG-24", "DIN-32")
def test_a_redis_that_comes_and_goes_under_load(make_server, redis):
    redis.kill()
    server = make_server()
    server.environment = {
        "REDIS_ADDR": f"127.0.0.1:{redis.port}",
        "DOMAIN": "inbox.example",
        "API_KEY": KEY,
    }
    with server:
        load = Load(server)

        def during(change: Callable[[], None]) -> None:
            with ThreadPoolExecutor(1) as pool:
                changing = pool.submit(change)
                load.phase(8, 10)
                changing.result()

        assert warnings(server) == 1
        during(redis.start)
        until(lambda: in_use(server) == 1)
        load.phase(8, 10)
        assert "rate:messages of sender:s0@elsewhere.example" in redis.ask("KEYS", "*")
        during(redis.kill)
        redis.start()
        until(lambda: in_use(server) == 2)
        during(redis.pause)
        during(redis.resume)
        until(lambda: in_use(server) == 3)
        # It has forgotten what was counted before it was killed; nobody else has.
        load.phase(20, 100)
        assert load.mail == {
            (f"s{n}@elsewhere.example", code): count
            for n in range(load.SENDERS)
            for code, count in ((250, 50), (450, 10))
        }
        assert load.requests == {
            ("/emails/bob", 200): 100,
            ("/emails/bob", 429): 50,
            ("/send", 200): 60,
            ("/send", 429): 90,
        }
        assert warnings(server) == 1
        assert told(server, "", "error") == told(server, "", "critical") == 0


def test_nodes_that_share_a_redis_hold_one_limit(redis, sqlite_stores: SqliteStores, tmp_path):
    """Each has a store of its own here, so that Redis alone can tell them."""
    turning = TurningReactor()
    settings = Settings(inbox=Inbox(api_rate=100), send=Send(rate=0))
    engines = []
    nodes = []
    clients = []
    for n in range(3):
        folder = tmp_path / f"node{n}"
        folder.mkdir()
        engines.append(open_engine(sqlite_stores.fresh(folder)))
        clients.append(Redis(redis.url, reactor=turning.reactor))
        turning.until(clients[-1].start())
        store = Inline(engines[-1])
        nodes.append(Rates(store, settings=settings, clock=turning.reactor, redis=clients[-1]))
    client = Client("127.0.0.1")
    taken = [turning.until(nodes[n % 3].take(Event.INBOX_REQUEST, client)) for n in range(150)]
    assert taken == [True] * 100 + [False] * 50
    assert all(50 < node.ends_in(Event.INBOX_REQUEST, client) <= 60 for node in nodes)
    for node, each in zip(nodes, clients, strict=True):
        turning.until(node.stop())
        turning.until(each.stop())
    turning.close()
    for engine in engines:
        engine.dispose()
