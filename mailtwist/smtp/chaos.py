"""Errors on purpose (dev_mode alone): the first rule that fits a recipient says what happens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from typing import Protocol

from mailtwist.config.chaos import ChaosItem, parts_of
from mailtwist.mail.reply import Reply


class Random(Protocol):
    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Mishap:
    """``reply`` None: what would be said anyway."""

    delay_s: float = 0.0
    reply: Reply | None = None
    is_drop: bool = False


class Chaos:
    """The rules of the setting ``chaos``; ``random`` gives from 0 to 1, without 1."""

    def __init__(self, rules: Iterable[ChaosItem], random: Random) -> None:
        self._random = random
        self._rules = [
            (rule, re.compile(translate(rule.recipient.lower())), _mishap(rule)) for rule in rules
        ]

    def at(self, stage: str, recipient: str) -> Mishap | None:
        """What goes wrong at ``rcpt`` or in the ``data`` of this recipient, if anything does."""
        for rule, pattern, mishap in self._rules:
            if rule.at != stage or not pattern.fullmatch(recipient.lower()):
                continue
            if self._random.random() * 100 < rule.percent:
                return mishap
        return None


def _mishap(rule: ChaosItem) -> Mishap:
    reply = Reply(*parts_of(rule.reply)) if rule.reply else None
    return Mishap(rule.delay, reply, rule.drop)
