from __future__ import annotations

import pytest
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.mail.imap4 import IAccount
from twisted.mail.smtp import IMessageDelivery

from mailtwist.errors import Refusal, TemporaryFailure
from mailtwist.policy.auth import Login
from mailtwist.policy.realm import make_portal
from tests.support.now import now

ALICE = Login(1, "alice@example.com", frozenset({"alice@example.com"}))


class FakeAuthenticator:
    def __init__(self):
        self.asked = []

    async def login(self, username, password, *, peer, service):
        self.asked.append((username, password, peer, service))
        if password == "later":
            raise TemporaryFailure
        if password != "right":
            raise Refusal
        return ALICE


@pytest.fixture
def authenticator():
    return FakeAuthenticator()


@pytest.fixture
def portal(authenticator):
    avatars = {IAccount: lambda login: ("account", login)}
    return make_portal(authenticator, avatars, service="imap", peer="192.0.2.1")


def enter(portal, password, interface=IAccount):
    return now(portal.login(UsernamePassword(b"alice", password), None, interface))


def test_a_stock_protocol_gets_the_avatar_of_the_login(portal, authenticator):
    interface, avatar, logout = enter(portal, b"right")
    assert interface is IAccount
    assert avatar == ("account", ALICE)
    assert logout() is None
    assert authenticator.asked == [("alice", "right", "192.0.2.1", "imap")]


def test_refusals_become_those_of_cred(portal):
    with pytest.raises(UnauthorizedLogin):
        enter(portal, b"wrong")
    with pytest.raises(UnauthorizedLogin):
        enter(portal, b"\xff\xfe")
    with pytest.raises(LoginFailed):
        enter(portal, b"later")


def test_an_interface_without_factory_is_refused(portal):
    with pytest.raises(NotImplementedError):
        enter(portal, b"right", IMessageDelivery)
