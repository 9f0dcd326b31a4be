from __future__ import annotations

from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.mail.authentication_results import field, result, server_of, without_ours

OURS = "mx.example.com"


def test_what_was_found_is_told() -> None:
    found = (
        result("dkim", "pass", header_d="example.org", header_s="d1", header_a="rsa-sha256"),
        result("dkim", "fail", reason="body hash did not verify", header_d="x.example"),
    )
    assert field(OURS, found) == (
        b"Authentication-Results: mx.example.com;\r\n"
        b"\tdkim=pass header.d=example.org header.s=d1 header.a=rsa-sha256;\r\n"
        b'\tdkim=fail reason="body hash did not verify" header.d=x.example\r\n'
    )


@given(reason=st.text(max_size=50), domain=st.text(max_size=20))
def test_no_reason_and_no_name_begins_another_line_or_result(reason: str, domain: str) -> None:
    made = field(OURS, [result("dkim", "fail", reason=reason, header_d=domain)])
    assert made.isascii()
    assert made.count(b"dkim=") <= 1 + reason.count("dkim=") + domain.count("dkim=")
    parsed = message_from_bytes(made + b"\r\n", policy=default)
    assert parsed.keys() == ["Authentication-Results"]


SAME = {
    "plain": b"mx.example.com; spf=pass",
    "capitals": b"MX.Example.COM; spf=pass",
    "final dot": b"mx.example.com.; spf=pass",
    "version": b"mx.example.com 1; spf=pass",
    "folded": b"\r\n\tmx.example.com;\r\n\tspf=pass",
    "quoted": b'"mx.example.com"; spf=pass',
    "quoted pairs": b'"m\\x.example.com"; spf=pass',
    "comment": b"(a (nested) \\) one) mx.example.com (b); spf=pass",
    "nothing else": b"mx.example.com",
}
OTHER = {
    "another": b"mx.example.org; spf=pass",
    "below": b"a.mx.example.com; spf=pass",
    "in a comment": b"(mx.example.com) x; spf=pass",
    "in the results": b"x; spf=pass smtp.mailfrom=mx.example.com",
    "empty": b"",
    "comment without end": b"(mx.example.com",
    "many comments": b"()" * 1000 + b"mx.example.com",
}


@pytest.mark.parametrize("value", SAME.values(), ids=SAME)
def test_what_pretends_to_be_ours_goes(value: bytes) -> None:
    header = b"Received: x\r\nAuthentication-Results: " + value + b"\r\nSubject: y\r\n"
    assert without_ours(header, OURS) == b"Received: x\r\nSubject: y\r\n"
    header = header.replace(b"Authentication-Results:", b"AUTHENTICATION-results :")
    assert without_ours(header, OURS) == b"Received: x\r\nSubject: y\r\n"


@pytest.mark.parametrize("value", OTHER.values(), ids=OTHER)
def test_what_others_found_stays(value: bytes) -> None:
    header = b"Authentication-Results: " + value + b"\r\nSubject: y\r\n"
    assert without_ours(header, OURS) is header


@given(st.binary(max_size=100))
def test_any_octets_have_a_server_or_none(value: bytes) -> None:
    assert isinstance(server_of(b"Authentication-Results:" + value), bytes)
    assert isinstance(without_ours(b"authentication-results:" + value, OURS), bytes)
