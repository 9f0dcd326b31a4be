"""A real Postfix takes what we send: pipelined, in chunks, under TLS."""

from __future__ import annotations

import os
from unittest import SkipTest

import pytest
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from mailtwist.queue.smtp_client import Connector
from mailtwist.queue.values import Host, Tls
from tests.support.client import ClientCase, mail
from tests.support.postfix import HOSTNAME, Postfix, absence

BODY = b"".join(b"line %d\r\n.dot\r\n..\r\n.\r\n" % n for n in range(60_000))
LETTER = b"Subject: large\r\n\r\n" + BODY


@pytest.mark.real
class RealPostfix(ClientCase):
    timeout = 120

    async def test_small_and_large_messages_arrive_as_they_were(self) -> None:
        reason = absence()
        if reason and os.environ.get("MAILTWIST_REQUIRE_REAL"):
            raise AssertionError(reason)
        if reason:
            raise SkipTest(reason)
        self.connector = Connector(reactor)
        postfix = await deferToThread(Postfix)
        self.addCleanup(deferToThread, postfix.stop)
        session = await self.connect(
            Host(HOSTNAME, "127.0.0.1", postfix.port), Tls.VERIFY, ca_file=str(postfix.ca_file)
        )
        assert session.is_verified
        cut = len(LETTER) // 2
        for given in (
            {},
            {"blocks": [LETTER[:cut], LETTER[cut:]]},
            {"data": "Subject: gr\u00fc\u00dfe\r\n\r\n\u00fc\r\n".encode(), "smtputf8": True},
        ):
            for reply in await session.deliver(mail("bob@far.example", **given)):
                assert (reply.code, reply.status) == (250, "2.0.0")
        arrived = await deferToThread(postfix.wait_for, 3)
        assert any(found.endswith(BODY.replace(b"\r\n", b"\n")) for found in arrived)
        assert "non-SMTP command" not in postfix.log
