"""Arguments of commands: octets to values."""

from __future__ import annotations

import time

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address
from mailtwist.queue.envelope import Mail
from mailtwist.smtp import grammar
from mailtwist.smtp.grammar import Auth, Rcpt
from mailtwist.store.queue.values import Notify

A = Address("a", "b.example")


@pytest.mark.parametrize(
    "argument, value",
    [
        (b"FROM:<a@b.example>", Mail(A)),
        (b"from:<a@B.EXAMPLE>", Mail(A)),
        (b"FROM: <a@b.example>", Mail(A)),
        (b"FROM:<>", Mail(None)),
        (b"FROM:<> SIZE=5", Mail(None, size=5)),
        (b"FROM:<a@b.example> BODY=8bitmime", Mail(A, body="8BITMIME")),
        (b"FROM:<a@b.example> AUTH=e+3Dmc2@example.com", Mail(A, submitter="e=mc2@example.com")),
        (b"FROM:<a@b.example> ", Mail(A)),
        (b"FROM:<a@b.example> RET=hdrs", Mail(A, ret="HDRS")),
        (b"FROM:<a@b.example> ENVID=QQ+2B31+3D", Mail(A, envid="QQ+31=")),
        (b"FROM:<a@b.example> ENVID=" + b"x" * 100, Mail(A, envid="x" * 100)),
        (b"FROM:<a@b.example> smtputf8 REQUIRETLS", Mail(A, smtputf8=True, requiretls=True)),
        ("FROM:<é@b.example> SMTPUTF8".encode(), Mail(Address("é", "b.example"), smtputf8=True)),
        (
            "FROM:<a@bücher.example> SMTPUTF8".encode(),
            Mail(Address("a", "xn--bcher-kva.example"), smtputf8=True),
        ),
    ],
)
def test_mail_is_read(argument: bytes, value: Mail) -> None:
    assert grammar.parse_mail(argument) == value


@pytest.mark.parametrize(
    "argument, code",
    [
        (b"", 501),
        (b"FROM", 501),
        (b"FROM:", 501),
        (b"FROM:a@b.example", 501),
        (b"FROM:<a@b.example>X=1", 501),
        (b"FROM:<a@b.example> X=1", 555),
        (b"FROM:<a@b.example> SIZE=1 size=1", 501),
        (b"FROM:<a@b.example> " + b"A " * 50, 555),
        (b"FROM:<a@b.example> \xff=1", 501),
        (b"FROM:<a@b.example> SIZE=\xc2\xb2", 501),
        (b"FROM:<\xc3\xa9@b.example>", 553),
        (b"FROM:<a@\xc3\xa9.example>", 553),
        (b"FROM:<\xe9@b.example> SMTPUTF8", 501),
        (b"FROM:<a@b.example> AUTH=\xc3\xa9 SMTPUTF8", 501),
        (b"FROM:<a@b.example> SMTPUTF8=yes", 501),
        (b"FROM:<a@b.example> RET=ALL", 501),
        (b"FROM:<a@b.example> ENVID=", 501),
        (b"FROM:<a@b.example> ENVID=a+0Ab", 501),
        (b"FROM:<a@b.example> ENVID=a+7F", 501),
        (b"FROM:<a@b.example> ENVID=a+2", 501),
        (b"FROM:<a@b.example> ENVID=" + b"+41" * 34, 501),
        (b"FROM:<a@b.example> BODY=BINARY", 501),
        (b"FROM:<a@b.example> NOTIFY=NEVER", 555),
    ],
)
def test_other_arguments_of_mail_are_refused(argument: bytes, code: int) -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        grammar.parse_mail(argument)
    assert refusal.value.code == code


def test_rcpt_is_read() -> None:
    assert grammar.parse_rcpt(b"TO:<a@b.example>") == Rcpt(A)
    assert grammar.parse_rcpt(b"to:<Postmaster>") == Rcpt(Address("Postmaster", ""))


