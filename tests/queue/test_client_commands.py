"""MAIL and RCPT as they leave, and why some never do."""

from __future__ import annotations

from typing import Any

import pytest

from mailtwist.queue import client_commands as commands
from mailtwist.queue.client_commands import Features
from mailtwist.queue.client_opening import capabilities_of
from mailtwist.queue.client_replies import Reply
from mailtwist.queue.values import OutgoingRecipient
from mailtwist.store.queue.values import Notify
from tests.support.client import mail

ALL = Features(
    pipelining=True,
    chunking=True,
    eightbit=True,
    binary=True,
    smtputf8=True,
    dsn=True,
    requiretls=True,
    size=1000,
)


def mail_line(features: Features = ALL, is_8bit: bool = False, **given: Any) -> bytes:
    letter = mail(data=b"x" * 7, **given)
    utf8 = letter.smtputf8 and features.smtputf8
    return commands.mail_command(letter, features, is_8bit=is_8bit, needs_utf8=utf8)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"features": Features()}, b"MAIL FROM:<alice@example.com>\r\n"),
        ({"reverse_path": ""}, b"MAIL FROM:<> SIZE=7\r\n"),
        ({"is_8bit": True}, b"MAIL FROM:<alice@example.com> SIZE=7 BODY=8BITMIME\r\n"),
        ({"is_8bit": True, "features": Features()}, b"MAIL FROM:<alice@example.com>\r\n"),
        ({"body": "BINARYMIME"}, b"MAIL FROM:<alice@example.com> SIZE=7 BODY=BINARYMIME\r\n"),
        (
            {"smtputf8": True, "reverse_path": "\u00fc@example.com"},
            "MAIL FROM:<\u00fc@example.com> SIZE=7 SMTPUTF8\r\n".encode(),
        ),
        (
            {"ret": "HDRS", "envid": "a+b=c d"},
            b"MAIL FROM:<alice@example.com> SIZE=7 RET=HDRS ENVID=a+2Bb+3Dc+20d\r\n",
        ),
        (
            {"ret": "HDRS", "envid": "x", "features": Features()},
            b"MAIL FROM:<alice@example.com>\r\n",
        ),
        ({"requiretls": True}, b"MAIL FROM:<alice@example.com> SIZE=7 REQUIRETLS\r\n"),
    ],
)
def test_mail_has_the_parameters_that_were_announced(given, line):
    assert mail_line(**given) == line


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"notify": Notify.NEVER}, " NOTIFY=NEVER"),
        ({"notify": Notify.SUCCESS | Notify.DELAY}, " NOTIFY=SUCCESS,DELAY"),
        ({"notify": Notify.FAILURE}, " NOTIFY=FAILURE"),
        ({"orcpt": "rfc822;bob+x@example.org"}, " ORCPT=rfc822;bob+2Bx@example.org"),
        ({"orcpt": "utf-8;\u00fc@example.org"}, r" ORCPT=utf-8;\x{FC}@example.org"),
        ({"orcpt": "rfc822;\u00fc@example.org"}, ""),
        ({"orcpt": "rfc822;a\r\nRCPT TO:<x@y>"}, " ORCPT=rfc822;a+0D+0ARCPT+20TO:<x@y>"),
        ({"orcpt": "rfc 822;a@b"}, ""),
        ({"orcpt": "nothing"}, ""),
    ],
)
def test_rcpt_has_what_dsn_needs(given, words):
    recipient = OutgoingRecipient("bob@example.net", **given)
    line = commands.rcpt_command(recipient, ALL)
    assert line == f"RCPT TO:<bob@example.net>{words}\r\n".encode()
    assert commands.rcpt_command(recipient, Features()) == b"RCPT TO:<bob@example.net>\r\n"


@pytest.mark.parametrize(
    ("given", "features", "status"),
    [
        ({}, Features(), None),
        ({}, Features(size=0), None),
        ({}, Features(size=7), None),
        ({}, Features(size=6), "5.3.4"),
        ({"smtputf8": True}, Features(), "5.6.7"),
        ({"smtputf8": True}, Features(smtputf8=True), None),
        ({"reverse_path": "\u00fc@example.com"}, Features(), "5.6.7"),
        ({"body": "BINARYMIME"}, Features(eightbit=True), "5.6.3"),
        ({"body": "BINARYMIME"}, Features(binary=True), None),
        ({"requiretls": True}, Features(), "5.7.30"),
        ({"requiretls": True}, Features(requiretls=True), None),
        ({"reverse_path": "a@b>\r\nRCPT TO:<x@y"}, ALL, "5.1.7"),
    ],
)
def test_what_a_host_cannot_take_is_not_tried(given, features, status):
    refusal = commands.refusal(mail(data=b"x" * 7, **given), features, is_secure=True)
    assert (refusal and refusal.status) == status


def test_requiretls_needs_a_verified_certificate_too():
    letter = mail(requiretls=True)
    refusal = commands.refusal(letter, Features(requiretls=True), is_secure=False)
    assert refusal is commands.NO_REQUIRETLS


@pytest.mark.parametrize(
    ("address", "features", "status"),
    [
        ("bob@example.net", Features(), None),
        ('"b b"@example.net', Features(), None),
        ("b\u00fc@example.net", Features(), "5.6.7"),
        ("b\u00fc@example.net", Features(smtputf8=True), None),
        ("b\u3000b@example.net", Features(smtputf8=True), None),
        ("b@example.net>\r\nDATA", ALL, "5.1.3"),
        ("b@example.net\u2028", ALL, "5.1.3"),
    ],
)
def test_a_recipient_may_be_impossible(address, features, status):
    refusal = commands.recipient_refusal(OutgoingRecipient(address), features)
    assert (refusal and refusal.status) == status


def announced(*lines: bytes) -> dict[str, str]:
    return capabilities_of(Reply(250, (b"mx.example.net", *lines)))


def test_what_was_announced_is_read_whatever_its_case():
    found = announced(b"pipelining", b"Size 1000", b"AUTH=LOGIN", b"AUTH PLAIN", b"", b"\xff x")
    assert found["PIPELINING"] == ""
    assert found["AUTH"].split() == ["LOGIN", "PLAIN"]
    features = Features.of(found)
    assert (features.pipelining, features.size) == (True, 1000)
    assert not features.chunking


@pytest.mark.parametrize(
    ("lines", "size", "recipients"),
    [
        ([b"SIZE"], 0, 100),
        ([b"SIZE 0"], 0, 100),
        ([b"SIZE x"], 0, 100),
        ([b"SIZE " + b"9" * 5000], 0, 100),
        ([b"LIMITS RCPTMAX=20 MAILMAX=5"], None, 20),
        ([b"LIMITS RCPTMAX=0"], None, 100),
        ([b"LIMITS RCPTMAX=5000"], None, 100),
        ([b"LIMITS RCPTMAX=\xff"], None, 100),
    ],
)
def test_odd_numbers_count_as_none(lines, size, recipients):
    features = Features.of(announced(*lines))
    assert (features.size, features.recipients) == (size, recipients)
