"""Whether the DKIM signatures of a message hold (RFC 6376 §6; RFC 8463; RFC 8601 §2.7.1).

A question to DNS for each, all at once and within a few seconds; the arithmetic runs in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from mailtwist.mail.dkim_signatures import ALGORITHMS, Candidate, Key, Signature, Unusable, read_key
from mailtwist.net.dns import DnsError, NoData, NoSuchName
from mailtwist.policy.hashing import Derivation

log = Logger()

# For the key of one signature.
DNS_S: Final = 5.0
# RFC 8301 §3.2
MIN_RSA_BITS: Final = 1024
MAX_RSA_BITS: Final = 8192
# Records at one name; the first that is a key counts.
MAX_RECORDS: Final = 4

PASS, FAIL, NEUTRAL, POLICY = "pass", "fail", "neutral", "policy"
TEMPERROR, PERMERROR = "temperror", "permerror"


@dataclass(frozen=True, slots=True)
class DkimResult:
    """``outcome`` is a word of RFC 8601 §2.7.1; ``reason`` is "" for a pass."""

    outcome: str
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    reason: str = ""


class Names(Protocol):
    async def txt(self, name: str) -> list[bytes]: ...


class DkimVerifier:
    """``clock``: seconds() and callLater; ``threads``: where keys are read and used."""

    def __init__(
        self, resolver: Names, *, threads: Derivation, clock: Any, now: Callable[[], float]
    ) -> None:
        self._resolver = resolver
        self._threads = threads
        self._clock = clock
        self._now = now

    async def verify(self, candidates: Sequence[Candidate]) -> tuple[DkimResult, ...]:
        """One result for each, in their order; raises nothing."""
        return tuple(
            await gatherResults(
                [Deferred.fromCoroutine(self._one(candidate)) for candidate in candidates],
                consumeErrors=True,
            )
        )

    async def _one(self, candidate: Candidate) -> DkimResult:
        signature = candidate.signature
        if signature is None:
            return DkimResult(PERMERROR, reason=candidate.problem)
        try:
            outcome, reason = await self._judge(candidate, signature)
        except Exception:
            log.failure("a signature could not be checked", domain=signature.domain)
            outcome, reason = TEMPERROR, "internal error"
        return DkimResult(
            outcome, signature.domain, signature.selector, signature.algorithm, reason
        )

    async def _judge(self, candidate: Candidate, signature: Signature) -> tuple[str, str]:
        if signature.expires_at is not None and signature.expires_at < self._now():
            return FAIL, "signature expired"
        if not candidate.has_same_body:
            return FAIL, "body hash did not verify"
        try:
            key = await self._key(signature)
            holds = await self._threads.run(partial(_holds, key, signature, candidate.octets))
        except Unusable as error:
            return PERMERROR, str(error)
        except DnsError:
            return TEMPERROR, "key unavailable"
        if not holds:
            # RFC 6376 §3.6.1: of a domain that is trying out, nothing is held against it.
            return (NEUTRAL, "testing") if key.is_testing else (FAIL, "signature did not verify")
        if candidate.uncovered:
            # RFC 6376 §8.2: anybody could have added it.
            return POLICY, f"{candidate.uncovered} octets are not signed"
        return PASS, ""

    async def _key(self, signature: Signature) -> Key:
        """Raises: Unusable, DnsError."""
        asking: Deferred[list[bytes]] = Deferred.fromCoroutine(
            self._resolver.txt(signature.key_name)
        )
        asking.addTimeout(DNS_S, self._clock, onTimeoutCancel=_timed_out)
        try:
            records = await asking
        except (NoSuchName, NoData):
            raise Unusable("no key") from None
        except CancelledError:
            raise DnsError("time-out") from None
        key = _first_key(records)
        if key.kind != ALGORITHMS[signature.algorithm]:
            raise Unusable("key of another kind")
        # RFC 6376 §3.6.1, t=s
        if key.is_strict and signature.identity != signature.domain:
            raise Unusable("key is not for subdomains")
        return key


def _timed_out(_result: Any, _seconds: float) -> Any:
    raise DnsError("time-out")


def _first_key(records: Sequence[bytes]) -> Key:
    problem = Unusable("no key")
    for record in records[:MAX_RECORDS]:
        try:
            return read_key(record)
        except Unusable as error:
            problem = error
    raise problem


def _holds(key: Key, signature: Signature, octets: bytes) -> bool:
    """Raises: Unusable for a key that is none."""
    public = _public_key(key)
    try:
        if isinstance(public, RSAPublicKey):
            public.verify(signature.value, octets, padding.PKCS1v15(), hashes.SHA256())
        else:
            # RFC 8463 §3: the hash is what is signed.
            digest = hashes.Hash(hashes.SHA256())
            digest.update(octets)
            public.verify(signature.value, digest.finalize())
    except InvalidSignature:
        return False
    return True


def _public_key(key: Key) -> RSAPublicKey | Ed25519PublicKey:
    try:
        if key.kind == "ed25519":
            return Ed25519PublicKey.from_public_bytes(key.data)
        public = load_der_public_key(key.data)
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("bad key") from None
    if not isinstance(public, RSAPublicKey):
        raise Unusable("bad key")
    if public.key_size < MIN_RSA_BITS:
        raise Unusable("key too short")
    if public.key_size > MAX_RSA_BITS:
        raise Unusable("key too long")
    return public
