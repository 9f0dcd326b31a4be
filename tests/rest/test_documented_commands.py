"""The curl lines that users of Daptin have in their notes, run as they stand.

Only host, port, token and ids are filled in. curl takes brackets in an address for a
pattern; ``globoff`` in its own configuration file makes it take the lines as they are.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time

import pytest

from tests.e2e.relaying import until
from tests.e2e.server import Server, tool
from tests.support.rest import Rest

pytestmark = [pytest.mark.real, pytest.mark.mission("GEN-06")]

MAIL_SERVER = r"""
curl -X POST http://localhost:6336/api/mail_server \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/vnd.api+json" \
  -d '{
    "data": {
      "type": "mail_server",
      "attributes": {
        "hostname": "mail.example.com",
        "is_enabled": true,
        "listen_interface": "0.0.0.0:465",
        "always_on_tls": true,
        "max_size": 10485760,
        "max_clients": 100
      }
    }
  }'
"""

MAIL_ACCOUNT = r"""
curl -X POST http://localhost:6336/api/mail_account \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/vnd.api+json" \
  -d '{
    "data": {
      "type": "mail_account",
      "attributes": {
        "username": "noreply@example.com",
        "password": "account-password",
        "password_md5": "account-password"
      },
      "relationships": {
        "mail_server_id": {
          "data": {"type": "mail_server", "id": "SERVER_ID"}
        }
      }
    }
  }'
"""

ONE_MAIL_SERVER = r"""
curl http://localhost:6336/api/mail_server/SERVER_ID \
  -H "Authorization: Bearer $TOKEN"
"""

CERTIFICATE = r"""
curl -X POST http://localhost:6336/api/certificate \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/vnd.api+json" \
  -d '{
    "data": {
      "type": "certificate",
      "attributes": {
        "hostname": "mail.example.com"
      }
    }
  }'
"""

SELF_SIGNED = r"""
curl -X POST http://localhost:6336/action/certificate/generate_self_certificate \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"attributes": {"hostname": "mail.example.com"}, "certificate_id": "CERTIFICATE_ID"}'
"""

SYNC = r"""
curl -X POST http://localhost:6336/action/mail_server/sync_mail_servers \
  -H "Authorization: Bearer $TOKEN"
"""

MAIL_BOX = r"""
curl -X POST http://localhost:6336/api/mail_box \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/vnd.api+json" \
  -d '{
    "data": {
      "type": "mail_box",
      "attributes": {
        "name": "INBOX",
        "subscribed": true,
        "uidvalidity": 1,
        "nextuid": 1,
        "attributes": "\\HasNoChildren",
        "flags": "\\Seen \\Answered \\Flagged \\Deleted \\Draft",
        "permanent_flags": "\\Seen \\Answered \\Flagged \\Deleted \\Draft \\*"
      },
      "relationships": {
        "mail_account_id": {
          "data": {"type": "mail_account", "id": "ACCOUNT_ID"}
        }
      }
    }
  }'
"""

MAIL_BOXES = r"""
curl 'http://localhost:6336/api/mail_box?query=[{"column":"mail_account_id","operator":"is","value":"ACCOUNT_ID"}]' \
  -H "Authorization: Bearer $TOKEN"
"""  # noqa: E501

MAIL_SERVERS = r"""
curl http://localhost:6336/api/mail_server \
  -H "Authorization: Bearer $TOKEN"
"""

DASHBOARD_SERVER = r"""
curl 'http://localhost:8080/api/mail_server' -X POST \
  -H 'Content-Type: application/vnd.api+json' \
  -H 'Authorization: Bearer <TOKEN>' \
  --data-raw '{"data":{"type":"mail_server","attributes":{"always_on_tls":true,"authentication_required":true,"hostname":"mail.example.com","is_enabled":true,"listen_interface":"0.0.0.0:465","max_clients":"20","max_size":"10000","permission":0,"xclient_on":false}},"meta":{}}'
