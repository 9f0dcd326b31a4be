"""Signatures of dkimpy and of our own signer hold; mutated ones, wrong keys and old ones do not."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.mail.dkim import BodyHasher, draft, finish
from mailtwist.mail.dkim_signatures import (
    MAX_SIGNATURES,
    Signed,
    Unusable,
    read_key,
    read_signature,
)
from mailtwist.net.dns import LookupFailed, NoSuchName
from mailtwist.policy.dkim_verification import DNS_S, DkimResult, DkimVerifier
from mailtwist.policy.hashing import Inline
from tests.support import signatures
from tests.support.now import now

DOMAIN, SELECTOR = "example.com", "d1"
NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
AT = 1_800_000_000
LETTER = (
    b"Received: from here\r\nFrom: =?utf-8?q?Ann?= <ann@example.com>\r\n"
    b"To: Bob <bob@example.net>,\r\n\tCarl <carl@example.org>\r\nSubject:  hello\r\n  there \r\n"
    b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
    b"\r\nHello  \t there\r\n\r\n.\r\n caf\xc3\xa9 \r\n\r\n\r\n"
)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ed25519_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    octets: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return octets


def spki(key: Any) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return b64encode(der).decode()


def record(key: Any = None, tags: str = "v=DKIM1; k=rsa; ") -> str:
    return f"{tags}p={spki(key or rsa_key())}"


def ed25519_record() -> str:
    raw = ed25519_key().public_key().public_bytes_raw()
    return f"v=DKIM1; k=ed25519; p={b64encode(raw).decode()}"


class Names:
    """DNS of a few TXT records; an exception is raised, a Deferred waited for."""

    def __init__(self, records: Mapping[str, Any]) -> None:
        self.records = records
        self.asked: list[str] = []

    async def txt(self, name: str) -> list[bytes]:
        self.asked.append(name)
        found = self.records.get(name, NoSuchName(name))
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Deferred):
            return await found
        return [each.encode() for each in ([found] if isinstance(found, str) else found)]


def signed(message: bytes, *, cut: int = 0) -> Signed:
    header, _, body = message.partition(b"\r\n\r\n")
    found = Signed(header + b"\r\n")
    size = cut or len(body) or 1
    for at in range(0, len(body), size):
        found.feed(body[at : at + size])
    return found


def judged(
    message: bytes, records: Mapping[str, Any] | None = None, *, cut: int = 0, at: float = AT
) -> tuple[DkimResult, ...]:
    names = Names({NAME: record()} if records is None else records)
    verifier = DkimVerifier(names, threads=Inline(), clock=Clock(), now=lambda: at)
    return now(verifier.verify(signed(message, cut=cut).close()))


def outcomes(*arguments: Any, **more: Any) -> list[tuple[str, str]]:
    return [(each.outcome, each.reason) for each in judged(*arguments, **more)]


def by_dkimpy(
    message: bytes, *, key: Any = None, form: bytes = b"relaxed/relaxed", **more: Any
) -> bytes:
    header, body = form.split(b"/")
    field: bytes = dkim.sign(
        message,
        SELECTOR.encode(),
        DOMAIN.encode(),
        pem(key or rsa_key()),
        canonicalize=(header, body),
        **more,
    )
    return field + message


def by_us(message: bytes) -> bytes:
    hasher = BodyHasher()
    hasher.feed(message)
    made = draft(
        hasher.close(), domain=DOMAIN, selector=SELECTOR, algorithm="ed25519-sha256", now=AT
    )
    assert made is not None
    field, octets = made
    return finish(field, ed25519_key().sign(hashlib.sha256(octets).digest())) + message


# -- what holds -----------------------------------------------------------------------------


@pytest.mark.parametrize("header_form", ["simple", "relaxed"])
@pytest.mark.parametrize("body_form", ["simple", "relaxed"])
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_signature_of_dkimpy_holds(header_form: str, body_form: str, cut: int) -> None:
    message = by_dkimpy(LETTER, form=f"{header_form}/{body_form}".encode())
    (result,) = judged(message, cut=cut)
    assert result == DkimResult("pass", DOMAIN, SELECTOR, "rsa-sha256", "")


@pytest.mark.real
@pytest.mark.parametrize(
    "form", ["relaxed/relaxed", "simple/simple", "relaxed/simple", "simple/relaxed"]
)
def test_a_signature_of_mail_dkim_holds(form: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(pem(rsa_key()))
    message = signatures.sign_by_mail_dkim(LETTER, str(key_file), form)
    assert outcomes(message) == [("pass", "")]
    assert outcomes(message.replace(b"Hello", b"Hallo")) == [("fail", "body hash did not verify")]


def test_a_signature_with_ed25519_holds() -> None:
    (result,) = judged(by_us(LETTER), {NAME: ed25519_record()})
    assert (result.outcome, result.algorithm) == ("pass", "ed25519-sha256")


@pytest.mark.parametrize(
    "body", [b"", b"\r\n", b"\r\n\r\n", b"x", b" \r\n", b"x\r\n\r\n", b"\r\nx"]
)
@pytest.mark.parametrize("form", [b"simple/simple", b"relaxed/relaxed"])
def test_short_bodies(body: bytes, form: bytes) -> None:
    header = b"From: a@example.com\r\n\r\n"
    assert outcomes(by_dkimpy(header + body, form=form)) == [("pass", "")]


def test_several_signatures_are_judged_one_by_one() -> None:
    message = by_us(by_dkimpy(LETTER)).replace(b"s=d1;", b"s=d2;", 1)
    records = {NAME: record(), f"d2._domainkey.{DOMAIN}": ed25519_record()}
    (upper, lower) = judged(message, records)
    assert (upper.selector, upper.outcome) == ("d2", "fail")
    assert (lower.selector, lower.outcome) == ("d1", "pass")


def test_more_signatures_than_anybody_needs_are_not_looked_at() -> None:
    message = b"DKIM-Signature: v=1\r\n" * 50 + LETTER
    assert len(judged(message)) == MAX_SIGNATURES


def test_mail_without_signature_has_no_result() -> None:
    names = Names({})
    verifier = DkimVerifier(names, threads=Inline(), clock=Clock(), now=lambda: AT)
    assert now(verifier.verify(signed(LETTER).close())) == ()
    assert names.asked == []


# -- what does not --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"Hello", b"Hallo", "body hash did not verify"),
        (b"hello", b"hallo", "signature did not verify"),
        (b"carl@", b"karl@", "signature did not verify"),
        (b"From: ", b"From: e@evil.example\r\nFrom: ", "signature did not verify"),
    ],
    ids=["body", "subject", "to", "second From"],
)
def test_a_changed_message_fails(old: bytes, new: bytes, reason: str) -> None:
    message = by_dkimpy(LETTER, include_headers=[b"from", b"from", b"to", b"subject"])
    head, _, rest = message.partition(b"\r\nReceived:")
    assert outcomes(head + b"\r\nReceived:" + rest.replace(old, new, 1)) == [("fail", reason)]


def test_whitespace_may_change_where_it_is_relaxed() -> None:
    field = by_dkimpy(LETTER)[: -len(LETTER)]
    changed = LETTER.replace(b"Subject:  hello\r\n  there \r\n", b"SUBJECT: hello   there\r\n")
    assert outcomes(field + changed + b"\r\n\r\n") == [("pass", "")]
    field = by_dkimpy(LETTER, form=b"simple/simple")[: -len(LETTER)]
    assert outcomes(field + changed) == [("fail", "signature did not verify")]


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (NoSuchName("none"), ("permerror", "no key")),
        (LookupFailed("SERVFAIL"), ("temperror", "key unavailable")),
        ("v=spf1 -all", ("permerror", "no key record")),
        ("", ("permerror", "syntax error")),
        ("v=DKIM1; p=", ("permerror", "key revoked")),
        ("v=DKIM1; k=rsa; p=AAAA", ("permerror", "bad key")),
        ("v=DKIM1; k=rsa; p=%%", ("permerror", "bad base64")),
        ("k=rsa; v=DKIM1; p=AAAA", ("permerror", "no key record")),
        ("v=DKIM1; h=sha1; p=AAAA", ("permerror", "key forbids the algorithm")),
        ("v=DKIM1; s=other; p=AAAA", ("permerror", "key is not for mail")),
        ("v=DKIM1; k=ed25519; p=AAAA", ("permerror", "key of another kind")),
        ("x" * 10_000, ("permerror", "key record too long")),
    ],
    ids=str,
)
def test_a_key_that_is_none(found: Any, outcome: tuple[str, str]) -> None:
    assert outcomes(by_dkimpy(LETTER), {NAME: found}) == [outcome]


def test_other_keys() -> None:
    message = by_dkimpy(LETTER)
    other = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    curve = ec.generate_private_key(ec.SECP256R1())
    assert outcomes(message, {NAME: record(other)}) == [("fail", "signature did not verify")]
    assert outcomes(message, {NAME: record(curve)}) == [("permerror", "bad key")]
    assert outcomes(message, {NAME: record(other, "v=DKIM1; t=y; ")}) == [("neutral", "testing")]
    assert outcomes(message, {NAME: record(tags="v=DKIM1; t=s; ")}) == [("pass", "")]
    # The first record that is a key counts, whatever else stands at the name.
    assert outcomes(message, {NAME: ["v=spf1 -all", record()]}) == [("pass", "")]


def test_a_short_key_counts_for_nothing() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert outcomes(by_dkimpy(LETTER, key=short), {NAME: record(short)}) == [("pass", "")]
    from mailtwist.policy import dkim_verification

    before, dkim_verification.MIN_RSA_BITS = dkim_verification.MIN_RSA_BITS, 1025  # type: ignore[misc]
    try:
        message = by_dkimpy(LETTER, key=short)
        assert outcomes(message, {NAME: record(short)}) == [("permerror", "key too short")]
    finally:
        dkim_verification.MIN_RSA_BITS = before  # type: ignore[misc]


def test_text_behind_the_signed_octets_is_no_pass() -> None:
    message = by_dkimpy(LETTER, length=True)
    assert outcomes(message) == [("pass", "")]
    ((outcome, reason),) = outcomes(message + b"Buy now!\r\n")
    assert outcome == "policy"
    assert reason.endswith("octets are not signed")
    # Less than was signed is no prefix of it.
    assert outcomes(message[:-20]) == [("fail", "body hash did not verify")]


def test_a_slow_key_is_not_waited_for() -> None:
    clock = Clock()
    verifier = DkimVerifier(
        Names({NAME: Deferred()}), threads=Inline(), clock=clock, now=lambda: AT
    )
    found: list[Any] = []
    Deferred.fromCoroutine(verifier.verify(signed(by_dkimpy(LETTER)).close())).addBoth(found.append)
    clock.advance(DNS_S - 0.1)
    assert found == []
    clock.advance(0.2)
    assert [(each.outcome, each.reason) for each in found[0]] == [("temperror", "key unavailable")]


BASE = "v=1; a=rsa-sha256; d=example.com; s=d1; h=from; bh=AAAA; b=AAAA"


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ("", "syntax error"),
        ("v=1", "tag a missing"),
        (BASE.replace("v=1", "v=2"), "unknown version"),
        (BASE.replace("rsa-sha256", "rsa-sha1"), "weak algorithm"),
        (BASE.replace("rsa-sha256", "rsa-md5"), "unknown algorithm"),
        (BASE.replace("h=from", "h=to"), "From is not signed"),
        (BASE.replace("h=from", "h=from" + ":x" * 500), "too many names"),
        (BASE.replace("d=example.com", "d=exa mple"), "bad domain"),
        (BASE.replace("s=d1", "s=../x"), "bad selector"),
        (BASE + "; i=@evil.example", "identity outside of the domain"),
        (BASE + "; i=@notexample.com", "identity outside of the domain"),
        (BASE + "; c=nofws", "unknown canonicalization"),
        (BASE + "; q=http", "unknown query method"),
        (BASE + "; l=-1", "bad tag l"),
        (BASE + "; x=1e9", "bad tag x"),
        (BASE + "; t=20; x=10", "expires before it begins"),
        (BASE + "; d=example.org", "tag d given twice"),
        (BASE.replace("b=AAAA", "b=A").replace("bh=A;", "bh=AAAA;"), "bad base64"),
        (BASE + ";;", "syntax error"),
        (BASE + "; =x", "syntax error"),
        (BASE + "; x", "syntax error"),
        (BASE + "; z=" + "x" * 20_000, "signature too long"),
    ],
    ids=lambda value: value[:60],
)
def test_a_signature_that_is_none(tags: str, reason: str) -> None:
    field = f"DKIM-Signature: {tags}\r\n".encode()
    assert outcomes(field + LETTER, {NAME: record()}) == [("permerror", reason)]


def test_a_signature_may_expire() -> None:
    field = f"DKIM-Signature: {BASE}; t=10; x={AT}\r\n".encode()
    ((_, before),) = outcomes(field + LETTER, at=AT)
    ((_, after),) = outcomes(field + LETTER, at=AT + 1)
    assert (before, after) == ("body hash did not verify", "signature expired")


SIGNED = by_dkimpy(LETTER)

# -- any octets -----------------------------------------------------------------------------

pieces = st.sampled_from([b"\r\n", b" ", b"\t", b"a", b".", b"\0", b"\xff", b"\r\n\r\n"])
bodies = st.lists(pieces, max_size=30).map(b"".join)
forms = st.sampled_from([b"simple/simple", b"relaxed/relaxed"])


@given(body=bodies, form=forms, cut=st.integers(1, 9))
@settings(max_examples=60)
def test_bodies_of_any_shape_hold(body: bytes, form: bytes, cut: int) -> None:
    message = by_dkimpy(b"From: a@example.com\r\n\r\n" + body + b"\r\n", form=form)
    assert outcomes(message, cut=cut) == [("pass", "")]
    assert signatures.dkimpy(message, {NAME: record()})


@given(at=st.integers(0, 2000), octet=st.integers(0, 255))
@settings(max_examples=150)
@example(at=0, octet=0)
def test_with_one_octet_changed_we_say_what_dkimpy_says_or_less(at: int, octet: int) -> None:
    message = bytearray(SIGNED)
    message[at % len(message)] = octet
    lines = bytes(message).replace(b"\r\n", b"")
    if b"\n" in lines or b"\r" in lines:
        return  # never gets that far, and dkimpy mends it
    ours = any(each.outcome == "pass" for each in judged(bytes(message)))
    if ours:
        # At a line that is no field dkimpy stops; not signed, it is nothing to us.
        with suppress(dkim.MessageFormatError):
            assert signatures.dkimpy(bytes(message), {NAME: record()})


values = st.binary(max_size=200) | st.text(st.sampled_from("vabdhs=; 1:\r\n\t"), max_size=60).map(
    str.encode
)


@given(values)
def test_any_octets_are_a_signature_or_none(value: bytes) -> None:
    with suppress(Unusable):
        read_signature(b"DKIM-Signature:" + value)
    with suppress(Unusable):
        read_key(value)
