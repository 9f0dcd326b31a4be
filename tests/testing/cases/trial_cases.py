"""A server in the reactor of trial, run under trial by tests/testing/test_package.py."""

from __future__ import annotations

import smtplib
from typing import ClassVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from mailtwist.testing import MailServer, NoMessage
from mailtwist.testing.trial import MailTestCase


class Letters(MailTestCase):
    mail_settings: ClassVar = {"limits": {"recipients": 3}}

    def send(self, subject: str) -> Deferred[object]:
        def run() -> None:
            with smtplib.SMTP(self.mail.smtp.host, self.mail.smtp.port) as smtp:
                smtp.sendmail("a@b.example", ["bob@example.org"], f"Subject: {subject}\r\n\r\n")

        return deferToThread(run)

    def test_a_letter_arrives(self) -> Deferred[None]:
        async def run() -> None:
            await self.send("one")
            found = await self.mail.inbox("bob").wait(subject="one")
            assert found.recipients == ("bob@example.org",)

        return Deferred.fromCoroutine(run())

    def test_no_letter_of_another_test_is_there(self) -> Deferred[None]:
        async def run() -> None:
            with pytest.raises(NoMessage):
                await self.mail.inbox.wait(timeout=0.05)
            assert self.mail.runtime.settings.limits.recipients == 3

        return Deferred.fromCoroutine(run())

    def test_the_blocking_face_says_what_to_use(self) -> None:
        with pytest.raises(RuntimeError, match="use AsyncMailServer"):
            MailServer().start()
