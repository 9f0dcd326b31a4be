"""Records for dns-01 by dynamic update: a server of the test takes them as a real one does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from select import select
from threading import Event
from typing import Any

import pytest

from mailtwist.config.outgoing import Acme
from mailtwist.tls.acme.dns import Hook, publish, records_of, withdraw
from mailtwist.tls.acme.values import Challenge, OrderFailed
from tests.support.dns_updates import KEY_NAME, SECRET, Primary

RECORD = "_acme-challenge.mail.example.com"


@pytest.fixture
def primary() -> Iterator[Primary]:
    found = Primary()
    yield found
    found.close()


def settings(primary: Primary, **changed: Any) -> Acme:
    given = {
        "dns_server": primary.address,
        "dns_key_name": KEY_NAME,
        "dns_key_secret": SECRET,
        **changed,
    }
    return Acme(**given)


def challenge(name: str = "mail.example.com", record: str = "value") -> Challenge:
    return Challenge(name, "token", "answer", record)


def test_records_come_and_go_by_signed_updates_of_the_zone_that_the_server_has(
    primary: Primary,
) -> None:
    records = records_of(settings(primary))
    # A wildcard and its domain have the same name and two values.
    both = [challenge(record="one"), challenge(record="two")]
    publish(records, both, wait_s=0.0, stop=Event())
    assert primary.records == {(RECORD, "one"), (RECORD, "two")}
    assert withdraw(records, both[:1]) == []
    assert primary.records == {(RECORD, "two")}


def test_a_zone_that_is_set_is_not_looked_for(primary: Primary) -> None:
    records = records_of(settings(primary, dns_zone="example.com"))
    publish(records, [challenge("a.other.example")], wait_s=0.0, stop=Event())
    assert primary.updates == 1


def test_an_alias_leads_to_where_the_record_is(primary: Primary) -> None:
    primary.aliases[RECORD] = "mail.acme.example.com"
    records = records_of(settings(primary))
    publish(records, [challenge()], wait_s=0.0, stop=Event())
    assert primary.records == {("mail.acme.example.com", "value")}


def test_aliases_without_end_are_told(primary: Primary) -> None:
    primary.aliases[RECORD] = RECORD
    with pytest.raises(OrderFailed, match="a chain of aliases without end"):
        publish(records_of(settings(primary)), [challenge()], wait_s=0.0, stop=Event())


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"dns_key_secret": SECRET.replace("c2", "d3")}, "127.0.0.1: "),
        ({"dns_key_name": ""}, "add _acme-challenge.mail.example.com in example.com: REFUSED"),
        ({"dns_key_secret": "no base64!"}, "acme.dns_key_secret: no TSIG key"),
        ({"dns_key_name": "..", "dns_key_secret": SECRET}, "acme.dns_key_secret: no TSIG key"),
        ({"dns_server": "127.0.0.1:1"}, "127.0.0.1: .*refused"),
    ],
    ids=["wrong key", "no key", "no base64", "no name", "nobody there"],
)
def test_a_server_that_takes_no_update_is_told_with_the_reason(
    primary: Primary, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OrderFailed, match=reason) as caught:
        publish(records_of(settings(primary, **changed)), [challenge()], wait_s=0.0, stop=Event())
    assert SECRET not in str(caught.value)
    assert "no base64!" not in str(caught.value)
    assert primary.records == set()


def test_a_name_in_no_zone_of_the_server_is_told(primary: Primary) -> None:
    with pytest.raises(OrderFailed, match="it has no zone for _acme-challenge"):
        publish(
            records_of(settings(primary)),
            [challenge("a.other.example")],
            wait_s=0.0,
            stop=Event(),
        )


def test_what_cannot_be_removed_is_told_and_the_rest_goes(primary: Primary) -> None:
    records = records_of(settings(primary))
    both = [challenge("a.other.example"), challenge()]
    publish(records, both[1:], wait_s=0.0, stop=Event())
    (failure,) = withdraw(records, both)
    assert "a.other.example" in failure.text
    assert primary.records == set()


def test_a_server_that_stops_waits_for_no_record(primary: Primary) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(OrderFailed, match="the server stops"):
        publish(records_of(settings(primary)), [challenge()], wait_s=3600.0, stop=stop)


def test_without_server_and_program_there_is_no_record() -> None:
    with pytest.raises(OrderFailed, match=r"needs acme\.dns_server or acme\.dns_hook"):
        records_of(Acme())


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Any) -> None:
    program = tmp_path / "hangs"
    program.write_text('#!/bin/sh\nsleep 600 & echo $! > "$0.pid"\nwait\n')
    program.chmod(0o700)
    with pytest.raises(OrderFailed, match="add name took more than 1 s"):
        Hook([str(program)], seconds=1.0).add("name", "value")
    try:
        child = os.pidfd_open(int((tmp_path / "hangs.pid").read_text()))
    except ProcessLookupError:
        return
    # It is told when the process has ended, also before init has waited for it.
    assert select([child], [], [], 10)[0]
    os.close(child)


def test_what_a_program_leaves_behind_is_not_waited_for(tmp_path: Any) -> None:
    program = tmp_path / "leaves"
    program.write_text('#!/bin/sh\nsetsid sleep 600 & echo $! > "$0.pid"\n')
    program.chmod(0o700)
    begun = time.monotonic()
    Hook([str(program)], seconds=20.0).add("name", "value")
    assert time.monotonic() - begun < 10
    os.kill(int((tmp_path / "leaves.pid").read_text()), signal.SIGKILL)


def test_a_program_gets_verb_name_and_value(tmp_path: Any) -> None:
    program = tmp_path / "says"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.log"\n')
    program.chmod(0o700)
    hook = Hook([str(program), "--first"])
    publish(hook, [challenge(record="-x $HOME")], wait_s=0.0, stop=Event())
    assert withdraw(hook, [challenge(record="-x $HOME")]) == []
    calls = (tmp_path / "says.log").read_text().splitlines()
    assert calls == [f"--first {verb} {RECORD} -x $HOME" for verb in ("add", "remove")]
