"""What the server announces, and when: one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mailtwist.imap.table import State
from mailtwist.policy.sasl import MECHANISMS

if TYPE_CHECKING:
    from mailtwist.imap.session import Session

Condition = Callable[["Session"], bool]


def _always(session: Session) -> bool:
    return True


def _before_login(session: Session) -> bool:
    return session.state is State.NOT_AUTHENTICATED


def _before_tls(session: Session) -> bool:
    return _before_login(session) and session.services.can_start_tls and not session.wire.secure


def _login_open(session: Session) -> bool:
    return _before_login(session) and session.may_login


def _login_shut(session: Session) -> bool:
    may_login = session.may_login and session.services.takes_passwords
    return _before_login(session) and not may_login


def _mechanism(name: str) -> Condition:
    return lambda session: _login_open(session) and name in session.mechanisms


CAPABILITIES: tuple[tuple[str, Condition], ...] = (
    ("IMAP4rev1", _always),
    ("STARTTLS", _before_tls),
    ("LOGINDISABLED", _login_shut),
    *((f"AUTH={name}", _mechanism(name)) for name in MECHANISMS),
    ("SASL-IR", _always),
    ("LITERAL+", _always),
    ("ID", _always),
    ("ENABLE", _always),
    ("IDLE", _always),
    ("NAMESPACE", _always),
    ("UIDPLUS", _always),
    ("MOVE", _always),
    ("UNSELECT", _always),
    ("CHILDREN", _always),
    ("SPECIAL-USE", _always),
    ("CREATE-SPECIAL-USE", _always),
    ("ESEARCH", _always),
    ("LIST-EXTENDED", _always),
    ("LIST-STATUS", _always),
    ("STATUS=SIZE", _always),
)


def announced(session: Session) -> str:
    """``CAPABILITY IMAP4rev1 ...`` as this session sees it now."""
    names = [name for name, holds in CAPABILITIES if holds(session)]
    return " ".join(["CAPABILITY", *names])
