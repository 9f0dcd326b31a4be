"""Arguments of commands: octets to values."""

from __future__ import annotations

import time

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address
from mailtwist.smtp import grammar
from mailtwist.smtp.grammar import Auth, Mail, Rcpt

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
        (b"FROM:<a@b.example> " + b"A " * 50, 501),
        (b"FROM:<a@b.example> \xff=1", 501),
        (b"FROM:<a@b.example> SIZE=\xc2\xb2", 501),
        (b"FROM:<\xc3\xa9@b.example>", 553),
    ],
)
def test_other_arguments_of_mail_are_refused(argument: bytes, code: int) -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        grammar.parse_mail(argument)
    assert refusal.value.code == code


def test_rcpt_is_read() -> None:
    assert grammar.parse_rcpt(b"TO:<a@b.example>") == Rcpt(A)
    assert grammar.parse_rcpt(b"to:<Postmaster>") == Rcpt(Address("Postmaster", ""))


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
