"""Mail that leaves: SMTP in, the queue, SMTP out to smtp-sink, until the sink has all of it."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmarks import smtp_load
from benchmarks.server import DOMAIN, Server
from benchmarks.sink import Sink, free_port
from benchmarks.workloads import Row

if TYPE_CHECKING:
    from mailtwist.store.content import Spooled
    from mailtwist.store.database import Inline

LIVE, DEAD = "live.test", "dead.test"
SENDER = f"sender@{DOMAIN}"
CONNECTIONS = 20
MESSAGES = 2000
WARM_UP = 200
ROUNDS = 3
DEAD_ROWS = 100_000
LIMIT_S = 300.0
DAY_US = 86_400_000_000


class _Relay:
    """A server whose mail for :data:`LIVE` goes to a port where a sink may listen."""

    def __init__(self, database_url: str = "", **settings: object) -> None:
        self.port = free_port()
        self.server = Server(
            accounts=1,
            database_url=database_url,
            settings={
                "allowed_relays": ["127.0.0.1"],
                "outbound": {
                    "tls": "none",
                    # Nobody listens there: the dead destination.
                    "mx_override": {LIVE: f"127.0.0.1:{self.port}", DEAD: "127.0.0.1:9"},
                },
                **settings,
            },
        )

    def run(self, messages: int, octets: int = 1024) -> tuple[float, float]:
        """Seconds until the sink had all, and processor seconds that they cost."""
        smtp_port = self.server.ports["smtp"]
        with Sink(messages, self.port) as sink:
            cpu, start = self.server.cpu_s(), time.monotonic()
            to = [f"someone@{LIVE}"]
            smtp_load.send(smtp_port, to, messages, CONNECTIONS, octets, sender=SENDER)
            sink.wait(LIMIT_S)
            return time.monotonic() - start, self.server.cpu_s() - cpu

    def rounds(self, case: str, octets: int = 1024) -> Iterator[Row]:
        self.run(WARM_UP, octets)
        figures = [self.run(MESSAGES, octets) for _ in range(ROUNDS)]
        yield case, "relayed", statistics.median(MESSAGES / each[0] for each in figures), "msg/s"
        cpu = statistics.median(each[1] for each in figures)
        yield case, "processor", cpu / MESSAGES * 1000, "s/1000 messages"


def relay(database_url: str = "") -> Iterator[Row]:
    """1 KB over 20 connections; the same by Postfix, where it is installed and we are root."""
    unsigned = _Relay(database_url, dkim={"enabled": False})
    with unsigned.server:
        yield from unsigned.rounds("1 KB, 20 connections")
        resident = unsigned.server.resident_kb() / 1024
        yield "1 KB, 20 connections", "resident", resident, "MiB"
    yield from _postfix()


def _postfix() -> Iterator[Row]:
    from tests.support import postfix

    if reason := postfix.absence():
        sys.stderr.write(f"no figures of Postfix: {reason}\n")
        return
    port = free_port()
    settings = {
        "virtual_mailbox_domains": "",
        "relayhost": f"[127.0.0.1]:{port}",
        "default_process_limit": "200",
        "smtp_tls_security_level": "none",
        "disable_dns_lookups": "yes",
        "smtpd_peername_lookup": "no",
    }
    took = []
    with postfix.Postfix(tls="none", settings=settings) as running:
        for messages in (WARM_UP, *[MESSAGES] * ROUNDS):
            with Sink(messages, port) as sink:
                start = time.monotonic()
                to = [f"someone@{LIVE}"]
                smtp_load.send(running.port, to, messages, CONNECTIONS, 1024, sender=SENDER)
                sink.wait(LIMIT_S)
                took.append(time.monotonic() - start)
    yield "Postfix", "relayed", MESSAGES / statistics.median(took[1:]), "msg/s"


def dead(database_url: str = "") -> Iterator[Row]:
    """The same beside 100,000 messages that wait for a host where nobody listens."""
    for rows in (0, DEAD_ROWS):
        case = f"beside {rows} dead"
        relay = _Relay(database_url, dkim={"enabled": False})
        relay.server.command("init")
        _fill(relay.server.url, rows)
        with relay.server:
            peak = _Peak(relay.server)
            yield from relay.rounds(case)
            yield case, "time for one", statistics.median(_singles(relay)) * 1000, "ms"
            yield case, "resident, peak", peak.stop() / 1024, "MiB"


def _singles(relay: _Relay) -> Iterator[float]:
    for _ in range(20):
        # The sink ends without its last reply. Three such in a row, and the host would rest.
        relay.run(10)
        yield relay.run(1)[0]


def _fill(url: str, rows: int) -> None:
    """Put messages for the dead destination into the queue, due now."""
    from mailtwist.store.database import Inline
    from mailtwist.store.deliver import Acceptance, deliver
    from mailtwist.store.engine import open_engine
    from mailtwist.store.queue.values import Message, Recipient

    engine = open_engine(url)
    database = Inline(engine)
    try:
        for start in range(0, rows, 1000):
            now = time.time_ns() // 1000
            spooled = [_spooled(database) for _ in range(start, min(start + 1000, rows))]
            acceptances = []
            for each in spooled:
                number = database.ids.next()
                recipient = Recipient(0, f"someone{number}@{DEAD}", DEAD)
                later = now + DAY_US
                message = Message(number, SENDER, (recipient,), now, later, later)
                acceptances.append(Acceptance(each, (), number, now, queue=message))
            with engine.write() as connection:
                deliver(connection, acceptances)
    finally:
        database.release()
        engine.dispose()


def _spooled(database: Inline) -> Spooled:
    from mailtwist.cli.filing import run_now
    from mailtwist.store.content import Spool

    async def spool() -> Spooled:
        opened = Spool(database, limit=1 << 20)
        await opened.write(smtp_load.body(1024)[:-3])
        return await opened.finish()

    return run_now(spool())


class _Peak(threading.Thread):
    """The most memory that the server took, looked at ten times a second."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self._most = 0
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, self._server.resident_kb())

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self._most


def dkim(database_url: str = "") -> Iterator[Row]:
    """What a signature costs on a message of 10 KB: with it less without it."""
    costs = {}
    for enabled in (False, True):
        case = f"10 KB, {'signed' if enabled else 'unsigned'}"
        relay = _Relay(database_url, dkim={"enabled": enabled})
        with relay.server:
            for row in relay.rounds(case, 10 * 1024):
                costs[enabled] = row[2]  # the last: processor
                yield row
    yield "10 KB", "signature, whole server", costs[True] - costs[False], "ms/message"
    yield "10 KB", "signature alone", _signature_ms(), "ms/message"


def _signature_ms(messages: int = 1000) -> float:
    """Hashing, canonical form and RSA, without the way to the thread that does it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    from mailtwist.mail.dkim import BodyHasher
    from mailtwist.policy.dkim import fields
    from mailtwist.policy.keyring import SigningKey

    private = rsa.generate_private_key(65537, 2048)

    def sign(covered: bytes) -> bytes:
        return private.sign(covered, padding.PKCS1v15(), hashes.SHA256())

    key = SigningKey(DOMAIN, "d1", "rsa-sha256", sign)
    message = smtp_load.body(10 * 1024, SENDER)[:-3]
    start = time.process_time()
    for _ in range(messages):
        hasher = BodyHasher()
        hasher.feed(message)
        if not fields(hasher.close(), (key,), int(time.time())):
            raise RuntimeError("not signed")
    return (time.process_time() - start) / messages * 1000
