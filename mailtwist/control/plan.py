"""What a reconciliation would do, and what it has done: pure values.

A plan compares the listeners that there shall be with those that run. A listener is known by
its name (``file/...``, ``row/<id>``, ``config/imap``); that it moves to another address is a
change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from mailtwist.config import Listener
from mailtwist.config.names import join_host_port

OPEN: Final = "open"
CHANGE: Final = "change"
CLOSE: Final = "close"
KEEP: Final = "keep"

FAILED: Final = "failed"
# An action of the plan, as what became of it.
DONE: Final[Mapping[str, str]] = {
    OPEN: "opened",
    CHANGE: "changed",
    CLOSE: "closed",
    KEEP: "kept",
}

# A field of Listener, as people know it.
_FIELDS: Final[Mapping[str, str]] = {
    "host": "address",
    "port": "address",
    "label": "name",
    "optional_login": "authentication_required",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why listeners cannot run; ``names``: those at fault."""

    names: tuple[str, ...]
    text: str
    label: str = ""  # what people call the one at fault, where it is no listener yet


@dataclass(frozen=True, slots=True)
class Step:
    """What is to happen to one listener, or what has happened."""

    action: str  # of a plan: open, change, close, keep; of a report: opened ... kept, failed
    listener: Listener
    changed: tuple[str, ...] = ()  # which of its settings
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """As REST and the command line show it."""
        listener = self.listener
        return {
            "action": self.action,
            "name": listener.title,
            "source": listener.name,
            "protocol": listener.protocol,
            "address": join_host_port(listener.host, listener.port) if listener.protocol else "",
            "changed": list(self.changed),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps, and the contradictions that forbid them."""

    steps: tuple[Step, ...]
    conflicts: tuple[Problem, ...] = ()

    def of(self, action: str) -> tuple[Listener, ...]:
        return tuple(step.listener for step in self.steps if step.action == action)

    @property
    def wanted(self) -> tuple[Listener, ...]:
        """The listeners that there shall be."""
        return tuple(step.listener for step in self.steps if step.action != CLOSE)

    @property
    def opens(self) -> tuple[Listener, ...]:
        return self.of(OPEN)

    @property
    def closes(self) -> tuple[Listener, ...]:
        return self.of(CLOSE)

    @property
    def unchanged(self) -> tuple[Listener, ...]:
        return self.of(KEEP)

    @property
    def changes(self) -> dict[str, tuple[str, ...]]:
        """Name of a listener to the settings that differ."""
        return {step.listener.name: step.changed for step in self.steps if step.action == CHANGE}

    @property
    def is_empty(self) -> bool:
        """Whether all runs as it shall."""
        return not self.conflicts and all(step.action == KEEP for step in self.steps)

    def done(self) -> tuple[Step, ...]:
        """The report when every step was taken."""
        return tuple(
            Step(DONE[each.action], each.listener, each.changed, each.reason) for each in self.steps
        )

    def refused(self, problems: Sequence[Problem]) -> tuple[Step, ...]:
        """The report when nothing was done: who is at fault, and what stays as it was."""
        at_fault = reasons(problems)
        report = []
        for each in self.steps:
            reason = at_fault.pop(each.listener.name, "")
            if each.action == OPEN and not reason:
                reason = "not opened: others were refused"
            action = FAILED if reason else DONE[KEEP]
            report.append(Step(action, each.listener, each.changed if reason else (), reason))
        labels = {name: each.label for each in problems for name in each.names}
        for name, reason in at_fault.items():
            nowhere = Listener(name, protocol="", host="", port=0, label=labels[name])
            report.append(Step(FAILED, nowhere, reason=reason))
        return tuple(report)


def reasons(problems: Iterable[Problem]) -> dict[str, str]:
    """Name of each listener at fault to all that is said of it."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        for name in problem.names:
            found.setdefault(name, []).append(problem.text)
    return {name: "; ".join(texts) for name, texts in found.items()}


def plan(
    desired: Iterable[Listener], running: Iterable[Listener], conflicts: Iterable[Problem] = ()
) -> Plan:
    """What leads from ``running`` to ``desired``, in the order of the latter."""
    now = {listener.name: listener for listener in running}
    steps = [_step(listener, now.pop(listener.name, None)) for listener in desired]
    steps += [Step(CLOSE, listener) for listener in now.values()]
    return Plan(tuple(steps), tuple(conflicts))


def _step(wanted: Listener, running: Listener | None) -> Step:
    if running is None:
        return Step(OPEN, wanted)
    changed = differences(running, wanted)
    return Step(CHANGE if changed else KEEP, wanted, changed)


def differences(one: Listener, other: Listener) -> tuple[str, ...]:
    """The settings in which two listeners differ, by the names that people know."""
    found = (
        _FIELDS.get(field.name, field.name)
        for field in fields(Listener)
        if getattr(one, field.name) != getattr(other, field.name)
    )
    return tuple(dict.fromkeys(found))
