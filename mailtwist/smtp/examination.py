"""What the checks say of one client and of its transaction, stage by stage."""

from __future__ import annotations

from mailtwist.errors import MailError
from mailtwist.policy.checks import PASS, Checks, Facts, Stage, Verdict


class Examination:
    """Of one session. A transaction's verdicts end with the next MAIL."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._said: dict[Stage, Verdict] = {}

    def is_asked(self, stage: Stage) -> bool:
        """Whether anybody has a question at this stage."""
        return self._checks.has(stage) or (stage is Stage.HELO and self._checks.has(Stage.CONNECT))

    @property
    def verdict(self) -> Verdict:
        """The sum of what was said so far."""
        return sum(self._said.values(), start=PASS)

    async def ask(self, stage: Stage, facts: Facts) -> MailError | None:
        """The refusal that the checks of a stage give, or None."""
        if stage is Stage.HELO and Stage.CONNECT not in self._said:
            # Asked this late, so that each client has been greeted without waiting.
            refusal = await self._ask(Stage.CONNECT, facts)
            if refusal is not None:
                return refusal
        if stage is Stage.MAIL:
            self._said.pop(Stage.RCPT, None)
        return await self._ask(stage, facts)

    async def _ask(self, stage: Stage, facts: Facts) -> MailError | None:
        verdict = await self._checks.at(stage, facts)
        if verdict.refusal is None:
            # Of several recipients all count.
            before = self._said.get(stage, PASS) if stage is Stage.RCPT else PASS
            self._said[stage] = before + verdict
        return verdict.refusal
