"""The queue's values as arrays of JSON, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from mailtwist.queue.values import (
    Host,
    Login,
    Outgoing,
    OutgoingRecipient,
    RemoteReply,
    Tls,
    TlsPolicy,
)
from mailtwist.store.queue.values import Notify

Words = list[Any]
Blocks = Callable[[], AsyncIterator[bytes]]


def of_reply(reply: RemoteReply) -> Words:
    return [reply.code, reply.status, reply.text, reply.stage, reply.is_ours]


def to_reply(words: Words) -> RemoteReply:
    code, status, text, stage, is_ours = words
    return RemoteReply(int(code), str(status), str(text), str(stage), bool(is_ours))


def of_wishes(
    host: Host, hostname: str, policy: TlsPolicy, login: Login | None, is_lmtp: bool
) -> Words:
    return [
        [host.name, host.address, host.port],
        hostname,
        [policy.level, policy.implicit, policy.ca_file, policy.source],
        None if login is None else [login.username, login.password],
        is_lmtp,
    ]


def to_wishes(words: Words) -> dict[str, Any]:
    """The arguments of a connector."""
    host, hostname, (level, implicit, ca_file, source), login, is_lmtp = words
    return {
        "host": Host(*host),
        "hostname": hostname,
        "policy": TlsPolicy(Tls(level), implicit, ca_file, source),
        "login": None if login is None else Login(*login),
        "is_lmtp": is_lmtp,
    }


def of_mail(mail: Outgoing) -> Words:
    """All but its content."""
    return [
        mail.reverse_path,
        [[each.address, each.orcpt, int(each.notify)] for each in mail.recipients],
        mail.octets,
        mail.envid,
        mail.ret,
        mail.body,
        mail.smtputf8,
        mail.requiretls,
    ]


def to_mail(words: Words, blocks: Blocks) -> Outgoing:
    reverse_path, recipients, octets, envid, ret, body, smtputf8, requiretls = words
    return Outgoing(
        reverse_path,
        tuple(
            OutgoingRecipient(address, orcpt, Notify(notify))
            for address, orcpt, notify in recipients
        ),
        octets,
        blocks,
        envid,
        ret,
        body,
        smtputf8,
        requiretls,
    )
