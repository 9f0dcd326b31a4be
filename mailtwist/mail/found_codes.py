"""One-time codes in a mail: what a person would copy out of it.

A number is a code by what stands around it: a word such as "code" or "PIN" near by, a line of
its own, six digits. Years, prices, telephone and order numbers have words and marks of their
own. Nothing is sure here; the likeliest comes first.

Work is linear in the input, of which the first ``MAX_TEXT`` characters are looked at.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailtwist.mail.words import fold

MAX_TEXT: Final = 65_536
MAX_CODES: Final = 10
MAX_CANDIDATES: Final = 1_000

# Numbers in these mean something else.
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S++|[\w.+-]{1,64}+@[\w.-]++", re.I)

# Words that announce a code, folded. Those of scripts without blanks count inside words.
_WORDS: Final = re.compile(
    r"(?:\b|(?<=[a-z]))(?:codes?|kode|kod|koden|kodu|koodi|koodisi|codigo|c\u00f3digo|codice|cod"
    r"|k\u00f3d|k\u00f3du|\u03ba\u03c9\u03b4\u03b9\u03ba\u03cc\u03c2|otp|2fa|totp|m?tan|pin"
    r"|passcode|passwort|password|passphrase|wachtwoord|mot de passe|contrase\u00f1a|clave|senha"
    r"|verification|v\u00e9rification|verificaci\u00f3n|verifica\u00e7\u00e3o|verify|confirmation"
    r"|best\u00e4tigungs\w{0,12}|verifizierungs\w{0,12}|sicherheits\w{0,12}|einmal\w{0,12}"
    r"|one[- ]time|token)\b"
    r"|\u043a\u043e\u0434|\u043f\u0430\u0440\u043e\u043b\u044c"
    r"|\u9a8c\u8bc1\u7801|\u9a57\u8b49\u78bc|\u6821\u9a8c\u7801|\u8a8d\u8a3c|\u30b3\u30fc\u30c9"
    r"|\uc778\uc99d|\ucf54\ub4dc|\u05e7\u05d5\u05d3|\u0631\u0645\u0632"
)
# Codes that nobody is to sign in with.
_OTHER_CODES = re.compile(
    r"\b(?:promo|promotion|promotional|discount|coupon|voucher|gift|referral|zip|postal|post|area"
    r"|country|error|status|source|qr|dress|bar|reference|tracking|booking|exit|rabatt|gutschein)"
    r"[- ]?codes?\b"
)
# Words that say that a number is something else.
_OTHERS: Final = re.compile(
    r"(?:\b(?:order|invoice|tracking|ticket|case|ref|reference|customer|account|transaction|booking"
    r"|tel|telephone|phone|call|fax|mobile|zip|postal|suite|ending|ends|since|copyright|vat|build"
    r"|total|amount|bestell\w{0,12}|rechnung\w{0,12}|auftrag\w{0,12}|kunden\w{0,12}|commande"
    r"|facture|pedido|factura|ordine|fattura|zam\u00f3wieni\w{0,4}|faktur\w{0,3})\b"
    r"|[\u00a9\u260e#])[^\n]{0,20}$"
)
_CURRENCY: Final = "$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba"
_MONEY_OR_UNIT = re.compile(
    rf"[ \u00a0]?(?:[{_CURRENCY}%\u00b0]|(?:usd|eur|gbp|chf|jpy|z\u0142|pln|sek|nok|dkk|kr"
    r"|seconds?|minutes?|hours?|days?|weeks?|months?|years?|minuten|stunden|tage|minutos|horas"
    r"|heures|users?|people|items?|points?|[kmg]b|px|km|kg)\b)"
)

_BEFORE = rf"(?<![\w@#+&=%/\\{_CURRENCY}-])(?<!\d[ .,:()/])(?<![{_CURRENCY}] )"
_AFTER = r"(?![\w@%/\\])(?![ .,:()/-]{1,2}+\d)(?!-\w)"
_KINDS: Final = (
    # The pattern, and how likely it is a code whatever stands around.
    (re.compile(rf"{_BEFORE}(\d{{6}}){_AFTER}"), 2),
    (re.compile(rf"{_BEFORE}(\d{{4,5}}|\d{{7,8}}){_AFTER}"), 0),
    (re.compile(rf"{_BEFORE}(\d{{3}}[ \u00a0-]\d{{3}}|\d{{4}}[ \u00a0-]\d{{4}}){_AFTER}"), 1),
    # One digit in each cell of a table, or spaced.
    (re.compile(r"(?<![\w.,:/-])(?<!\d[ \n])(\d(?:[ \n]\d){3,7})(?![ \n.,:/-]?\d)(?!\w)"), 1),
    (re.compile(rf"{_BEFORE}[A-Z]{{1,3}}-(\d{{4,8}}){_AFTER}"), 1),
    (re.compile(rf"{_BEFORE}((?=[A-Z]*+\d)(?=\d*+[A-Z])[A-Z0-9]{{5,10}}){_AFTER}"), 0),
    (re.compile(rf"{_BEFORE}([A-Z0-9]{{4,5}}-[A-Z0-9]{{4,5}}){_AFTER}"), 0),
    # Letters alone, or in both cases, only where a word says so right before: below.
    (re.compile(r"(?<=: )([A-Z]{6,10})(?![\w@/-])"), -1),
    (re.compile(r"(?<=: )((?=[A-Za-z]*+\d)(?=\d*+[A-Za-z])[A-Za-z0-9]{6,10})(?![\w@/-])"), -1),
)
_DIGIT = re.compile(r"[0-9]")
_YEAR = re.compile(r"(?:19|20)\d\d")
_SEPARATORS = re.compile(r"[ \u00a0\n]|(?<=\d)-(?=\d)")

_BEHIND: Final = 80  # characters before a number in which a word announces it
_AHEAD: Final = 60  # and behind it
_CLOSE: Final = 16
_CLOSE_WORDS: Final = 1  # "code is 1234", "PIN: 1234"
_ENOUGH: Final = 4
_DOUBT: Final = 1  # how much less likely than the best another one may be


@dataclass(frozen=True, slots=True)
class _Candidate:
    code: str
    start: int
    end: int
    score: int
    is_alone: bool = False  # on its line

    def is_like(self, best: _Candidate) -> bool:
        """Whether it may be as good: nearly as likely, or another line of the same list."""
        is_listed = self.is_alone and best.is_alone and len(self.code) == len(best.code)
        return is_listed or self.score >= best.score - _DOUBT


def codes(subject: str, text: str) -> list[str]:
    """The likely codes, the best first, at most ``MAX_CODES``; without blanks in them."""
    whole = _ADDRESS.sub(" ", f"{subject[:1000]}\n{text[:MAX_TEXT]}")
    folded = fold(whole)
    if len(folded) != len(whole):
        # A letter that folds to two: places must agree.
        folded = whole.lower() if len(whole.lower()) == len(whole) else whole
    folded = _OTHER_CODES.sub(lambda match: "-" * len(match[0]), folded)
    announced = [match.span() for match in _WORDS.finditer(folded)]
    if not announced:
        return []
    best: dict[str, _Candidate] = {}
    for candidate in _candidates(whole):
        judged = _judged(folded, candidate, announced)
        known = best.get(judged.code)
        if judged.score >= _ENOUGH and (known is None or judged.score > known.score):
            best[judged.code] = judged
    ranked = sorted(best.values(), key=lambda each: (-each.score, each.start))
    return [each.code for each in ranked if each.is_like(ranked[0])][:MAX_CODES]


def _candidates(text: str) -> Iterator[_Candidate]:
    left = MAX_CANDIDATES
    for pattern, score in _KINDS:
        for match in pattern.finditer(text):
            code = _SEPARATORS.sub("", match[1])
            yield _Candidate(code, match.start(1), match.end(1), score)
            left -= 1
            if not left:
                return


def _judged(folded: str, found: _Candidate, announced: Sequence[tuple[int, int]]) -> _Candidate:
    """The candidate with what its surroundings say for it and against it."""
    before = folded[max(0, found.start - _BEHIND) : found.start].rpartition("\n")[2]
    after = folded[found.end : found.end + _AHEAD].partition("\n")[0]
    is_alone = not before.strip(" \t\r*>-") and not after.strip(" \t\r*.<-")
    near = _near(found, folded, announced)
    score = found.score + near + 3 * is_alone
    if _MONEY_OR_UNIT.match(after):
        score -= 8
    if near < _DIRECT:
        is_other = _OTHERS.search(before) or _YEAR.fullmatch(found.code)
        score -= 6 if is_other or not _DIGIT.search(found.code) else 0
    return replace(found, score=score, is_alone=is_alone)


_DIRECT: Final = 6


def _near(found: _Candidate, folded: str, announced: Sequence[tuple[int, int]]) -> int:
    """How closely a word announces the candidate; 1: there is such a word somewhere."""
    place = bisect_right(announced, (found.start, found.start))
    best = 1
    if place:
        between = folded[announced[place - 1][1] : found.start]
        if len(between) <= _CLOSE and len(between.split()) <= _CLOSE_WORDS:
            return _DIRECT
        best = 4 if len(between) <= _BEHIND else best
    if place < len(announced) and announced[place][0] - found.end <= _AHEAD:
        best = max(best, 3)
    return best
