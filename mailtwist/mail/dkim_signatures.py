"""DKIM signatures as they come: read, and prepared for the check while the body passes by.

RFC 6376 §3.5, §6.1; RFC 8301; RFC 8463. Nothing here knows a key: :class:`Signed` gives what
was signed and whether the body is the one that was, :func:`read_key` reads the record of DNS,
and :mod:`mailtwist.policy.dkim_verification` brings the two together.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain
from mailtwist.mail.dkim import MAX_SIGNED, canonical_field
from mailtwist.mail.dkim_body import Body, RelaxedBody, SimpleBody
from mailtwist.mail.header import split_fields

FIELD: Final = b"dkim-signature"
# More of them are an attack on those who check them.
MAX_SIGNATURES: Final = 8
MAX_FIELD: Final = 16_384
MAX_RECORD: Final = 8_192

ALGORITHMS: Final[Mapping[str, str]] = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
# RFC 8301 §3.1: never a pass.
_WEAK: Final = frozenset({"rsa-sha1"})
_REQUIRED: Final = ("v", "a", "b", "bh", "d", "h", "s")
_BODIES: Final[Mapping[str, type[Body]]] = {"relaxed": RelaxedBody, "simple": SimpleBody}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SELECTOR = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_FOLDING = re.compile(r"[ \t\r\n]+")
_VALUE_OF_B = re.compile(rb"((?:\A|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")


class Unusable(Exception):
    """A signature or a key that cannot be checked; the text says why, in a few safe words."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The tags of one field. ``length`` None: all of the body; ``expires_at`` in seconds."""

    algorithm: str
    domain: str
    selector: str
    identity: str
    names: tuple[bytes, ...]
    header_form: str
    body_form: str
    body_hash: bytes
    value: bytes
    length: int | None
    expires_at: int | None

    @property
    def key_name(self) -> str:
        """Where its key is in DNS."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Key:
    """A record: ``data`` is the SubjectPublicKeyInfo of RSA, or the 32 octets of Ed25519."""

    kind: str
    data: bytes
    is_testing: bool = False
    is_strict: bool = False  # i= must be d= itself


@dataclass(frozen=True, slots=True)
class Candidate:
    """One field, ready for its key. ``signature`` None: ``problem`` says why it is none."""

    signature: Signature | None
    problem: str = ""
    octets: bytes = b""  # what was signed
    has_same_body: bool = False
    # Octets of the body that the signature does not cover.
    uncovered: int = 0


# -- the field ------------------------------------------------------------------------------


def read_tags(text: str) -> dict[str, str]:
    """``name=value; ...`` (RFC 6376 §3.2). Raises: Unusable."""
    found: dict[str, str] = {}
    specs = text.strip(" \t\r\n").removesuffix(";").split(";")
    for spec in specs:
        name, equals, value = spec.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or not _NAME.fullmatch(name):
            raise Unusable("syntax error")
        if name in found:
            raise Unusable(f"tag {name} given twice")
        found[name] = value.strip(" \t\r\n")
    return found


def read_signature(raw: bytes) -> Signature:
    """Of a raw field. Raises: Unusable."""
    if len(raw) > MAX_FIELD:
        raise Unusable("signature too long")
    try:
        tags = read_tags(raw.partition(b":")[2].decode("ascii"))
    except UnicodeDecodeError:
        raise Unusable("syntax error") from None
    for name in _REQUIRED:
        if not tags.get(name):
            raise Unusable(f"tag {name} missing")
    if tags["v"] != "1":
        raise Unusable("unknown version")
    algorithm = tags["a"].lower()
    if algorithm not in ALGORITHMS:
        raise Unusable("weak algorithm" if algorithm in _WEAK else "unknown algorithm")
    methods = [method.strip().lower() for method in tags.get("q", "dns/txt").split(":")]
    if "dns/txt" not in methods:
        raise Unusable("unknown query method")
    header_form, body_form = _forms(tags.get("c", "simple/simple"))
    domain = _domain(tags["d"])
    signed_at, expires_at = _moment(tags, "t"), _moment(tags, "x")
    if signed_at is not None and expires_at is not None and expires_at < signed_at:
        raise Unusable("expires before it begins")
    return Signature(
        algorithm=algorithm,
        domain=domain,
        selector=_selector(tags["s"]),
        identity=_identity(tags.get("i", ""), domain),
        names=_names(tags["h"]),
        header_form=header_form,
        body_form=body_form,
        body_hash=_base64(tags["bh"]),
        value=_base64(tags["b"]),
        length=_moment(tags, "l"),
        expires_at=expires_at,
    )


def _forms(text: str) -> tuple[str, str]:
    header, _, body = text.lower().partition("/")
    body = body or "simple"
    if header not in _BODIES or body not in _BODIES:
        raise Unusable("unknown canonicalization")
    return header, body


def _domain(text: str) -> str:
    try:
        return fold_domain(text)
    except ProtocolViolation:
        raise Unusable("bad domain") from None


def _selector(text: str) -> str:
    if not _SELECTOR.fullmatch(text) or ".." in text:
        raise Unusable("bad selector")
    return text.lower()


def _identity(text: str, domain: str) -> str:
    """RFC 6376 §3.5: the domain of i= is d= or below it."""
    if not text:
        return domain
    inside = _domain(text.rpartition("@")[2])
    if inside != domain and not inside.endswith(f".{domain}"):
        raise Unusable("identity outside of the domain")
    return inside


def _names(text: str) -> tuple[bytes, ...]:
    names = tuple(name.strip(" \t\r\n").lower().encode("ascii") for name in text.split(":"))
    # RFC 6376 §5.4
    if b"from" not in names:
        raise Unusable("From is not signed")
    if len(names) > MAX_SIGNED * 2:
        raise Unusable("too many names")
    return names


def _moment(tags: Mapping[str, str], name: str) -> int | None:
    text = tags.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise Unusable(f"bad tag {name}")
    return int(text)


def _base64(text: str) -> bytes:
    try:
        return b64decode(_FOLDING.sub("", text), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("bad base64") from None


# -- the message ----------------------------------------------------------------------------


class _Limited:
    """SHA-256 of the first ``limit`` octets; counts those behind them."""

    def __init__(self, limit: int | None) -> None:
        self._sha256 = hashlib.sha256()
        self._left = limit
        self.uncovered = 0
        self.is_short = False

    def update(self, data: bytes) -> None:
        if self._left is None:
            self._sha256.update(data)
            return
        some = data[: self._left]
        self._sha256.update(some)
        self._left -= len(some)
        self.uncovered += len(data) - len(some)

    def digest(self) -> bytes:
        # RFC 6376 §3.5: l= never exceeds the body.
        self.is_short = bool(self._left)
        return self._sha256.digest()


class Signed:
    """The signatures of one header, fed with the body that belongs to it."""

    def __init__(self, header: bytes) -> None:
        """``header``: the fields without the blank line, as they came."""
        fields: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for name, raw in split_fields(header):
            fields[name.lower()].append(raw)
        self._found = [_read(raw, fields) for raw in fields[FIELD][:MAX_SIGNATURES]]
        self._hashes: dict[tuple[str, int | None], _Limited] = {}
        self._bodies: list[Body] = []
        for candidate in self._found:
            if candidate.signature is not None:
                self._hash(candidate.signature)

    def _hash(self, signature: Signature) -> None:
        key = signature.body_form, signature.length
        if key not in self._hashes:
            self._hashes[key] = _Limited(signature.length)
            self._bodies.append(_BODIES[signature.body_form](self._hashes[key]))

    def feed(self, block: bytes) -> None:
        """Take the next octets of the body."""
        for body in self._bodies:
            body.feed(block)

    def close(self) -> tuple[Candidate, ...]:
        """The body is over."""
        for body in self._bodies:
            body.close()
        digests = {key: each.digest() for key, each in self._hashes.items()}
        return tuple(self._ended(candidate, digests) for candidate in self._found)

    def _ended(
        self, candidate: Candidate, digests: Mapping[tuple[str, int | None], bytes]
    ) -> Candidate:
        signature = candidate.signature
        if signature is None:
            return candidate
        key = signature.body_form, signature.length
        has_same_body = digests[key] == signature.body_hash and not self._hashes[key].is_short
        return Candidate(
            signature, "", candidate.octets, has_same_body, self._hashes[key].uncovered
        )


def _read(raw: bytes, fields: Mapping[bytes, Sequence[bytes]]) -> Candidate:
    try:
        signature = read_signature(raw)
    except Unusable as error:
        return Candidate(None, str(error))
    return Candidate(signature, "", _octets(raw, signature, fields))


def _octets(raw: bytes, signature: Signature, fields: Mapping[bytes, Sequence[bytes]]) -> bytes:
    """What was signed (RFC 6376 §3.7): each field named, then this one without its value."""
    form = canonical_field if signature.header_form == "relaxed" else _simple_field
    used: defaultdict[bytes, int] = defaultdict(int)
    covered: list[bytes] = []
    for name in signature.names:
        present = fields.get(name, ())
        # RFC 6376 §5.4.2: from the last one up; one more than there are stands for none.
        if used[name] < len(present):
            used[name] += 1
            covered.append(form(present[-used[name]]))
    name, colon, value = raw.partition(b":")
    bare = name + colon + _VALUE_OF_B.sub(rb"\1", value, count=1)
    return b"".join(covered) + form(bare).removesuffix(b"\r\n")


def _simple_field(raw: bytes) -> bytes:
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


# -- the key --------------------------------------------------------------------------------


def read_key(record: bytes) -> Key:
    """Of a TXT record (RFC 6376 §3.6.1). Raises: Unusable."""
    if len(record) > MAX_RECORD:
        raise Unusable("key record too long")
    try:
        text = record.decode("ascii")
    except UnicodeDecodeError:
        raise Unusable("bad key record") from None
    tags = read_tags(text)
    # The version stands first or nowhere.
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        raise Unusable("no key record")
    if "p" not in tags:
        raise Unusable("no key record")
    if not tags["p"]:
        raise Unusable("key revoked")
    if "sha256" not in _words(tags.get("h", "sha256")):
        raise Unusable("key forbids the algorithm")
    if not {"*", "email"} & _words(tags.get("s", "*")):
        raise Unusable("key is not for mail")
    flags = _words(tags.get("t", ""))
    return Key(tags.get("k", "rsa").lower(), _base64(tags["p"]), "y" in flags, "s" in flags)


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip(" \t\r\n").lower() for word in text.split(":"))
