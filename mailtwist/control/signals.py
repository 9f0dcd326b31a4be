"""What the server does at which signal. SIGTERM and SIGINT are the reactor's: a clean stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any


def follow(reactor: Any, *, upgrade: Callable[[], None], reload: Callable[[], None]) -> None:
    """From here on SIGUSR2 is an order to ``upgrade``, and SIGHUP one to ``reload``.

    On a terminal SIGHUP goes on to mean that the terminal is gone. Does nothing outside of the
    main thread, where no signal can be had.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _on(reactor, signal.SIGUSR2, upgrade)
    if not _has_terminal():
        _on(reactor, signal.SIGHUP, reload)


def stop_once() -> None:
    """A stop is under way: one that is asked for again changes nothing, and is no error."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        # Where no reactor follows it, a signal is somebody else's.
        if signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, lambda *_: None)


def _on(reactor: Any, number: signal.Signals, order: Callable[[], None]) -> None:
    def hear(*_: object) -> None:
        # In the midst of whatever runs now: only the reactor knows when it is time.
        reactor.callFromThread(order)

    signal.signal(number, hear)


def _has_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
