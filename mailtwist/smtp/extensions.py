"""What EHLO announces: one row for each extension, with the condition under which it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtwist.net.networks import LOOPBACK
from mailtwist.policy.sasl import usable
from mailtwist.smtp.grammar import XCLIENT_ATTRIBUTES

if TYPE_CHECKING:
    from mailtwist.smtp.session import Session


@dataclass(frozen=True, slots=True)
class Extension:
    """keyword as announced; parameters of the line, or None: not announced now.

    ``standard`` and ``when``: for the documentation; an extension without ``when`` is always there.
    """

    keyword: str
    parameters: Callable[[Session], str | None]
    standard: str = ""
    when: str = ""


def always(session: Session) -> str | None:
    return ""


def _starttls(session: Session) -> str | None:
    # RFC 3207 §4.2: never inside TLS.
    return "" if session.terms.offers_tls and not session.tls else None


def _auth(session: Session) -> str | None:
    return " ".join(mechanisms_of(session)) if may_log_in(session) else None


def mechanisms_of(session: Session) -> tuple[str, ...]:
    """The SASL mechanisms that work on this connection."""
    return usable(session.terms.mechanisms, can_bind=session.wire.can_bind)


def may_log_in(session: Session) -> bool:
    """Whether a password may cross this connection now."""
    terms = session.terms
    if not terms.mechanisms:
        return False
    return session.tls or (terms.plaintext_logins and session.client_address in LOOPBACK)


def _requiretls(session: Session) -> str | None:
    # RFC 8689 §2: offered only where TLS is active.
    return "" if session.tls else None


def _limits(session: Session) -> str:
    # RFC 9422 §4.2
    return f"RCPTMAX={session.terms.max_recipients}"


def _xclient(session: Session) -> str | None:
    if not (session.terms.xclient_on and session.is_from_loopback):
        return None
    return " ".join(XCLIENT_ATTRIBUTES)


def _xdebug(session: Session) -> str | None:
    return "" if session.terms.dev_mode else None


EXTENSIONS: tuple[Extension, ...] = (
    Extension("PIPELINING", always, "RFC 2920"),
    Extension("SIZE", lambda session: str(session.terms.max_size), "RFC 1870"),
    Extension("8BITMIME", always, "RFC 6152"),
    Extension("SMTPUTF8", always, "RFC 6531"),
    Extension("ENHANCEDSTATUSCODES", always, "RFC 2034"),
    Extension("CHUNKING", always, "RFC 3030"),
    Extension("BINARYMIME", always, "RFC 3030"),
    Extension("DSN", always, "RFC 3461"),
    Extension("STARTTLS", _starttls, "RFC 3207", "before TLS, where `tls.enabled`"),
    Extension("REQUIRETLS", _requiretls, "RFC 8689", "inside TLS"),
    Extension(
        "AUTH",
        _auth,
        "RFC 4954",
        "where `auth.enabled`, inside TLS; before it on loopback with `auth.allow_plaintext`; "
        "not on `lmtp` listeners",
    ),
    Extension("LIMITS", _limits, "RFC 9422"),
    Extension("XCLIENT", _xclient, "", "on listeners with `xclient_on`, to 127.0.0.1 and ::1"),
    Extension("XDEBUG", _xdebug, "", "in `dev_mode`"),
    Extension("HELP", always, "RFC 5321"),
)


def announced(session: Session) -> tuple[str, ...]:
    """The lines behind the first line of the answer to EHLO."""
    rows = ((row.keyword, row.parameters(session)) for row in EXTENSIONS)
    return tuple(
        f"{keyword} {parameters}".rstrip() for keyword, parameters in rows if parameters is not None
    )
