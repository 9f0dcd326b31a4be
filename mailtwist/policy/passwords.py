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

DEFAULT_COST: Final = 10
# About the time of bcrypt at cost 10; the client computes it at its every login.
SCRAM_ITERATIONS: Final = 100_000
MAX_PASSWORD_OCTETS: Final = 1024
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


def check(verifiers: Sequence[Verifier], password: str) -> bool:
    """Tell whether one of the verifiers belongs to ``password``.

    SCRAM keys are compared only where there is no bcrypt verifier. At most four
    verifiers are tried.
    """
    octets = prepare(password)
    if not octets or len(octets) > MAX_PASSWORD_OCTETS:
        return False
    tried = [v for v in verifiers if v.kind == BCRYPT] or [
        v for v in verifiers if v.kind == SCRAM_SHA_256
    ]
    return any(_CHECKS[v.kind](v.verifier, octets) for v in tried[:MAX_TRIED])


def unknown_verifiers(cost: int = DEFAULT_COST) -> list[Verifier]:
    """Return a verifier that no password has and that takes as long to refuse as a real one."""
    return [Verifier(BCRYPT, f"$2b${cost:02d}$" + "." * 53)]


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
        _scheme, info, keys = text.split("$")
        iterations, salt = info.split(":")
        stored_key, server_key = keys.split(":")
        return cls(
            int(iterations),
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


def _shorten(octets: bytes) -> bytes:
    return base64.b64encode(hashlib.sha256(octets).digest())


def _check_bcrypt(verifier: str, octets: bytes) -> bool:
    try:
        return bcrypt.checkpw(_shorten(octets), verifier.encode("ascii"))
    except ValueError:
        return False


def _check_scram(verifier: str, octets: bytes) -> bool:
    try:
        known = Scram.parse(verifier)
    except ValueError:
        return False
    given = Scram.derive(octets, known.salt, known.iterations)
    return hmac.compare_digest(given.stored_key, known.stored_key)


_CHECKS = {BCRYPT: _check_bcrypt, SCRAM_SHA_256: _check_scram}
