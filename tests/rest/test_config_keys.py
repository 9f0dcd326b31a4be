"""Keys of the configuration over HTTP: set, read, removed; who may; what stays secret."""

from __future__ import annotations

import itertools

import pytest

from mailtwist.config.kinds import MASK
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

PLAIN = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}


def key(name: str) -> str:
    return f"/_config/backend/{name}"


@pytest.mark.mission("DAP-210")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_key_is_set_read_and_removed(admin, method):
    url = key("mail.default_server_hostname")
    answer = admin.ask(method, url, b"mx.config.example", headers=PLAIN)
    assert (answer.status, answer.body) == (200, b"")
    assert admin.get(url).text == "mx.config.example"
    assert admin.delete(url).status == 200
    gone = admin.get(url)
    assert gone.status == 404
    assert admin.ask(method, url, b"true", headers=JSON).status == 200
    assert admin.get(url).text == "true"
    assert admin.delete(url).status == 200


@pytest.mark.mission("DAP-211")
@pytest.mark.parametrize(
    "body, value",
    [
        (b'"x.org"', "x.org"),
        (b"x.org", "x.org"),
        (b'""x.org""', '""x.org""'),
        (b'"\\"x\\""', '"x"'),
        (b"true", "true"),
        (b'{"a": 1}', '{"a": 1}'),
    ],
)
def test_one_layer_of_json_is_taken_off(admin, body, value):
    url = key("mail.default_server_hostname")
    answer = admin.post(url, body, headers=JSON)
    if value != "x.org":  # may be no value for this key
        assert answer.status in {200, 400}
    if answer.status == 200:
        assert admin.get(url).text == value
        admin.delete(url)


@pytest.mark.mission("DAP-212")
def test_all_keys_at_once_without_their_secrets(admin, server):
    secret = "never-to-be-read-again-0123456789abcdef"
    admin.post(key("encryption.secret"), secret.encode(), headers=PLAIN)
    answer = admin.get("/_config")
    assert answer.status == 200
    assert isinstance(answer.json, dict)
    assert all(isinstance(value, str) for value in answer.json.values())
    assert secret not in answer.text
    for name in ("jwt.secret", "encryption.secret"):
        assert answer.json.get(name, "") in {"", MASK}
        shown = admin.get(key(name))
        assert secret not in shown.text
    assert secret not in server.log
    # The tokens were signed with it: were it shown, anybody could make them.
    assert admin.get("/_config").status == 200


@pytest.mark.mission("DAP-213")
@pytest.mark.parametrize("path", ["/_config", "/_config/backend/hostname"])
def test_only_administrators(admin, path):
    user = admin.user()
    for who, method in itertools.product(
        (user, user.guest), ("GET", "POST", "PUT", "PATCH", "DELETE")
    ):
        answer = who.ask(method, path, b"x" if method[0] == "P" else None, headers=PLAIN)
        assert answer.status in ({403} if "backend" in path else {403, 405})
    assert user.ask("POST", key("limit.rate"), b"{}", headers=PLAIN).status == 403


def test_a_key_that_the_file_gives_is_locked(admin):
    """The server of these tests has its host name from its file."""
    answer = admin.post(key("hostname"), b"other.example.com", headers=PLAIN)
    assert answer.status == 409
    assert "file" in answer.text
    assert admin.get(key("hostname")).text == "mx.example.com"


@pytest.mark.parametrize(
    "name, value",
    [
        ("limit.max_connections", b"many"),
        ("limit.rate", b"{"),
        ("limit.rate", b'{"/ping": "x"}'),
        ("limit.rate", b"[" * 2000),
        ("cors.config", b"nonsense"),
        ("jwt.token.life.hours", b"-1"),
        ("jwt.token.life.hours", b"9" * 5000),
        ("imap.listen_interface", b"nowhere:at all"),
        ("mail.dkim_selector", b"a b"),
        ("mail.dkim_selector", b"x\r\ny"),
        ("gzip.enable", b"perhaps"),
        ("mail.default_from", b"a@b\r\nBcc: x@y"),
        ("hostname\x00", b"x"),
        ("mail.dkim_selector", b"\xff\xfe"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(admin, name, value):
    url = f"/_config/backend/{name}".replace("\x00", "%00")
    before = admin.get(url)
    answer = admin.post(url, value, headers=PLAIN)
    assert 400 <= answer.status < 500
    after = admin.get(url)
    assert (after.status, after.body) == (before.status, before.body)
    assert admin.get("/_config").status == 200


def test_values_stay_over_a_restart(make_fresh):
    server = make_fresh().start()
    admin = Rest(server.ports["http"]).become_administrator()
    assert admin.post(key("mail.dkim_selector"), b"k7", headers=PLAIN).status == 200
    server.restart()
    again = Rest(server.ports["http"], admin.token)
    assert again.get(key("mail.dkim_selector")).text == "k7"
