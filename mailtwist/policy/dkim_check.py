"""The check of DKIM signatures: what broken ones count, and what is told of all."""

from __future__ import annotations

from typing import Final

from mailtwist.mail.authentication_results import result
from mailtwist.policy.checks import Check, Facts, Stage, Verdict
from mailtwist.policy.dkim_verification import (
    FAIL,
    PERMERROR,
    TEMPERROR,
    DkimResult,
    DkimVerifier,
)

# Daptin's scale: above 50 a message is marked, three broken signatures put it into Spam.
BROKEN: Final = 100.0
UNREADABLE: Final = 50.0
DEADLINE_S: Final = 8.0

_SCORES: Final = {FAIL: BROKEN, PERMERROR: BROKEN}
# Of a header that is too long to be looked through for signatures.
_UNREADABLE: Final = Verdict(
    score=UNREADABLE, results=(result("dkim", PERMERROR, reason="header too long"),)
)
_LATE: Final = Verdict(results=(result("dkim", TEMPERROR, reason="time-out"),))


def dkim_check(verifier: DkimVerifier) -> Check:
    async def run(facts: Facts) -> Verdict:
        if facts.is_too_long:
            return _UNREADABLE
        found = await verifier.verify(facts.signatures)
        return Verdict(
            score=sum(_SCORES.get(each.outcome, 0.0) for each in found),
            results=tuple(map(_told, found)),
        )

    return Check(
        "dkim",
        Stage.DATA,
        run,
        DEADLINE_S,
        _LATE,
        spares_relays=False,
        concerns=lambda facts: facts.is_too_long or bool(facts.signatures),
    )


def _told(each: DkimResult) -> str:
    return result(
        "dkim",
        each.outcome,
        reason=each.reason,
        header_d=each.domain,
        header_s=each.selector,
        header_a=each.algorithm,
    )
