"""Letters that leave by Amazon SES: whose credential, what SES is asked, what it may answer."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import subprocess

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.ses.models import ses_backends

from tests.e2e.relaying import FAR, until
from tests.support.own_actions import define, once, outcome, run
from tests.support.rest import Rest, User, outcomes
from tests.support.ses import FakeSes

pytestmark = [pytest.mark.real]

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
numbers = iter(range(1, 10_000))


@pytest.fixture(scope="module")
def ses():
    with FakeSes() as fake:
        yield fake


@pytest.fixture(autouse=True)
def fresh(ses):
    ses.asked.clear()


def content(fake: FakeSes, **changed) -> dict:
    found = {
        "access_key": "AKIAIOSFODNN7EXAMPLE",
        "secret_key": SECRET_KEY,
        "region": "eu-west-1",
        "token": "session-token",
        "endpoint": fake.url,
        **changed,
    }
    return {name: value for name, value in found.items() if value is not None}


def credential(rest: Rest, fake: FakeSes, **changed) -> str:
    """A new row of this viewer's; its name."""
    name = f"ses{next(numbers)}"
    rest.make("credential", {"name": name, "content": json.dumps(content(fake, **changed))})
    return name


def credential_of(user: User, fake: FakeSes, **changed) -> str:
    """The same of a user's: after the lock-down administrators make them."""
    name = f"ses{next(numbers)}"
    given = {"name": name, "content": json.dumps(content(fake, **changed))}
    user.admin.make("credential", {**given, "user_account_id": user.id})
    return name


def letter(name: str, **more) -> dict:
    given = {
        "from": f"noreply{next(numbers)}@example.com",
        "to": [f"bob@{FAR}"],
        "subject": "Grüße",
        "body": "Ein Text",
        "credential": name,
        **more,
    }
    return {name: value for name, value in given.items() if value is not None}


def outbox(admin: Rest, given: dict) -> list[dict]:
    found = admin.rows("outbox", ("from_address", "is", given["from"])).data
    return [each["attributes"] for each in found]


@pytest.mark.mission("DAP-149", "DAP-150")
def test_a_letter_is_sent_by_ses(admin, ses):
    given = letter(
        credential(admin, ses), cc=[f"Carol <carol@{FAR}>"], bcc=f"dave@{FAR}", html="<p>Text</p>"
    )
    answer = once(admin, "aws.mail.send", given)
    assert answer.status == 200, answer
    ((kind, told),) = outcomes(answer)
    assert kind == "client.notify"
    assert (told["message"], told["type"]) == ("email sent successfully", "success")
    assert "MessageId" in told["result"]
    (asked,) = ses.wait()
    signature = asked.headers["Authorization"]
    assert signature.startswith("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/")
    assert "/eu-west-1/ses/aws4_request" in signature
    assert asked.headers["X-Amz-Security-Token"] == "session-token"
    assert asked.action == "SendEmail"
    assert asked.form["Source"] == given["from"]
    assert asked.list("Destination.ToAddresses") == [f"bob@{FAR}"]
    assert asked.list("Destination.CcAddresses") == [f"Carol <carol@{FAR}>"]
    assert asked.list("Destination.BccAddresses") == [f"dave@{FAR}"]
    assert asked.form["Message.Subject.Data"] == "Grüße"
    assert asked.form["Message.Body.Text.Data"].strip() == "Ein Text"
    assert asked.form["Message.Body.Html.Data"].strip() == "<p>Text</p>"
    until(lambda: all(each["sent"] for each in outbox(admin, given)))
    assert {each["to_host"] for each in outbox(admin, given)} == {FAR}


@pytest.mark.mission("DAP-150")
@pytest.mark.parametrize("key, part", [("body", "Text"), ("text", "Text"), ("html", "Html")])
def test_the_body_has_one_of_three_names(admin, ses, key, part):
    given = letter(credential(admin, ses), **{"body": None, key: "Das hier"})
    assert once(admin, "aws.mail.send", given).status == 200
    (asked,) = ses.wait()
    assert asked.form[f"Message.Body.{part}.Data"].strip() == "Das hier"
    assert len([name for name in asked.form if name.startswith("Message.Body.")]) == 2


@pytest.mark.mission("DAP-150")
def test_a_letter_without_a_body_is_refused(admin, ses):
    given = letter(credential(admin, ses), body=None)
    answer = once(admin, "aws.mail.send", given)
    assert answer.status == 400
    assert answer.error == "No valid mail body found"
    assert outbox(admin, given) == []


def test_what_ses_has_no_words_for_is_sent_raw(admin, ses):
    given = letter(
        credential(admin, ses),
        bcc=f"dave@{FAR}",
        attachments=[{"filename": "a.txt", "content": "aGk=", "content_type": "text/plain"}],
        headers={"X-Campaign": "spring"},
    )
    assert once(admin, "aws.mail.send", given).status == 200
    (asked,) = ses.wait()
    assert asked.action == "SendRawEmail"
    assert asked.form["Source"] == given["from"]
    assert asked.list("Destinations") == [f"bob@{FAR}", f"dave@{FAR}"]
    raw = base64.b64decode(asked.form["RawMessage.Data"])
    assert b"dave" not in raw
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["X-Campaign"] == "spring"
    (attached,) = message.iter_attachments()
    assert attached.get_filename() == "a.txt"


