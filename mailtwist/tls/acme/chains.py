"""What is made before an order and what comes of it: a key, a checked chain, when to renew it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mailtwist.store.certificates import Material
from mailtwist.store.secrets import Secrets
from mailtwist.tls import pem, rows
from mailtwist.tls.acme.values import OrderFailed

# Without word from the authority: this long before the end, or at a third of a short life.
BEFORE_END: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RenewalTimes:
    """When a certificate is renewed if the authority does not say."""

    not_before: datetime
    not_after: datetime

    @property
    def by_rule(self) -> datetime:
        """Thirty days before the end, whatever its life."""
        return self.not_after - BEFORE_END

    @property
    def after_renewal(self) -> datetime:
        """The same, but never before two thirds of its life: else one would follow the other."""
        return self.not_after - min(BEFORE_END, (self.not_after - self.not_before) / 3)


@dataclass(frozen=True, slots=True)
class Checked:
    material: Material
    not_before: datetime
    not_after: datetime


def make_key(kind: str) -> str:
    """A new private key, PEM; ``kind``: ecdsa or rsa."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if kind == "rsa":
        return pem.key_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    return pem.key_pem(ec.generate_private_key(ec.SECP256R1()))


def checked(chain: str, key: str, names: Sequence[str], now: datetime, secrets: Secrets) -> Checked:
    """What the authority gave, as a row has it. Raises: OrderFailed when it is of no use."""
    try:
        bundle = pem.read(chain, "", key, now=now)
    except pem.Fault as error:
        raise OrderFailed(f"the authority issued what cannot be used: {error}") from error
    missing = [name for name in names if name not in bundle.names]
    if missing:
        raise OrderFailed(f"the authority issued a certificate without {', '.join(missing)}")
    return Checked(rows.material(bundle, secrets), bundle.not_before, bundle.not_after)


def read(certificate: str) -> pem.Bundle:
    """A certificate that a row has. Raises: OrderFailed."""
    try:
        return pem.read(certificate, now=None)
    except pem.Fault as error:
        raise OrderFailed(f"its certificate cannot be read: {error}") from error
