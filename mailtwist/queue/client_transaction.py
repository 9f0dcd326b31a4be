"""One mail transaction over a session: MAIL, RCPT, the content, and who got what reply.

With PIPELINING the commands up to DATA leave in one write, without it one by one. Content
follows only when the peer said 354, or took a recipient (BDAT): what is content to us can
then not be commands to it.

RFC 5321 §3.3; RFC 2920 §3.1; RFC 3030 §2; RFC 2033 §4.2.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Final

from mailtwist.queue import client_commands as commands
from mailtwist.queue.client_commands import Features
from mailtwist.queue.client_content import Content, LineEnds, Stuffer
from mailtwist.queue.client_link import Link, Timeouts
from mailtwist.queue.client_replies import Reply
from mailtwist.queue.values import Outgoing, RemoteReply

WHERE: Final = {
    "connect": "while connecting",
    "greeting": "while waiting for the greeting",
    "ehlo": "after EHLO",
    "starttls": "in STARTTLS",
    "auth": "after AUTH",
    "mail": "after MAIL",
    "rcpt": "after RCPT",
    "data": "before the content was sent",
    "end": "before the reply to the content; it may have arrived",
}


def lost(link: Link, stage: str, where: str = "") -> RemoteReply:
    """The reply in place of those that a broken connection swallowed."""
    broken = link.broken
    assert broken is not None, "the connection lives"
    if not broken.is_ours:
        return replace(broken, stage=stage)
    return replace(broken, stage=stage, text=f"{broken.text} {where or WHERE[stage]}")


def refused(link: Link, reply: Reply, stage: str) -> RemoteReply:
    """A reply that is no success. One that makes no sense there ends the connection."""
    if reply.is_error:
        return reply.said(stage)
    link.end("protocol error")
    text = f"protocol error: unexpected reply {reply.said(stage)}"
    return RemoteReply(451, "4.5.0", text[:500], stage, is_ours=True)


def is_too_many(reply: RemoteReply) -> bool:
    """RFC 5321 §4.5.3.1.10: the others may follow in a further transaction."""
    if reply.status in {"4.5.3", "5.5.3"}:
        return True
    return reply.code == 452 and reply.status == "4.0.0"


class Transaction:
    """`run` it once; then `replies` has one for each recipient (by its place in the message)
    of ``batch``, but for those `postponed`.
    """

    def __init__(
        self,
        link: Link,
        mail: Outgoing,
        content: Content,
        batch: list[int],
        *,
        features: Features,
        timeouts: Timeouts,
        is_lmtp: bool,
    ) -> None:
        self.replies: dict[int, RemoteReply] = {}
        self.postponed: list[int] = []
        self._link = link
        self._mail = mail
        self._content = content
        self._batch = batch
        self._features = features
        self._timeouts = timeouts
        self._is_lmtp = is_lmtp
        # Dot-stuffing costs little; to know where the content ends is worth the most for much.
        self._by_bdat = features.chunking and (content.whole is None or not content.is_checked)

    async def run(self) -> None:
        lines = self._lines()
        if self._features.pipelining:
            self._link.send(b"".join(lines), len(lines))
            got = await self._link.replies(len(lines), self._timeouts.command)
        else:
            got = await self._one_by_one(lines)
        accepted = self._judge(got)
        after = got[len(self._batch) + 1 :]
        if not accepted:
            await self._cancel(after[0] if after else None)
        elif self._link.broken is not None and not (after and after[0].is_error):
            self._assign(accepted, lost(self._link, "data"))
        elif self._by_bdat:
            await self._send_chunks(accepted)
        elif after[0].code != 354:
            self._assign(accepted, refused(self._link, after[0], "data"))
            await self._cancel(None)
        elif self._content.whole is not None:
            self._link.send(self._content.stuffed, self._owed(accepted))
            await self._end(accepted)
        else:
            await self._stream(accepted)

    # -- the envelope --------------------------------------------------------------------------

    def _lines(self) -> list[bytes]:
        mail, features, whole = self._mail, self._features, self._content.whole
        chosen = [mail.recipients[n] for n in self._batch]
        is_8bit = mail.body != "7BIT" or (whole is not None and not whole.isascii())
        needs_utf8 = features.smtputf8 and (
            mail.smtputf8
            or not mail.reverse_path.isascii()
            or not all(recipient.address.isascii() for recipient in chosen)
        )
        lines = [commands.mail_command(mail, features, is_8bit=is_8bit, needs_utf8=needs_utf8)]
        lines += [commands.rcpt_command(recipient, features) for recipient in chosen]
        if not self._by_bdat:
            lines.append(b"DATA\r\n")
        return lines

    async def _one_by_one(self, lines: list[bytes]) -> list[Reply]:
        """RFC 5321 §4.1.4: the same without PIPELINING; what makes no sense is not said."""
        got: list[Reply] = []
        for line in lines:
            if got and not got[0].is_good:
                break
            if line == b"DATA\r\n" and not any(reply.is_good for reply in got[1:]):
                break
            reply = await self._link.ask(line, self._timeouts.command)
            if reply is None:
                break
            got.append(reply)
        return got

    def _judge(self, got: list[Reply]) -> list[int]:
        """Settle the recipients that are refused; those accepted are returned."""
        batch, link = self._batch, self._link
        if not got or not got[0].is_good:
            reply = refused(link, got[0], "mail") if got else lost(link, "mail")
            self._assign(batch, reply)
            return []
        accepted = []
        for n, said in zip(batch, got[1:], strict=False):
            if said.is_good:
                accepted.append(n)
            else:
                self._refuse(n, refused(link, said, "rcpt"), bool(accepted))
        heard = len(got) - 1
        if heard < len(batch):
            self._assign([*accepted, *batch[heard:]], lost(link, "rcpt"))
            return []
        return accepted

    def _refuse(self, n: int, reply: RemoteReply, is_behind_accepted: bool) -> None:
        if is_behind_accepted and is_too_many(reply):
            self.postponed.append(n)
        else:
            self.replies[n] = reply

    def _assign(self, recipients: list[int], reply: RemoteReply) -> None:
        for n in recipients:
            self.replies[n] = reply

    async def _cancel(self, data_reply: Reply | None) -> None:
        """Nobody is left who wants the content; the session shall serve the next message."""
        link = self._link
        if data_reply is not None and data_reply.code == 354:
            # RFC 2920 §3.1: the end alone; the reply to it means nothing.
            await link.ask(b".\r\n", self._timeouts.end)
        if link.broken is None:
            reply = await link.ask(b"RSET\r\n", self._timeouts.command)
            if reply is not None and not reply.is_good:
                link.end("RSET was refused")

    # -- the content ---------------------------------------------------------------------------

    def _owed(self, accepted: list[int]) -> int:
        # RFC 2033 §4.2: a reply for each recipient.
        return len(accepted) if self._is_lmtp else 1

    async def _end(self, accepted: list[int]) -> None:
        """Settle the recipients by what follows the content."""
        count = self._owed(accepted)
        got = await self._link.replies(count, self._timeouts.end)
        settled = [self._outcome(reply) for reply in got]
        if len(got) < count:
            settled += [lost(self._link, "end")] * (count - len(got))
        for position, n in enumerate(accepted):
            self.replies[n] = settled[position if self._is_lmtp else 0]

    def _outcome(self, reply: Reply) -> RemoteReply:
        return reply.said("end") if reply.is_good else refused(self._link, reply, "end")

    async def _stream(self, accepted: list[int]) -> None:
        """DATA, block by block; a reply before the end is the end."""
        link, stuffer, owed = self._link, Stuffer(), self._owed(accepted)
        async with aclosing(self._content.blocks()) as blocks:
            async for block in blocks:
                link.stream(stuffer.feed(block), owed)
                owed = 0
                if not await link.drained(self._timeouts.block):
                    await self._broken_off(accepted)
                    return
        link.stream(stuffer.close(), owed)
        await self._end(accepted)

    async def _broken_off(self, accepted: list[int]) -> None:
        got = await self._link.replies(1, 0.0)
        if got:
            self._assign(accepted, refused(self._link, got[0], "end"))
            self._link.end("a reply within the content")
        else:
            self._assign(accepted, lost(self._link, "end", "within the content"))

    async def _send_chunks(self, accepted: list[int]) -> None:
        """BDAT: each chunk is taken before the next leaves."""
        link, ends, left = self._link, LineEnds(), self._mail.octets
        async with aclosing(self._content.blocks()) as blocks:
            async for read in blocks:
                left -= len(read)
                block = read + self._checked(ends, read, is_last=not left)
                if not left:
                    link.send(b"BDAT %d LAST\r\n%b" % (len(block), block), self._owed(accepted))
                    break
                reply = await link.ask(b"BDAT %d\r\n%b" % (len(block), block), self._timeouts.end)
                if reply is None or not reply.is_good:
                    refusal = refused(link, reply, "data") if reply else lost(link, "data")
                    self._assign(accepted, refusal)
                    await self._cancel(None)
                    return
        await self._end(accepted)

    def _checked(self, ends: LineEnds, block: bytes, *, is_last: bool) -> bytes:
        """What is to be added to the block. Raises: BareLineEnd."""
        if not self._content.is_checked:
            return b""
        ends.check(block)
        return ends.close() if is_last else b""
