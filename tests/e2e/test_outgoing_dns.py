"""Which hosts take the mail of a domain, asked of a DNS server on loopback."""

from __future__ import annotations

import http.client
import time

import pytest

from tests.e2e.relaying import (
    QUICK,
    bounce,
    letter,
    listed,
    submit,
    tried,
    until,
)
from tests.support.dns import DnsServer
from tests.support.sink import Sink

pytestmark = pytest.mark.real


@pytest.fixture
def zone():
    with DnsServer() as running:
        yield running


@pytest.fixture
def make(make_server, zone):
    """A server that asks the zone, and goes to the sink's port at every host."""

    def make(sink: Sink, **queue):
        outbound = {"resolver": zone.address, "port": sink.port}
        return make_server(outbound=outbound, queue={**QUICK, **queue}).start()

    return make


def send(server, domain: str) -> tuple[str, str]:
    sender, message = letter(server, "by dns")
    return sender, submit(server, sender, f"bob@{domain}", message)


@pytest.mark.mission("DAP-145", "ELE-54")
def test_the_next_host_is_used_when_the_first_is_down(make, zone):
    # Nobody listens at 127.0.0.2 and .3; the hosts are listed against their order.
    zone.zone |= {
        "mx.test": {"MX": ["30 three.mx.test.", "20 two.mx.test.", "10 one.mx.test."]},
        "one.mx.test": {"A": ["127.0.0.2", "127.0.0.3"]},
        "two.mx.test": {"A": ["127.0.0.1"]},
        "three.mx.test": {"A": ["127.0.0.4"]},
    }
    with Sink() as sink, Sink(host="127.0.0.4", port=sink.port) as last:
        server = make(sink)
        _, queue_id = send(server, "mx.test")
        sink.wait_for_mails(1)
        found = tried(server, queue_id)
        assert found["attempts"][-1]["host"] == "two.mx.test"
        assert len(found["attempts"]) == 1
        assert last.visits == []


@pytest.mark.mission("DAP-145")
def test_without_mx_the_address_of_the_domain_is_used(make, zone):
    zone.zone |= {"plain.test": {"A": ["127.0.0.1"]}}
    with Sink() as sink:
        send(make(sink), "plain.test")
        sink.wait_for_mails(1)


@pytest.mark.parametrize(
    "records, status, words",
    [
        ({"MX": ["0 ."]}, "5.1.10", "takes no mail"),
        (None, "5.1.2", ""),
    ],
)
def test_who_takes_no_mail_and_who_does_not_exist_bounces_at_once(
    make, zone, records, status, words
):
    if records is not None:
        zone.zone |= {"none.test": records}
    with Sink() as sink:
        server = make(sink)
        sender, _ = send(server, "none.test")
        dsn = bounce(server, sender)
        assert (dsn.action, dsn.status) == ("failed", status)
        assert words in str(dsn)


def test_a_name_server_in_trouble_is_asked_again(make, zone):
    zone.zone |= {"late.test": {"MX": ["10 mx.late.test."]}, "mx.late.test": {"A": ["127.0.0.1"]}}
    zone.servfail.add("late.test")
    with Sink() as sink:
        server = make(sink)
        _, queue_id = send(server, "late.test")
        found = tried(server, queue_id)
        assert found["attempts"][0]["stage"] == "dns"
        zone.servfail.clear()
        sink.wait_for_mails(1, 60)
        until(lambda: listed(server) == [])


@pytest.mark.mission("GEN-02")
def test_nobody_waits_for_a_name_server_that_is_silent(make, zone):
    zone.silent |= {f"d{n}.silent.test" for n in range(20)}
    with Sink() as sink:
        server = make(sink)
        for n in range(20):
            send(server, f"d{n}.silent.test")
        until(lambda: len(zone.questions) > 5)
        for _ in range(10):
            start = time.monotonic()
            client = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=10)
            client.request("GET", "/ping")
            assert client.getresponse().status == 200
            client.close()
            assert time.monotonic() - start < 0.5


def test_a_loop_of_aliases_ends(make, zone):
    zone.zone |= {"a.test": {"CNAME": ["b.test."]}, "b.test": {"CNAME": ["a.test."]}}
    with Sink() as sink:
        server = make(sink)
        _, queue_id = send(server, "a.test")
        found = tried(server, queue_id)
        assert found["attempts"][0]["stage"] == "dns"
        assert zone.count("a.test") + zone.count("b.test") < 20


def test_of_a_hundred_hosts_that_are_down_few_are_tried(make, zone):
    zone.zone["many.test"] = {"MX": [f"10 mx{n}.many.test." for n in range(100)]}
    for n in range(100):
        zone.zone[f"mx{n}.many.test"] = {"A": ["127.0.0.9"]}
    with Sink() as sink:
        server = make(sink, retry_schedule=["1h"])
        _, queue_id = send(server, "many.test")
        assert tried(server, queue_id)["state"] in {"deferred", "active"}
        assert len({name for name, _ in zone.questions if name.startswith("mx")}) <= 10


def test_an_address_literal_is_a_host(make):
    with Sink() as sink:
        send(make(sink), "[127.0.0.1]")
        (mail,) = sink.wait_for_mails(1)
        assert mail.recipients == ["bob@[127.0.0.1]"]
