r"""Dialogues as files, played against a protocol on a transport in memory.

A file holds, line by line::

    # a comment (one rule of an RFC a file, its section in the first line)
    @given submission tls     words that tell the test which server to build
    @mission ELE-06 DAP-111   the rows that this dialogue proves
    C: EHLO client.example    send this line and CRLF
    C= a\r\n.\x00             send exactly these octets (Python escapes)
    S: 250 2.0.0 OK           the server says exactly this line
    S~ 250 .* (?P<id>\w+)     the server says a line that matches whole; groups become $id
    C*100: RCPT TO:<u{n}@x>   a hundred lines, {n} counts from 1; S*100: likewise
    C*9000= x                 nine thousand octets
    2 C: NOOP                 a number before it: another connection, opened on first use
    @tls                      the server has called startTLS since the last @tls
    @closed                   the server has closed the connection
    @sync                     all answers so far must have come before more is sent
    @advance 300              the clock moves on by seconds
    @anything words           a hook that the test hands in

Each file is played three times: with all lines between two points of waiting
in one segment, line by line, and one octet at a time. `$name` in a C or S line
stands for what an S~ line before it has caught. Whatever the server says that
no line expects is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

FOLDER = Path(__file__).parent.parent / "transcripts"


# -- a peer in memory -----------------------------------------------------------------------


@implementer(ITLSTransport)
class Wire(StringTransport):  # type: ignore[misc]
    """A transport that remembers each write, and startTLS; TLS itself is only pretended."""

    def __init__(self, host: str = "192.0.2.7", port: int = 40000) -> None:
        super().__init__(
            hostAddress=IPv4Address("TCP", "192.0.2.1", 25),
            peerAddress=IPv4Address("TCP", host, port),
        )
        self.writes: list[bytes] = []
        self.tls_starts = 0
        self.no_delay = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(bytes(data))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:  # noqa: N803
        assert contextFactory is not None
        self.tls_starts += 1

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Peer:
    """The client's end: sends octets as a transport would deliver them, collects the answers."""

    def __init__(self, protocol: Any, wire: Wire | None = None) -> None:
        self.protocol = protocol
        self.wire = wire or Wire()
        self.lost = False
        self._inbox: list[bytes] = []
        self._taken = 0
        protocol.makeConnection(self.wire)
        self.run()

    def send(self, data: bytes) -> None:
        """Deliver octets in one segment; they wait while the server does not read."""
        self._inbox.append(data)
        self.run()

    def run(self) -> None:
        """Deliver what waits, as far as the server reads, and the end of the connection."""
        while self._inbox and self.wire.producerState == "producing" and not self.closed:
            self.protocol.dataReceived(self._inbox.pop(0))
        if self.closed and not self.lost:
            self.lost = True
            reason = ConnectionLost() if self.wire.aborted else ConnectionDone()
            self.protocol.connectionLost(Failure(reason))

    def hang_up(self) -> None:
        """The client goes away without a word."""
        if not self.lost:
            self.lost = True
            self.wire.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionLost()))

    @property
    def closed(self) -> bool:
        return bool(self.wire.disconnecting)

    @property
    def waiting(self) -> int:
        """Octets that the server has not read."""
        return sum(map(len, self._inbox))

    def received(self) -> bytes:
        """All octets that came since the last call."""
        value: bytes = self.wire.value()
        fresh = value[self._taken :]
        self._taken = len(value)
        return fresh

    def ask(self, line: bytes) -> bytes:
        """Send one line and take what comes."""
        self.send(line + b"\r\n")
        return self.received()


# -- the files ------------------------------------------------------------------------------


class Mode(Enum):
    WHOLE = "whole"
    LINES = "lines"
    OCTETS = "octets"


@dataclass(frozen=True)
class Step:
    line: int
    connection: int
    kind: str  # C, C=, S, S~ or the name of a directive
    text: str