"""  # noqa: E501

DASHBOARD_ACCOUNT = r"""
curl 'http://localhost:8080/api/mail_account' -X POST \
  -H 'Content-Type: application/vnd.api+json' \
  -H 'Authorization: Bearer <TOKEN>' \
  --data-raw '{"data":{"type":"mail_account","attributes":{"password":"password","password_md5":"password","permission":0,"username":"email-address"},"relationships":{"mail_server_id":{"data":{"id":"SERVER_ID","type":"mail_server"}}}},"meta":{}}'
"""  # noqa: E501

IMAP_ENABLED = r"""
curl --location --request POST 'localhost:6336/_config/backend/imps.enabled' \
    --header 'Content-Type: application/json' \
    --header 'Authorization: Bearer <TOKEN>' \
    --data-raw 'true'
"""

IMAP_ADDRESS = r"""
curl --location --request POST 'localhost:6336/_config/backend/imap.listen_interface' \
    --header 'Content-Type: application/json' \
    --header 'Authorization: Bearer <TOKEN>' \
    --data-raw '0.0.0.0:465'
"""

HOSTNAME = r"""
curl --location --request POST 'localhost:6336/_config/backend/hostname' \
    --header 'Content-Type: application/json' \
    --header 'Authorization: Bearer <TOKEN>' \
    --data-raw 'imps.example.com'
"""

RESTART = r"""
curl 'http://localhost:8080/action/world/restart_daptin' -X POST \
    -H 'Authorization: Bearer <TOKEN>' \
    -H 'Content-Type: application/json;charset=utf-8' \
    --data-raw '{"attributes":{}}'
