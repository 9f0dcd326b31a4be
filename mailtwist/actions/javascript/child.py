"""The program of a process that evaluates expressions; it is given no file, name or network.

It is run by its path, apart from the package: it imports the standard library and the
engine. On its standard input come requests of two frames, on its standard output go answers
of one; a frame is its length in four octets and JSON:

* scope: an object of names; expressions: a list of texts;
* ``[["=", value], ...]``, or ``[..., ["?", text]]`` where an expression was wrong, or ``"!"``
  where it went beyond a bound. The first failure is the last element.

The first answer, to no request, says that the process is ready. Every request gets an engine
of its own. A request that stays in the engine ends the process by a timer's signal, which
needs nobody outside: some functions of the engine never look at the time.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

# The engine lies where the parent found it: this interpreter looks nowhere but in its own
# standard library.
sys.path.append(sys.argv[1])

from quickjs import Context, JSException

GUARD, TEXT, CRYPTO = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("guard.js", "text.js", "crypto.js")
)
# Who may need crypto.js, which takes longer to load than most expressions to run; in escapes
# any name may be hidden.
NEEDS_CRYPTO: Final = re.compile(r"uuid|sha256|hmac|random|\\", re.IGNORECASE)

# An expression stands in both forms or it is none: what closes the bracket of one is wrong
# in the other. So nothing gets out of the function, where it would meet the global object.
FORMS: Final = (
    '(function () {{ "use strict"; return [(\n{}\n)] }})',
    '(function () {{ "use strict"; {{ return (\n{}\n) }} }})',
)
# All results of a request together, in largest ones.
MOST_RESULTS: Final = 4
LONE_SURROGATE: Final = re.compile(r"\\(?:u(d[89a-f][0-9a-f]{2})|.)", re.IGNORECASE)


class Engine:
    """One engine for one request."""

    def __init__(self, seconds: float, memory: int, stack: int, largest: int) -> None:
        self._seconds = seconds
        self._largest = largest
        self._context = Context()
        self._context.set_memory_limit(memory)
        self._context.set_max_stack_size(stack)
        self._tools = self._context.eval(TEXT)()
        self._guard = self._context.eval(GUARD)
        self._began = 0.0

    def answers(self, scope: str, expressions: list[str]) -> list[str]:
        """One JSON text an expression, up to the first that fails."""
        self._began = time.process_time()
        self._limit()
        if any(map(NEEDS_CRYPTO.search, expressions)):
            self._context.eval(CRYPTO)(self._tools, os.urandom(32).hex())
        try:
            evaluated = self._guard(scope, self._largest)
        except JSException as error:
            return [_failure("!", _first_line(error))]
        made: list[str] = []
        room = MOST_RESULTS * self._largest
        for each in expressions:
            made.append(self._answer(evaluated, each.strip().rstrip(";")))
            room -= len(made[-1])
            if room < 0:
                made[-1] = _failure("!", "the results are too large")
            if not made[-1].startswith('["="'):
                break
        return made

    def _answer(self, evaluated: Any, expression: str) -> str:
        try:
            self._limit()
            function = [self._context.eval(form.format(expression)) for form in FORMS][1]
        except (JSException, ValueError) as error:
            text = _first_line(error)
            is_wrong = text.startswith("SyntaxError") or not isinstance(error, JSException)
            return _failure("?" if is_wrong else "!", text)
        try:
            self._limit()
            text = evaluated(function)
            # A promise waits for somebody: there was an import, or something asynchronous.
            if self._context.execute_pending_job():
                return _failure("!", "import and promises are not allowed")
        except JSException as error:
            return _failure("!", _first_line(error))
        return _answer(text)

    def _limit(self) -> None:
        left = self._seconds - (time.process_time() - self._began)
        self._context.set_time_limit(max(left, 0.001))


def _answer(text: str) -> str:
    kind, rest = text[0], text[1:]
    if kind != "=":
        return _failure(kind, rest)
    # Half a character is nothing that could be stored or sent.
    if "\\ud" in rest:
        rest = LONE_SURROGATE.sub(lambda it: "\\ufffd" if it[1] else it[0], rest)
    return f'["=",{rest}]'


def _failure(kind: str, text: str) -> str:
    text = "takes too long" if "InternalError: interrupted" in text else text
    return json.dumps([kind, text])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def confine(memory: int) -> None:
    """Leave the process its three pipes and some memory, and give way to others."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.nice(10)
    space = 4 * memory + (256 << 20)
    for kind, bound in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (bound, bound))


def frame() -> bytes:
    """The next frame; ends the process when there is none."""
    return _octets(struct.unpack("!I", _octets(4))[0])


def _octets(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, count)
        if not part:
            sys.exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def send(payload: bytes) -> None:
    data = memoryview(struct.pack("!I", len(payload)) + payload)
    while data:
        data = data[os.write(1, data) :]


def time_limit(processor: float, wall: float) -> None:
    """From now, in seconds; the signals that follow end the process. 0: none."""
    signal.setitimer(signal.ITIMER_PROF, processor)
    signal.setitimer(signal.ITIMER_REAL, wall)


def main() -> None:
    seconds, wall, memory, stack, largest = json.loads(sys.argv[2])
    confine(memory)
    make = partial(Engine, seconds, memory, stack, largest)
    engine = make()
    send(b"[]")
    while True:
        scope, expressions = frame(), json.loads(frame())
        time_limit(seconds * 1.2, wall)
        answers = engine.answers(scope.decode("ascii"), expressions)
        time_limit(0, 0)
        send(f"[{','.join(answers)}]".encode())
        # Ahead of the next request, which then need not wait for it.
        engine = make()


if __name__ == "__main__":
    main()
