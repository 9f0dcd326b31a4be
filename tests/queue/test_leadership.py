"""Who runs the queue when processes come and go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from mailtwist.queue.leadership import LEASE, LEASE_S, RENEW_S, Leadership
from mailtwist.queue.schedule import SECOND
from mailtwist.store import ids, lease
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from mailtwist.store.queue import claims
from mailtwist.store.queue.values import State
from tests.queue.fakes import Post
from tests.support.now import now as done

OTHER = 1000


def dead_process() -> str:
    """The name of a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return f"{socket.gethostname()}/{ended.pid}/0badcafe"


def live_process() -> str:
    return f"{socket.gethostname()}/{os.getppid()}/0badcafe"


HERE = socket.gethostname()


@pytest.mark.parametrize(
    "make_name, is_gone",
    [
        pytest.param(ids.process_name, False, id="this one"),
        pytest.param(live_process, False, id="a living one"),
        pytest.param(dead_process, True, id="an ended one"),
        pytest.param(lambda: f"{HERE}/{os.getpid()}/0", True, id="the number came round"),
        pytest.param(lambda: f"elsewhere.example/{os.getpid()}/0", False, id="elsewhere"),
        pytest.param(lambda: "", False, id="nothing"),
        pytest.param(lambda: f"{HERE}/x/0", False, id="no number"),
        pytest.param(lambda: f"{HERE}/{10**30}/0", False, id="a number out of range"),
    ],
)
def test_of_this_machine_s_processes_it_is_known_whether_they_run(make_name, is_gone):
    assert ids.is_gone(make_name()) is is_gone


def work_of(post: Post, name: str) -> None:
    """Another process holds the queue's lease, if there is one, and a message."""
    queue_id = post.submit("bob@far.example")
    with post.database.engine.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO node (node_id, name, version, seen_at)"
            f" VALUES ({OTHER}, '{name}', '0', {ids.now_us()})"
        )
        if post.database.engine.is_sqlite:
            lease.take(connection, LEASE, OTHER, now=post.now, seconds=LEASE_S)
        until = post.now + 600 * SECOND
        claims.claim_message(connection, queue_id, node_id=OTHER, now=post.now, lease_until=until)


@pytest.mark.mission("ELE-50")
def test_the_work_of_a_process_that_was_killed_is_taken_over_at_once(database):
    post = Post(database)
    work_of(post, dead_process())
    leadership = Leadership(database, post.clock)
    assert done(leadership.renew())
    assert leadership.is_held
    assert post.states() == [State.WAITING]


def test_the_work_of_a_process_that_runs_is_left_alone(database):
    post = Post(database)
    work_of(post, live_process())
    leadership = Leadership(database, post.clock)
    done(leadership.renew())
    assert leadership.is_held is not database.engine.is_sqlite
    assert post.states() == [State.LEASED]
    if database.engine.is_sqlite:
        post.clock.advance(LEASE_S + RENEW_S)
        assert done(leadership.renew()), "a lease that nobody renews runs out"


def test_a_lease_that_was_lost_and_found_again_frees_nothing_of_ours(sqlite_url):
    database = Inline(open_engine(sqlite_url))
    post = Post(database)
    leadership = Leadership(database, post.clock)
    done(leadership.renew())
    queue_id = post.submit("bob@far.example")
    own = database.ids.node_id
    with database.engine.write() as connection:
        until = post.now + 600 * SECOND
        claims.claim_message(connection, queue_id, node_id=own, now=post.now, lease_until=until)
        lease.release(connection, LEASE, own)
        lease.take(connection, LEASE, OTHER, now=post.now, seconds=LEASE_S)
        connection.exec_driver_sql(
            "INSERT INTO node (node_id, name, version, seen_at)"
            f" VALUES ({OTHER}, '{live_process()}', '0', {ids.now_us()})"
        )
    done(leadership.renew())
    assert not leadership.is_held
    post.clock.advance(LEASE_S + 1)
    assert done(leadership.renew())
    assert post.states() == [State.LEASED], "it is being delivered"
    done(leadership.give_up())
    assert post.states() == [State.WAITING]
    database.release()
