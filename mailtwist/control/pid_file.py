"""``mailtwist.pid`` in the data folder: which process serves it, known without a doubt.

The process holds a lock on the file while it lives. A number that a killed process left in it
means nothing without the lock, so no signal ever goes to a stranger. The lock belongs to the
open file: a process that replaces this one is given it, and it is never free in between.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from twisted.logger import Logger

log = Logger()

FILE_NAME: Final = "mailtwist.pid"
# Between two processes the number is missing for a moment.
_TRIES: Final = 20
_PAUSE_S: Final = 0.05


class PidFile:
    """The file as the server has it. :meth:`take` first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._is_ours = False

    @property
    def descriptor(self) -> int | None:
        """The open file with the lock, for the process that replaces this one."""
        return self._descriptor

    def take(self, given: int | None = None) -> None:
        """Lock the file, or go on with the lock that the process before us has ``given``.

        Where another server holds it, it goes on to be the one that the file names.
        Raises: OSError when the file cannot be made.
        """
        if given is not None:
            self._descriptor = given
            os.set_inheritable(given, False)
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            log.warn("not the only server on this folder: {error}", error=error)
        else:
            self._descriptor = descriptor

    def write(self) -> None:
        """Name this process. On a full disk the file names nobody, and the log says so."""
        if self._descriptor is None:
            return
        self._is_ours = True
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            log.error("{path} was not written: {error}", path=str(self._path), error=error)

    def hand_on(self) -> None:
        """Another process has the lock and is about to write its number."""
        self._is_ours = False
        self.end()

    def end(self) -> None:
        """Give the lock up; the file stays, for removing it would race with the next start."""
        if self._descriptor is None:
            return
        if self._is_ours:
            with suppress(OSError):  # a full or lost disk: the lock says enough
                os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor, self._is_ours = None, False


def _lock(descriptor: int) -> None:
    """Have the lock for this process. Raises: OSError when another server has it."""
    for last in (False, False, True):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # Who asks for the server holds it for a moment, too.
            if last:
                raise
        time.sleep(_PAUSE_S)


def running(data_dir: Path, *, sleep: Callable[[float], object] = time.sleep) -> int | None:
    """The process that serves a data folder; None: there is none that is ready. Blocks < 1 s."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(data_dir / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            number = os.pread(descriptor, 32, 0).strip()
            if number.isdigit():
                return int(number)
        else:
            return None
        finally:
            os.close(descriptor)
        sleep(_PAUSE_S)
    return None
