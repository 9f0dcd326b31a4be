"""For :mod:`unittest`: one server for the tests of a class, emptied before each."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from typing import Any, ClassVar

from mailtwist.testing.blocking import MailServer


class MailTestCase(unittest.TestCase):
    """``self.mail`` is the server of this class. ``mail_settings``: as for :class:`MailServer`."""

    mail: ClassVar[MailServer]
    mail_settings: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.mail = MailServer(cls.mail_settings).start()
        cls.addClassCleanup(cls.mail.stop)

    def setUp(self) -> None:
        super().setUp()
        self.mail.reset()
