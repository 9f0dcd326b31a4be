"""What a listener grants, from its own settings and the server's."""

from __future__ import annotations

import pytest

from mailtwist.config import Listener, load
from mailtwist.smtp.service import terms_of


def terms(protocol, *, environ=(), **more):
    settings = load(None, {"MAILTWIST_HOSTNAME": "mx.example.com", **dict(environ)})
    listener = Listener("x", protocol, "", 0, **more)
    return terms_of(listener, settings, has_tls=True)


@pytest.mark.parametrize(
    ("protocol", "given", "is_needed"),
    [
        ("smtp", {}, False),
        ("smtp", {"authentication_required": True}, True),
        ("smtp", {"optional_login": True}, False),
        ("submission", {}, True),
        ("submissions", {}, True),
        ("submissions", {"optional_login": True}, False),
        ("submissions", {"authentication_required": True}, True),
    ],
)
@pytest.mark.mission("DAP-099", "DAP-100")
def test_who_needs_a_login(protocol, given, is_needed):
    assert terms(protocol, **given).login_required is is_needed


def test_the_servers_rule_comes_before_a_listeners():
    environ = {"MAILTWIST_AUTH_REQUIRED": "true"}
    assert terms("submissions", environ=environ, optional_login=True).login_required


@pytest.mark.mission("DAP-082")
def test_a_listener_has_its_own_name_and_size():
    own = terms("smtp", hostname="mail.example.com", max_size=12345)
    assert (own.hostname, own.max_size) == ("mail.example.com", 12345)
    assert terms("smtp").hostname == "mx.example.com"
