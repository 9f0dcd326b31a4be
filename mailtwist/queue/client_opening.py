"""From a connection to a session: greeting, EHLO, STARTTLS, AUTH.

RFC 5321 §3.1, §3.2; RFC 2033 §4.1; RFC 3207; RFC 4954; RFC 8314 §3.3; RFC 7435.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from mailtwist.queue.client_link import Link, Timeouts
from mailtwist.queue.client_replies import Reply, one_line
from mailtwist.queue.client_session import ClientSession
from mailtwist.queue.client_transaction import lost, refused
from mailtwist.queue.values import Host, Login, RemoteReply, Tls, TlsPolicy, Undeliverable
from mailtwist.tls.outgoing import Handshake

STRICT: Final = frozenset({Tls.REQUIRED, Tls.VERIFY})


class NoTls(Undeliverable):
    """TLS was tried and failed before anything else was said."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the session is to be. ``level`` overrules that of the policy."""

    hostname: str
    policy: TlsPolicy
    level: Tls
    login: Login | None
    is_lmtp: bool


class Opening:
    """`run` it once, on a link that is connected. ``handshake`` makes one for a host's name."""

    def __init__(
        self,
        link: Link,
        host: Host,
        wishes: Wishes,
        *,
        timeouts: Timeouts,
        handshake: Callable[[str, str], Awaitable[Handshake]],
    ) -> None:
        self._link = link
        self._host = host
        self._wishes = wishes
        self._timeouts = timeouts
        self._make_handshake = handshake
        self._tls = ""
        self._is_verified = False
        self._capabilities: dict[str, str] = {}

    async def run(self) -> ClientSession:
        """Raises: Undeliverable (its kind NoTls: one may try again in clear)."""
        wishes = self._wishes
        if wishes.policy.implicit:
            await self._shake_hands(await self._handshake())
        await self._greeting()
        await self._hello()
        if wishes.level is not Tls.NONE and not self._link.is_tls:
            await self._start_tls()
        if wishes.login is not None:
            await self._log_in(wishes.login)
        return ClientSession(
            self._link,
            self._host,
            timeouts=self._timeouts,
            capabilities=self._capabilities,
            tls=self._tls,
            is_verified=self._is_verified,
            is_lmtp=wishes.is_lmtp,
        )

    # -- greeting and EHLO -----------------------------------------------------------------------

    async def _greeting(self) -> None:
        got = await self._link.replies(1, self._timeouts.greeting)
        if not got:
            self._fail(lost(self._link, "greeting"))
        if got[0].code != 220:
            self._fail(refused(self._link, got[0], "greeting"))

    async def _hello(self) -> None:
        verb = "LHLO" if self._wishes.is_lmtp else "EHLO"
        reply = await self._ask(verb, self._wishes.hostname)
        # RFC 5321 §3.2: a server so old that it does not know EHLO.
        if 500 <= reply.code < 600 and not self._wishes.is_lmtp:
            reply = await self._ask("HELO", self._wishes.hostname)
        if not reply.is_good:
            self._fail(refused(self._link, reply, "ehlo"))
        self._capabilities = capabilities_of(reply)

    async def _ask(self, verb: str, argument: str) -> Reply:
        command = f"{verb} {argument}\r\n".encode("ascii", "replace")
        reply = await self._link.ask(command, self._timeouts.command)
        if reply is None:
            self._fail(lost(self._link, "ehlo"))
        return reply

    # -- TLS -------------------------------------------------------------------------------------

    async def _start_tls(self) -> None:
        is_strict = self._wishes.level in STRICT
        if "STARTTLS" not in self._capabilities:
            if is_strict:
                source = self._wishes.policy.source
                self._fail_tls("4.7.4", f"TLS is required ({source}), STARTTLS is not offered")
            return
        # First, for it may have to read files: nothing shall come between 220 and the handshake.
        handshake = await self._handshake()
        reply = await self._link.ask(b"STARTTLS\r\n", self._timeouts.command)
        if reply is None:
            raise self._no_tls(lost(self._link, "starttls"))
        if reply.code != 220:
            if is_strict:
                self._fail_tls("4.7.4", f"STARTTLS was refused: {reply.said('starttls')}")
            return
        await self._shake_hands(handshake)
        # RFC 3207 §4.2: what was announced in the clear is forgotten.
        await self._hello()

    async def _handshake(self) -> Handshake:
        name = self._host.name or self._host.address
        return await self._make_handshake(self._wishes.policy.ca_file, name)

    async def _shake_hands(self, handshake: Handshake) -> None:
        link = self._link
        if not await link.start_tls(handshake, self._timeouts.tls):
            broken = lost(link, "starttls")
            # Somebody put octets into the connection: nothing to answer by going on in clear.
            if broken.status == "4.5.0":
                self._fail(broken)
            text = one_line(f"TLS handshake failed: {broken.text}")
            raise self._no_tls(RemoteReply(451, "4.7.5", text, "starttls", is_ours=True))
        self._tls, problem = handshake.finish()
        self._is_verified = not problem
        if problem and self._wishes.level is Tls.VERIFY:
            source = self._wishes.policy.source
            self._fail_tls("4.7.5", f"The TLS certificate does not hold ({source}): {problem}")

    def _no_tls(self, reply: RemoteReply) -> NoTls:
        return NoTls(reply, host=self._host)

    def _fail_tls(self, status: str, text: str) -> NoReturn:
        # For the time being: certificates are renewed and servers mended.
        self._fail(RemoteReply(451, status, one_line(text), "starttls", is_ours=True))

    # -- AUTH --------------------------------------------------------------------------------------

    async def _log_in(self, login: Login) -> None:
        if not self._link.is_tls and self._wishes.policy.level is not Tls.NONE:
            self._fail_auth("4.7.11", "The password is not sent in clear, TLS is not offered")
        mechanisms = self._capabilities.get("AUTH", "").upper().split()
        for mechanism, steps in (("PLAIN", plain(login)), ("LOGIN", by_login(login))):
            if mechanism in mechanisms:
                await self._authenticate(mechanism, steps)
                return
        self._fail_auth("4.7.0", "AUTH PLAIN or LOGIN is not offered")

    async def _authenticate(self, mechanism: str, steps: tuple[bytes, ...]) -> None:
        # RFC 4954 §4: PLAIN in one go; a server that asks all the same (334) gets it again.
        initial = b" " + steps[0] if mechanism == "PLAIN" else b""
        command = b"AUTH %b%b\r\n" % (mechanism.encode(), initial)
        reply = await self._link.ask(command, self._timeouts.command)
        for step in steps:
            if reply is None or reply.code != 334:
                break
            reply = await self._link.ask(step + b"\r\n", self._timeouts.command)
        if reply is None:
            self._fail(lost(self._link, "auth"))
        if reply.code != 235:
            said = str(reply.said("auth"))
            for step in steps:
                said = said.replace(step.decode(), "***")
            # A refused login is a matter of the configuration: mail waits until it is mended.
            self._fail_auth("4.7.8", f"The login was refused: {said}")

    def _fail_auth(self, status: str, text: str) -> NoReturn:
        self._fail(RemoteReply(454, status, one_line(text), "auth", is_ours=True))

    def _fail(self, reply: RemoteReply) -> NoReturn:
        raise Undeliverable(reply, host=self._host, tls=self._tls)


def capabilities_of(reply: Reply) -> dict[str, str]:
    """What the lines of EHLO announce: names in upper case, with their parameters."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        name, _, value = line.decode("ascii", "replace").strip().partition(" ")
        name = name.upper()
        # Before RFC 2554 there was "AUTH=LOGIN".
        if name.startswith("AUTH="):
            name, value = "AUTH", f"{name[5:]} {value}"
        if name:
            found[name] = f"{found[name]} {value}" if name in found else value.strip()
    return found


def plain(login: Login) -> tuple[bytes, ...]:
    """RFC 4616 §2"""
    return (base64.b64encode(f"\0{login.username}\0{login.password}".encode()),)


def by_login(login: Login) -> tuple[bytes, ...]:
    return (
        base64.b64encode(login.username.encode()),
        base64.b64encode(login.password.encode()),
    )
