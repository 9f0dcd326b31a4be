"""What EHLO announces: one row for each extension, with the condition under which it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailtwist.smtp.session import Session


@dataclass(frozen=True, slots=True)
class Extension:
    """keyword as announced; parameters of the line, or None: not announced now."""

    keyword: str
    parameters: Callable[[Session], str | None]


def always(session: Session) -> str | None:
    return ""


def _starttls(session: Session) -> str | None:
    # RFC 3207 §4.2: never inside TLS.
    return "" if session.terms.offers_tls and not session.tls else None


def _auth(session: Session) -> str | None:
    return " ".join(session.terms.mechanisms) if may_log_in(session) else None


def may_log_in(session: Session) -> bool:
    """Whether a password may cross this connection now."""
    terms = session.terms
    if not terms.mechanisms:
        return False
    return session.tls or (terms.plaintext_logins and is_loopback(session.client_address))


def _requiretls(session: Session) -> str | None:
    # RFC 8689 §2: offered only where TLS is active.
    return "" if session.tls else None


def is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


EXTENSIONS: tuple[Extension, ...] = (
    Extension("PIPELINING", always),  # RFC 2920
    Extension("SIZE", lambda session: str(session.terms.max_size)),  # RFC 1870
    Extension("8BITMIME", always),  # RFC 6152
    Extension("SMTPUTF8", always),  # RFC 6531
    Extension("ENHANCEDSTATUSCODES", always),  # RFC 2034
    Extension("DSN", always),  # RFC 3461
    Extension("STARTTLS", _starttls),  # RFC 3207
    Extension("REQUIRETLS", _requiretls),  # RFC 8689
    Extension("AUTH", _auth),  # RFC 4954
    Extension("HELP", always),  # RFC 5321 §4.1.1.8
)


def announced(session: Session) -> tuple[str, ...]:
    """The lines behind the first line of the answer to EHLO."""
    rows = ((row.keyword, row.parameters(session)) for row in EXTENSIONS)
    return tuple(
        f"{keyword} {parameters}".rstrip() for keyword, parameters in rows if parameters is not None
    )
