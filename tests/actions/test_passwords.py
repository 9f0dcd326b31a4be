"""A forgotten password: what becomes of it when the letter cannot be written."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from mailtwist.actions.one_time_codes import RESET, OneTimeCodes
from mailtwist.actions.passwords import PasswordResets
from mailtwist.errors import OverQuota
from mailtwist.policy.identities import Unauthorized
from tests.actions.conftest import PASSWORD
from tests.support.now import now

CODE = "123456"


@pytest.fixture
def codes(server):
    return OneTimeCodes(server.database, server.secrets, server.clock)


@pytest.fixture
def resets(server, codes):
    mailing = server.services.mailing
    return PasswordResets(server.database, server.intake, server.resources, mailing, codes)


@pytest.fixture
def anna(server, codes):
    """A user whose mail is here too, and who was sent a code."""
    anna = server.user("anna@x.org")
    server.create("mail_account", {"username": "anna@x.org", "password": "correct horse"})
    given = {"purpose": RESET, "subject": anna.reference_id, "code": CODE}
    now(server.database.write(lambda connection: codes.putting(connection, **given)))
    return anna


def finish(resets, password=""):
    now(resets.finish("anna@x.org", CODE, password, peer="192.0.2.1"))


def test_a_new_password_that_cannot_be_mailed_is_not_set(server, resets, anna):
    full = "UPDATE account SET quota_octets = 1 WHERE username = 'anna@x.org'"
    now(server.database.write(lambda connection: connection.execute(text(full))))
    with pytest.raises(OverQuota):
        finish(resets)
    assert server.sign_in("anna@x.org", PASSWORD)


@pytest.mark.parametrize("password", ["", "another one"])
def test_the_old_password_counts_no_more(server, resets, anna, password):
    finish(resets, password)
    with pytest.raises(Unauthorized):
        server.sign_in("anna@x.org", PASSWORD)
    if password:
        assert server.sign_in("anna@x.org", password)