"""


class Notes:
    """Runs lines against one server, and remembers the ids that it gave."""

    def __init__(self, server: Server) -> None:
        tool("curl")
        self.server = server
        self.port = server.ports["http"]
        self.token = Rest(self.port).become_administrator().token
        self.names: dict[str, str] = {}
        (server.folder / ".curlrc").write_text("globoff\nsilent\nshow-error\n")

    def run(self, line: str, **changed: str) -> str:
        """Standard output; ``changed`` are ports and addresses that differ here."""
        line = re.sub(r"localhost:(6336|8080)", f"127.0.0.1:{self.port}", line)
        line = line.replace("<TOKEN>", self.token)
        for name, value in self.names.items():
            line = line.replace(name, value)
        for old, new in changed.items():
            line = line.replace({"address": "0.0.0.0:465"}[old], new)
        done = subprocess.run(
            ["sh", "-eu", "-c", line],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.server.folder), "TOKEN": self.token},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def data(self, line: str, **changed: str) -> dict:
        document = json.loads(self.run(line, **changed))
        assert "errors" not in document, document
        found: dict = document["data"]
        return found


@pytest.fixture
def notes(make_fresh):
    def start(**settings):
        server = make_fresh(**settings)
        # Their host name comes over HTTP; one in the file would lock it.
        del server.settings["hostname"]
        return Notes(server.start())

    return start


@pytest.mark.mission("DAP-031", "DAP-038", "DAP-060", "DAP-066", "DAP-124")
def test_the_lines_of_the_guide_to_the_mail_server(notes):
    user = notes()
    made = user.data(MAIL_SERVER)
    assert made["type"] == "mail_server"
    given = json.loads(MAIL_SERVER.split("-d '")[1].rsplit("'", 1)[0])["data"]["attributes"]
    assert {name: made["attributes"][name] for name in given} == given
    user.names["SERVER_ID"] = made["id"]

    account = user.data(MAIL_ACCOUNT)
    user.names["ACCOUNT_ID"] = account["id"]
    assert account["attributes"]["username"] == "noreply@example.com"
    assert account["attributes"]["password"] == ""
    server = account["relationships"]["mail_server_id"]["data"]
    assert server == {"type": "mail_server", "id": made["id"]}

    shown = user.data(ONE_MAIL_SERVER)["attributes"]
    assert shown["dkim_dns_record"].startswith("d1._domainkey.example.com")
    assert [each["id"] for each in user.data(MAIL_SERVERS)] == [made["id"]]

    certificate = user.data(CERTIFICATE)
    assert certificate["attributes"]["issuer"] == "self"
    user.names["CERTIFICATE_ID"] = certificate["id"]
    (said,) = json.loads(user.run(SELF_SIGNED))
    assert said["ResponseType"] == "client.notify"
    assert said["Attributes"]["message"] == "Certificate generated for mail.example.com"

    box = user.data(MAIL_BOX)
    assert box["attributes"]["name"] == "INBOX"
    boxes = user.data(MAIL_BOXES)
    assert len(boxes) == 6
    assert box["id"] in {each["id"] for each in boxes}
    assert {each["relationships"]["mail_account_id"]["data"]["id"] for each in boxes} == {
        account["id"]
    }

    with user.server.smtp("submissions") as client:
        client.login("noreply@example.com", "account-password")


@pytest.mark.mission("DAP-080", "DAP-091", "DAP-099")
def test_a_synchronised_mail_server_listens(notes):
    user = notes()
    made = user.data(MAIL_SERVER, address="127.0.0.1:0")
    assert json.loads(user.run(SYNC)) == []
    user.names["SERVER_ID"] = made["id"]
    user.data(MAIL_ACCOUNT)
    listeners = json.loads((user.server.data_dir / "listeners.json").read_text())
    (ours,) = [each for each in listeners if "mail.example.com" in each["name"]]
    assert ours["protocol"] == "submissions"
    user.server.ports["submissions"] = ours["port"]
    with user.server.smtp("submissions") as client:
        code, greeting = client.ehlo()
        assert code == 250
        assert greeting.startswith(b"mail.example.com")
        assert client.esmtp_features["size"] == "10485760"
        assert client.mail("noreply@example.com")[0] in {250, 530}
        assert client.rcpt("noreply@example.com")[0] in {503, 530, 554}
        client.rset()
        client.login("noreply@example.com", "account-password")
        assert client.mail("noreply@example.com")[0] == 250
        assert client.rcpt("noreply@example.com")[0] == 250
        assert client.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
    pem = ssl.get_server_certificate(("127.0.0.1", ours["port"]))
    assert names_of(pem) == "mail.example.com"


def names_of(pem: str) -> str:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(pem.encode())
    (name,) = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name.value)


@pytest.mark.mission("DAP-032", "DAP-089", "DAP-214", "DAP-215")
def test_the_lines_of_the_notes_on_the_dashboard(notes):
    user = notes()
    made = user.data(DASHBOARD_SERVER, address="127.0.0.1:0")
    shown = made["attributes"]
    assert (shown["max_clients"], shown["max_size"]) == (20, 10_000)
    assert shown["xclient_on"] is False
    user.names["SERVER_ID"] = made["id"]
    account = user.data(DASHBOARD_ACCOUNT)
    assert account["attributes"]["username"].startswith("email-address")

    assert user.run(IMAP_ENABLED) == ""
    assert user.run(IMAP_ADDRESS, address="127.0.0.1:0") == ""
    assert user.run(HOSTNAME) == ""
    pid = user.server.server_pid
    said = json.loads(user.run(RESTART))
    assert said == [
        {
            "ResponseType": "client.notify",
            "Attributes": {
                "message": "Initiating system update.",
                "title": "Success",
                "type": "success",
            },
        },
        {
            "ResponseType": "client.redirect",
            "Attributes": {"delay": 5000, "location": "/", "window": "self"},
        },
    ]

    def names() -> dict[str, dict]:
        found = json.loads((user.server.data_dir / "listeners.json").read_text())
        return {each["name"]: each for each in found}

    start = time.monotonic()
    until(lambda: "config/imap" in names())
    assert time.monotonic() - start < 5
    assert user.server.server_pid == pid
    imap = names()["config/imap"]
    user.server.ports["imap"] = imap["port"]
    # The token of before still works; the account reads its mail.
    assert user.data(MAIL_SERVERS)
    if imap["protocol"] == "imaps":
        user.server.ports["imaps"] = imap["port"]
        client = user.server.imap()
    else:
        client = user.server.imap(implicit=False)
    pem = ssl.DER_cert_to_PEM_cert(client.sock.getpeercert(binary_form=True))
    assert names_of(pem) == "imap.imps.example.com"
    client.login(account["attributes"]["username"], "password")
    assert client.select("INBOX")[0] == "OK"
    client.logout()
