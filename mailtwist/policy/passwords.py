"""What is stored instead of a password, and how a password is compared with it.

Two verifiers are written whenever a password is set, because neither can be
derived from the other later: ``bcrypt`` checks PLAIN and LOGIN, and
``scram-sha-256`` serves the SASL mechanism of that name.

bcrypt reads at most 72 octets and stops at a NUL, so it is given the base64
form of the SHA-256 of the whole password (44 octets). Cost 10 takes about
60 ms of one processor; a login that succeeded within the last minutes skips
it (:mod:`mailtwist.policy.auth`). The iterations of SCRAM take about as long, for
the cheaper of the two verifiers is what a thief of the database would attack.

Plain functions that keep a processor busy: call them in a thread.

Standards: RFC 5802 §3 (the keys), RFC 7677 (SHA-256), RFC 5803 (the text form),
RFC 4013 (SASLprep).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stringprep
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import bcrypt

from mailtwist.errors import Refusal
from mailtwist.store.accounts import Verifier

BCRYPT: Final = "bcrypt"
SCRAM_SHA_256: Final = "scram-sha-256"
# Of files that other programs wrote: bcrypt of the password itself, "sha1:digest:salt" in hex,
# and the password itself.
BARE_BCRYPT: Final = "bare-bcrypt"
DIGEST: Final = "digest"
PLAIN: Final = "plain"

DEFAULT_COST: Final = 10
# About the time of bcrypt at cost 10; the client computes it at its every login.
SCRAM_ITERATIONS: Final = 100_000
MAX_PASSWORD_OCTETS: Final = 1024
# What bcrypt looks at.
BCRYPT_OCTETS: Final = 72
# An account has a handful of verifiers; each one that must be tried costs 60 ms.
MAX_TRIED: Final = 4


def make_verifiers(
    password: str, *, cost: int = DEFAULT_COST, has_scram: bool = True
) -> list[Verifier]:
    """Make what is stored for ``password``, one verifier of each kind.

    ``has_scram``: false where nobody will ask for the keys of SCRAM. Raises: Refusal when the
    password is empty or longer than 1024 octets.
    """
    octets = prepare(password)
    if not octets:
        raise Refusal("The password is empty")
    if len(octets) > MAX_PASSWORD_OCTETS:
        raise Refusal(f"The password is longer than {MAX_PASSWORD_OCTETS} octets")
    hashed = bcrypt.hashpw(_shorten(octets), bcrypt.gensalt(cost)).decode("ascii")
    if not has_scram:
        return [Verifier(BCRYPT, hashed)]
    scram = Scram.derive(octets, os.urandom(16), SCRAM_ITERATIONS)
    return [Verifier(BCRYPT, hashed), Verifier(SCRAM_SHA_256, scram.text())]


def check(
    verifiers: Sequence[Verifier], password: str, *, unknown: Sequence[Verifier] = ()
) -> bool:
    """Tell whether one of the verifiers belongs to ``password``.

    SCRAM keys are compared only where there is nothing else. At most four verifiers are
    tried. ``unknown``: what is tried where there is no verifier, or one that is checked in no
    time, so that the time tells nothing.
    """
    if not is_possible(password):
        return False
    octets = prepare(password)
    known = [v for v in verifiers if v.kind in _CHECKS]
    tried = [v for v in known if v.kind != SCRAM_SHA_256] or known
    is_right = any(_CHECKS[v.kind](v.verifier, octets) for v in tried[:MAX_TRIED])
    if not any(v.kind in _SLOW for v in tried):
        for verifier in unknown:
            _CHECKS[verifier.kind](verifier.verifier, octets)
    return is_right


def is_possible(password: str) -> bool:
    """Whether anybody can have this password. The empty one is nobody's."""
    return 0 < len(prepare(password)) <= MAX_PASSWORD_OCTETS


def unknown_verifiers(cost: int = DEFAULT_COST) -> list[Verifier]:
    """Return a verifier that no password has and that takes as long to refuse as a real one."""
    return [Verifier(BCRYPT, f"$2b${cost:02d}$" + "." * 53)]


