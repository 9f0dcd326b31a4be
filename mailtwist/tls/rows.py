"""From a checked certificate to what its row holds, and from a row to the one that follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from mailtwist.store.certificates import OWN_KEY, PURPOSE, Facts, Material, Row
from mailtwist.store.secrets import Secrets
from mailtwist.tls import issuing, pem
from mailtwist.tls.pem import Bundle

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)


def material(bundle: Bundle, secrets: Secrets) -> Material:
    """What goes into a row; takes a processor for some 100 µs.

    The chain without the certificate itself stands in ``root_certificate``.
    """
    return Material(
        bundle.leaf_pem,
        bundle.chain_pem,
        bundle.public_pem,
        secrets.seal(bundle.key_pem, PURPOSE) if bundle.key is not None else "",
        facts(bundle),
    )


def facts(bundle: Bundle, *, has_key: bool | None = None) -> Facts:
    """What is known of it; ``has_key``: whether the row has its key, by default the bundle."""
    # A blank in what is no host name would make two names of one, where they are kept.
    names = (name for name in bundle.names if name.split() == [name])
    return Facts(
        (*names, *bundle.addresses),
        microseconds(bundle.not_before),
        microseconds(bundle.not_after),
        bundle.serial,
        bundle.key is not None if has_key is None else has_key,
    )


def facts_of(row: Row) -> Facts:
    """What is known of the certificate of a row, whoever wrote it; nothing, if it is none."""
    try:
        bundle = pem.read(row.chain, now=None)
    except pem.Fault:
        return Facts()
    return facts(bundle, has_key=bool(row.sealed_key))


def signed_by_us(bundle: Bundle, secrets: Secrets) -> Material:
    """The same for one that nobody else signed: it is its own root."""
    made = material(bundle, secrets)
    return Material(
        made.certificate_pem, made.certificate_pem, made.public_key_pem, made.sealed_key, made.facts
    )


def follower(row: Row, secrets: Secrets, now: datetime) -> Material:
    """The certificate that follows one of ours: with a new key of the same kind, but for a key
    that was given to us. Raises: Unreadable, Fault.
    """
    key = pem.read_key(secrets.open(row.sealed_key, PURPOSE))
    names = pem.host_names(row.hostname)
    known = pem.read(row.chain, now=None)
    wanted = tuple(dict.fromkeys((*names, *known.names, *known.addresses)))
    kept = key if row.issuer == OWN_KEY else None
    issued = issuing.issue(wanted, now, key=kept, kind=issuing.kind_of(key))
    return signed_by_us(issued, secrets)


def microseconds(moment: datetime) -> int:
    """As the store keeps times."""
    return (moment - _EPOCH) // _US
