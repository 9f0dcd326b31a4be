from __future__ import annotations

from dataclasses import replace

import pytest

from mailtwist.config import load, overlay
from mailtwist.control.desired import checked, desired
from mailtwist.errors import Conflict
from mailtwist.store.mail_servers import MailServer

ROW = MailServer(
    reference_id="0199",
    hostname="mail.example.com",
    is_enabled=True,
    listen_interface="127.0.0.1:4650",
    max_size=10_000,
    max_clients=20,
    xclient_on=False,
    always_on_tls=True,
    authentication_required=True,
)


def settings(**environ):
    return load(None, {"MAILTWIST_HOSTNAME": "mx.example.com", **environ})


def wanted(*rows, given=None, **keys):
    """The listeners beside those of the file."""
    values = {name.replace("__", "."): value for name, value in keys.items()}
    given = given or settings()
    found = checked(given, rows, lambda name: values.get(name, overlay.default(name)))
    assert found[: len(given.listeners)] == given.listeners
    return found[len(given.listeners) :]


def test_without_rows_and_keys_there_is_what_the_file_says():
    assert wanted() == ()


def test_an_enabled_row_is_a_listener():
    (listener,) = wanted(ROW)
    assert listener.name == "row/0199"
    assert listener.title == "mail.example.com"
    assert (listener.protocol, listener.host, listener.port) == ("submissions", "127.0.0.1", 4650)
    assert listener.hostname == "mail.example.com"
    assert (listener.max_size, listener.max_clients) == (10_000, 20)
    assert listener.authentication_required


def test_a_row_that_is_not_enabled_is_none():
    assert wanted(replace(ROW, is_enabled=False)) == ()


def test_without_tls_from_the_start_it_speaks_smtp():
    (listener,) = wanted(replace(ROW, always_on_tls=False))
    assert listener.protocol == "smtp"


@pytest.mark.mission("DAP-100")
def test_a_row_that_needs_no_login_needs_none_under_tls_either():
    (listener,) = wanted(replace(ROW, authentication_required=False))
    assert listener.optional_login
    assert not listener.authentication_required


def test_no_row_is_served_when_smtp_is_disabled():
    assert wanted(ROW, given=settings(DAPTIN_DISABLE_SMTP="true")) == ()


@pytest.mark.parametrize(
    ("address", "protocol", "port"),
    [
        (":1143", "imap", 1143),
        ("0.0.0.0:993", "imaps", 993),
        ("0.0.0.0:465", "imap", 465),
        ("127.0.0.1:2994", "imap", 2994),
    ],
)
def test_keys_add_an_imap_listener(address, protocol, port):
    (listener,) = wanted(imap__enabled="true", imap__listen_interface=address)
    assert listener.name == "config/imap"
    assert (listener.protocol, listener.port) == (protocol, port)
    assert listener.hostname == "imap.mx.example.com"


@pytest.mark.mission("DAP-217")
@pytest.mark.parametrize(
    ("tls", "address", "protocol"),
    [
        ("implicit", ":1143", "imaps"),
        ("implicit", "0.0.0.0:465", "imaps"),
        ("starttls", ":993", "imap"),
        ("auto", ":993", "imaps"),
        ("auto", ":994", "imap"),
    ],
)
def test_whether_imap_begins_with_tls_is_a_key_of_its_own(tls, address, protocol):
    (listener,) = wanted(imap__enabled="true", imap__listen_interface=address, imap__tls=tls)
    assert listener.protocol == protocol


def test_its_name_may_be_given():
    (listener,) = wanted(imap__enabled="1", imap__hostname="imaps.example.com")
    assert listener.hostname == "imaps.example.com"
    assert listener.port == 1143


def test_a_key_adds_https():
    (listener,) = wanted(enable_https="true", https__listen_interface="127.0.0.1:6443")
    assert (listener.name, listener.protocol, listener.port) == ("config/https", "https", 6443)


def test_rows_on_one_address_are_both_named():
    other = replace(ROW, reference_id="0200", hostname="other.example.com")
    with pytest.raises(Conflict) as conflict:
        wanted(ROW, other)
    assert all(
        name in conflict.value.text
        for name in ("mail.example.com", "other.example.com", "127.0.0.1:4650")
    )


@pytest.mark.parametrize(
    ("one", "other", "is_conflict"),
    [
        ("127.0.0.1:4650", "127.0.0.1:4650", True),
        ("127.0.0.1:4650", "127.0.0.1:4651", False),
        ("127.0.0.1:4650", "127.0.0.2:4650", False),
        ("0.0.0.0:4650", "127.0.0.1:4650", True),
        (":4650", "127.0.0.1:4650", True),
        (":4650", "[::1]:4650", True),
        (":4650", "0.0.0.0:4650", True),
        (":4650", "[::]:4650", True),
        ("[::]:4650", "[::1]:4650", True),
        ("[::]:4650", "0.0.0.0:4650", False),
        ("[::1]:4650", "0.0.0.0:4650", False),
        ("[::]:4650", "127.0.0.1:4650", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_which_addresses_collide(one, other, is_conflict):
    rows = [
        replace(ROW, listen_interface=one),
        replace(ROW, listen_interface=other, reference_id="2", hostname="other.example.com"),
    ]
    _, problems = desired(settings(), rows, overlay.default)
    assert bool(problems) == is_conflict
    rows.reverse()
    _, problems = desired(settings(), rows, overlay.default)
    assert bool(problems) == is_conflict


def test_a_row_may_not_take_the_files_address():
    place = "127.0.0.1:2525"
    with pytest.raises(Conflict, match=r"mail\.example\.com.*127\.0\.0\.1:2525") as conflict:
        wanted(replace(ROW, listen_interface=place))
    assert "file/smtp-127.0.0.1:2525" in conflict.value.text


def test_every_problem_is_told_at_once():
    rows = [
        replace(ROW, listen_interface="nonsense", hostname="a.example"),
        replace(ROW, listen_interface="127.0.0.1:2525", hostname="b.example"),
    ]
    with pytest.raises(Conflict) as conflict:
        wanted(*rows)
    assert "a.example" in conflict.value.text
    assert "b.example" in conflict.value.text
