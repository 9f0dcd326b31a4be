"""Who a message says it is by: the addresses of every From field there is.

Which of several From fields a program shows is its own affair, so all of them count.
RFC 5322 §3.6.2.
"""

from __future__ import annotations

from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail import envelope_addresses
from mailtwist.mail.address import Address, fold_domain
from mailtwist.mail.addresslist import Budget, render_addresses
from mailtwist.mail.header import MAX_BLOCK, split_fields

MAX_AUTHORS: Final = 20


def authors(header: bytes) -> tuple[Address, ...]:
    """Each author once, in order.

    Raises: ProtocolViolation when there is none, or one whose address cannot be read, more than
    :data:`MAX_AUTHORS`, or a header too long to be sure.
    """
    if len(header) > MAX_BLOCK:
        raise ProtocolViolation("The header of the message is too long")
    budget = Budget(addresses=MAX_AUTHORS + 1, tokens=2000)
    found: dict[str, Address] = {}
    for name, raw in split_fields(header):
        if name.strip().lower() == b"from":
            for rendered in render_addresses(_unfolded(raw), budget):
                author = _author(rendered)
                if author is not None:
                    found[author.folded] = author
    if not found or budget.addresses <= 0 or budget.tokens <= 0:
        raise ProtocolViolation("The From field of the message names nobody, or too many")
    return tuple(found.values())


def _unfolded(raw: bytes) -> bytes:
    return raw.partition(b":")[2].translate(None, b"\r\n\0").strip(b" \t")


def _author(rendered: bytes) -> Address | None:
    """The address of one tuple; None: it begins or ends a group (RFC 9051 §7.5.2)."""
    text = envelope_addresses.of_tuple(rendered)
    if text is None:
        return None
    local_part, _, host = text.rpartition("@")
    try:
        domain = fold_domain(host)
    except ProtocolViolation as error:
        raise _unreadable() from error
    if not local_part or not domain:
        raise _unreadable()
    return Address(local_part, domain)


def _unreadable() -> ProtocolViolation:
    return ProtocolViolation("An address of the From field cannot be read")
