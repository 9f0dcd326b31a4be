"""Delivery status notifications: bounces, delay warnings, reports of success.

:func:`compose` makes a whole message of a :class:`Report`; it is pure, and nothing that a
remote server or the original message says can break it or forge a field of it.

RFC 3464; RFC 6522; RFC 6533; RFC 3461 §6.
"""

from mailtwist.mail.dsn.compose import compose
from mailtwist.mail.dsn.original import MAX_HEADER, MAX_RETURNED
from mailtwist.mail.dsn.values import Action, Fate, Kind, Report

__all__ = ["MAX_HEADER", "MAX_RETURNED", "Action", "Fate", "Kind", "Report", "compose"]