@pytest.mark.parametrize(
    "parameters, value",
    [
        (" NOTIFY=NEVER", Rcpt(A, notify=Notify.NEVER)),
        (" notify=Success,FAILURE", Rcpt(A, notify=Notify.SUCCESS | Notify.FAILURE)),
        (" NOTIFY=DELAY,DELAY", Rcpt(A, notify=Notify.DELAY)),
        (" ORCPT=rfc822;Bob+2Bx@B.example", Rcpt(A, orcpt="rfc822;Bob+x@B.example")),
        (" ORCPT=x400;/S+3DBob/", Rcpt(A, orcpt="x400;/S=Bob/")),
        (" ORCPT=UTF-8;b+5Cx{FC}@b", Rcpt(A, orcpt="UTF-8;b\\x{FC}@b")),
        (" ORCPT=utf-8;bü@b", Rcpt(A, orcpt="utf-8;bü@b", is_utf8=True)),
        (" ORCPT=x;" + "y" * 498, Rcpt(A, orcpt="x;" + "y" * 498)),
    ],
)
def test_wishes_for_reports_are_read(parameters: str, value: Rcpt) -> None:
    assert grammar.parse_rcpt(b"TO:<a@b.example>" + parameters.encode()) == value


@pytest.mark.parametrize(
    "parameters, code",
    [
        (" NOTIFY=NEVER,DELAY", 501),
        (" NOTIFY=NEVER,SUCCESS,NEVER", 501),
        (" NOTIFY=,", 501),
        (" NOTIFY=SUCCESS,", 501),
        (" NOTIFY", 501),
        (" NOTIFY=NEVER NOTIFY=NEVER", 501),
        (" ORCPT=a@b.example", 501),
        (" ORCPT=;a@b.example", 501),
        (" ORCPT=rfc822;", 501),
        (" ORCPT=rfc822;a+0D+0AX:", 501),
        (" ORCPT=rfc822;a+C3+BC", 501),
        (" ORCPT=rfc822;ü@b", 501),
        (" ORCPT=utf-8;a+0Ab", 501),
        (" ORCPT=utf-8;a\u2028b", 501),
        (" ORCPT=x;" + "y" * 499, 501),
        (" RET=FULL", 555),
        (" SMTPUTF8", 555),
    ],
)
def test_other_wishes_are_refused(parameters: str, code: int) -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        grammar.parse_rcpt(b"TO:<a@b.example>" + parameters.encode())
    assert refusal.value.code == code


def test_what_only_ehlo_allows_is_marked() -> None:
    marks = {
        b"": False,
        b" SIZE=1 BODY=7BIT": False,
        b" SIZE=1 RET=FULL": True,
        b" AUTH=<>": True,
    }
    for parameters, is_extended in marks.items():
        mail = grammar.parse_mail(b"FROM:<a@b.example>" + parameters)
        assert mail.is_extended is is_extended
    assert grammar.parse_rcpt(b"TO:<a@b.example> NOTIFY=NEVER").is_extended
    assert not grammar.parse_rcpt(b"TO:<a@b.example>").is_extended


@pytest.mark.parametrize("argument", [b"", b"TO:<>", b"TO:", b"FROM:<a@b.example>"])
def test_other_arguments_of_rcpt_are_refused(argument: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        grammar.parse_rcpt(argument)


def test_auth_is_read() -> None:
    assert grammar.parse_auth(b"plain") == Auth("PLAIN", None)
    assert grammar.parse_auth(b"PLAIN =") == Auth("PLAIN", b"=")


@pytest.mark.parametrize("argument", [b"", b" ", b"a b c", b"\xff"])
def test_other_arguments_of_auth_are_refused(argument: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        grammar.parse_auth(argument)


@pytest.mark.parametrize(
    "argument",
    [
        b"FROM:<" + b"a." * 1000 + b"a@b>",
        b'FROM:<"' + b"\\a" * 1000 + b'"@b>',
        b"FROM:<a@" + b"b." * 1000 + b"c>",
        b"FROM:<" + b"@a," * 600 + b":a@b>",
        b"FROM:<a@b> " + b"A=B " * 500,
        b"FROM:<a@b> AUTH=" + b"+41" * 600,
        b"FROM:<a@b> ENVID=" + b"+41" * 600,
        b"FROM:<a@b> SMTPUTF8 ENVID=" + b"\xc3\xbc" * 600,
    ],
)
def test_the_longest_lines_cost_no_time(argument: bytes) -> None:
    began = time.perf_counter()
    for _ in range(20):
        try:
            grammar.parse_mail(argument)
        except ProtocolViolation:
            continue
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("argument", [b"a-" * 120 + b"!", b"a." * 120 + b"!", b"[" + b":" * 250])
def test_long_greetings_cost_no_time(argument: bytes) -> None:
    began = time.perf_counter()
    for _ in range(20):
        with pytest.raises(ProtocolViolation):
            grammar.parse_greeting(argument)
    assert time.perf_counter() - began < 0.1
