"""What is counted, of whom, and which setting says how many: one row for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailtwist.config import Settings
from mailtwist.config.rates import MINUTE, Rate
from mailtwist.mail.address import Address
from mailtwist.net.counters import network_of


class Event(StrEnum):
    CONNECTION = "connection"
    LOGIN = "login"
    MESSAGE = "message"  # counted at MAIL
    RECIPIENT = "recipient"
    SEND_REQUEST = "send request"
    INBOX_REQUEST = "inbox request"
    WRONG_KEY = "wrong key"


@dataclass(frozen=True, slots=True)
class Client:
    """``username``: of the login, "" without one. ``reverse_path``: of the message."""

    address: str
    username: str = ""
    reverse_path: Address | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """``subject``: who is counted, "" for nobody."""

    scope: str
    event: Event
    subject: Callable[[Client], str]
    rate: Callable[[Settings], Rate]


def _network(client: Client) -> str:
    return network_of(client.address)


def _stranger(client: Client) -> str:
    """Behind one address there may be many users, who are known by name."""
    return "" if client.username else network_of(client.address)


def _guesser(client: Client) -> str:
    """Nobody is exempt who does not know the key."""
    return network_of(client.address)


def _login(client: Client) -> str:
    return client.username


def _sender(client: Client) -> str:
    """Bounces have no sender: all that there are must not be counted as one's."""
    return client.reverse_path.folded if client.reverse_path is not None else ""


def _inbox_rate(settings: Settings) -> Rate:
    return Rate(settings.inbox.smtp_rate if settings.inbox.domain else 0, MINUTE)


def _send_rate(settings: Settings) -> Rate:
    return Rate(settings.send.rate, MINUTE)


def _api_rate(settings: Settings) -> Rate:
    return Rate(settings.inbox.api_rate, MINUTE)


RULES: Final = (
    Rule("connections", Event.CONNECTION, _network, lambda s: s.limits.connection_rate),
    Rule("connections of account", Event.LOGIN, _login, lambda s: s.limits.account_connection_rate),
    Rule("messages of address", Event.MESSAGE, _stranger, lambda s: s.limits.message_rate),
    Rule("messages of account", Event.MESSAGE, _login, lambda s: s.limits.account_message_rate),
    Rule("messages of sender", Event.MESSAGE, _sender, _inbox_rate),
    Rule("recipients of address", Event.RECIPIENT, _stranger, lambda s: s.limits.recipient_rate),
    Rule(
        "recipients of account", Event.RECIPIENT, _login, lambda s: s.limits.account_recipient_rate
    ),
    Rule("send requests", Event.SEND_REQUEST, _network, _send_rate),
    Rule("inbox requests", Event.INBOX_REQUEST, _network, _api_rate),
    Rule("wrong keys", Event.WRONG_KEY, _guesser, _api_rate),
)
# Of a client by its address, who may be exempt.
BY_ADDRESS: Final = frozenset({_network, _stranger})
