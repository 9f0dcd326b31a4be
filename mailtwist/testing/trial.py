"""For trial: a server for each test, in the reactor that trial runs.

Trial wants a reactor without anything in it after each test, so none outlives one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailtwist.testing.server import AsyncMailServer


class MailTestCase(TestCase):
    """``self.mail`` is the server of this test. ``mail_settings``: as in the configuration."""

    mail: AsyncMailServer
    mail_settings: ClassVar[Mapping[str, Any]] = {}

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]
        self.mail = AsyncMailServer(self.mail_settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.mail.stop()))
        return Deferred.fromCoroutine(self.mail.start())
