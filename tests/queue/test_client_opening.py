"""Sessions under TLS, logged in, or not at all: what each policy makes of each next hop."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

from twisted.internet.defer import Deferred, gatherResults

from mailtwist.queue.values import Login, Tls
from tests.support.authority import Authority, server_context
from tests.support.client import ClientCase, mail
from tests.support.sink import Sink

MX = "mx.example.net"
AUTHORITY = Authority()
CA_FILE = str(AUTHORITY.file)
GOOD = AUTHORITY.issue(MX)
SELF_SIGNED = AUTHORITY.self_signed(MX)
LOGIN = Login("alice@example.com", "p\u00e4ss word")
LOGINS = {LOGIN.username: LOGIN.password}


class TlsPolicies(ClientCase):
    def tls_sink(self, pem: Path = GOOD, **given: object) -> Sink:
        return self.sink(tls=server_context(pem), **given)

    async def test_a_good_certificate_is_told_of_under_every_policy(self) -> None:
        for level in (Tls.OPPORTUNISTIC, Tls.REQUIRED, Tls.VERIFY):
            for is_implicit in (False, True):
                sink = self.tls_sink(is_implicit=is_implicit)
                session = await self.connect(sink, level, ca_file=CA_FILE, implicit=is_implicit)
                assert session.tls.startswith("TLSv1.3 TLS_")
                assert session.tls.endswith(" verified")
                assert session.is_verified
                assert (await session.deliver(mail()))[0].code == 250
                assert sink.taken[0].visit.tls
                assert sink.visits[0].sni == MX
                await session.quit()

    async def test_ehlo_is_said_again_under_tls(self) -> None:
        sink = self.tls_sink()
        session = await self.connect(sink, hostname="relay.example.org")
        assert sink.commands == ["EHLO relay.example.org", "STARTTLS", "EHLO relay.example.org"]
        assert "STARTTLS" not in session.capabilities

    async def test_no_tls_where_none_is_wanted(self) -> None:
        sink = self.tls_sink()
        session = await self.connect(sink, Tls.NONE)
        assert (session.tls, session.is_verified) == ("", False)
        assert "STARTTLS" not in sink.commands

    async def test_a_certificate_that_does_not_hold_counts_where_it_must(self) -> None:
        others = Authority()
        for pem, problem in (
            (SELF_SIGNED, "the certificate is self-signed"),
            (others.issue(MX), "the certificate is signed by an authority that is not trusted"),
            (AUTHORITY.issue(MX, days=-1, since_days=-9), "the certificate has expired"),
            (AUTHORITY.issue(MX, since_days=9), "the certificate is not valid yet"),
            (
                AUTHORITY.issue("a.example.org", "b.example.org", "c.example.org", "d.example.org"),
                "the certificate is for a.example.org, b.example.org, c.example.org and others, "
                f"not for {MX}",
            ),
            (
                AUTHORITY.issue("*.example.net\r\nX: y"),
                f"the certificate is for *.example.net??X:?y, not for {MX}",
            ),
            (AUTHORITY.issue(), f"the certificate names nobody that can be compared with {MX}"),
            (AUTHORITY.issue("192.0.2.1"), f"the certificate is for 192.0.2.1, not for {MX}"),
        ):
            for is_implicit in (False, True):
                sink = self.tls_sink(pem, is_implicit=is_implicit)
                error = await self.refused(
                    sink, Tls.VERIFY, ca_file=CA_FILE, implicit=is_implicit, source="relay.verify"
                )
                reply = error.reply
                assert (reply.code, reply.status, reply.stage) == (451, "4.7.5", "starttls")
                text = f"The TLS certificate does not hold (relay.verify): {problem}"
                assert reply.text == text
                assert error.tls.endswith(" not verified")
                await self.gone(sink)
                # Nothing is said under a certificate that is not the right one, but goodbye.
                assert [line for line in sink.commands if not line.startswith("EHLO")] in (
                    ["STARTTLS", "QUIT"],
                    ["STARTTLS"],
                    ["QUIT"],
                    [],
                )
                for level in (Tls.OPPORTUNISTIC, Tls.REQUIRED):
                    session = await self.connect(sink, level, ca_file=CA_FILE, implicit=is_implicit)
                    assert session.tls.endswith(" not verified")
                    assert not session.is_verified
                    assert (await session.deliver(mail()))[0].code == 250

    async def test_a_certificate_may_be_for_the_address(self) -> None:
        sink = self.tls_sink(AUTHORITY.issue("127.0.0.1"))
        session = await self.connect(sink, Tls.VERIFY, ca_file=CA_FILE, name="127.0.0.1")
        assert session.is_verified
        assert sink.visits[0].sni is None

    async def test_a_wildcard_is_for_one_label(self) -> None:
        sink = self.tls_sink(AUTHORITY.issue("*.example.net"))
        assert (await self.connect(sink, Tls.VERIFY, ca_file=CA_FILE)).is_verified
        error = await self.refused(sink, Tls.VERIFY, ca_file=CA_FILE, name="a.mx.example.net")
        assert error.reply.text.endswith("is for *.example.net, not for a.mx.example.net")

    async def test_the_system_does_not_trust_our_authority(self) -> None:
        error = await self.refused(self.tls_sink(), Tls.VERIFY)
        assert "an authority that is not trusted" in error.reply.text

    async def test_authorities_that_cannot_be_read_are_a_reason_to_wait(self) -> None:
        missing = str(Path(mkdtemp()) / "missing.pem")
        error = await self.refused(self.tls_sink(), Tls.VERIFY, ca_file=missing)
        assert (error.reply.code, error.reply.status) == (451, "4.7.5")
        assert missing in error.reply.text

    async def test_many_handshakes_at_once(self) -> None:
        sink = self.tls_sink()
        sessions = [self.connect(sink, Tls.VERIFY, ca_file=CA_FILE) for _ in range(10)]
        found = await gatherResults(list(map(Deferred.fromCoroutine, sessions)))
        assert all(session.is_verified for session in found)

    async def test_without_starttls_nothing_leaves_where_tls_is_required(self) -> None:
        for level in (Tls.REQUIRED, Tls.VERIFY):
            for replies in ({}, {"STARTTLS": "454 4.7.0 TLS not available"}):
                sink = self.tls_sink(replies=replies) if replies else self.sink()
                error = await self.refused(sink, level, source="relay.tls")
                assert (error.reply.code, error.reply.status) == (451, "4.7.4")
                assert "STARTTLS" in error.reply.text
                await self.gone(sink)
                assert not any(line.startswith("MAIL") for line in sink.commands)

    async def test_without_starttls_mail_goes_in_clear_where_it_may(self) -> None:
        for sink in (self.sink(), self.tls_sink(replies={"STARTTLS": "454 4.7.0 not now"})):
            session = await self.connect(sink)
            assert session.tls == ""
            assert (await session.deliver(mail()))[0].code == 250
            assert len(sink.visits) == 1

    async def test_a_handshake_that_fails_is_a_reason_or_leads_back_into_clear(self) -> None:
        for fault in ({"tls_garbage": True}, {"tls": server_context(GOOD), "replies": BROKEN}):
            for level in (Tls.REQUIRED, Tls.VERIFY):
                error = await self.refused(self.sink(**fault), level)
                assert (error.reply.code, error.reply.stage) == (451, "starttls")
                assert error.host is not None
            sink = self.sink(**fault)
            session = await self.connect(sink)
            assert session.tls == ""
            assert (await session.deliver(mail()))[0].code == 250
            assert len(sink.visits) == 2

    async def test_a_handshake_that_hangs_leads_back_into_clear(self) -> None:
        sink = self.sink(tls_garbage=True, replies={"STARTTLS": "!mute 220 2.0.0 go ahead"})
        session = await self.after(60, sink, self.connect(sink))
        assert session.tls == ""

    async def test_implicit_tls_never_leads_into_clear(self) -> None:
        sink = self.sink(is_implicit=True, tls_garbage=True)
        error = await self.refused(sink, Tls.OPPORTUNISTIC, implicit=True)
        assert error.reply.status == "4.7.5"
        assert "wrong version number" in error.reply.text
        assert len(sink.visits) == 1

    async def test_octets_behind_the_reply_to_starttls_are_not_taken_for_protected_ones(
        self,
    ) -> None:
        for octets in (b"250 injected\r\n", b"250-inj", b"250-a\r\n250 b\r\n"):
            for level in (Tls.OPPORTUNISTIC, Tls.REQUIRED):
                sink = self.tls_sink(replies={"STARTTLS": f"!raw 220 go\\r\\n{octets.decode()}"})
                error = await self.refused(sink, level)
                assert (error.reply.code, error.reply.status) == (451, "4.5.0")
                # Not in clear either: somebody is in between.
                assert len(sink.visits) == 1


BROKEN = {"STARTTLS": ["!close", "!reset"]}


class Logins(ClientCase):
    async def test_a_login_is_given_under_tls(self) -> None:
        for mechanisms, verb in (
            ("PLAIN LOGIN", "AUTH PLAIN "),
            ("LOGIN", "AUTH LOGIN"),
            ("CRAM-MD5 login", "AUTH LOGIN"),
        ):
            sink = self.sink(tls=server_context(GOOD), logins=LOGINS, mechanisms=mechanisms)
            session = await self.connect(sink, Tls.VERIFY, ca_file=CA_FILE, login=LOGIN)
            assert sink.visits[0].login == (LOGIN.username, LOGIN.password)
            assert any(line.startswith(verb) for line in sink.commands)
            assert (await session.deliver(mail()))[0].code == 250

    async def test_a_server_may_ask_again_for_plain(self) -> None:
        sink = self.sink(logins=LOGINS, ignores_initial=True)
        session = await self.connect(sink, Tls.NONE, login=LOGIN)
        assert session.is_open
        assert sink.visits[0].login == (LOGIN.username, LOGIN.password)

    async def test_the_password_is_not_sent_in_clear_unless_that_was_chosen(self) -> None:
        for level, status in ((Tls.OPPORTUNISTIC, "4.7.11"), (Tls.REQUIRED, "4.7.4")):
            sink = self.sink(logins=LOGINS)
            error = await self.refused(sink, level, login=LOGIN)
            assert (error.reply.code // 100, error.reply.status) == (4, status)
            assert not any(line.startswith("AUTH") for line in sink.commands)
        sink = self.sink(tls_garbage=True, logins=LOGINS)
        error = await self.refused(sink, Tls.OPPORTUNISTIC, login=LOGIN)
        assert error.reply.status == "4.7.11"
        assert not any(line.startswith("AUTH") for line in sink.commands)
        sink = self.sink(logins=LOGINS)
        await self.connect(sink, Tls.NONE, login=LOGIN)
        assert sink.visits[0].login == (LOGIN.username, LOGIN.password)

    async def test_a_login_that_fails_is_for_the_time_being_and_says_why(self) -> None:
        for given, status, words in (
            ({"logins": {}}, "4.7.8", "535 5.7.8 Authentication credentials invalid"),
            ({}, "4.7.0", "AUTH PLAIN or LOGIN is not offered"),
            ({"logins": {}, "mechanisms": "CRAM-MD5"}, "4.7.0", "is not offered"),
        ):
            error = await self.refused(self.sink(**given), Tls.NONE, login=LOGIN)
            reply = error.reply
            assert (reply.code, reply.status, reply.stage) == (454, status, "auth")
            assert words in reply.text

    async def test_a_server_that_repeats_the_secret_does_not_spread_it(self) -> None:
        secret = "AGFsaWNlQGV4YW1wbGUuY29tAHDDpHNzIHdvcmQ="
        sink = self.sink(logins=LOGINS, replies={"AUTH": f"535 5.7.8 what is {secret}"})
        error = await self.refused(sink, Tls.NONE, login=LOGIN)
        assert error.reply.text == "The login was refused: 535 5.7.8 what is ***"

    async def test_a_connection_lost_in_auth(self) -> None:
        sink = self.sink(logins=LOGINS, replies={"AUTH": "!close"})
        error = await self.refused(sink, Tls.NONE, login=LOGIN)
        assert (error.reply.code, error.reply.stage) == (451, "auth")


class Requiretls(ClientCase):
    async def test_requiretls_is_passed_on_or_the_message_returned(self) -> None:
        for extensions, pem, status in (
            (["REQUIRETLS"], GOOD, "2.0.0"),
            (["REQUIRETLS"], SELF_SIGNED, "5.7.30"),
            ([], GOOD, "5.7.30"),
        ):
            sink = self.sink(extensions=extensions, tls=server_context(pem))
            session = await self.connect(sink, ca_file=CA_FILE)
            (reply,) = await session.deliver(mail(requiretls=True))
            assert reply.status == status
            assert len(sink.mails) == (status == "2.0.0")
            for found in sink.mails:
                assert "REQUIRETLS" in found.parameters
        sink = self.sink(extensions=["REQUIRETLS"])
        session = await self.connect(sink)
        (reply,) = await session.deliver(mail(requiretls=True))
        assert (reply.code, reply.status) == (550, "5.7.30")
        assert sink.mails == []
