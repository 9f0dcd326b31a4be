from __future__ import annotations

import os
import signal
import threading

import pytest
from twisted.internet.task import Clock

from mailtwist.control import signals


class Reactor(Clock):
    def __init__(self):
        super().__init__()
        self.orders = []

    def callFromThread(self, order, *arguments):
        self.orders.append(order)


@pytest.fixture
def restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGHUP)}
    # What would end the test run does nothing here.
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "has_terminal", "order"),
    [
        (signal.SIGUSR2, False, "upgrade"),
        (signal.SIGUSR2, True, "upgrade"),
        (signal.SIGHUP, False, "reload"),
        (signal.SIGHUP, True, None),
    ],
)
def test_a_signal_is_an_order_to_the_reactor(restored, monkeypatch, number, has_terminal, order):
    monkeypatch.setattr(signals, "_has_terminal", lambda: has_terminal)
    reactor, given = Reactor(), []
    signals.follow(
        reactor, upgrade=lambda: given.append("upgrade"), reload=lambda: given.append("reload")
    )
    os.kill(os.getpid(), number)
    assert given == []  # the reactor says when
    for each in reactor.orders:
        each()
    assert given == ([order] if order else [])


def test_in_another_thread_no_signal_is_followed(restored):
    def follow():
        signals.follow(Reactor(), upgrade=lambda: None, reload=lambda: None)

    thread = threading.Thread(target=follow)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN


def test_a_stop_that_is_asked_for_again_is_no_error():
    numbers = (signal.SIGTERM, signal.SIGINT)
    kept, heard = [signal.getsignal(each) for each in numbers], []
    try:
        signal.signal(signal.SIGTERM, lambda *_: heard.append("stop"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGTERM)
        signals.stop_once()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["stop"]
        # No reactor followed that one.
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in zip(numbers, kept, strict=True):
            signal.signal(number, handler)


def test_a_closed_standard_input_is_no_terminal(monkeypatch):
    def isatty(number):
        raise OSError

    monkeypatch.setattr("mailtwist.control.signals.os.isatty", isatty)
    assert signals._has_terminal() is False