# -- credentials ----------------------------------------------------------------------------


@pytest.mark.mission("DAP-151")
@pytest.mark.parametrize("missing", ["access_key", "secret_key", "region"])
def test_a_field_that_a_credential_lacks_is_named(admin, ses, missing):
    given = letter(credential(admin, ses, **{missing: None}))
    answer = once(admin, "aws.mail.send", given)
    assert answer.status == 400
    assert f"{missing} is missing" in answer.error
    assert SECRET_KEY not in answer.text
    assert outbox(admin, given) == []


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", '{"access_key": 1, "secret_key": "a", "region": "b"}', "[" * 9999],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_content_that_is_no_credential_is_an_error(admin, text):
    name = f"ses{next(numbers)}"
    admin.make("credential", {"name": name, "content": text})
    answer = once(admin, "aws.mail.send", letter(name))
    assert answer.status == 400
    assert name in answer.error


@pytest.mark.mission("DAP-151")
@pytest.mark.parametrize("name", ["no-such-credential", "", None])
def test_a_missing_credential_is_an_error(admin, name):
    given = letter(name)
    answer = once(admin, "aws.mail.send", given)
    assert 400 <= answer.status < 500
    assert "credential" in answer.error
    assert outbox(admin, given) == []


def test_a_caller_names_only_credentials_of_his_own(admin, ses):
    user = admin.user()
    foreign = credential(admin, ses)
    given = letter("~which")
    name = define(admin, [outcome("aws.mail.send", given)], inputs=["which"])
    (row,) = admin.rows("action", ("action_name", "is", name)).data
    admin.change("action", row["id"], permission=2_085_120 | 1 << 21)
    refused = run(user, name, which=foreign)
    assert refused.status == 404
    assert foreign in refused.error
    assert outbox(admin, given) == []
    assert run(admin, name, which=foreign).status == 200
    # What the action itself names is its author's to give away.
    fixed = define(admin, [outcome("aws.mail.send", letter(foreign))])
    (row,) = admin.rows("action", ("action_name", "is", fixed)).data
    admin.change("action", row["id"], permission=2_085_120 | 1 << 21)
    assert run(user, fixed).status == 200


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:1", "https://127.0.0.1:1", "https://[::ffff:10.0.0.1]", "https://localhost",
     "http://ses.example.com", "https://169.254.169.254", "https://db"],
)  # fmt: skip
def test_an_endpoint_on_a_private_network_is_an_administrators(admin, ses, endpoint):
    user = admin.user()
    name = credential_of(user, ses, endpoint=endpoint)
    given = letter("~which")
    action = define(admin, [outcome("aws.mail.send", given)], inputs=["which"])
    (row,) = admin.rows("action", ("action_name", "is", action)).data
    admin.change("action", row["id"], permission=2_085_120 | 1 << 21)
    answer = run(user, action, which=name)
    assert answer.status == 400
    assert "endpoint" in answer.error
    assert outbox(admin, given) == []


@pytest.mark.mission("DAP-203")
def test_a_dump_has_no_secret_key(server, admin, ses):
    name = credential(admin, ses)
    if server.url.startswith("sqlite"):
        files = list(server.data_dir.glob("mailtwist.db*"))
        assert files
        octets = b"".join(path.read_bytes() for path in files)
    else:
        # libpq knows nothing of drivers.
        url = server.url.replace("+psycopg", "")
        octets = subprocess.run(["pg_dump", url], check=True, capture_output=True).stdout
    assert name.encode() in octets
    assert SECRET_KEY.encode() not in octets
    (row,) = admin.rows("credential", ("name", "is", name)).data
    assert SECRET_KEY not in json.dumps(row)


# -- what SES answers -----------------------------------------------------------------------


def try_again(admin: Rest, given: dict) -> None:
    """Try what waits now, whatever its schedule says."""
    for row in admin.rows("outbox", ("from_address", "is", given["from"])).data:
        answer = admin.patch("outbox", row["id"], {"next_retry_at": "2026-01-01T00:00:00Z"})
        assert answer.status == 200, answer
    assert admin.act("outbox", "process_outbox").status == 200