def scram_of(verifiers: Sequence[Verifier]) -> Scram | None:
    """Find the keys of SCRAM among the verifiers."""
    for each in verifiers:
        if each.kind == SCRAM_SHA_256:
            try:
                return Scram.parse(each.verifier)
            except ValueError:
                continue
    return None


def unknown_scram(secret: bytes, username: str) -> Scram:
    """Make up keys that look like a user's and that no password has; for a name the same ones."""

    def made(purpose: bytes) -> bytes:
        return hmac.digest(secret, purpose + username.encode("utf-8", "replace"), "sha256")

    # RFC 5802 §9 says nothing of it, but salts that come and go tell who has an account.
    return Scram(SCRAM_ITERATIONS, made(b"salt ")[:16], made(b"stored "), made(b"server "))


def prepare(password: str) -> bytes:
    """Return the octets that are hashed: SASLprep of the password where that is defined.

    A password with code points that SASLprep prohibits is taken as it is, so that
    none that the user can type is unusable.
    """
    if password.isascii():
        return password.encode("ascii")
    # RFC 4013 §2.1
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c)
    )
    # RFC 4013 §2.2
    normal = unicodedata.normalize("NFKC", mapped)
    if any(prohibited(c) for c in normal for prohibited in _PROHIBITED):
        normal = password
    # Half of a surrogate pair can't come from the wire; it must not raise here either.
    return normal.encode("utf-8", "surrogatepass")


# RFC 4013 §2.3
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


@dataclass(frozen=True, slots=True)
class Scram:
    """The keys that a server keeps for SCRAM-SHA-256."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def derive(cls, octets: bytes, salt: bytes, iterations: int) -> Self:
        """Compute the keys of a prepared password."""
        # RFC 5802 §3
        salted = hashlib.pbkdf2_hmac("sha256", octets, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(iterations, salt, hashlib.sha256(client_key).digest(), server_key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form. Raises: ValueError."""
        scheme, info, keys = text.split("$")
        if scheme != "SCRAM-SHA-256":
            raise ValueError(f"{scheme} is not SCRAM-SHA-256")
        iterations, salt = info.split(":")
        stored_key, server_key = keys.split(":")
        return cls(
            _iterations(iterations),
            base64.b64decode(salt, validate=True),
            base64.b64decode(stored_key, validate=True),
            base64.b64decode(server_key, validate=True),
        )

    def text(self) -> str:
        # RFC 5803 §3
        salt, stored, server = (
            base64.b64encode(part).decode("ascii")
            for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


def _iterations(digits: str) -> int:
    # A stored figure is believed, but not one that would keep a thread busy for ever.
    if not digits.isascii() or not digits.isdigit() or len(digits) > 7:
        raise ValueError("no number of iterations")
    return int(digits)


def _shorten(octets: bytes) -> bytes:
    return base64.b64encode(hashlib.sha256(octets).digest())


def _check_bcrypt(verifier: str, octets: bytes) -> bool:
    try:
        return bcrypt.checkpw(_shorten(octets), verifier.encode("ascii"))
    except ValueError:
        return False


def _check_bare_bcrypt(verifier: str, octets: bytes) -> bool:
    try:
        return bcrypt.checkpw(octets[:BCRYPT_OCTETS], verifier.encode("ascii"))
    except ValueError:
        return False


def _check_digest(verifier: str, octets: bytes) -> bool:
    name, digest, salt = verifier.split(":")
    given = hashlib.new(name, octets + bytes.fromhex(salt)).digest()
    return hmac.compare_digest(given, bytes.fromhex(digest))


def _check_plain(verifier: str, octets: bytes) -> bool:
    return hmac.compare_digest(prepare(verifier), octets)


def _check_scram(verifier: str, octets: bytes) -> bool:
    try:
        known = Scram.parse(verifier)
    except ValueError:
        return False
    given = Scram.derive(octets, known.salt, known.iterations)
    return hmac.compare_digest(given.stored_key, known.stored_key)


_CHECKS = {
    BCRYPT: _check_bcrypt,
    BARE_BCRYPT: _check_bare_bcrypt,
    SCRAM_SHA_256: _check_scram,
    DIGEST: _check_digest,
    PLAIN: _check_plain,
}
# The others take microseconds.
_SLOW = frozenset({BCRYPT, BARE_BCRYPT, SCRAM_SHA_256})
