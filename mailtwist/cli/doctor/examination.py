"""Runs checks side by side, so that the slowest one is all the time there is to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mailtwist.errors import MailError


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, and somebody should look at it
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look came to. ``advice``: what to do about it, "" where there is nothing."""

    name: str
    status: Status
    reason: str
    advice: str = ""


def ok(name: str, reason: str) -> Finding:
    return Finding(name, Status.OK, reason)


def warn(name: str, reason: str, advice: str = "") -> Finding:
    return Finding(name, Status.WARN, reason, advice)


def fail(name: str, reason: str, advice: str = "") -> Finding:
    return Finding(name, Status.FAIL, reason, advice)


@dataclass(frozen=True, slots=True)
class Check:
    """``look`` blocks, and gives its findings. ``deadline_s``: then it counts as failed."""

    name: str
    look: Callable[[], Iterable[Finding]]
    deadline_s: float = 10.0


@dataclass(slots=True)
class _Looking:
    check: Check
    ended: threading.Event = field(default_factory=threading.Event)
    found: Sequence[Finding] = ()

    def run(self) -> None:
        try:
            self.found = tuple(self.check.look())
        except MailError as error:
            # A database driver says it on several lines.
            detail = " ".join(f": {error.detail}".split()) if error.detail else ""
            self.found = (fail(self.check.name, f"{error.text}{detail}"),)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self.found = (fail(self.check.name, f"{where}{error.strerror or error}"),)
        except Exception as error:  # a check that breaks must not hide what the others say
            reason = f"the check broke off: {type(error).__name__}: {error}"
            self.found = (fail(self.check.name, reason, "please report this"),)
        finally:
            self.ended.set()


def examine(checks: Sequence[Check]) -> list[Finding]:
    """Every check's findings, in the order of the checks. Blocks as long as the slowest."""
    started = time.monotonic()
    looking = [_Looking(check) for check in checks]
    for each in looking:
        # A daemon: one that hangs for ever does not keep the command from ending.
        threading.Thread(target=each.run, name=each.check.name, daemon=True).start()
    found: list[Finding] = []
    for each in looking:
        left = each.check.deadline_s - (time.monotonic() - started)
        if each.ended.wait(max(left, 0)):
            found += each.found
        else:
            reason = f"no answer within {each.check.deadline_s:g} s"
            found.append(fail(each.check.name, reason))
    return found
