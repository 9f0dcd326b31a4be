"""What the parts of ACME share: its errors, the names of an order, a challenge."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.tls import pem

HTTP: Final = "http-01"
DNS: Final = "dns-01"

MAX_TEXT: Final = 500


class OrderFailed(MailError):
    """No certificate came of an order; the text says why, to whoever asked for it.

    ``retry_after_s``: so long the authority wants to hear of no further order.
    """

    http_status = 502
    default_text = "The certificate authority cannot be used"

    def __init__(self, text: str, *, detail: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(tidy(text), detail=tidy(detail))
        self.retry_after_s = retry_after_s


class AccountUnknown(OrderFailed):
    """The authority has forgotten our account, or never knew it."""


def tidy(text: str) -> str:
    """A text of somebody else in one line of printable characters, of bounded length."""
    clean = "".join(each if each.isprintable() else " " for each in text[: 4 * MAX_TEXT])
    return " ".join(clean.split())[:MAX_TEXT]


@dataclass(frozen=True, slots=True)
class Challenge:
    """How one name is proved: ``answer`` is what HTTP gives at ``token``, ``record`` a TXT."""

    name: str
    token: str
    answer: str
    record: str

    @property
    def record_name(self) -> str:
        # RFC 8555 §8.4
        return f"_acme-challenge.{self.name}"


@dataclass(frozen=True, slots=True)
class Binding:
    """What an authority with customers gives them (RFC 8555 §7.3.4)."""

    key_id: str
    hmac_key: str = field(repr=False)


def names_of(hostname: str, challenge: str) -> tuple[str, ...]:
    """The names that a row's certificate is to be for, from its comma separated host names.

    Raises: ProtocolViolation for what no public authority can prove this way.
    """
    try:
        names = pem.host_names(hostname)
    except pem.Fault as error:
        raise ProtocolViolation(f"hostname: {error}") from error
    for name in names:
        if _is_address(name):
            raise ProtocolViolation(f"hostname: {name} is an address, not a host name")
        if name.startswith("*.") and challenge != DNS:
            # RFC 8555 §7.1.3; §8.3
            raise ProtocolViolation(
                f"hostname: {name} is a wildcard, which needs acme.challenge {DNS}"
            )
    return names


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
