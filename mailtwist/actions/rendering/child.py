"""The process: reads a template and values as JSON, writes what became of it, ends.

``python -I -S child.py BOUNDS FOLDER...``; the answer is a blank and then ``["=", text]``, or
``["!", why]``. It imports nothing of mailtwist: it knows what it is given and nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any, Final

MEMORY: Final = 256 << 20
SHOWN: Final = 200
WARMING_UP: Final = ('{{ "\\n" }}{% for a in "ab" %}{{ loop.index }}{% endfor %}', "{{ 1 / 0 }}")


def confine() -> None:
    """Leave the process its pipes and some memory, and give way to others."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.nice(10)
    for kind, bound in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (bound, bound))


def rendered(template: str, scope: dict[str, Any], is_html: bool, largest: int) -> list[str]:
    """What the template makes of the values, or why it makes nothing."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        autoescape=is_html, undefined=StrictUndefined, cache_size=0
    )
    try:
        text = environment.from_string(template).render(scope)
    except TemplateError as error:
        return ["!", _first_line(error)]
    except (RecursionError, MemoryError):
        return ["!", "it takes too much memory"]
    except Exception as error:  # what a template does with values is no fault of ours
        return ["!", f"{type(error).__name__}: {_first_line(error)}"]
    return ["=", text] if len(text) <= largest else ["!", "the result is too large"]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:SHOWN]


def main() -> None:
    """Serve the one request."""
    seconds, wall, largest = json.loads(sys.argv[1])
    sys.path += sys.argv[2:]
    # Modules and codecs are loaded by their first use, and nothing can be opened afterwards.
    for template in WARMING_UP:
        rendered(template, {}, True, largest)
    given = sys.stdin.buffer.read()
    confine()
    os.write(1, b" ")
    # Signals end the process whatever the template does.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, wall)
    template, scope, is_html = json.loads(given)
    answer = memoryview(json.dumps(rendered(template, scope, is_html, largest)).encode())
    while answer:
        answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    main()
