"""Sender rewriting: the reverse-path of forwarded mail becomes an address of the forwarder.

So that SPF holds at the next hop, and a bounce finds its way back. ``bob@b.example`` leaves as
``SRS0=hash=day=b.example=bob@ours.example``; what a forwarder before us rewrote leaves as
``SRS1=hash=theirs.example==...@ours.example``, so that it grows once, not at every hop. Whoever
can make such an address could send bounces through us: the hash says that we made it, and for
whom. Case is of no account anywhere in it, since some servers change it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import MAX_LOCAL_PART, MAX_PATH, Address, parse_address

VALID_DAYS: Final = 21
DAY_S: Final = 86400
_CYCLE: Final = 1024  # days that two characters of base32 can tell apart
_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
# 30 bits: each guess costs a refused recipient, and of those a session has a hundred.
_HASH: Final = 6

_SRS = re.compile(r"SRS[01][=+-]", re.IGNORECASE)
_SRS0 = re.compile(
    r"SRS0[=+-](?P<hash>[A-Z2-7]{6})=(?P<day>[A-Z2-7]{2})=(?P<domain>[^=@]+)=(?P<local>.+)",
    re.IGNORECASE | re.DOTALL,
)
_SRS1 = re.compile(
    r"SRS1[=+-](?P<hash>[A-Z2-7]{6})=(?P<domain>[^=@]+)=(?P<rest>[=+-].+)",
    re.IGNORECASE | re.DOTALL,
)
# What others made, whatever their hash looks like.
_FOREIGN_SRS1 = re.compile(r"SRS1[=+-][^=]+=(?P<domain>[^=@]+)=(?P<rest>[=+-].+)", re.I | re.DOTALL)


class Srs:
    """Rewrites with one secret; all nodes must have the same."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def rewrite(self, reverse_path: str, forwarder: str, *, seconds: float) -> str:
        """The reverse-path for mail that the local address ``forwarder`` passes on.

        Unchanged are the null path, an address of the forwarder's own domain, and one so long
        that its rewritten form is no valid path: to be refused for it would be worse than to
        miss SPF.
        """
        domain = forwarder.rpartition("@")[2]
        try:
            sender = parse_address(reverse_path)
        except ProtocolViolation:
            return reverse_path
        if sender.domain == domain or sender.domain.startswith("["):
            return reverse_path
        rewritten = Address(self._rewritten(sender, seconds), domain)
        wire = str(rewritten)
        is_too_long = len(rewritten.local_part.encode()) > MAX_LOCAL_PART
        return reverse_path if is_too_long or len(wire.encode()) + 2 > MAX_PATH else wire

    def _rewritten(self, sender: Address, seconds: float) -> str:
        local_part = sender.local_part
        if found := _FOREIGN_SRS1.fullmatch(local_part):
            domain, rest = found["domain"], found["rest"]
        elif is_srs(local_part):
            domain, rest = sender.domain, local_part[4:]
        else:
            day = _day(seconds)
            made = self._hash(day, sender.domain, local_part)
            return f"SRS0={made}={day}={sender.domain}={local_part}"
        return f"SRS1={self._hash(domain, rest)}={domain}={rest}"

    def original(self, address: Address, *, seconds: float) -> Address | None:
        """Whom a bounce to an address that :meth:`rewrite` made is for.

        None: the address is none of ours, or older than 21 days.
        """
        local_part = address.local_part
        if found := _SRS0.fullmatch(local_part):
            made = self._hash(found["day"], found["domain"], found["local"])
            if not _is_fresh(found["day"], seconds):
                return None
            text = f"{_quoted(found['local'])}@{found['domain']}"
        elif found := _SRS1.fullmatch(local_part):
            made = self._hash(found["domain"], found["rest"])
            text = f"{_quoted('SRS0' + found['rest'])}@{found['domain']}"
        else:
            return None
        if not hmac.compare_digest(made, found["hash"].upper()):
            return None
        try:
            return parse_address(text)
        except ProtocolViolation:
            return None

    def _hash(self, *words: str) -> str:
        text = "=".join(words).lower().encode("utf-8", "replace")
        digest = hmac.new(self._secret, text, hashlib.sha256).digest()
        return base64.b32encode(digest)[:_HASH].decode("ascii")


def is_srs(local_part: str) -> bool:
    """Whether somebody, perhaps we, made it by sender rewriting."""
    return _SRS.match(local_part) is not None


def _quoted(local_part: str) -> str:
    return str(Address(local_part, "x"))[:-2]


def _day(seconds: float) -> str:
    day = int(seconds // DAY_S) % _CYCLE
    return _BASE32[day >> 5] + _BASE32[day & 31]


def _is_fresh(day: str, seconds: float) -> bool:
    made = _BASE32.index(day[0].upper()) << 5 | _BASE32.index(day[1].upper())
    # The clock of another node may be a day ahead.
    age = (int(seconds // DAY_S) - made + 1) % _CYCLE
    return age <= VALID_DAYS + 1