@dataclass(frozen=True)
class Transcript:
    path: Path
    given: tuple[str, ...]
    missions: tuple[str, ...]
    steps: tuple[Step, ...] = field(repr=False)


_LINE = re.compile(r"(?:(\d+) +)?([CS])(\*\d+)?([:=~])(?: (.*))?$")
_DIRECTIVE = re.compile(r"(?:(\d+) +)?@(\w+)(?: +(.*))?$")


def load(path: Path) -> Transcript:
    return parse(path.read_text("utf-8"), path)


def parse(text: str, path: Path = Path("transcript")) -> Transcript:
    """Read a dialogue; an unknown line is an error."""
    given: list[str] = []
    missions: list[str] = []
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if found := _LINE.match(line):
            steps.extend(_spoken(number, *found.groups()))
        elif found := _DIRECTIVE.match(line):
            connection, name, rest = found.groups()
            if name == "given":
                given.extend((rest or "").split())
            elif name == "mission":
                missions.extend((rest or "").split())
            else:
                steps.append(Step(number, int(connection or 1), name, rest or ""))
        else:
            raise ValueError(f"{path}:{number}: not a line of a transcript: {line!r}")
    return Transcript(path, tuple(given), tuple(missions), tuple(steps))


def _spoken(
    number: int, connection: str | None, side: str, times: str | None, mark: str, text: str | None
) -> Iterator[Step]:
    kind = side if mark == ":" else side + mark
    if kind not in {"C", "C=", "S", "S~"}:
        raise ValueError(f"line {number}: {kind} is not a kind of line")
    for n in range(1, int(times[1:]) + 1 if times else 2):
        said = (text or "").replace("{n}", str(n)) if times else text or ""
        yield Step(number, int(connection or 1), kind, said)


def cases(pattern: str) -> list[Any]:
    """Pytest parameters (transcript, mode) for every file that the pattern names."""
    found = sorted(FOLDER.glob(pattern))
    assert found, f"no transcript matches {pattern}"
    return [
        pytest.param(
            transcript,
            mode,
            id=f"{transcript.path.stem}-{mode.value}",
            marks=[pytest.mark.mission(*transcript.missions)] if transcript.missions else [],
        )
        for transcript in map(load, found)
        for mode in Mode
    ]


# -- the player -----------------------------------------------------------------------------


