"""Frames between the server and its client process, over a pair of sockets.

A frame is two lengths of four octets, an array in JSON (ASCII, whose first element is a verb),
and octets as they are: content is never quoted. JSON and not pickle: who speaks to strangers
must not be able to run anything on the other side.

Frames of one turn of the reactor leave together, so that a busy server makes one system call
for many of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from typing_extensions import override

# Content travels in blocks of 1 MiB at most, lines of addresses in the array.
MAX_FRAME: Final = 8 << 20

_LENGTHS: Final = struct.Struct("!II")
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_decode: Final = json.JSONDecoder().decode

Received = Callable[[list[Any], bytes], None]


def frame(words: list[Any], data: bytes = b"") -> bytes:
    """Write one frame."""
    array = _encode(words).encode("ascii")
    return b"%b%b%b" % (_LENGTHS.pack(len(array), len(data)), array, data)


class FrameError(ValueError):
    """The other side does not speak as agreed."""


class FrameParser:
    """Takes octets as they come and tells whole frames."""

    def __init__(self, received: Received) -> None:
        self._received = received
        self._buffer = bytearray()
        self._wanted = _LENGTHS.size

    def feed(self, data: bytes) -> None:
        """Raises: FrameError."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._wanted:
            return
        start = 0
        while len(buffer) - start >= _LENGTHS.size:
            array_octets, data_octets = _LENGTHS.unpack_from(buffer, start)
            end_of_array = start + _LENGTHS.size + array_octets
            end = end_of_array + data_octets
            if end - start > MAX_FRAME:
                raise FrameError("a frame is too long")
            if len(buffer) < end:
                self._wanted = end - start
                break
            words = _words(buffer[start + _LENGTHS.size : end_of_array])
            octets = bytes(buffer[end_of_array:end])
            start = end
            self._wanted = _LENGTHS.size
            self._received(words, octets)
        del buffer[:start]


def _words(array: bytearray) -> list[Any]:
    try:
        words = _decode(array.decode("ascii"))
    except ValueError as error:
        raise FrameError("a frame holds no JSON") from error
    if not isinstance(words, list) or not words:
        raise FrameError("a frame holds no array")
    return words


class Channel(Protocol):
    """One end. ``received(words, data)`` is called for each frame, ``lost()`` at the end."""

    transport: Any

    def __init__(self, reactor: Any, received: Received, lost: Callable[[], None]) -> None:
        self._reactor = reactor
        self._parser = FrameParser(received)
        self._lost = lost
        self._frames: list[bytes] = []

    def send(self, words: list[Any], data: bytes = b"") -> None:
        """Let a frame leave at the end of this turn; when the channel is lost, never."""
        if self.transport is None:
            return
        if not self._frames:
            self._reactor.callLater(0, self._flush)
        self._frames.append(frame(words, data))

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if self.transport is not None:
            self.transport.write(b"".join(frames))

    def close(self) -> None:
        """End it at once, with all that waits; ``lost`` follows."""
        if self.transport is not None:
            self.transport.abortConnection()

    @override
    def dataReceived(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except FrameError:
            self.close()

    @override
    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.transport = None
        self._lost()
