"""An account's name may lack a domain; then it is in the first one that is ours."""

from __future__ import annotations

import smtplib

import pytest

from tests.e2e import mails
from tests.e2e.server import trusting
from tests.support.rest import SECRET, Rest

pytestmark = [pytest.mark.real]


@pytest.mark.mission("DAP-032")
def test_it_logs_in_and_gets_mail_as_the_mail_servers_name(make_server):
    server = make_server(domains=[]).start()
    admin = Rest(server.ports["http"]).become_administrator()
    row = admin.make("mail_server", {"hostname": "mail.example.com"})
    given = {"username": "email-address", "password": SECRET, "mail_server_id": row["id"]}
    made = admin.make("mail_account", given)
    assert made["attributes"]["username"] == "email-address@mail.example.com"
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=30) as smtp:
        smtp.starttls(context=trusting())
        assert smtp.login("email-address", SECRET)[0] == 235
        address = "email-address@mail.example.com"
        smtp.sendmail(address, [address], mails.simple("to myself"))
    assert len(server.mails(address)) == 1
