"""What somebody gives as a certificate: read, put in order, checked as a whole. Pure.

:func:`read` takes PEM text as it comes, several certificates in any order and a key of any
usual form, and gives a :class:`Bundle` that TLS can serve as it is, or a :class:`Fault` that
says in one sentence what is wrong.

Standards: RFC 5280 §4.1, §6.1; RFC 7468; RFC 5958; RFC 5915; RFC 8446 §4.4.2; RFC 9525 §6.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.host_names import host_names as listed

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MAX_OCTETS: Final = 128 << 10
MAX_CERTIFICATES: Final = 10
MIN_RSA_BITS: Final = 2048
# The check of a key takes a time that grows with its third power.
MAX_RSA_BITS: Final = 8192
CURVES: Final = ("secp256r1", "secp384r1")

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
# What the library says of a certificate, or of a part of it, that it cannot read.
_UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_CERTIFICATE_LABELS: Final = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})


class Fault(ValueError):
    """What is wrong, for the person who gave it. ``where``: certificate, chain or key."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A certificate, those that lead from it towards a root, and its key when it was given."""

    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey | None = field(default=None, repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The host names that it is for, in lower case and as A-labels."""
        return names_of(self.leaf)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The IP addresses that it is for."""
        return addresses_of(self.leaf)

    @property
    def not_before(self) -> datetime:
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        return self.leaf.not_valid_after_utc

    @property
    def serial(self) -> str:
        """In hexadecimal."""
        return f"{self.leaf.serial_number:x}"

    @property
    def leaf_pem(self) -> str:
        return certificate_pem(self.leaf)

    @property
    def chain_pem(self) -> str:
        """All but the certificate itself."""
        return "".join(certificate_pem(each) for each in self.certificates[1:])

    @property
    def full_pem(self) -> str:
        return self.leaf_pem + self.chain_pem

    @property
    def public_pem(self) -> str:
        return public_pem(self.leaf.public_key())

    @property
    def key_pem(self) -> str:
        """The key as PKCS #8; "" when there is none."""
        return "" if self.key is None else key_pem(self.key)

    def covers(self, host: str) -> bool:
        """Whether a client that looks for this host accepts it."""
        return host in self.addresses or matches(self.names, host)


def read(
    certificates: str | bytes,
    issuers: str | bytes = "",
    key: str | bytes = "",
    *,
    now: datetime | None,
) -> Bundle:
    """Check what was given and put it in order: the certificate, then each one's issuer.

    ``certificates``: one, or all of them in any order. ``issuers``: those that were given apart.
    ``now`` None: whether it has ended is not asked. Raises: Fault.
    """
    first = read_certificates(certificates, "certificate")
    if not first:
        raise Fault("certificate", "there is no certificate in it")
    pool = _distinct([*first, *read_certificates(issuers, "chain")])
    if len(pool) > MAX_CERTIFICATES:
        raise Fault("chain", f"there are more than {MAX_CERTIFICATES} certificates")
    private = read_key(key) if key else None
    leaf = _leaf(pool, private)
    if now is not None:
        _check_times(leaf, now)
    check_public(_public_key(leaf), "certificate")
    return Bundle(_in_order(leaf, pool, now), private)


# -- reading --------------------------------------------------------------------------------


def read_certificates(text: str | bytes, where: str = "certificate") -> list[x509.Certificate]:
    """The certificates of a PEM text, in its order; other parts are passed over. Raises: Fault."""
    octets = _octets(text, where)
    labels = _BEGIN.findall(octets)
    if not _CERTIFICATE_LABELS & set(labels):
        if octets.strip() and not labels:
            raise Fault(where, f"the {where} is no PEM text")
        return []
    try:
        return x509.load_pem_x509_certificates(octets)
    except _UNREADABLE as error:
        raise Fault(where, f"a certificate of the {where} cannot be read") from error


def read_key(text: str | bytes) -> PrivateKey:
    """A private key without passphrase, as PKCS #1, PKCS #8 or SEC 1. Raises: Fault."""
    octets = _octets(text, "key")
    key = _loaded(octets, skip=True)
    if not isinstance(key, PrivateKey):
        raise Fault("key", "the key is of a kind that TLS certificates do not use")
    check_public(key.public_key(), "key")
    # Only now that its size is known: the check of an RSA key of any size would take minutes.
    return _loaded(octets, skip=False) if isinstance(key, rsa.RSAPrivateKey) else key


def _loaded(octets: bytes, *, skip: bool) -> Any:
    try:
        return load_pem_private_key(octets, None, unsafe_skip_rsa_key_validation=skip)
    except TypeError as error:
        raise Fault("key", "the key has a passphrase; give it without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Fault("key", "the key cannot be read, or is no private key") from error


def _public_key(certificate: x509.Certificate) -> Any:
    """Its public key; None: of a kind that nobody here knows."""
    try:
        return certificate.public_key()
    except _UNREADABLE:
        return None


def check_public(public: Any, where: str) -> None:
    """Refuse a key that is too weak, or that TLS clients do not know. Raises: Fault."""
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < MIN_RSA_BITS:
            raise Fault(where, f"RSA keys have {MIN_RSA_BITS} bits at least, not {public.key_size}")
        if public.key_size > MAX_RSA_BITS:
            raise Fault(where, f"RSA keys have {MAX_RSA_BITS} bits at most, not {public.key_size}")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in CURVES:
            raise Fault(where, f"keys on the curve {public.curve.name} are not for TLS here")
    elif not isinstance(public, ed25519.Ed25519PublicKey):
        raise Fault(where, "keys are RSA, P-256, P-384 or Ed25519")


def _octets(text: str | bytes, where: str) -> bytes:
    octets = text.encode("utf-8") if isinstance(text, str) else text
    if len(octets) > MAX_OCTETS:
        raise Fault(where, f"the {where} is longer than {MAX_OCTETS} octets")
    return octets


# -- order and checks -----------------------------------------------------------------------


def _distinct(certificates: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    return list(dict.fromkeys(certificates))


def _leaf(pool: Sequence[x509.Certificate], key: PrivateKey | None) -> x509.Certificate:
    """The one that the key belongs to; without a key the one that issued no other."""
    if key is not None:
        found = [each for each in pool if belong_together(each, key)]
        if not found:
            raise Fault("key", "the key does not belong to the certificate")
        return found[0]
    ends = [
        each
        for each in pool
        if not any(other is not each and _issued(each, other) for other in pool)
    ]
    if len(ends) > 1:
        raise Fault("chain", f"{_said(ends[1])} has nothing to do with {_said(ends[0])}")
    return ends[0] if ends else pool[0]


def _in_order(
    leaf: x509.Certificate, pool: Sequence[x509.Certificate], now: datetime | None
) -> tuple[x509.Certificate, ...]:
    """The chain from the leaf on, of which each one is signed by the next. Raises: Fault."""
    # Of two issuers with one key the one that leads further up counts.
    left = sorted((each for each in pool if each != leaf), key=_issued_itself)
    chain = [leaf]
    while left := [each for each in left if not any(_is_same_issuer(each, c) for c in chain)]:
        above = next((each for each in left if _issued(each, chain[-1])), None)
        if above is None:
            raise Fault("chain", f"{_said(left[0])} did not sign {_said(chain[-1])}")
        if not _is_authority(above):
            raise Fault("chain", f"{_said(above)} is no authority and may sign nothing")
        if now is not None:
            _check_times(above, now)
        chain.append(above)
        left.remove(above)
    return tuple(chain)


def _issued(issuer: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether one has signed the other; itself it never counts as its issuer."""
    if issuer.subject != other.issuer:
        return False
    try:
        other.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, *_UNREADABLE):
        return False
    return True


def _issued_itself(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _is_same_issuer(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether they are one authority, certified twice."""
    if one.subject != other.subject:
        return False
    ours, theirs = _public_key(one), _public_key(other)
    return None not in (ours, theirs) and _spki(ours) == _spki(theirs)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *_UNREADABLE):
        # Those of old and of small authorities do not say; whoever trusts them knows.
        return True


def _check_times(certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        ended = certificate.not_valid_after_utc.date().isoformat()
        raise Fault("certificate", f"{_said(certificate)} has expired on {ended}")
    if certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc.isoformat()
        raise Fault("certificate", f"{_said(certificate)} is not valid before {begins}")


def belong_together(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether a certificate is for this key."""
    public = _public_key(certificate)
    return public is not None and _spki(public) == _spki(key.public_key())


def _spki(public: Any) -> bytes:
    octets: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets


def _said(certificate: x509.Certificate) -> str:
    """A certificate in a sentence."""
    named = next(iter(names_of(certificate)), "") or certificate.subject.rfc4514_string()
    return f"the certificate of {named[:100]}" if named else "a certificate without a name"


# -- names ----------------------------------------------------------------------------------


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names of a certificate; its common name alone counts where it lists none."""
    alternative = _alternative_names(certificate)
    if alternative is None:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found = [str(name.value) for name in common]
    else:
        found = alternative.get_values_for_type(x509.DNSName)
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in found))


def addresses_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The IP addresses of a certificate."""
    alternative = _alternative_names(certificate)
    if alternative is None:
        return ()
    return tuple(str(each) for each in alternative.get_values_for_type(x509.IPAddress))


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return None
    return extension.value


def matches(names: Collection[str], host: str) -> bool:
    """Whether one of the names is this host's, or a wildcard for its first label."""
    # RFC 9525 §6.3
    host = host.lower().rstrip(".")
    return host in names or ("." in host and f"*.{host.partition('.')[2]}" in names)


def host_names(text: str) -> tuple[str, ...]:
    """The names that a row's ``hostname`` lists. Raises: Fault."""
    try:
        return listed(text)
    except ProtocolViolation as error:
        raise Fault("hostname", error.text) from error


# -- writing --------------------------------------------------------------------------------


def certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def public_pem(public: Any) -> str:
    """A public key as SubjectPublicKeyInfo."""
    octets: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return octets.decode("ascii")


def key_pem(key: PrivateKey) -> str:
    """A private key as PKCS #8, without passphrase."""
    octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return octets.decode("ascii")