class Player:
    """Plays one transcript in one mode.

    `connect` opens the connection of a number. `settle` lets waiting work
    (a delayed database, a clock) come to its end before answers are looked at.
    """

    def __init__(
        self,
        transcript: Transcript,
        mode: Mode,
        connect: Callable[[int], Peer],
        *,
        advance: Callable[[float], None] | None = None,
        settle: Callable[[], None] | None = None,
        hooks: Mapping[str, Callable[..., None]] | None = None,
    ) -> None:
        self.transcript = transcript
        self.mode = mode
        self.connect = connect
        self.advance = advance
        self.settle = settle
        self.hooks = dict(hooks or {})
        self.peers: dict[int, Peer] = {}
        self.names: dict[str, str] = {}
        self._said: dict[int, bytes] = {}  # what a server said and no line has taken yet
        self._tls: dict[int, int] = {}
        self._pending: list[bytes] = []
        self._expected: list[Step] = []
        self._on = 0

    def play(self) -> None:
        for step in self.transcript.steps:
            self._take(step)
        self._catch_up()
        for number in self.peers:
            rest = self._output(number)
            assert not rest, f"{self.transcript.path}: connection {number} also said {rest!r}"

    def _take(self, step: Step) -> None:
        if step.connection != self._on:
            self._catch_up()
            self._on = step.connection
        if step.kind in {"C", "C="}:
            waits = self._expected and self.mode is not Mode.WHOLE
            if waits or self._unbound(step.text):
                self._catch_up()
            self._pending.append(self._octets(step))
        elif step.kind in {"S", "S~"}:
            self._expected.append(step)
        else:
            self._catch_up()
            self._direct(step)

    def _unbound(self, text: str) -> bool:
        """Whether the text names something that an answer still to come will bind."""
        wanted = re.findall(r"\$(\w+)", text)
        promised = {
            name
            for step in self._expected
            if step.kind == "S~"
            for name in re.findall(r"\(\?P<(\w+)>", step.text)
        }
        return any(name in promised for name in wanted)

    def _octets(self, step: Step) -> bytes:
        text = self._substituted(step.text)
        if step.kind == "C":
            return text.encode() + b"\r\n"
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")

    def _substituted(self, text: str) -> str:
        return re.sub(r"\$(\w+)", lambda m: self.names.get(m[1], m[0]), text)

    def _catch_up(self) -> None:
        """Send what is pending and match what is expected."""
        if not self._pending and not self._expected:
            return
        peer = self._peer(self._on)
        for segment in self._segments():
            peer.send(segment)
            if self.mode is not Mode.OCTETS:
                self._settle()
        self._pending.clear()
        self._settle()
        expected, self._expected = self._expected, []
        for step in expected:
            self._match(step)
        rest = self._output(self._on)
        assert not rest, f"{self._where(expected)}: more than expected was said: {rest!r}"

    def _segments(self) -> list[bytes]:
        if self.mode is Mode.LINES:
            return self._pending
        whole = b"".join(self._pending)
        if self.mode is Mode.WHOLE:
            return [whole] if whole else []
        return [whole[i : i + 1] for i in range(len(whole))]

    def _match(self, step: Step) -> None:
        line, newline, rest = self._output(step.connection).partition(b"\r\n")
        said = line.decode("utf-8", "backslashreplace")
        where = f"{self.transcript.path}:{step.line}"
        assert newline, f"{where}: expected {step.text!r}, nothing more was said ({said!r})"
        self._said[step.connection] = rest
        wanted = self._substituted(step.text)
        if step.kind == "S":
            assert said == wanted, f"{where}: expected {wanted!r}, got {said!r}"
            return
        found = re.fullmatch(wanted, said)
        assert found, f"{where}: expected a match of {wanted!r}, got {said!r}"
        self.names.update({k: v for k, v in found.groupdict().items() if v is not None})

    def _direct(self, step: Step) -> None:
        where = f"{self.transcript.path}:{step.line}"
        peer = self._peer(step.connection)
        if step.kind == "sync":
            return
        if step.kind == "tls":
            before = self._tls.get(step.connection, 0)
            assert peer.wire.tls_starts == before + 1, f"{where}: no TLS was started"
            self._tls[step.connection] = before + 1
        elif step.kind == "closed":
            assert peer.closed, f"{where}: the connection is still open"
        elif step.kind == "advance":
            assert self.advance is not None, f"{where}: this test has no clock"
            self.advance(float(step.text))
            self._settle()
        else:
            assert step.kind in self.hooks, f"{where}: this test has no hook @{step.kind}"
            self.hooks[step.kind](*step.text.split())
            self._settle()

    def _peer(self, number: int) -> Peer:
        if number not in self.peers:
            self.peers[number] = self.connect(number)
        return self.peers[number]

    def _output(self, number: int) -> bytes:
        said = self._said.get(number, b"") + self.peers[number].received()
        self._said[number] = said
        return said

    def _settle(self) -> None:
        if self.settle is not None:
            self.settle()
        for peer in self.peers.values():
            peer.run()

    def _where(self, expected: list[Step]) -> str:
        line = expected[-1].line if expected else "?"
        return f"{self.transcript.path}:{line}"


def play(transcript: Transcript, mode: Mode, connect: Callable[[int], Peer], **rest: Any) -> Player:
    """Play a transcript; returns the player, with its peers and names."""
    player = Player(transcript, mode, connect, **rest)
    player.play()
    return player
