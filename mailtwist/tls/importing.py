"""What becomes of a row when somebody gives a certificate, those above it, or a key.

Pure: what is given and what the row holds go in, the whole pair comes out, or a
:class:`~mailtwist.tls.pem.Fault`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from mailtwist.store.certificates import IMPORTED, OWN_KEY, SELF
from mailtwist.tls import issuing, pem
from mailtwist.tls.pem import Bundle, Fault

# What the issuer of a row says that we may sign anew.
OURS: Final = frozenset({SELF, OWN_KEY})


@dataclass(frozen=True, slots=True)
class Held:
    """What the row has; ``key``: PEM, "" where there is none or nobody can open it."""

    hostname: str
    issuer: str = SELF
    certificate: str = ""
    above: str = ""
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Given:
    """PEM each. None: not given; ``certificate`` "": to be taken away."""

    certificate: str | None = None
    above: str | None = None
    key: str = field(default="", repr=False)

    @property
    def is_nothing(self) -> bool:
        return self.certificate is None and self.above is None and not self.key


@dataclass(frozen=True, slots=True)
class Outcome:
    """``certificate`` and ``above`` are the columns as they are to be."""

    bundle: Bundle
    issuer: str
    certificate: str
    above: str


def imported(given: Given, held: Held, now: datetime) -> Outcome | None:
    """The row as it becomes; None: without certificate. Raises: Fault.

    A key alone, which is not that of a certificate that somebody else signed, gets one that we
    sign: what such a row lacks is a certificate.
    """
    if given.certificate == "" and not given.key:
        return None
    if given.key and not given.certificate and _may_be_signed(given.key, held):
        names = pem.host_names(held.hostname)
        bundle = issuing.issue(names, now, key=pem.read_key(given.key))
        return Outcome(bundle, OWN_KEY, bundle.leaf_pem, bundle.leaf_pem)
    bundle = _read(given, held, now)
    if given.certificate:
        _check_names(bundle, held.hostname)
    issuer = _issuer(given, held)
    return Outcome(bundle, issuer, *_columns(bundle, given.certificate or held.certificate))


def _may_be_signed(key: str, held: Held) -> bool:
    if not held.certificate:
        return True
    return held.issuer in OURS and not pem.belong_together(
        pem.read(held.certificate, now=None).leaf, pem.read_key(key)
    )


def _read(given: Given, held: Held, now: datetime) -> Bundle:
    certificate = given.certificate or held.certificate
    if not certificate:
        raise Fault("chain", "there is no certificate that it could have signed")
    key = given.key or held.key
    at = now if given.certificate else None
    above = held.above if given.above is None else given.above
    try:
        return pem.read(certificate, above, key, now=at)
    except Fault:
        if given.above is not None or not held.above:
            raise
    # Those above the certificate before have nothing to do with it.
    return pem.read(certificate, key=key, now=at)


def _check_names(bundle: Bundle, hostname: str) -> None:
    # Clients would refuse it at the listeners of this name, and nobody would know why.
    for name in pem.host_names(hostname):
        if not bundle.covers(name):
            known = ", ".join((*bundle.names, *bundle.addresses)[:10]) or "nobody"
            raise Fault("certificate", f"the certificate is for {known}, not for {name}")


def _issuer(given: Given, held: Held) -> str:
    if given.certificate:
        return IMPORTED
    return OWN_KEY if given.key and held.issuer in OURS else held.issuer


def _columns(bundle: Bundle, text: str) -> tuple[str, str]:
    """The chain in order, each of it in the column where it was given; the certificate first."""
    together = set(pem.read_certificates(text))
    below, above = [bundle.leaf], list[x509.Certificate]()
    for each in bundle.certificates[1:]:
        (above if above or each not in together else below).append(each)
    return "".join(map(pem.certificate_pem, below)), "".join(map(pem.certificate_pem, above))