@pytest.mark.parametrize(
    "answer, said",
    [
        ((400, "Throttling", "Maximum sending rate exceeded."), "451"),
        ((503, "ServiceUnavailable", "later"), "451"),
        ((500, "Whatever", "broken"), "451"),
        ((403, "SignatureDoesNotMatch", "The signature does not match"), "454"),
        ((403, "ExpiredToken", "The token has expired"), "454"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else value,
)
def test_what_may_pass_is_tried_again(admin, ses, answer, said):
    ses.answers[:] = [answer]
    given = letter(credential(admin, ses))
    assert once(admin, "aws.mail.send", given).status == 200
    until(lambda: outbox(admin, given)[0]["retry_count"] == 1)
    (row,) = outbox(admin, given)
    assert row["last_error"].startswith(said)
    assert answer[1] in row["last_error"]
    try_again(admin, given)
    assert outbox(admin, given)[0]["sent"] is True
    assert len(ses.asked) == 2


def test_a_refusal_for_good_comes_back_to_the_sender(admin, ses):
    user = admin.user()
    account, address = user.account()
    ses.answers[:] = [(400, "MessageRejected", "Email address is not verified.")]
    given = letter(credential(admin, ses), **{"from": address})
    assert once(admin, "aws.mail.send", given).status == 200
    (bounce,) = until(lambda: user.inbox(account).data)
    assert bounce["attributes"]["return_path"] == ""
    (row,) = outbox(admin, given)
    assert (row["sent"], row["next_retry_at"]) == (False, None)
    assert row["last_error"].startswith("554 5.7.1")
    assert "not verified" in row["last_error"]
    assert len(ses.asked) == 1


def test_a_credential_that_was_mended_sends_what_waited(admin, ses):
    name = credential(admin, ses, endpoint="http://127.0.0.1:1")
    given = letter(name)
    assert once(admin, "aws.mail.send", given).status == 200
    until(lambda: outbox(admin, given)[0]["retry_count"] >= 1)
    assert "SES cannot be reached" in outbox(admin, given)[0]["last_error"]
    (row,) = admin.rows("credential", ("name", "is", name)).data
    answer = admin.patch("credential", row["id"], {"content": json.dumps(content(ses))})
    assert answer.status == 200, answer
    try_again(admin, given)
    assert outbox(admin, given)[0]["sent"] is True
    assert len(ses.asked) == 1


def test_a_service_that_hangs_keeps_nobody_else_waiting(admin, ses, sink):
    ses.answers[:] = ["hang"] * 3
    name = credential(admin, ses)
    for _ in range(3):
        assert once(admin, "aws.mail.send", letter(name)).status == 200
    ses.wait(3)
    given = letter(credential(admin, ses))
    with FakeSes() as other:
        given["credential"] = credential(admin, other)
        assert once(admin, "aws.mail.send", given).status == 200
        other.wait(1)
        until(lambda: outbox(admin, given)[0]["sent"])
    plain = {each: value for each, value in letter(name).items() if each != "credential"}
    assert once(admin, "mail.send", plain).status == 200
    sink.wait(lambda: [mail for mail in sink.taken if mail.reverse_path == plain["from"]])
    ses.release()


def test_nothing_leaves_a_sandbox(make_server, ses):
    server = make_server(dev_mode=True).start()
    admin = Rest(server.ports["http"]).become_administrator()
    given = letter(credential(admin, ses))
    assert once(admin, "aws.mail.send", given).status == 200
    assert once(admin, "mail.send", {**given, "credential": None}).status == 200
    assert outbox(admin, given) == []
    captured = admin.rows("mail", ("return_path", "is", given["from"]))
    assert captured.total == 2
    assert ses.asked == []


def test_what_a_test_key_sends_is_captured(admin, ses):
    row = admin.make("api_key", {"name": "try", "scopes": ["admin"], "is_test": True})
    key = admin.with_token(row["attributes"]["key"])
    given = letter(credential(admin, ses))
    name = define(admin, [outcome("aws.mail.send", given)])
    assert run(key, name).status == 200
    assert outbox(admin, given) == []
    assert ses.asked == []


# -- a stand-in that others wrote -----------------------------------------------------------


@pytest.fixture
def moto():
    """The backend and the URL of its server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ses_backends["123456789012"]["eu-west-1"], f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.mark.mission("DAP-149")
def test_moto_takes_both_ways(admin, ses, moto):
    backend, url = moto
    before = len(backend.sent_messages)
    sender = f"verified{next(numbers)}@example.com"
    backend.verify_email_identity(sender)
    name = credential(admin, ses, endpoint=url, token=None)
    given = letter(name, **{"from": sender})
    assert once(admin, "aws.mail.send", given).status == 200
    raw = {**given, "headers": {"X-A": "b"}, "bcc": f"dave@{FAR}"}
    assert once(admin, "aws.mail.send", raw).status == 200
    until(lambda: len(backend.sent_messages) == before + 2)
    kinds = {type(each).__name__: each for each in backend.sent_messages[before:]}
    assert kinds["Message"].subject == "Grüße"
    assert kinds["Message"].destinations["ToAddresses"] == [f"bob@{FAR}"]
    assert set(kinds["RawMessage"].destinations) == {f"bob@{FAR}", f"dave@{FAR}"}
    unverified = letter(name)
    assert once(admin, "aws.mail.send", unverified).status == 200
    until(lambda: outbox(admin, unverified)[0]["last_error"])
    assert "MessageRejected" in outbox(admin, unverified)[0]["last_error"]
